"""The report on models that answer instructions: a page, its Markdown twin, a model card. Pure functions, no files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.markdown import code, data_parts, environment_table, hub_name, plain, sign, table
from tunesmith.evaluation.report import (
    NOTHING,
    Report,
    chance,
    cost_table,
    level,
    metric,
    share,
    signed,
    templates,
)
from tunesmith.evaluation.responses import HIGHER_IS_BETTER

NAMES = {
    "loss": "Loss",
    "perplexity": "Perplexity",
    "ended": "Ended",
    "exact_match": "Exact match",
    "empty": "Empty",
    "tokens": "Mean length",
}
LOWER_IS_BETTER = [name for name, higher in HIGHER_IS_BETTER.items() if not higher]
SHARES = ("ended", "exact_match", "empty")
STEPS = 6
"""Of more evaluations than this the page shows the answers of some, the first and the last among them."""
QUOTED = 280
"""Characters of a text that Markdown quotes."""


def html(report: Report) -> str:
    """One self-contained page, without scripts and without any request to the outside."""
    given: dict[str, Any] = {
        "names": NAMES,
        "lower_is_better": LOWER_IS_BETTER,
        "figure": figure,
        "spread": spread,
        "most_steps": STEPS,
    }
    return templates().get_template("answers.html.j2").render(report=report, **given, **_axes(report))


def markdown(report: Report) -> str:
    """The tables that matter and a few answers, for a terminal, a pull request or an issue."""
    methods = report["methods"]
    parts = [
        f"# {plain(report['title'])}",
        f"**{plain(report['verdict'])}**",
        f"## {'Comparison' if len(methods) > 1 else 'Scores and costs'}",
        _score_table(methods),
        cost_table(methods, "answers"),
    ]
    if report["pairs"]:
        parts += ["## Pairs", _pair_table(report["pairs"])]
    if report["shown"]:
        parts += ["## Answers", *_quotations(report["shown"][-1])]
    return "\n\n".join([*parts, "## Data", *data_parts(report["data"]), sign(report)]) + "\n"


def card(report: Report) -> str:
    """The model card (README.md) of a single run, in Hugging Face's form. Needs exactly one method."""
    import yaml

    (method,) = report["methods"]
    front = yaml.safe_dump(_front_matter(report, method), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{front}---",
        f"# {plain(report['title'])}: {plain(method['name'])}",
        f"{plain(method['description'])}. It answers instructions as those of its training data were answered.",
        plain(report["verdict"]),
        "## Scores",
        _metric_table(method["scores"]),
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


def figure(name: str, value: float | None) -> str:
    """A headline figure for people: a loss 1.523, a share 99.1%, a perplexity or a number of tokens 4.59, 45.9, 459."""
    if value is None:
        return NOTHING
    if name in SHARES:
        return share(value)
    return metric(value) if name == "loss" else f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def spread(samples: Sequence[Mapping[str, Any]], best_step: int | None) -> list[Mapping[str, Any]]:
    """At most STEPS of the answers to one prompt, evenly spread over the evaluations, the best step's among them."""
    last = len(samples) - 1
    places = range(len(samples)) if last < STEPS else [round(n * last / (STEPS - 1)) for n in range(STEPS)]
    best = next((place for place, one in enumerate(samples) if one["step"] == best_step), None)
    if best is not None and best not in places:
        nearest = min(places[1:-1], key=lambda place: abs(place - best))
        places = [best if place == nearest else place for place in places]
    return [samples[place] for place in places]


def _axes(report: Report) -> dict[str, Any]:
    from tunesmith.evaluation import charts

    headlines = [method["scores"]["headline"] for method in report["methods"]]
    ends = {
        name: [head[name][end] for head in headlines if name in head for end in ("low", "high")]
        for name in ("loss", "ended")
    }
    gaps = [pair["loss_difference"][end] for pair in report["pairs"] for end in ("low", "high")]
    return {
        "pictures": charts.laid_over(report["methods"]),
        "axes": {
            "loss": charts.axis(ends["loss"], steps=3, least=0.04, low=0),
            "ended": charts.axis(ends["ended"], steps=3, least=0.04, low=0, high=1),
        },
        "gap_axis": charts.axis([0.0, *gaps], steps=3, least=0.02),
    }


# Markdown.


def _estimate(name: str, estimate: Mapping[str, Any] | None) -> str:
    return f"{figure(name, estimate['value'])} {_range(name, estimate)}" if estimate else NOTHING


def _range(name: str, estimate: Mapping[str, Any]) -> str:
    return f"[{figure(name, estimate['low'])}, {figure(name, estimate['high'])}]"


def _directed(name: str) -> str:
    return f"{NAMES[name]} ↓" if name in LOWER_IS_BETTER else NAMES[name]


def _score_table(methods: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        [plain(m["name"]), *(_estimate(name, m["scores"]["headline"].get(name)) for name in NAMES)] for m in methods
    )
    return table(["Method", *(_directed(name) for name in NAMES)], rows)


def _pair_table(pairs: Sequence[Mapping[str, Any]]) -> str:
    head = ["Pair", "Loss difference", "p", "p (Holm)", "Ended: p (Holm)", "Exact match: p (Holm)", "Told apart"]
    return table(head, map(_pair_row, pairs))


def _pair_row(pair: Mapping[str, Any]) -> list[str]:
    loss = pair["loss_difference"]
    return [
        f"{plain(pair['a'])} − {plain(pair['b'])}",
        f"{signed(loss['value'])} [{signed(loss['low'])}, {signed(loss['high'])}]",
        chance(loss["p"]),
        chance(loss["p_holm"]),
        *(chance(pair[name]["p_holm"]) if pair[name]["rows"] else NOTHING for name in ("ended", "exact_match")),
        "yes" if pair["distinguishable"] else "no",
    ]


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
        "model-index": [{"name": f"{report['title']}: {method['name']}", "results": [result]}],
    }


def _metric_table(scores: Mapping[str, Any]) -> str:
    rows = (
        [_directed(name), figure(name, one["value"]), _range(name, one)] for name, one in scores["headline"].items()
    )
    head = [f"On {scores['rows']:,} test rows, {scores['answered']:,} answered", "Value"]
    return table([*head, f"{level(scores['confidence'])} interval"], rows)


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
