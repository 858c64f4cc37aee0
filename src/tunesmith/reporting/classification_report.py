"""The report: one comparison (or one run) as a page, as Markdown, or as a model card. Pure functions, no files."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any

from tunesmith.reporting.markdown import data_parts, environment_table, hub_name, listing, plain, sign, table

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

Report = Mapping[str, Any]
"""What `comparison.json` holds; `pipeline.reporting.build` makes it."""

FULL_MATRIX = 25
"""With more classes than this a confusion matrix cannot be read: its largest cells are listed instead."""
LISTED = 15
"""How many confusions, or classes, such a list has."""

NAMES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "mcc": "Matthews correlation",
    "log_loss": "Log loss",
    "brier": "Brier score",
    "ece": "Calibration error",
}
LOWER_IS_BETTER = ("log_loss", "brier", "ece")
NOTHING = "–"


def html(report: Report) -> str:
    """One self-contained page, without scripts and without any request to the outside."""
    return templates().get_template("report.html.j2").render(report=report, **_axes(report))


def markdown(report: Report) -> str:
    """The tables that matter, for a terminal, a pull request or an issue."""
    several = len(report["methods"]) > 1
    parts = [
        f"# {plain(report['title'])}",
        f"**{plain(report['verdict'])}**",
        f"## {'Comparison' if several else 'Scores and costs'}",
        _score_table(report["methods"]),
        _floor_sentence(report["data"]),
        cost_table(report["methods"]),
    ]
    if report["pairs"]:
        parts += ["## Pairs", _pair_table(report["pairs"])]
    parts += ["## Data", *data_parts(report["data"])]
    return "\n\n".join([*parts, sign(report)]) + "\n"


def card(report: Report) -> str:
    """The model card (README.md) of a single run, in Hugging Face's form. Needs exactly one method."""
    import yaml

    (method,) = report["methods"]
    front = yaml.safe_dump(_front_matter(report, method), sort_keys=False, allow_unicode=True)
    data = report["data"]
    labels = data["labels"]
    parts = [
        f"---\n{front}---",
        f"# {plain(report['title'])}: {plain(method['name'])}",
        f"{plain(method['description'])}. It gives a text one of {len(labels)} labels: {listing(labels)}.",
        f"{plain(report['verdict'])}",
        "## Scores",
        *changed(method),
        _metric_table(method["scores"]),
        _floor_sentence(data),
        *_usage_parts(method),
        "## Data",
        *data_parts(data),
        "## Limits",
        _limits(report, method),
        "## Costs",
        cost_table([method]),
        "## Environment",
        environment_table(report["environment"]),
        sign(report),
    ]
    return "\n\n".join(parts) + "\n"


# Numbers for people.


def metric(value: float | None) -> str:
    """0.975; a true minus sign where it is negative."""
    return NOTHING if value is None else f"{value:.3f}".replace("-", "−")


def signed(value: float) -> str:
    """A difference: +0.012, −0.003, 0.000."""
    text = f"{value:+.3f}".replace("-", "−")
    return "0.000" if text.endswith("0.000") else text


def chance(p: float | None) -> str:
    """A p-value: 0.31, 0.042, < 0.001."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def percent(share: float) -> str:
    """98%, 0.4%; nothing that is more than none is shown as none."""
    return f"{100 * share:.0f}%" if share >= 0.0095 or share == 0 else f"{100 * share:.1g}%"


def share(value: float | None) -> str:
    """99.1%; all and none without decimals, and nothing else looks like them."""
    if value is None:
        return NOTHING
    return f"{min(99.9, max(0.1, 100 * value)):.1f}%" if 0 < value < 1 else f"{100 * value:.0f}%"


def level(confidence: float) -> str:
    """95%, 99.5%: never rounded."""
    return f"{100 * confidence:g}%"


def seconds(value: float | None) -> str:
    """40 ms, 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if value is None or not isfinite(value):
        return NOTHING
    if value < 0.095:
        return f"{1000 * value:.1g} ms" if value < 0.001 else f"{1000 * value:.0f} ms"
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return _two(whole, "min", "s") if whole >= 60 else f"{whole} s"
    return _two(round(whole / 60), "h", "min")


def _two(small: int, unit: str, sub: str) -> str:
    large, rest = divmod(small, 60)
    return f"{large:,} {unit} {rest} {sub}" if rest else f"{large:,} {unit}"


def count(value: float | None) -> str:
    """512; 50,000; 120 k; 22.7 M; 1.3 B."""
    if value is None:
        return NOTHING
    for limit, unit, size in ((99_999.5, "", 1), (999_500, " k", 1e3), (999.5e6, " M", 1e6)):
        if value < limit:
            return f"{value / size:,.{1 if unit == ' M' and value < 99.95e6 else 0}f}{unit}"
    return f"{value / 1e9:,.1f} B"


