"""The model card (README.md) of one run, in Hugging Face's form."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunesmith.evaluation.intervals import Estimate
from tunesmith.reporting import (
    clean_report,
    generation_report,
    judge_report,
    prediction_notes,
    price_report,
    regression_report,
)
from tunesmith.reporting.classification_report import majority_sentence
from tunesmith.reporting.format import NAMES, directed, figure, interval, level, quantity, share
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
from tunesmith.reporting.schema import (
    AnyReport,
    ClassificationReport,
    ClassificationResult,
    ExportedModel,
    GenerationReport,
    GenerationResult,
    MethodResult,
    MultilabelReport,
    MultilabelResult,
    RegressionReport,
    RegressionResult,
)
from tunesmith.tasks import postprocessing
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.tasks.text_targets import Target
from tunesmith.types import DataSummary

HUB_METRICS = {"macro_f1": "f1", "mcc": "matthews_correlation", "brier": "brier_score"}
"""What model hubs call a metric, where not as here."""
THRESHOLDS = "Each label has a threshold of its own, chosen on the validation split: `thresholds` in the model's files."


def classification(report: ClassificationReport, exported: ExportedModel | None = None) -> str:
    """Return the card of a classifier, or of what it was exported to; the report has exactly one method."""
    (method,) = report.methods
    labels, scores = report.data.labels, method.scores
    return _predictor_card(
        report,
        exported,
        f"It gives a text one of {len(labels)} labels: {listing(labels)}.",
        tags=["text-classification"],
        metrics=["accuracy", "f1"],
        limits=[
            "It knows only the labels above."
            if scores.invalid
            else "It knows only the labels above and always answers one of them, also for a text that fits none."
        ],
        support={label: scores.per_class[label].support for label in labels},
        baseline=majority_sentence(report.data),
        usage=_usage(method, SingleLabel(method.scores.labels, method.decision.decision if method.decision else None)),
    )


def multilabel(report: MultilabelReport, exported: ExportedModel | None = None) -> str:
    """Return the card of a multi-label classifier, or of what it was exported to; the report has exactly one method."""
    (method,) = report.methods
    labels, scores = report.data.labels, method.scores
    return _predictor_card(
        report,
        exported,
        f"It gives a text any of {len(labels)} labels: {listing(labels)}.",
        tags=["text-classification", "multi-label"],
        metrics=["f1"],
        limits=[
            "It knows only the labels above. A text may get none of them.",
            *([] if scores.without_probabilities else [THRESHOLDS]),
        ],
        support={label: scores.per_label[label].support for label in labels},
        usage=_usage(method, MultiLabel(method.scores.labels)),
    )


def regression(report: RegressionReport, exported: ExportedModel | None = None) -> str:
    """Return the card of a regression, or of what it was exported to; the report has exactly one method."""
    (method,) = report.methods
    train = report.data.splits["train"].numbers
    between = f"Its training numbers lie between {quantity(train.min)} and {quantity(train.max)}." if train else ""
    return _predictor_card(
        report,
        exported,
        "It gives a text a number.",
        tags=["text-regression"],
        metrics=["rmse", "spearmanr"],
        limits=[between] if between else [],
        baseline=regression_report.baseline_sentence(report),
        usage=_usage(method, Number()),
    )


def _predictor_card(
    report: ClassificationReport | MultilabelReport | RegressionReport,
    exported: ExportedModel | None,
    purpose: str,
    *,
    limits: Sequence[str],
    usage: list[str],
    support: Mapping[str, int] | None = None,
    baseline: str | None = None,
    **front_matter: Sequence[str],
) -> str:
    """Return the card of what gives texts labels or numbers.

    support: test rows of each label. front_matter: `tags` and `metrics`.
    """
    (method,) = report.methods
    scores = method.scores
    front = _front_matter(
        report,
        scores.headline,
        exported,
        pipeline_tag="text-classification",
        library_name=exported.library if exported else method.library,
        tags=[*front_matter["tags"], "tunesmith", method.name],
        metrics=front_matter["metrics"],
    )
    rows = ([directed(name), figure(name, e.value), interval(name, e)] for name, e in scores.headline.items())
    head = [f"On {scores.rows:,} test rows", "Value", f"{level(scores.confidence)} interval"]
    limits = [
        *limits,
        "The scores hold for texts like those of the test split; other sources, times or languages were not tested.",
    ]
    limits += map(plain, prediction_notes.sentences([method]))
    if method.clean is not None:
        limits.append(f"{clean_report.sentence(method.clean, scores.headline)}.")
    if method.notes.cut:
        limits.append(f"{method.notes.cut:,} texts were longer than the model's input and were cut.")
    if rare := [label for label, count in (support or {}).items() if count < 20]:
        limits.append(f"Fewer than 20 test rows, so the scores say little about: {listing(rare)}.")
    limits += map(plain, price_report.caveats(report))
    sections = {
        "Scores": [*_changed(exported), table(head, rows), *([] if baseline is None else [baseline])],
        "How to use": [exported.usage] if exported else usage,
        "Data": data_parts(report.data),
        "Limits": [_bullets(limits)],
        "Costs": [cost_table([method]), *price_report.tables(report)],
    }
    return _card(report, front, purpose, sections)


LIBRARIES = {"adapter": "peft", "model": "transformers", "tokenizer": "transformers"}
"""What loads each kind of model folder without tunesmith, as model hubs name it."""


def generation(report: GenerationReport, exported: ExportedModel | None = None) -> str:
    """Return the card of a generator, or of what it was exported to.

    A second method of the report may be the model before training.
    """
    method = report.methods[0]
    if exported:
        method = replace(method, saved=exported.saved)
    front = _front_matter(
        report,
        method.scores.headline,
        exported,
        pipeline_tag="text-generation",
        library_name=exported.library if exported else LIBRARIES.get(method.saved),
        base_model=method.base_model,
        tags=["text-generation", "conversational", "tunesmith", method.name],
    )
    scores, notes, limit = method.scores, method.notes, method.settings["max_new_tokens"]
    limits = [
        "It answers whatever it is asked, also wrongly. What was measured is how likely it finds the reference answers "
        "of the test split, not whether what it says is true, safe or helpful.",
        "The scores hold for instructions like those of the test split; other sources or languages were not tested.",
    ]
    if (ended := scores.headline.get("ended")) and ended.value < 1:
        limits.append(f"{share(1 - ended.value)} of its answers had not ended after {limit:,} tokens and were cut.")
    if method.clean is not None:
        limits.append(f"{clean_report.sentence(method.clean, scores.headline)}.")
    if notes.cut:
        limits.append(f"{notes.cut:,} training rows were longer than the model's input and were cut or left out.")
    if scores.rows < 100:
        limits.append(f"Only {scores.rows:,} test rows: the intervals above are rough.")
    if method.saved == "adapter":
        limits.append("It is an adapter: the model under it is needed too, with its own licence and limits.")
    limits += map(plain, price_report.caveats(report))
    judged = judge_report.trusted_headline(method.judged)
    data = data_parts(report.data) if isinstance(report.data, DataSummary) else []
    sections = {
        "Scores": [
            *_changed(exported),
            generation_report.figure_table(report),
            *([plain(judged)] if judged else []),
        ],
        "How to use": [exported.usage] if exported else _generator_usage(method),
        "Data": data,
        "Limits": [_bullets(limits)],
        "Costs": [cost_table([method], "answers"), *price_report.tables(report)],
    }
    return _card(report, front, "It answers instructions as those of its training data were answered.", sections)


def _card(
    report: AnyReport,
    front_matter: str,
    purpose: str,
    sections: Mapping[str, list[str]],
) -> str:
    method = report.methods[0]
    environment = [environment_table(report.environment)] if report.environment else []
    parts = [
        f"---\n{front_matter}\n---",
        f"# {plain(report.title)}: {plain(method.name)}",
        f"{plain(method.description)}. {purpose}",
        plain(report.verdict),
        *(part for title, parts in sections.items() for part in (f"## {title}", *parts)),
        "## Environment",
        *environment,
        sign(report),
    ]
    return "\n\n".join(parts) + "\n"


def _changed(exported: ExportedModel | None) -> list[str]:
    return [exported.changed] if exported and exported.changed else []


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _front_matter(
    report: AnyReport,
    headline: Mapping[str, Estimate],
    exported: ExportedModel | None,
    *,
    pipeline_tag: str,
    **entries: Any,
) -> str:
    """Return what model hubs read. Scores of another form of the model are not claimed."""
    from huggingface_hub import EvalResult, ModelCardData

    source = report.data.source if isinstance(report.data, DataSummary) else ""
    results = [
        EvalResult(
            task_type=pipeline_tag,
            task_name=pipeline_tag.replace("-", " ").capitalize(),
            dataset_type=hub_name(source),
            dataset_name=report.title,
            dataset_split="test",
            metric_type=HUB_METRICS.get(name, name),
            metric_name=NAMES.get(name, name),
            metric_value=round(estimate.value, 4),
        )
        for name, estimate in headline.items()
    ]
    if not _changed(exported):
        entries |= {"model_name": f"{report.title}: {report.methods[0].name}", "eval_results": results}
    return ModelCardData(pipeline_tag=pipeline_tag, **entries).to_yaml()


def _command(method: MethodResult) -> str:
    return f"```sh\ntunesmith predict {shlex.quote(method.run)} --text 'Some text'\n```"


def _usage(method: ClassificationResult | MultilabelResult | RegressionResult, target: Target) -> list[str]:
    shell = _command(method)
    folder = json.dumps(f"{method.run}/model", ensure_ascii=False)
    if method.library == "transformers":
        lines = ["from transformers import pipeline", "", f'classify = pipeline("text-classification", model={folder})']
    elif method.library == "peft":
        lines = [
            "from peft import AutoPeftModelForSequenceClassification",
            "from transformers import AutoConfig, AutoTokenizer, pipeline",
            "",
            f"folder = {folder}",
            'config = AutoConfig.from_pretrained(f"{folder}/base_config.json")',
            'names = ("id2label", "label2id", "pad_token_id", "problem_type")',
            "options = {name: getattr(config, name) for name in names}",
            "model = AutoPeftModelForSequenceClassification.from_pretrained(folder, **options)",
            "tokenizer = AutoTokenizer.from_pretrained(folder)",
            'classify = pipeline("text-classification", model=model, tokenizer=tokenizer)',
        ]
    else:
        return [shell]
    has_config = method.library == "peft"
    python = "\n".join([*lines, *postprocessing.pipeline_lines(target, '"Some text"', has_config=has_config)])
    return [shell, f"or without tunesmith:\n\n```python\n{python}\n```"]


def _generator_usage(method: GenerationResult) -> list[str]:
    run = shlex.quote(method.run)
    shell = f"```sh\ntunesmith chat {run}\ntunesmith predict {run} --text 'Name three primary colours.'\n```"
    if method.saved == "prompt":
        return [shell]
    folder = json.dumps(f"{method.run}/model", ensure_ascii=False)
    if method.saved == "adapter":
        python = [
            "from peft import AutoPeftModelForCausalLM",
            "from transformers import AutoTokenizer, pipeline",
            "",
            f"model = AutoPeftModelForCausalLM.from_pretrained({folder})",
            f"tokenizer = AutoTokenizer.from_pretrained({folder})",
            'ask = pipeline("text-generation", model=model, tokenizer=tokenizer)',
        ]
    else:
        model, tokenizer = folder, ""
        if method.saved == "tokenizer":
            name = method.base_folder or method.settings["model"]
            model, tokenizer = json.dumps(name, ensure_ascii=False), f", tokenizer={folder}"
        python = [
            "from transformers import pipeline",
            "",
            f'ask = pipeline("text-generation", model={model}{tokenizer})',
        ]
    python += [
        'messages = [{"role": "user", "content": "Name three primary colours."}]',
        f"reply = ask(messages, max_new_tokens={method.settings['max_new_tokens']}, do_sample=False)",
        'print(reply[0]["generated_text"][-1]["content"])',
    ]
    return [
        shell,
        "or without tunesmith; the chat template is stored with the tokenizer:",
        "```python\n" + "\n".join(python) + "\n```",
    ]
