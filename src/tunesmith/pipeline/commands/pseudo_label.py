"""`tunesmith pseudo-label`: new rows get the labels, or the answer, on which samples or several runs agree."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from tunesmith import disk, records, runs
from tunesmith.console import printable, say
from tunesmith.data.row_stream import RowChunk
from tunesmith.errors import RecipeError, RunError
from tunesmith.evaluation import self_consistency
from tunesmith.evaluation.self_consistency import Vote
from tunesmith.manifest import EndpointCosts
from tunesmith.pipeline import engines, in_memory, new_data, prediction_stream
from tunesmith.pipeline.commands.train import train
from tunesmith.pipeline.fitting.methods import METHODS, load_text_predictor
from tunesmith.pipeline.task_table import task_of
from tunesmith.recipe import Recipe
from tunesmith.reporting import pseudo_label_report
from tunesmith.reporting.schema import PseudoLabelReport, RunOrigin
from tunesmith.runs import Run
from tunesmith.tasks import classification, instruction
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.text_targets import Target
from tunesmith.types import (
    NO_LABEL,
    Example,
    MultilabelPrediction,
    MultilabelPredictionRow,
    Prediction,
    PredictionRow,
    ValuePredictionRow,
)

TEMPERATURE = 0.7
"""For sampling, unless the recipe samples itself or has a temperature."""
BINS = 20


@dataclass(frozen=True)
class PseudoLabels:
    """Where the rows and the report were written, and what the report says."""

    kept: Path
    left_out: Path
    report: PseudoLabelReport

    @property
    def page(self) -> Path:
        """The report."""
        return self.kept.with_suffix(".html")


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """A new row with the label or answer that the votes gave it."""

    id: str
    columns: dict[str, object]
    """Texts and label, under the names that training reads."""
    vote: Vote
    right: bool | None
    """Whether the row's own label says the same; None without one."""
    origin: tuple[RunOrigin, ...]
    abstained: bool = False
    """Whether the model abstains, by `decide.abstain`."""

    def reason(self, threshold: float) -> str:
        """Return why the row is not kept; empty where it is."""
        if not self.vote.agreement or NO_LABEL in dict(self.vote.counts):
            return "no answer that ended, or no label"
        if self.vote.tied:
            return "a tie"
        if self.abstained:
            return "the model abstains"
        return "" if self.vote.agreement >= threshold else "agreement below the threshold"

    def content(self) -> dict[str, object]:
        """Return the row as it is written: the columns, and how they came about."""
        vote = {"agreement": self.vote.agreement, "votes": dict(self.vote.counts), "tied": self.vote.tied}
        right = {} if self.right is None else {"right": self.right}
        origin = self.origin if len(self.origin) > 1 else self.origin[0]
        return {**self.columns, "id": self.id, **vote, **right, "from": records.dump(origin)}


def pseudo_label(
    *sources: str | Path,
    source: object,
    samples: int = 8,
    threshold: float = 0.75,
    answer: str = "text",
    output: str | Path | None = None,
    overwrite: bool = False,
    overrides: Sequence[str] = (),
) -> PseudoLabels:
    """Label the rows of `source` by runs, or by a model behind an endpoint, and keep those on which they agree.

    sources: runs; or one labelled data source or recipe, for which a run of method `endpoint` is made first: its test
    split then shows how many labels are right.

    One classifier: the probability of the label that it gives; a row on which it abstains is not kept. Several: the
    share that gives the most frequent label. A multilabel run: the certainty of its least certain label
    (`MultiLabel.certainty`). An instruction run: the share of `samples` answers that say the same, as whole `text` or
    in their final `number`; an answer that did not end does not vote.
    Ties are not kept. overrides: of the `data` and `generate` sections. Rows are written as JSON Lines that training
    reads, with agreement and origin; those that are not kept go to `<name>-left-out.jsonl`.
    """
    prompted = any(word.startswith("endpoint.") for word in overrides)
    if len(sources) == 1 and not runs.is_run(sources[0]) and (prompted or Path(sources[0]).is_file()):
        voters: list[Run] = [train(sources[0], ["method=endpoint", *overrides])]
        overrides = ()
    else:
        voters = [runs.find(path) for path in sources]
    _check(voters, samples, threshold, answer)
    with in_memory.as_path(source) as name:
        default = voters[0].path / "pseudo-labels" / f"{Path(name).name.split('.')[0]}.jsonl"
        kept_path = default if output is None else Path(output).expanduser()
        if kept_path.suffix != ".jsonl":
            raise RecipeError(f"cannot write {kept_path}", expected="a name that ends in .jsonl", do="change --output")
        left_path = kept_path.with_name(f"{kept_path.stem}-left-out.jsonl")
        for path in (kept_path, left_path, *map(kept_path.with_suffix, (".md", ".html"))):
            if output is not None or path.exists():
                new_data.check_output(path, name, overwrite=overwrite or output is None)
        recipe = new_data.settings(voters[0].recipe, name, overrides)
        tally = Tally(threshold)
        if task_of(voters[0]).has_responses:
            vote: Voter = _AnswerVoter(voters[0], recipe, samples, answer)
            votes = f"{samples} samples to a prompt"
        else:
            vote = _LabelVoter(voters)
            votes = _described(voters)
        with disk.writing_whole(kept_path) as kept, disk.writing_whole(left_path) as left:
            for chunk in new_data.chunks(recipe, vote.rows_at_once):
                _write(chunk, vote, tally, kept, left)
    report = replace(_report(tally, voters, votes, name), endpoint=vote.costs())
    runs.write_whole(kept_path.with_suffix(".md"), pseudo_label_report.markdown(report).encode())
    runs.write_whole(kept_path.with_suffix(".html"), pseudo_label_report.html(report).encode())
    say(pseudo_label_report.headline(report))
    return PseudoLabels(kept_path, left_path, report)


