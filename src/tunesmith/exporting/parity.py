"""How closely an export matches its run: logits, predictions or tokens, size and speed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.data.prompts import Ids
from tunesmith.errors import RunError
from tunesmith.exporting.source import Exported, Precision, Runner
from tunesmith.protocols import AnswerRequest, Logits, PromptWithAnswer, TextGenerator
from tunesmith.recipe import Generate
from tunesmith.records import omitted_if_none
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.tasks.text_targets import Target
from tunesmith.types import Example, Response

FILE = "parity.json"
CHUNK = 8
"""Rows that the run and its export compute alternately."""
CLOSE = 1e-4
"""Largest accepted difference of an exact export's logits, as a share of the largest logit."""
AGREE = 0.99
"""Share of answers that must be equal where weights were rounded, and of whole responses."""
NEAR = 0.1
"""Standard deviations of the training numbers by which two numbers may differ and still agree."""
UNITS = {
    SingleLabel.problem_type: "labels",
    MultiLabel.problem_type: "sets of labels",
    Number.problem_type: "numbers",
}
"""What is compared, by problem type."""
KEPT = 0.5
"""Share of whole responses that must be equal where the engine itself rounds, as llama.cpp does, for a file to be kept:
one wrong weight leaves none. `auto` wants AGREE of them from every engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """How an export compares with its run, as parity.json holds it."""

    target: str
    precision: Precision
    exact: bool
    """Whether nothing was rounded."""
    rows: int
    max_logit_difference: float
    """The largest absolute difference of two logits."""
    differences: dict[str, float] | None = omitted_if_none()
    """The same for each way to compute a generator's logits: the whole text at once (`whole`), token by token with a
    cache (`decode`), and so in a batch of prompts of different lengths (`batch`)."""
    largest_logit: float
    """The run's largest absolute logit, as the scale of that difference."""
    compared: int
    """Answers that were compared: labels, sets of labels, numbers, or the tokens of generated responses."""
    unit: str | None = omitted_if_none()
    """Which of these, one of UNITS; None for tokens."""
    tolerance: float | None = omitted_if_none()
    """Of numbers: the standard deviations by which equal ones may differ."""
    agreement: float
    """Share of the answers that are equal."""
    same_answers: float
    """Share of the rows in which every answer is equal."""
    engine: str
    """What computed the export."""
    seconds_per_row: tuple[float, float] | None = omitted_if_none()
    """Of the run and of the export: medians over chunks of 8 rows."""
    same_responses: float | None = omitted_if_none()
    """Share of the prompts to which the whole greedy response is the run's."""
    tokens_per_second: tuple[float, float] | None = omitted_if_none()
    """Of the run and of the export, which write 8 responses at once."""
    speed: float | None = omitted_if_none()
    """How many times as fast as the run the export is; None where another engine than the user's computed it."""
    size_mb: float
    run_size_mb: float
    folder: str | None = omitted_if_none()
    """Where the export is; not in the file, which may be moved."""

    @property
    def has_rounded_numbers(self) -> bool:
        """Whether numbers were compared that cannot be equal, as weights were rounded."""
        return self.tolerance is not None and not self.exact


def compare(
    reference: Runner,
    exported: Exported,
    rows: Sequence[Any],
    *,
    predicted: Target | None = None,
    target: str,
    precision: Precision,
    size_mb: float,
    run_size_mb: float,
) -> ParityReport:
    """Run both on the same rows, alternately. rows: at least one, as `Exportable.parity_rows` returns them.

    predicted: what is read from a row's logits; None for the likeliest token at each place.
    """
    ways, largest_logit = {"whole": exported.run, **exported.others}, 0.0
    differences = dict.fromkeys(ways, 0.0)
    agreements: list[list[bool]] = []
    seconds: list[tuple[float, float]] = []
    reference(rows[:1]), exported.run(rows[:1])  # what is set up at the first call is not part of the speed
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        expected, expected_seconds = _timed(reference, chunk)
        actual, actual_seconds = _timed(exported.run, chunk)
        seconds.append((expected_seconds / len(chunk), actual_seconds / len(chunk)))
        largest_logit = max(largest_logit, *(float(np.abs(ours).max()) for ours in expected))
        same = [np.ones(len(np.atleast_2d(ours)), bool) for ours in expected]
        for way, run in ways.items():
            found = actual if way == "whole" else run(chunk)
            for row, (ours, theirs) in enumerate(zip(expected, found, strict=True)):
                difference = float(np.abs(ours - theirs).max()) if np.isfinite(theirs).all() else float("inf")
                differences[way] = max(differences[way], difference)
                same[row] &= _agree(predicted, ours, theirs)
        agreements += [row.tolist() for row in same]
    answers = [agrees for row in agreements for agrees in row]
    run_seconds, export_seconds = zip(*seconds, strict=True)
    return ParityReport(
        target=target,
        precision=precision,
        exact=exported.exact,
        rows=len(rows),
        max_logit_difference=max(differences.values()),
        differences=differences if exported.others else None,
        largest_logit=largest_logit,
        compared=len(answers),
        unit=None if predicted is None else UNITS[predicted.problem_type],
        tolerance=NEAR if isinstance(predicted, Number) else None,
        agreement=sum(answers) / len(answers),
        same_answers=sum(map(all, agreements)) / len(agreements),
        engine=exported.engine,
        seconds_per_row=(statistics.median(run_seconds), statistics.median(export_seconds)) if exported.timed else None,
        speed=statistics.median(ours / theirs for ours, theirs in seconds) if exported.timed else None,
        size_mb=size_mb,
        run_size_mb=run_size_mb,
    )


