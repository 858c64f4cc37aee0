"""What reports say of predictions that are no label, or have no probabilities. Pure functions, no files."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.evaluation.metrics import ClassificationScores
from tunesmith.reporting.format import percent
from tunesmith.reporting.schema import LabelMistake, MethodResult, Mistake


def sentences(methods: Sequence[MethodResult]) -> list[str]:
    """Return what is missing of each method's predictions; nothing of methods that give probabilities and labels."""
    said = []
    for method in methods:
        scores = method.scores
        if isinstance(scores, ClassificationScores) and scores.invalid:
            said.append(f"{method.name} gives {_part(scores.invalid, scores.rows)} no label, which counts as wrong.")
        if without := getattr(scores, "without_probabilities", None):
            whom = "" if without == scores.rows else f"{_part(without, scores.rows)} "
            said.append(f"{method.name} gives {whom}no probabilities; scores that need them are not computed.")
    return said


def worst_title(worst: Sequence[Mistake] | Sequence[LabelMistake]) -> str:
    """Return the title of a list of mistakes."""
    confident = all(mistake.probability is not None for mistake in worst)
    return "Most confidently wrong" if confident else "Wrong predictions, drawn at random"


def _part(count: int, rows: int) -> str:
    return f"{count:,} of {rows:,} test rows ({percent(count / rows)})"
