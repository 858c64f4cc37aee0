"""The report on models that answer instructions: a page, its Markdown twin, a model card. Pure functions, no files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from tunesmith.evaluation.responses import SHARES
from tunesmith.reporting import format, judge_report
from tunesmith.reporting.classification_report import (
    NOTHING,
    Report,
    chance,
    changed,
    claimed,
    cost_table,
    share,
    templates,
)
from tunesmith.reporting.format import NAMES, directed, estimate, signed
from tunesmith.reporting.markdown import code, data_parts, environment_table, hub_name, plain, sign, table

STEPS = 6
"""Of more evaluations than this the page shows the answers of some, the first and the last among them."""
QUOTED = 280
"""Characters of a text that Markdown quotes."""


def html(report: Report) -> str:
    """One self-contained page, without scripts and without any request to the outside."""
    page = "answers.html.j2" if report["task"] == "instruction" else "answers.files.html.j2"
    given: dict[str, Any] = {
        **{name: getattr(format, name) for name in ("better", "difference", "directed", "figure", "interval")},
        **{name: getattr(format, name) for name in ("probability", "signed")},
        "names": NAMES,
        "lower_is_better": format.LOWER_IS_BETTER,
        "shares": SHARES,
        "shown_figures": format.shown(report["methods"]),
        "by_name": _by_name(report),
        "flaws": format.flaws(report["methods"]),
        "spread": spread,
        "judged": judge_report.section,
        "seen": [row["id"] for group in report["shown"] for row in group["rows"]],
        "most_steps": STEPS,
    }
    return templates().get_template(page).render(report=report, **given, **_axes(report))


def markdown(report: Report) -> str:
    """The tables that matter and a few answers, for a terminal, a pull request or an issue."""
    methods = report["methods"]
    parts = [f"# {plain(report['title'])}", f"**{plain(report['verdict'])}**", "## Scores", figure_table(report)]
    if report["task"] == "instruction":
        parts += ["## Costs", cost_table(methods, "answers")]
    if report["pairs"]:
        parts += ["## Pairs", _pair_table(report)]
    if report["shown"]:
        parts += ["## Answers", *_quotations(report["shown"][-1])]
    for method in methods:
        if method.get("judged"):
            parts += [f"## A judge of {plain(method['name'])}", plain(judge_report.verdict(method["judged"]))]
    parts += ["## Form", _flaw_table(methods)]
    if report["task"] == "instruction":
        parts += ["## Data", *data_parts(report["data"])]
    return "\n\n".join([*parts, sign(report)]) + "\n"


def card(report: Report) -> str:
    """The model card (README.md) of a single run, in Hugging Face's form. Of one method, perhaps beside its base."""
    import yaml

    method = report["methods"][0]
    front = yaml.safe_dump(_front_matter(report, method), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{front}---",
        f"# {plain(report['title'])}: {plain(method['name'])}",
        f"{plain(method['description'])}. It answers instructions as those of its training data were answered.",
        plain(report["verdict"]),
        "## Scores",
        *changed(method),
        figure_table(report),
        *([plain(said)] if (said := judge_report.trusted(method.get("judged"))) else []),
        "## How to use",
        *_usage_parts(method),
        "## Data",
        *data_parts(report["data"]),
        "## Limits",
        _limits(method),
        "## Costs",
        cost_table([method], "answers"),
        "## Environment",
        environment_table(report["environment"]),
        sign(report),
    ]
    return "\n\n".join(parts) + "\n"


def spread(samples: Sequence[Mapping[str, Any]], best_step: int | None) -> list[Mapping[str, Any]]:
    """At most STEPS of the answers to one prompt, evenly spread over the evaluations, the best step's among them."""
    last = len(samples) - 1
    places = range(len(samples)) if last < STEPS else [round(n * last / (STEPS - 1)) for n in range(STEPS)]
    best = next((place for place, one in enumerate(samples) if one["step"] == best_step), None)
    if best is not None and best not in places:
        nearest = min(places[1:-1], key=lambda place: abs(place - best))
        places = [best if place == nearest else place for place in places]
    return [samples[place] for place in places]