@dataclass
class Tally:
    """What a report says of rows, counted as they come."""

    threshold: float
    rows: int = 0
    kept: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    labelled: list[tuple[float, bool]] = field(default_factory=list)
    """Of each row with a label of its own how sure the given one is, and whether it is right."""
    histogram: list[int] = field(default_factory=lambda: [0] * BINS)

    def add(self, row: LabelledRow) -> str:
        """Count a row; return why it is not kept, empty where it is."""
        reason = row.reason(self.threshold)
        if row.right is not None:
            self.labelled.append((0.0 if row.vote.tied else row.vote.agreement, row.right))
        self.histogram[min(BINS - 1, int(row.vote.agreement * BINS))] += 1
        self.rows += 1
        self.kept += not reason
        self.left_out.update([reason] if reason else [])
        return reason

    def add_error(self, error: str) -> str:
        """Count a row that cannot be labelled; return why it is not kept."""
        self.rows += 1
        self.left_out[error.partition(":")[0]] += 1
        return error


class Voter(Protocol):
    """Labels rows by votes."""

    rows_at_once: int

    def rows(self, examples: Sequence[Example]) -> list[LabelledRow]:
        """Return the rows with the label, or the answer, that they get."""

    def costs(self) -> EndpointCosts | None:
        """Return what the labels so far took of an endpoint; None where a model in this process gave them."""


def _write(chunk: RowChunk, voter: Voter, tally: Tally, kept: BinaryIO, left: BinaryIO) -> None:
    """Label a chunk of rows and write them, those that are not kept and why into `left`."""
    labelled = iter(voter.rows(chunk.examples))
    for place, source in enumerate(chunk.rows):
        if place in chunk.errors:
            reason = tally.add_error(chunk.errors[place])
            content = {**source.values, "id": source.id}
        else:
            row = next(labelled)
            reason, content = tally.add(row), row.content()
        text = json.dumps(content | ({"reason": reason} if reason else {}), ensure_ascii=False, default=str)
        (left if reason else kept).write(f"{printable(text)}\n".encode())


class _AnswerVoter:
    """Gives the answer on which most samples agree, in the columns that Alpaca has."""

    rows_at_once = prediction_stream.FEW

    def __init__(self, run: Run, recipe: Recipe, number: int, answer: str) -> None:
        update: dict[str, object] = {"do_sample": True}
        if not recipe.generate.do_sample and recipe.generate.temperature == 1:
            update["temperature"] = TEMPERATURE
        self._settings = recipe.generate.model_copy(update=update)
        self._generator = engines.load_generator(run, self._settings.engine)
        self._compared, self._number, self._seed = self_consistency.COMPARISONS[answer], number, recipe.seed
        self._origin = replace(_origin(run), samples=number, temperature=self._settings.temperature)

    def rows(self, examples: Sequence[Example]) -> list[LabelledRow]:
        compared = self._compared
        references = [row.messages[-1] if row.messages[-1].role == "assistant" else None for row in examples]
        prompts = [row.messages[:-1] if last else row.messages for row, last in zip(examples, references, strict=True)]
        sampled = self._generator.samples(prompts, self._number, self._settings, self._seed)
        rows = []
        for example, reference, prompt, answers in zip(examples, references, prompts, sampled, strict=True):
            vote = self_consistency.vote([compared(sample.text) if sample.ended else None for sample in answers])
            text = "" if vote.index is None else answers[vote.index].text
            gold = compared(reference.content) if reference else None
            right = None if gold is None else vote.index is not None and compared(text) == gold
            columns = {**instruction.columns(prompt), "output": text}
            rows.append(LabelledRow(example.id, columns, vote, right, (self._origin,)))
        return rows

    def costs(self) -> None:
        return None


