"""The model card (README.md) of one run, in Hugging Face's form."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from tunesmith.reporting import generation_report, judge_report
from tunesmith.reporting.classification_report import floor_sentence
from tunesmith.reporting.format import NAMES, directed, figure, interval, level, share
from tunesmith.reporting.markdown import (
    cost_table,
    data_parts,
    environment_table,
    hub_name,
    listing,
    plain,
    sign,
    table,
)
from tunesmith.reporting.schema import load_judge_report

Report = Mapping[str, Any]
Method = Mapping[str, Any]
HUB_METRICS = {"macro_f1": "f1", "mcc": "matthews_correlation", "brier": "brier_score"}
"""What model hubs call a metric, where not as here."""


def classification(report: Report) -> str:
    """Return the card of a classifier; the report has exactly one method."""
    (method,) = report["methods"]
    labels, scores = report["data"]["labels"], method["scores"]
    library = method.get("library", "transformers" if method["name"] == "encoder" else None)
    front = _front_matter(
        report,
        task="text-classification",
        library_name=library,
        tags=["text-classification", "tunesmith", str(method["name"])],
        metrics=["accuracy", "f1"],
    )
    rows = ([directed(name), figure(name, e["value"]), interval(name, e)] for name, e in scores["headline"].items())
    head = [f"On {scores['rows']:,} test rows", "Value", f"{level(scores['confidence'])} interval"]
    return _card(
        report,
        front,
        purpose=f"It gives a text one of {len(labels)} labels: {listing(labels)}.",
        scores=[table(head, rows), floor_sentence(report["data"])],
        usage=[method["usage"]] if "usage" in method else _classifier_usage(method),
        limits=_classifier_limits(report, method),
        predicted="predictions",
    )


def generation(report: Report) -> str:
    """Return the card of a generator; a second method of the report may be the model before training."""
    method = report["methods"][0]
    front = _front_matter(
        report,
        task="text-generation",
        library_name=method.get("library", "peft" if method["saved"] == "adapter" else "transformers"),
        base_model=method["base_model"],
        tags=["text-generation", "conversational", "tunesmith", str(method["name"])],
    )
    judged = judge_report.trusted_headline(load_judge_report(method["judged"]) if method.get("judged") else None)
    return _card(
        report,
        front,
        purpose="It answers instructions as those of its training data were answered.",
        scores=[generation_report.figure_table(report), *([plain(judged)] if judged else [])],
        usage=[method["usage"]] if "usage" in method else _generator_usage(method),
        limits=_generator_limits(method),
        predicted="answers",
    )


def _card(
    report: Report,
    front_matter: str,
    *,
    purpose: str,
    scores: list[str],
    usage: list[str],
    limits: list[str],
    predicted: str,
) -> str:
    method = report["methods"][0]
    parts = [
        f"---\n{front_matter}---",
        f"# {plain(report['title'])}: {plain(method['name'])}",
        f"{plain(method['description'])}. {purpose}",
        plain(report["verdict"]),
        "## Scores",
        *([method["changed"]] if method.get("changed") else []),
        *scores,
        "## How to use",
        *usage,
        "## Data",
        *data_parts(report["data"]),
        "## Limits",
        "\n".join(f"- {line}" for line in limits),
        "## Costs",
        cost_table([method], predicted),
        "## Environment",
        environment_table(report["environment"]),
        sign(report),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(report: Report, *, task: str, **entries: Any) -> str:
    """What model hubs read. Scores of another form of the model are not claimed (`changed`)."""
    from huggingface_hub import EvalResult, ModelCardData

    method = report["methods"][0]
    results = [
        EvalResult(
            task_type=task,
            task_name=task.replace("-", " ").capitalize(),
            dataset_type=hub_name(report["data"]["source"]),
            dataset_name=str(report["title"]),
            dataset_split="test",
            metric_type=HUB_METRICS.get(name, name),
            metric_name=NAMES.get(name, name),
            metric_value=round(float(estimate["value"]), 4),
        )
        for name, estimate in method["scores"]["headline"].items()
    ]
    if not method.get("changed"):
        entries |= {"model_name": f"{report['title']}: {method['name']}", "eval_results": results}
    data = ModelCardData(pipeline_tag=task, **entries)
    return f"{data.to_yaml()}\n"


def _classifier_usage(method: Method) -> list[str]:
    shell = f"```sh\ntunesmith predict {shlex.quote(method['run'])} --text 'Some text'\n```"
    if method["name"] != "encoder":
        return [shell]
    model = json.dumps(f"{method['run']}/model")
    lines = ["from transformers import pipeline", "", f'classify = pipeline("text-classification", model={model})']
    python = "\n".join([*lines, 'classify("Some text", truncation=True, top_k=None)'])
    return [shell, f"or without tunesmith:\n\n```python\n{python}\n```"]


def _classifier_limits(report: Report, method: Method) -> list[str]:
    lines = [
        "It knows only the labels above and always answers one of them, also for a text that fits none.",
        "The scores hold for texts like those of the test split; other sources, times or languages were not tested.",
    ]
    if method["notes"].get("cut"):
        lines.append(f"{method['notes']['cut']:,} texts were longer than the model's input and were cut.")
    rare = [label for label in report["data"]["labels"] if method["scores"]["per_class"][label]["support"] < 20]
    if rare:
        lines.append(f"Fewer than 20 test rows, so the scores say little about: {listing(rare)}.")
    return lines


def _generator_usage(method: Method) -> list[str]:
    run = shlex.quote(method["run"])
    shell = f"```sh\ntunesmith chat {run}\ntunesmith predict {run} --text 'Name three primary colours.'\n```"
    without = "or without tunesmith; the chat template is stored with the tokenizer:"
    return [shell, without, f"```python\n{_generator_python(method)}\n```"]


def _generator_python(method: Method) -> str:
    folder = json.dumps(f"{method['run']}/model", ensure_ascii=False)
    ask = [
        'messages = [{"role": "user", "content": "Name three primary colours."}]',
        f"reply = ask(messages, max_new_tokens={method['settings']['max_new_tokens']}, do_sample=False)",
        'print(reply[0]["generated_text"][-1]["content"])',
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


def _generator_limits(method: Method) -> list[str]:
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
    return lines