def figure_table(report: Report) -> str:
    """Every figure of every model, and of two models their difference, for Markdown."""
    methods, pairs = report["methods"], report["pairs"]
    one = pairs[0] if len(pairs) == 1 else None
    head = [f"{methods[0]['scores']['answered']:,} answers", *(plain(method["name"]) for method in methods)]
    rows = []
    for name in format.shown(methods):
        found = [estimate(name, method["scores"]["headline"].get(name)) for method in methods]
        tested = [format.difference(name, one, _by_name(report)), format.probability(name, one)] if one else []
        rows.append([directed(name), *found, *tested])
    return table([*head, *([f"{plain(one['a'])} − {plain(one['b'])}", "p"] if one else [])], rows)


def _by_name(report: Report) -> dict[str, Any]:
    return {method["name"]: method for method in report["methods"]}


def _axes(report: Report) -> dict[str, Any]:
    from tunesmith.reporting import charts

    decides, closeness = report["compared"]["decided_by"], report["compared"]["closeness"]
    strips = ("loss", "ended") if report["task"] == "instruction" else (closeness, "answer_only")
    others = [name for name in ("rougeL", "chrf", "exact_match", "answer_only", "empty") if name not in strips]
    found = [method["scores"]["headline"] for method in report["methods"]]
    ends = {name: [head[name][end] for head in found if name in head for end in ("low", "high")] for name in strips}
    least = {name: 4 if name == "chrf" else 0.04 for name in strips}
    gaps = [_deciding(pair, decides)[end] for pair in report["pairs"] for end in ("low", "high")]
    return {
        "strips": strips,
        "columns": others[:4],
        "decides": decides,
        "gap_name": f"Loss per {report['compared']['unit']}" if decides == "loss" else NAMES[decides],
        "pictures": charts.laid_over([method for method in report["methods"] if "curve" in method]),
        "axes": {name: charts.axis(ends[name], steps=3, least=least[name], low=0, high=_most(name)) for name in strips},
        "gap_axis": charts.axis([0.0, *gaps], steps=3, least=0.02),
    }


def _most(name: str) -> float:
    return inf if name == "loss" else 100 if name == "chrf" else 1