class _LabelVoter:
    """Gives the label that one run predicts, or on which most of several runs agree."""

    def __init__(self, voters: Sequence[Run]) -> None:
        self._voters, self._predictors = voters, [load_text_predictor(run) for run in voters]
        if len({tuple(sorted(predictor.labels)) for predictor in self._predictors}) > 1:
            raise RunError("the runs have different labels", do="give runs that were trained on the same labels")
        self._origin = tuple(_origin(run) for run in voters)
        self._is_charged = len(voters) == 1 and METHODS[voters[0].recipe.method].is_charged
        self._data = voters[0].recipe.data
        self._bought: list[Example] = []
        # of bought labels all decide together whether any has a probability
        self.rows_at_once = (
            sys.maxsize if self._is_charged else min(map(prediction_stream.rows_at_once, self._predictors))
        )

    def rows(self, examples: Sequence[Example]) -> list[LabelledRow]:
        by_run = [predictor.predict(examples) for predictor in self._predictors]
        certain = len(by_run) == 1 and _is_single_vote(self._voters[0], by_run[0])
        if len(by_run) == 1 and not self._is_charged:
            classification.check_probabilities(by_run[0], "pseudo-label with one run")
        self._bought += examples if self._is_charged else []
        rows = []
        for example, *predictions in zip(examples, *by_run, strict=True):
            if len(predictions) > 1:
                vote = self_consistency.vote([p.label if p.label != NO_LABEL else None for p in predictions])
            else:
                vote = _own_vote(predictions[0], self._predictors[0].target, certain)
            answer = NO_LABEL if vote.index is None else predictions[vote.index].answer
            labels = {answer} if isinstance(answer, str) else {*answer}
            right = None if example.gold is None else {*example.all_labels} == labels
            columns = new_data.as_row(example, answer, self._data)
            alone = predictions[0] if len(predictions) == 1 else None
            abstained = isinstance(alone, Prediction) and alone.abstained is True
            rows.append(LabelledRow(example.id, columns, vote, right, self._origin, abstained))
        return rows

    def costs(self) -> EndpointCosts | None:
        if self._voters[0].finished.costs.endpoint is None:
            return None
        from tunesmith.prediction.endpoint_predictor import EndpointPredictor

        predictor = self._predictors[0]
        assert isinstance(predictor, EndpointPredictor)
        return predictor.model.costs(predictor.requests(self._bought))


def _is_single_vote(run: Run, predictions: Sequence[Any]) -> bool:
    """Return whether labels are bought, and nothing says how sure the model is: each is then the only vote."""
    return METHODS[run.recipe.method].is_charged and not any(row.probabilities for row in predictions)


def _own_vote(prediction: Prediction | MultilabelPrediction, target: Target, certain: bool) -> Vote:
    """Return how sure a single predictor is; without probabilities wholly, if `certain`, and otherwise not at all."""
    if not prediction.probabilities:
        labels = prediction.labels if isinstance(prediction, MultilabelPrediction) else (prediction.label,)
        counts = tuple((label, 1) for label in labels)
        return Vote(0, 1.0, counts=counts) if certain and NO_LABEL not in labels else Vote(None, 0.0, counts=counts)
    if isinstance(target, MultiLabel) and isinstance(prediction, MultilabelPrediction):
        return Vote(0, target.certainty(prediction), counts=tuple((label, 1) for label in prediction.labels))
    assert isinstance(prediction, Prediction)
    assert isinstance(target, SingleLabel)
    probability = classification.probability(prediction, target.labels)
    assert probability is not None
    tied = target.decision is None and prediction.probabilities.count(probability) > 1
    index = None if prediction.label == NO_LABEL else 0
    return Vote(index, probability, tied, ((prediction.label, 1),))