def megabytes(value: float | None) -> str:
    """40 kB, 1.2 MB, 310 MB, 1.4 GB."""
    if value is None:
        return NOTHING
    if value < 0.095:
        return f"{1000 * value:.0f} kB"
    if value < 999.5:
        return f"{value:.{1 if value < 9.95 else 0}f} MB"
    return f"{value / 1000:,.1f} GB"


def training(costs: Mapping[str, Any]) -> str:
    """How long training took; what was not trained needed none, whatever loading it took."""
    return "none" if costs["trainable"] == 0 else seconds(costs["train_seconds"])


def trained(costs: Mapping[str, Any]) -> str:
    """How many parameters training changed: none; 1,925 (0.0085%)."""
    total, learned = costs["parameters"], costs["trainable"]
    if not (total and learned):
        return NOTHING if learned is None else "none"
    return f"{count(learned)} ({part(learned / total)})"


def part(whole: float) -> str:
    """A share of parameters, which may be small: 0.21%, 1.5%, 100%."""
    return f"{100 * whole:.0f}%" if whole >= 0.0995 else f"{100 * whole:.2g}%"


# What the page and the tables draw from the scores.


def _axes(report: Report) -> dict[str, Any]:
    from tunesmith.reporting import charts

    scores = [method["scores"]["headline"][name] for method in report["methods"] for name in ("accuracy", "macro_f1")]
    gaps = [pair[name] for pair in report["pairs"] for name in ("accuracy_difference", "macro_f1_difference")]
    trained_in_steps = [method for method in report["methods"] if method["curve"]]
    return {
        "pictures": charts.laid_over(report["methods"]) if len(trained_in_steps) > 1 else [],
        "score_axis": charts.axis([s[end] for s in scores for end in ("low", "high")], least=0.04, low=0, high=1),
        "gap_axis": charts.axis(
            [0.0, *(gap[end] for gap in gaps for end in ("low", "high"))], least=0.02, low=-1, high=1
        ),
    }


@cache
def templates() -> SandboxedEnvironment:
    """For all pages: texts are escaped, unknown names are errors, and only what is given here can be called."""
    from jinja2 import PackageLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    from tunesmith.reporting import charts

    loader = PackageLoader("tunesmith", "reporting/templates")
    made = SandboxedEnvironment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for shown in (metric, signed, chance, percent, seconds, count, megabytes, level, share, training, trained):
        made.filters[shown.__name__] = shown
    made.globals.update(charts=charts, confusions=confusions, weakest=weakest, floor=floor)
    made.globals.update(names=NAMES, lower_is_better=LOWER_IS_BETTER, full_matrix=FULL_MATRIX)
    return made


