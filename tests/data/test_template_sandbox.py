"""Templates of strangers: bounded in size and time; what ordinary ones write is what Jinja and transformers write."""

from __future__ import annotations

import re

import pytest

from tests import tiny
from tests.tiny_generators import CHAT
from tunesmith.data import template_sandbox
from tunesmith.data.template_sandbox import LimitExceeded

HUGE = "'a' * 10**6"
GROWING = {
    "times": "{{ 'a' * 10**10 }}",
    "times reversed": "{{ 10**10 * 'a' }}",
    "list times": "{{ ([0] * 10**8) | length }}",
    "powers": "{{ 10 ** (10 ** 10) }}",
    "powers in a loop": "{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "two loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops that write": "{% for a in range(99999) %}{% for b in range(99999) %}ab{% endfor %}{% endfor %}",
    "doubling": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "doubling by plus": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "doubling lists": "{% set n = namespace(x=['ab']) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}"
    "{{ n.x }}",
    "doubling dicts": "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = {'a': n.x, 'b': n.x} %}"
    "{% endfor %}{{ n.x | tojson }}",
    "blocks": "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set t %}{{ n.x }}{{ n.x }}{% endset %}"
    "{% set n.x = t %}{% endfor %}",
    "macros that branch": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(50) }}",
    "a macro that writes": "{% macro m(n) %}{% if n %}{{ m(n - 1) * 2 }}{% endif %}a{% endmacro %}{{ m(50) }}",
    "recursive loop": "{% for a in [1, 2] recursive %}{{ loop([1, 2]) if loop.depth < 60 }}{% endfor %}",
    "center": "{{ 'a' | center(10**9) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "replace": f"{{{{ ({HUGE}).replace('a', {HUGE}) }}}}",
    "replace filter": f"{{{{ ({HUGE}) | replace('a', {HUGE}) }}}}",
    "join": f"{{{{ range(99999) | join({HUGE}) }}}}",
    "join of a generator": f"{{{{ range(99999) | map('string') | join({HUGE}) }}}}",
    "str.join": f"{{{{ ({HUGE}).join(['a'] * 99999) }}}}",
    "indent": "{{ ('a\\n' * 10**5) | indent(10**5) }}",
    "indent of JSON": "{{ ([0] * 10**5) | tojson(indent=10**6) }}",
    "percent": "{{ '%1000000000d' % 1 }}",
    "percent and star": "{{ '%*d' % (10**9, 1) }}",
    "format": "{{ '{:1000000000}'.format(1) }}",
    "nested format": "{{ '{:{}}'.format(1, '1000000000') }}",
    "nested format behind braces": "{{ '{{{0:{1}}}}'.format(1, '1000000000') }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "repeated fields": f"{{{{ ('{{0}}' * 10**5).format({HUGE}) }}}}",
    "batch": "{{ [1] | batch(10**9, 0) | list | length }}",
    "defaults": f"{{{{ ({HUGE}) | list | map(attribute='x', default={HUGE}) | list }}}}",
    "slices": "{% set x = 'a' * 10**7 %}" + "{% set y = x[1:] %}" * 50,
    "comparisons": f"{{% set x = {HUGE} %}}{{% set y = x[1:] ~ 'b' %}}{{% for i in range(99999) %}}{{% if y in x %}}"
    "{% endif %}{% endfor %}",
    "long": "a" * 200_000,
}


@pytest.mark.parametrize("source", GROWING.values(), ids=list(GROWING))
def test_what_grows_without_end_is_stopped(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seconds are fewer here, so that templates that only run are stopped sooner."""
    monkeypatch.setattr(template_sandbox, "SECONDS", 0.3)
    with pytest.raises((LimitExceeded, RecursionError)):
        template_sandbox.render(template_sandbox.chat_template(source))


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ '{0.__class__}'.format('') }}",
        "{{ ('' | attr('__class__')).mro() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__ }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ lipsum() }}",
        "{{ [1, 2] | random }}",
        "{% include 'x' %}",
        "{{ range(10**9) }}",
    ],
)
def test_internals_and_what_changes_between_calls_are_out_of_reach(source: str) -> None:
    refused = "unsafe|undefined|No filter|no loader|not safely|too big|no attribute"
    try:
        rendered = template_sandbox.render(template_sandbox.chat_template(source), messages=[])
    except Exception as error:
        rendered = "" if re.search(refused, str(error)) else str(error)
    assert rendered == ""


ORDINARY = [
    "{{ 'a' ~ 1 ~ none ~ [1, 'b'] ~ missing }}{{ 7 // 2 - 1 }} {{ 2 ** 3 }} {{ 7 % 4 }} {{ 1.5 * 2 }} {{ 1 - 2 / 4 }}",
    "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ m.role }}{{ ', ' if not loop.last }}{% endfor %}",
    "{% for k, v in {'a': messages, 'b': [1]}.items() %}{{ k }}={{ v | length }}{% else %}none{% endfor %}",
    "{% macro m(a, b='x') %}{{ a }}{{ b }}{{ caller() if caller }}{% endmacro %}{{ m(1) }}{% call m(2) %}{% endcall %}",
    "{{ messages[1:] | tojson }}{{ messages[::-1][0].role }}{{ messages[-1]['content'].split('s')[-1].strip() }}",
    "{% set ns = namespace(found=false) %}{% for m in messages %}{% set ns.found = true %}{% endfor %}{{ ns.found }}",
    "{{ messages | map(attribute='role') | join('|') }}{{ messages | selectattr('role', 'equalto', 'user') | list }}",
    "{{ '%s has %02d' % ('a', 3) }}{{ '{{{}}}: {:>4}'.format('a', 'b') }}{{ 'abc' | replace('b', 'xy') }}",
    "{% if 'user' in messages[0].role and 1 < 2 <= 2 and messages[0].role in ['user', 'tool'] %}yes{% endif %}",
    "{{ {'a': 1, 'b': {'c': [1, 2]}} | tojson(indent=2) }}{{ (1, 2) }}{{ 'x' * 3 }}{{ [1] + [2] }}{{ none is none }}",
    "{% set text %}{{ messages[0].content }}!{% endset %}{{ text | upper }}{% filter upper %}abc{% endfilter %}",
    "{% generation %}a{% endgeneration %}{% for i in range(5) %}{% if i == 3 %}{% break %}{% endif %}{% endfor %}",
    CHAT,
]


@pytest.mark.parametrize("source", ORDINARY)
def test_ordinary_templates_are_rendered_as_by_transformers(source: str) -> None:
    tokenizer = tiny.byte_tokenizer(bos="<bos>")
    messages = [{"role": "user", "content": "what's this?"}, {"role": "assistant", "content": " an ans wer "}]
    for answering in (False, True):
        expected = tokenizer.apply_chat_template(
            messages, chat_template=source, tokenize=False, add_generation_prompt=answering
        )
        rendered = template_sandbox.render(
            template_sandbox.chat_template(source),
            messages=messages,
            add_generation_prompt=answering,
            **tokenizer.special_tokens_map,
        )
        assert rendered == expected