def _deciding(pair: Mapping[str, Any], decides: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = pair["loss_difference"] if decides == "loss" else pair["differences"][decides]
    return found


# Markdown.


def _pair_table(report: Report) -> str:
    decides = report["compared"]["decided_by"]
    head = ["Pair", f"{NAMES[decides]} difference", "p", "p (Holm)", "Exact match: p (Holm)", "Told apart"]
    return table(head, [_pair_row(pair, decides) for pair in report["pairs"]])


def _pair_row(pair: Mapping[str, Any], decides: str) -> list[str]:
    found = _deciding(pair, decides)
    return [
        f"{plain(pair['a'])} − {plain(pair['b'])}",
        f"{signed(decides, found['value'])} [{signed(decides, found['low'])}, {signed(decides, found['high'])}]",
        chance(found["p"]),
        chance(found["p_holm"]),
        chance(pair["exact_match"]["p_holm"]) if pair["exact_match"]["rows"] else NOTHING,
        "yes" if pair["distinguishable"] else "no",
    ]


def _flaw_table(methods: Sequence[Mapping[str, Any]]) -> str:
    found = [method["scores"]["flaws"] for method in methods]
    rows = (
        [name.capitalize(), *(f"{one[name]['count']:,}" if name in one else NOTHING for one in found)]
        for name in format.flaws(methods)
    )
    return table(["Flaw of form", *(plain(method["name"]) for method in methods)], rows)


def _quotations(group: Mapping[str, Any]) -> list[str]:
    return [f"{group['title']}:", *(_quotation(row) for row in group["rows"])]


def _quotation(row: Mapping[str, Any]) -> str:
    lines = [f"- {code(row['id'])} {_quote(row['prompt'])}", f"  - reference: {_quote(row['reference'])}"]
    lines += [f"  - {plain(answer['name'])}: {_quote(answer['response'])}" for answer in row["answers"]]
    return "\n".join(lines)


def _quote(text: str) -> str:
    if not text.strip():
        return "*(empty)*"
    return plain(text if len(text) <= QUOTED else f"{text[:QUOTED].rstrip()}…")


# The model card.


def _front_matter(report: Report, method: Mapping[str, Any]) -> dict[str, Any]:
    task = {"type": "text-generation", "name": "Text generation"}
    source = {"name": str(report["title"]), "type": hub_name(report["data"]["source"]), "split": "test"}
    metrics = [
        {"type": name, "name": NAMES.get(name, name), "value": round(float(estimate["value"]), 4)}
        for name, estimate in method["scores"]["headline"].items()
    ]
    result = {"task": task, "dataset": source, "metrics": metrics}
    return {
        "library_name": method.get("library", "peft" if method["saved"] == "adapter" else "transformers"),
        **({"base_model": method["base_model"]} if method["base_model"] else {}),
        "pipeline_tag": "text-generation",
        "tags": ["text-generation", "conversational", "tunesmith", str(method["name"])],
        **claimed(report, method, result),
    }


def _usage_parts(method: Mapping[str, Any]) -> list[str]:
    if "usage" in method:
        return [method["usage"]]
    run = shlex.quote(method["run"])
    shell = f"```sh\ntunesmith chat {run}\ntunesmith predict {run} --text 'Name three primary colours.'\n```"
    without = "or without tunesmith; the chat template is stored with the tokenizer:"
    return [shell, without, f"```python\n{_python(method)}\n```"]


def _python(method: Mapping[str, Any]) -> str:
    folder = json.dumps(f"{method['run']}/model", ensure_ascii=False)
    ask = [
        'messages = [{"role": "user", "content": "Name three primary colours."}]',
        f"found = ask(messages, max_new_tokens={method['settings']['max_new_tokens']}, do_sample=False)",
        'print(found[0]["generated_text"][-1]["content"])',
    ]
    if method["saved"] == "adapter":
        made = [
            "from peft import AutoPeftModelForCausalLM",
            "from transformers import AutoTokenizer, pipeline",
            "",
            f"model = AutoPeftModelForCausalLM.from_pretrained({folder})",
            f"tokenizer = AutoTokenizer.from_pretrained({folder})",
            'ask = pipeline("text-generation", model=model, tokenizer=tokenizer)',
        ]
    else:
        model = (
            json.dumps(method["settings"]["model"], ensure_ascii=False) if method["saved"] == "tokenizer" else folder
        )
        tokenizer = f", tokenizer={folder}" if method["saved"] == "tokenizer" else ""
        made = [
            "from transformers import pipeline",
            "",
            f'ask = pipeline("text-generation", model={model}{tokenizer})',
        ]
    return "\n".join([*made, *ask])


def _limits(method: Mapping[str, Any]) -> str:
    scores, notes = method["scores"], method["notes"]
    ended = scores["headline"].get("ended")
    lines = [
        "It answers whatever it is asked, also wrongly. What was measured is how likely it finds the reference answers "
        "of the test split, not whether what it says is true, safe or helpful.",
        "The scores hold for instructions like those of the test split; other sources or languages were not tested.",
    ]
    if ended and ended["value"] < 1:
        most = f"{method['settings']['max_new_tokens']:,} tokens"
        lines.append(f"{share(1 - ended['value'])} of its answers had not ended after {most} and were cut.")
    if notes.get("cut"):
        lines.append(f"{notes['cut']:,} training rows were longer than the model's input and were cut or left out.")
    if scores["rows"] < 100:
        lines.append(f"Only {scores['rows']:,} test rows: the intervals above are rough.")
    if method["saved"] == "adapter":
        lines.append("It is an adapter: the model under it is needed too, with its own licence and limits.")
    return "\n".join(f"- {line}" for line in lines)