def with_responses(
    report: ParityReport,
    run: TextGenerator,
    export: TextGenerator,
    rows: Sequence[PromptWithAnswer],
    settings: Generate,
) -> ParityReport:
    """Return the report with what both write to the same prompts, greedily and alternately, and how fast."""
    settings = settings.model_copy(update={"do_sample": False})
    pairs: list[tuple[Response, Response]] = []
    seconds: list[tuple[float, float]] = []
    for start in range(0, len(rows), CHUNK):
        prompts = [row.ids[: row.start] for row in rows[start : start + CHUNK]]
        ours, our_seconds = _timed(_responses, run, prompts, settings)
        theirs, their_seconds = _timed(_responses, export, prompts, settings)
        pairs += zip(ours, theirs, strict=True)
        seconds.append((our_seconds, their_seconds))
    tokens = [sum(response.tokens for response in side) for side in zip(*pairs, strict=True)]
    ours_per_second, theirs_per_second = (
        count / sum(side) for count, side in zip(tokens, zip(*seconds, strict=True), strict=True)
    )
    return replace(
        report,
        same_responses=sum(one == other for one, other in pairs) / len(pairs),
        tokens_per_second=(ours_per_second, theirs_per_second),
        speed=theirs_per_second / ours_per_second,
    )


def problem(report: ParityReport, least: float = AGREE) -> str | None:
    """Return what differs too much, in words; None where the export matches the run.

    least: share of the whole responses that must be equal.
    """
    if report.exact:
        largest = report.largest_logit if report.tolerance is None else max(1.0, report.largest_logit)
        matches = report.agreement == 1 and report.max_logit_difference <= CLOSE * largest
    else:
        matches = report.agreement >= AGREE
    if matches and (report.same_responses is None or report.same_responses >= least):
        return None
    responses = "" if report.same_responses is None else f"; {report.same_responses:.2%} of whole responses agree"
    difference = f"differ by up to {report.max_logit_difference:.2g} of {report.largest_logit:.2g}"
    return f"{agreement(report)}{responses}; {_outputs(report)} {difference}"


def check(report: ParityReport, allow_loss: bool) -> None:
    """Raise RunError where an export does not match its run.

    allow_loss: accept whatever rounding changed; an exact export has to match all the same.
    """
    difference = problem(report, AGREE if report.differences else KEPT)  # only graphs are compared in several ways
    if difference is None or (allow_loss and not report.exact):
        return
    exact = f"the same answers, {_outputs(report)} within 0.01% of the largest"
    rounded = f"{AGREE:.0%} of the answers the same"
    raise RunError(
        f"the {report.target} export does not match the run",
        expected=exact if report.exact else rounded,
        found=difference,
        do="choose another target" + ("" if report.exact else ", a finer precision, or accept the loss: --allow-loss"),
    )


def agreement(report: ParityReport) -> str:
    """Return how many answers are the run's, as a phrase."""
    unit = report.unit or ("tokens of answers" if report.compared > report.rows else "labels")
    within = "" if report.tolerance is None else f" within {report.tolerance:g} standard deviations"
    return f"{report.agreement:.2%} of {report.compared:,} {unit} agree{within} on {report.rows:,} rows"


def summary(report: ParityReport) -> str:
    """Return the report as a sentence."""
    speed = "" if report.speed is None else f"; {report.speed:.2f} times the run's speed ({report.engine})"
    if report.tokens_per_second:
        speed += f", {report.tokens_per_second[1]:.1f} tokens/s; {report.same_responses:.0%} of whole responses agree"
    return (
        f"{agreement(report)}; {_outputs(report)} differ by at most {report.max_logit_difference:.1e} of "
        f"{report.largest_logit:.1f}; {report.size_mb:.1f} MB, the run {report.run_size_mb:.1f} MB{speed}"
    )


def _outputs(report: ParityReport) -> str:
    return "logits" if report.tolerance is None else "standardised numbers"


def _agree(predicted: Target | None, ours: Logits, theirs: Logits) -> NDArray[np.bool_]:
    """Return whether the answers that are read from logits are equal: of a row with T tokens, each of them."""
    if predicted is None:
        return np.atleast_1d(ours.argmax(-1) == theirs.argmax(-1))
    if not np.isfinite(theirs).all():
        return np.zeros(1, bool)
    row = Example("row", "")
    one, other = predicted.predictions([row, row], np.array([ours, theirs], dtype=np.float64))
    if isinstance(predicted, Number):
        return np.array([abs(one.value - other.value) <= NEAR * predicted.scale])
    return np.array([one.answer == other.answer])


def _responses(generator: TextGenerator, prompts: Sequence[Ids], settings: Generate) -> list[Response]:
    found: dict[int, Response] = {}

    def request(number: int) -> AnswerRequest:
        def on_token(piece: str, response: Response | None) -> bool:
            if response is not None:
                found[number] = response
            return True

        return AnswerRequest(prompts[number], generator.max_answer_tokens(settings), 0, settings, on_token)

    waiting = [request(number) for number in range(len(prompts))]

    def take(free: int) -> list[AnswerRequest]:
        started, waiting[:] = waiting[:free], waiting[free:]
        return started

    generator.write(take, len(prompts))
    return [found[number] for number in range(len(prompts))]


def _timed(run: Callable[..., list[Any]], *arguments: Any) -> tuple[list[Any], float]:
    start = time.perf_counter()
    return run(*arguments), time.perf_counter() - start