def confusions(scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The most frequent mistakes, largest first: gold, predicted, count, and the share of the gold label's rows."""
    labels = scores["labels"]
    cells = [
        {"gold": gold, "predicted": predicted, "count": cell, "share": cell / sum(row)}
        for gold, row in zip(labels, scores["confusion"], strict=True)
        for predicted, cell in zip(labels, row, strict=True)
        if cell and gold != predicted
    ]
    return sorted(cells, key=lambda cell: -cell["count"])[:LISTED]


def weakest(scores: Mapping[str, Any]) -> list[str]:
    """The labels with the lowest F1 among those that the test split has."""
    classes = scores["per_class"]
    return sorted((one for one in scores["labels"] if classes[one]["support"]), key=lambda one: classes[one]["f1"])[
        :LISTED
    ]


def floor(data: Mapping[str, Any]) -> tuple[str, float] | None:
    """The largest label of train, and the accuracy on test of always answering it."""
    train, test = (data["splits"].get(name) for name in ("train", "test"))
    if not (train and test and train["per_label"] and test["rows"]):
        return None
    label = max(train["per_label"], key=train["per_label"].__getitem__)
    return label, test["per_label"].get(label, 0) / test["rows"]


# Markdown.


def _estimate(estimate: Mapping[str, Any]) -> str:
    return f"{metric(estimate['value'])} [{metric(estimate['low'])}, {metric(estimate['high'])}]"


def _score_table(methods: Sequence[Mapping[str, Any]]) -> str:
    shown = [name for name in NAMES if name in methods[0]["scores"]["headline"]]
    rows = ([plain(m["name"]), *(_estimate(m["scores"]["headline"][name]) for name in shown)] for m in methods)
    return table(["Method", *(_directed(name) for name in shown)], rows)


def _directed(name: str) -> str:
    return f"{NAMES[name]} ↓" if name in LOWER_IS_BETTER else NAMES[name]


def cost_table(methods: Sequence[Mapping[str, Any]], predicted: str = "predictions") -> str:
    """What each method took, for Markdown."""
    head = ["Method", "Training", f"1,000 {predicted}", "Peak memory", "Parameters", "Trained", "Size"]
    return table(head, ([plain(method["name"]), *_costs(method["costs"])] for method in methods))


def _costs(costs: Mapping[str, Any]) -> list[str]:
    times = [training(costs), seconds(costs["seconds_per_1000"]), megabytes(costs["peak_memory_mb"])]
    return [*times, count(costs["parameters"]), trained(costs), megabytes(costs["size_mb"])]


def _pair_table(pairs: Sequence[Mapping[str, Any]]) -> str:
    head = ["Pair", "Accuracy difference", "p", "p (Holm)", "Macro F1 difference", "p", "p (Holm)", "Told apart"]
    return table(head, map(_pair_row, pairs))


def _pair_row(pair: Mapping[str, Any]) -> list[str]:
    accuracy, f1, test = pair["accuracy_difference"], pair["macro_f1_difference"], pair["mcnemar"]
    return [
        f"{plain(pair['a'])} − {plain(pair['b'])}",
        f"{signed(accuracy['value'])} [{signed(accuracy['low'])}, {signed(accuracy['high'])}]",
        chance(test["p"]),
        chance(test["p_holm"]),
        f"{signed(f1['value'])} [{signed(f1['low'])}, {signed(f1['high'])}]",
        chance(f1["p"]),
        chance(f1["p_holm"]),
        "yes" if pair["distinguishable"] else "no",
    ]


def _floor_sentence(data: Mapping[str, Any]) -> str:
    known = floor(data)
    return f"Always answering {plain(known[0])} would reach an accuracy of {metric(known[1])}." if known else ""


# The model card.


def _front_matter(report: Report, method: Mapping[str, Any]) -> dict[str, Any]:
    task = {"type": "text-classification", "name": "Text classification"}
    source = {"name": str(report["title"]), "type": hub_name(report["data"]["source"]), "split": "test"}
    result = {"task": task, "dataset": source, "metrics": _card_metrics(method["scores"]["headline"])}
    library = method.get("library", "transformers" if method["name"] == "encoder" else None)
    return {
        **({"library_name": library} if library else {}),
        "pipeline_tag": "text-classification",
        "tags": ["text-classification", "tunesmith", str(method["name"])],
        "metrics": ["accuracy", "f1"],
        **claimed(report, method, result),
    }


def claimed(report: Report, method: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """A result as model hubs read it from a card; nothing where it is that of another form of the model."""
    return (
        {}
        if changed(method)
        else {"model-index": [{"name": f"{report['title']}: {method['name']}", "results": [result]}]}
    )


def changed(method: Mapping[str, Any]) -> list[str]:
    """Of an export that is not quite the model that was measured: what to know of the scores."""
    return [method["changed"]] if method.get("changed") else []


def _card_metrics(headline: Mapping[str, Any]) -> list[dict[str, Any]]:
    types = {"macro_f1": "f1", "mcc": "matthews_correlation", "brier": "brier_score"}
    return [
        {"type": types.get(name, name), "name": NAMES.get(name, name), "value": round(float(estimate["value"]), 4)}
        for name, estimate in headline.items()
    ]


def _metric_table(scores: Mapping[str, Any]) -> str:
    confidence = level(scores["confidence"])
    rows = (
        [_directed(n), metric(e["value"]), f"[{metric(e['low'])}, {metric(e['high'])}]"]
        for n, e in scores["headline"].items()
    )
    return table([f"On {scores['rows']:,} test rows", "Value", f"{confidence} interval"], rows)


def _usage_parts(method: Mapping[str, Any]) -> list[str]:
    if "usage" in method:
        return ["## How to use", method["usage"]]
    shell = f"```sh\ntunesmith predict {shlex.quote(method['run'])} --text 'Some text'\n```"
    if method["name"] != "encoder":
        return ["## How to use", shell]
    model = json.dumps(f"{method['run']}/model")
    lines = ["from transformers import pipeline", "", f'classify = pipeline("text-classification", model={model})']
    python = "\n".join([*lines, 'classify("Some text", truncation=True, top_k=None)'])
    return ["## How to use", shell, f"or without tunesmith:\n\n```python\n{python}\n```"]


def _limits(report: Report, method: Mapping[str, Any]) -> str:
    lines = [
        "It knows only the labels above and always answers one of them, also for a text that fits none.",
        "The scores hold for texts like those of the test split; other sources, times or languages were not tested.",
    ]
    if method["notes"].get("cut"):
        lines.append(f"{method['notes']['cut']:,} texts were longer than the model's input and were cut.")
    rare = [label for label in report["data"]["labels"] if method["scores"]["per_class"][label]["support"] < 20]
    if rare:
        lines.append(f"Fewer than 20 test rows, so the scores say little about: {listing(rare)}.")
    return "\n".join(f"- {line}" for line in lines)
