"""`tunesmith pseudo-label`: new rows get the label, or the answer, on which samples or several runs agree."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import __version__, recipe as recipes, runs
from tunesmith.console import say, track
from tunesmith.errors import RecipeError, RunError
from tunesmith.evaluation import self_consistency
from tunesmith.evaluation.self_consistency import Vote
from tunesmith.pipeline import responding, run_report
from tunesmith.pipeline.fitting.methods import load_result
from tunesmith.recipe import Generate
from tunesmith.reporting import pseudo_label_report
from tunesmith.runs import Run
from tunesmith.types import NO_LABEL, Example, Message

Row = dict[str, Any]
TEMPERATURE = 0.7
"""Of sampling, unless the recipe samples itself or has a temperature."""
AT_ONCE = 64
"""Most samples in one batch, which share the prompt's computation."""
BINS = 20


@dataclass(frozen=True)
class PseudoLabels:
    """Where the rows and the report were written, and what the report says."""

    kept: Path
    left_out: Path
    content: dict[str, Any]

    @property
    def page(self) -> Path:
        """The report."""
        return self.kept.with_suffix(".html")


def pseudo_label(
    *sources: str | Path,
    source: str,
    samples: int = 8,
    threshold: float = 0.75,
    answer: str = "text",
    output: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> PseudoLabels:
    """Label the rows of `source` by runs, and keep those on which they agree.

    One classifier: the probability of its label. Several: the share that gives the most frequent label. An instruction
    run: the share of `samples` answers that say the same, as whole `text` or in their final `number`; an answer that
    did not end votes for nothing. Ties are not kept. overrides: of the `generate` section. Rows are written as JSON
    Lines that training reads, with agreement and origin; those that are not kept go to `<name>-left-out.jsonl`.
    """
    found = [runs.find(path) for path in sources]
    _check(found, samples, threshold, answer)
    examples = responding.new_rows(found[0].recipe, source)
    kept_path = _place(output, found[0], source)
    if found[0].recipe.task == "instruction":
        rows = _answered(found[0], examples, samples, answer, overrides)
    else:
        rows = _classified(found, examples)
    for row in rows:
        row["reason"] = _reason(row, threshold)
    content = _content(rows, found, threshold, samples, source)
    left_path = kept_path.with_name(f"{kept_path.stem}-left-out.jsonl")
    _write(kept_path, [_without(row, "reason") for row in rows if not row["reason"]])
    _write(left_path, [row for row in rows if row["reason"]])
    _text(kept_path.with_suffix(".md"), pseudo_label_report.markdown(content))
    _text(kept_path.with_suffix(".html"), pseudo_label_report.html(content))
    say(pseudo_label_report.verdict(content))
    return PseudoLabels(kept_path, left_path, content)


def _answered(run: Run, examples: Sequence[Example], number: int, answer: str, overrides: Sequence[str]) -> list[Row]:
    recipe = recipes.load(run.recipe, overrides)
    settings = _sampling(recipe.generate, number)
    generator, read = load_result(run), self_consistency.READ[answer]
    origin = _origin(run) | {"samples": number, "temperature": settings.temperature}
    rows = []
    for example in track(examples, "sample"):
        reference = example.messages[-1] if example.messages[-1].role == "assistant" else None
        asked = example.messages[:-1] if reference else example.messages
        said = generator.samples(asked, number, settings, recipe.seed)
        vote = self_consistency.vote([read(one.text) if one.ended else None for one in said])
        gold = read(reference.content) if reference else None
        right = gold is not None and vote.place is not None and read(said[vote.place].text) == gold
        text = "" if vote.place is None else said[vote.place].text
        rows.append(
            {**_alpaca(asked), "output": text, **_voted(example, vote, right if gold else None), "from": origin}
        )
    return rows


def _sampling(settings: Generate, number: int) -> Generate:
    update: dict[str, Any] = {"do_sample": True, "batch_size": min(number, AT_ONCE)}
    if not settings.do_sample and settings.temperature == 1:
        update["temperature"] = TEMPERATURE
    return settings.model_copy(update=update)


def _classified(found: Sequence[Run], examples: Sequence[Example]) -> list[Row]:
    predictors = [load_result(run) for run in found]
    known = {tuple(sorted(predictor.labels)) for predictor in predictors}
    if len(known) > 1:
        raise RunError("the runs have different labels", do="give runs that were trained on the same labels")
    said = [predictor.predict(examples) for predictor in predictors]
    data, origin = found[0].recipe.data, [_origin(run) for run in found]
    rows = []
    for place, example in enumerate(examples):
        votes = [predictions[place] for predictions in said]
        if len(votes) == 1:
            label, best = votes[0].label, max(votes[0].probabilities)
            vote = Vote(None if label == NO_LABEL else 0, best, votes[0].probabilities.count(best) > 1, ((label, 1),))
        else:
            vote = self_consistency.vote([one.label if one.label != NO_LABEL else None for one in votes])
        label = NO_LABEL if vote.place is None else votes[vote.place].label
        right = None if example.label is None else example.label == label
        pair = {} if example.text_pair is None or data.text_pair is None else {data.text_pair: example.text_pair}
        texts = {data.text: example.text, **pair, data.label: label}
        rows.append({**texts, **_voted(example, vote, right), "from": origin if len(origin) > 1 else origin[0]})
    return rows


def _voted(example: Example, vote: Vote, right: bool | None) -> Row:
    own = {} if right is None else {"right": right}
    return {"id": example.id, "agreement": vote.agreement, "votes": dict(vote.counts), "tied": vote.tied, **own}


def _alpaca(asked: Sequence[Message]) -> Row:
    """A conversation in Alpaca's columns, up to its last question."""
    system = [message.content for message in asked if message.role == "system"]
    turns = [message.content for message in asked if message.role != "system"][:-1]
    row: Row = {"instruction": asked[-1].content, "input": asked[-1].input}
    if system:
        row["system"] = system[0]
    if turns:
        row["history"] = [list(pair) for pair in zip(turns[::2], turns[1::2], strict=True)]
    return row


def _reason(row: Row, threshold: float) -> str:
    """Why a row is not kept; empty where it is."""
    if not row["votes"] or not row["agreement"] or NO_LABEL in row["votes"]:
        return "no answer that ended, or no label"
    if row["tied"]:
        return "a tie"
    return "" if row["agreement"] >= threshold else "agreement below the threshold"


def _content(rows: Sequence[Row], found: Sequence[Run], threshold: float, samples: int, source: str) -> dict[str, Any]:
    confidence = found[0].recipe.evaluate.confidence
    labelled = [(0.0 if row["tied"] else row["agreement"], row["right"]) for row in rows if "right" in row]
    histogram = [0] * BINS
    for row in rows:
        histogram[min(BINS - 1, int(row["agreement"] * BINS))] += 1
    kept = sum(not row["reason"] for row in rows)
    answers = found[0].recipe.task == "instruction"
    several = f"votes of {len(found)} runs" if len(found) > 1 else "probability of the label"
    return {
        "title": Path(source).name,
        "created": time.strftime("%Y-%m-%d %H:%M"),
        "command": run_report.command(),
        "version": __version__,
        "runs": [_origin(run) for run in found],
        "votes": f"{samples} samples to a prompt" if answers else several,
        "threshold": threshold,
        "confidence": confidence,
        "rows": len(rows),
        "kept": kept,
        "left_out": dict(Counter(row["reason"] for row in rows if row["reason"]).most_common()),
        "labelled": len(labelled),
        "chosen": self_consistency.at(labelled, threshold, confidence) if labelled else None,
        "curve": self_consistency.curve(labelled, threshold, confidence) if labelled else [],
        "histogram": histogram,
    }


def _origin(run: Run) -> Row:
    recipe = run.recipe
    return {"run": str(run.path), "model": run.manifest.name, "seed": recipe.seed}


def _check(found: Sequence[Run], samples: int, threshold: float, answer: str) -> None:
    if not found:
        raise RecipeError("no run", do="give one or more run directories")
    tasks = {run.recipe.task for run in found}
    if len(tasks) > 1 or (tasks == {"instruction"} and len(found) > 1):
        raise RunError("several runs can vote on labels only", do="give one run of task instruction, or classifiers")
    if samples < 1 or not 0 <= threshold <= 1:
        raise RecipeError(
            f"--samples {samples} --threshold {threshold:g}", expected="at least 1 sample, and a share from 0 to 1"
        )
    if answer not in self_consistency.READ:
        raise RecipeError(f"no way to compare answers is called {answer!r}", expected=", ".join(self_consistency.READ))


def _place(output: str | Path | None, run: Run, source: str) -> Path:
    if output is None:
        return run.path / "pseudo-labels" / f"{Path(source).name.split('.')[0]}.jsonl"
    path = Path(output).expanduser()
    if path.suffix != ".jsonl" or not path.parent.is_dir():
        raise RecipeError(f"cannot write {path}", expected="a name that ends in .jsonl, in a folder that is there")
    return path


def _without(row: Row, name: str) -> Row:
    return {key: value for key, value in row.items() if key != name}


def _write(path: Path, rows: Sequence[Row]) -> None:
    _text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _text(path: Path, text: str) -> None:
    runs.write_whole(path, text.encode())
