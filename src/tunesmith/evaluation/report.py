"""The report: one comparison (or one run) as a page, as Markdown, or as a model card. Pure functions, no files."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any

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
    return _environment().get_template("report.html.j2").render(report=report, **_axes(report))


def markdown(report: Report) -> str:
    """The tables that matter, for a terminal, a pull request or an issue."""
    several = len(report["methods"]) > 1
    parts = [
        f"# {_plain(report['title'])}",
        f"**{_plain(report['verdict'])}**",
        f"## {'Comparison' if several else 'Scores and costs'}",
        _score_table(report["methods"]),
        _floor_sentence(report["data"]),
        _cost_table(report["methods"]),
    ]
    if report["pairs"]:
        parts += ["## Pairs", _pair_table(report["pairs"])]
    parts += ["## Data", *_data_parts(report["data"])]
    made = f"Made with tunesmith {_plain(report['version'])} on {_plain(report['created'])}: {_code(report['command'])}"
    return "\n\n".join([*parts, made]) + "\n"


def card(report: Report) -> str:
    """The model card (README.md) of a single run, in Hugging Face's form. Needs exactly one method."""
    import yaml

    (method,) = report["methods"]
    front = yaml.safe_dump(_front_matter(report, method), sort_keys=False, allow_unicode=True)
    data = report["data"]
    labels = data["labels"]
    parts = [
        f"---\n{front}---",
        f"# {_plain(report['title'])}: {_plain(method['name'])}",
        f"{_plain(method['description'])}. It gives a text one of {len(labels)} labels: {_listing(labels)}.",
        f"{_plain(report['verdict'])}",
        "## Scores",
        _metric_table(method["scores"]),
        _floor_sentence(data),
        *_usage_parts(method),
        "## Data",
        *_data_parts(data),
        "## Limits",
        _limits(report, method),
        "## Costs",
        _cost_table([method]),
        "## Environment",
        _environment_table(report["environment"]),
        f"Made with tunesmith {_plain(report['version'])} on {_plain(report['created'])}: {_code(report['command'])}",
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


# What the page and the tables draw from the scores.


def _axes(report: Report) -> dict[str, Any]:
    from tunesmith.evaluation import charts

    scores = [method["scores"]["headline"][name] for method in report["methods"] for name in ("accuracy", "macro_f1")]
    gaps = [pair[name] for pair in report["pairs"] for name in ("accuracy_difference", "macro_f1_difference")]
    return {
        "score_axis": charts.axis([s[end] for s in scores for end in ("low", "high")], least=0.04, low=0, high=1),
        "gap_axis": charts.axis(
            [0.0, *(gap[end] for gap in gaps for end in ("low", "high"))], least=0.02, low=-1, high=1
        ),
    }


@cache
def _environment() -> SandboxedEnvironment:
    """Every text is escaped, unknown names are errors, and the template can call nothing but what is given here."""
    from jinja2 import PackageLoader, StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    from tunesmith.evaluation import charts

    loader = PackageLoader("tunesmith", "evaluation")
    made = SandboxedEnvironment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for shown in (metric, signed, chance, percent, seconds, count, megabytes, level):
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


def _plain(text: object) -> str:
    """Text from the data on one line, with nothing left in it that Markdown, HTML or a table would act on."""
    return re.sub(r"([\\`*<>\[\]|&~$])", r"\\\1", " ".join(str(text).split()))


def _code(text: object) -> str:
    """In backticks; a backtick or a pipe inside would end the code or the table's cell."""
    return "`" + " ".join(str(text).split()).replace("`", "'").replace("|", "\\|") + "`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _estimate(estimate: Mapping[str, Any]) -> str:
    return f"{metric(estimate['value'])} [{metric(estimate['low'])}, {metric(estimate['high'])}]"


def _listing(labels: Sequence[str], most: int = 25) -> str:
    shown = ", ".join(_plain(label) for label in labels[:most])
    return shown if len(labels) <= most else f"{shown} and {len(labels) - most} more"


def _score_table(methods: Sequence[Mapping[str, Any]]) -> str:
    shown = [name for name in NAMES if name in methods[0]["scores"]["headline"]]
    rows = ([_plain(m["name"]), *(_estimate(m["scores"]["headline"][name]) for name in shown)] for m in methods)
    return _table(["Method", *(_directed(name) for name in shown)], rows)


def _directed(name: str) -> str:
    return f"{NAMES[name]} ↓" if name in LOWER_IS_BETTER else NAMES[name]


def _cost_table(methods: Sequence[Mapping[str, Any]]) -> str:
    head = ["Method", "Training", "1,000 predictions", "Peak memory", "Parameters", "Trained", "Size"]
    return _table(head, ([_plain(method["name"]), *_costs(method["costs"])] for method in methods))


def _costs(costs: Mapping[str, Any]) -> list[str]:
    times = [seconds(costs["train_seconds"]), seconds(costs["seconds_per_1000"]), megabytes(costs["peak_memory_mb"])]
    return [*times, count(costs["parameters"]), count(costs["trainable"]), megabytes(costs["size_mb"])]


def _pair_table(pairs: Sequence[Mapping[str, Any]]) -> str:
    head = ["Pair", "Accuracy difference", "p", "p (Holm)", "Macro F1 difference", "p", "p (Holm)", "Told apart"]
    return _table(head, map(_pair_row, pairs))


def _pair_row(pair: Mapping[str, Any]) -> list[str]:
    accuracy, f1, test = pair["accuracy_difference"], pair["macro_f1_difference"], pair["mcnemar"]
    return [
        f"{_plain(pair['a'])} − {_plain(pair['b'])}",
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
    return f"Always answering {_plain(known[0])} would reach an accuracy of {metric(known[1])}." if known else ""


def _data_parts(data: Mapping[str, Any]) -> list[str]:
    head = ["Split", "Rows", "Median characters", "95% below", "Longest", "Fingerprint"]
    rows = ([name, *_split_row(split)] for name, split in data["splits"].items())
    made = f" Cut here: {', '.join(data['made'])}." if data["made"] else " Every split came with the data."
    changes = "\n".join(f"- {_plain(c['what'])}: {c['count']:,}{_where(c['where'])}" for c in data["changes"])
    source = f"Source: {_code(data['source'])}, fingerprint {_code(data['fingerprint'][:12])}.{made}"
    return [source, _table(head, rows), *([changes] if changes else [])]


def _split_row(split: Mapping[str, Any]) -> list[str]:
    lengths = split["characters"]
    sizes = (split["rows"], lengths["median"], lengths["p95"], lengths["max"])
    return [*(f"{size:,.0f}" for size in sizes), _code(split["fingerprint"][:12])]


def _where(ids: Sequence[str]) -> str:
    return f" ({', '.join(_code(one) for one in ids)})" if ids else ""


# The model card.


def _front_matter(report: Report, method: Mapping[str, Any]) -> dict[str, Any]:
    task = {"type": "text-classification", "name": "Text classification"}
    source = {"name": str(report["title"]), "type": _hub_name(report["data"]["source"]), "split": "test"}
    result = {"task": task, "dataset": source, "metrics": _card_metrics(method["scores"]["headline"])}
    library = {"library_name": "transformers"} if method["name"] == "encoder" else {}
    return {
        **library,
        "pipeline_tag": "text-classification",
        "tags": ["text-classification", "tunesmith", str(method["name"])],
        "metrics": ["accuracy", "f1"],
        "model-index": [{"name": f"{report['title']}: {method['name']}", "results": [result]}],
    }


def _card_metrics(headline: Mapping[str, Any]) -> list[dict[str, Any]]:
    types = {"macro_f1": "f1", "mcc": "matthews_correlation", "brier": "brier_score"}
    return [
        {"type": types.get(name, name), "name": NAMES.get(name, name), "value": round(float(estimate["value"]), 4)}
        for name, estimate in headline.items()
    ]


def _hub_name(source: str) -> str:
    """The hub takes only `name` or `owner/name` as a data set's type."""
    if re.fullmatch(r"(?:[\w-]+/)?[\w.-]+", source, re.ASCII):
        return source
    return re.sub(r"[^\w.]+", "-", source, flags=re.ASCII).strip("-.") or "unknown"


def _metric_table(scores: Mapping[str, Any]) -> str:
    confidence = level(scores["confidence"])
    rows = (
        [_directed(n), metric(e["value"]), f"[{metric(e['low'])}, {metric(e['high'])}]"]
        for n, e in scores["headline"].items()
    )
    return _table([f"On {scores['rows']:,} test rows", "Value", f"{confidence} interval"], rows)


def _usage_parts(method: Mapping[str, Any]) -> list[str]:
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
        lines.append(f"Fewer than 20 test rows, so the scores say little about: {_listing(rare)}.")
    return "\n".join(f"- {line}" for line in lines)


def _environment_table(environment: Mapping[str, Any]) -> str:
    flat = {key: value for key, value in environment.items() if key != "packages" and value is not None}
    rows = [[key.replace("_", " "), _plain(value)] for key, value in {**flat, **environment["packages"]}.items()]
    return _table(["What", "Version or value"], rows)