def _has_probabilities(run: Run) -> bool:
    """Return whether labels have probabilities, by the recipe and, where there are some, by the test predictions.

    Those that are bought are votes where they have none.
    """
    tested: list[Any] = run.predictions("test", task_of(run).row) if run.has("predictions/test.jsonl") else []
    charged = METHODS[run.recipe.method].is_charged
    return charged or (run.recipe.gives_probabilities and (not tested or any(row.probabilities for row in tested)))


def _described(voters: Sequence[Run]) -> str:
    """Return what the agreement on a row is, for people."""
    if len(voters) > 1:
        return f"votes of {len(voters)} runs"
    if METHODS[voters[0].recipe.method].is_charged:
        return "probability of the label; where the endpoint gives none, its one reply"
    if task_of(voters[0]).row is MultilabelPredictionRow:
        return "certainty of the least certain label: 50% at its threshold, 100% at probability 0 or 1"
    return "probability of the label"


def _report(tally: Tally, voters: Sequence[Run], votes: str, source: str) -> PseudoLabelReport:
    confidence, labelled = voters[0].recipe.evaluate.confidence, tally.labelled
    from_test = not labelled and len(voters) == 1 and not task_of(voters[0]).has_responses
    if from_test:
        labelled = _tested(voters[0])
    return PseudoLabelReport(
        title=Path(source).name,
        runs=tuple(_origin(run) for run in voters),
        votes=votes,
        threshold=tally.threshold,
        confidence=confidence,
        rows=tally.rows,
        kept=tally.kept,
        left_out=dict(tally.left_out.most_common()),
        labelled=len(labelled),
        from_test=from_test or None,
        chosen=self_consistency.at_threshold(labelled, tally.threshold, confidence) if labelled else None,
        curve=self_consistency.threshold_curve(labelled, tally.threshold, confidence) if labelled else (),
        histogram=tuple(tally.histogram),
    )


def _tested(run: Run) -> list[tuple[float, bool]]:
    """Return of each test row of a run how sure its label is, and whether it is right."""
    if not run.has("predictions/test.jsonl"):
        return []
    target = load_text_predictor(run).target
    rows: list[Any] = run.predictions("test", task_of(run).row)
    certain = _is_single_vote(run, rows)
    votes = [_own_vote(row, target, certain) for row in rows]
    return [
        (0.0 if vote.tied else vote.agreement, row.answer == row.gold) for row, vote in zip(rows, votes, strict=True)
    ]


def _origin(run: Run) -> RunOrigin:
    return RunOrigin(str(run.path), run.manifest.name, run.recipe.seed)


def _check(voters: Sequence[Run], samples: int, threshold: float, answer: str) -> None:
    if not voters:
        raise RecipeError("no run", do="give one or more run directories")
    for run in voters:
        if task_of(run).row is ValuePredictionRow:
            raise RunError(
                f"cannot pseudo-label with {run.path}: nothing says how sure a number is",
                expected="a run of task classification, multilabel or instruction",
                found=f"task {run.recipe.task}",
                do="use tunesmith predict",
            )
    if len(voters) == 1 and not (task_of(voters[0]).has_responses or _has_probabilities(voters[0])):
        method = METHODS[voters[0].recipe.method]
        raise RunError(
            f"cannot pseudo-label with {voters[0].path} alone: its labels have no probabilities",
            expected="a run that gives probabilities, or several runs of task classification",
            do=f"give several runs to vote, or train with {method.probabilities_by}",
        )
    tasks = {run.recipe.task for run in voters}
    if len(tasks) > 1 or (len(voters) > 1 and task_of(voters[0]).row is not PredictionRow):
        raise RunError(
            "several runs can vote on labels only, one label a text",
            expected="one run, or several of task classification",
            found=f"{len(voters)} runs of task {' and '.join(sorted(tasks))}",
        )
    if samples < 1 or not 0 <= threshold <= 1:
        raise RecipeError(
            f"--samples {samples} --threshold {threshold:g}", expected="at least 1 sample, and a share from 0 to 1"
        )
    if answer not in self_consistency.COMPARISONS:
        raise RecipeError(
            f"unknown way to compare answers: {answer!r}", expected=", ".join(self_consistency.COMPARISONS)
        )
