"""The label part of an audit: out-of-fold predictions, what they say of the labels, and the review file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.auditing import annotator_agreement, label_errors, label_findings
from tunesmith.auditing.annotator_agreement import Votes
from tunesmith.auditing.label_errors import (
    Gold,
    LabelAudit,
    LabelPredictions,
    Neighbour,
    RowVerdicts,
    SplitLabels,
    Suggestion,
    SuspectLabel,
)
from tunesmith.console import say, silence
from tunesmith.data import annotator_votes, personal_data
from tunesmith.errors import DataError, TrainingError, summary
from tunesmith.evaluation.intervals import Confidence, Estimate
from tunesmith.pipeline import cleaning_gain, out_of_fold, review_file
from tunesmith.pipeline.audit_sections.audit_input import AuditInput
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.fitting import methods
from tunesmith.pipeline.out_of_fold import OutOfFold
from tunesmith.pipeline.task_table import TASKS
from tunesmith.recipe import Recipe
from tunesmith.records import fields_of
from tunesmith.tasks import classification, multilabel, regression
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.types import Example, Splits

SHOWN = 50
"""Suspect rows that the report holds, of train and of the held-out splits; the review file has all."""
NEIGHBOURS, WITH_NEIGHBOURS = 3, 1000
"""Neighbours of a suspect row, and for how many of the most suspect rows they are found."""
SIMILARITIES = 1 << 24
"""Similarities in memory at once: 128 MB."""


@dataclass(frozen=True)
class _Judged:
    """What a model and the annotators say of all rows."""

    train: LabelPredictions
    held_out: LabelPredictions
    verdicts: tuple[RowVerdicts, RowVerdicts]
    """Of training rows, and of held-out rows: validation, then test."""
    votes: tuple[Sequence[Votes | None], Sequence[Votes | None]]


def check(recipe: Recipe, method: str) -> None:
    """Raise RecipeError where a method, as `compare --methods` names it, cannot judge the labels of a recipe's task."""
    if not TASKS[recipe.task].has_responses:
        with silence():  # it is said when the method is trained
            judge = methods.of_method(recipe, method)
        methods.find(judge)
        methods.check_probabilities(judge, "judge labels by predictions")


def audit(data: AuditInput) -> LabelAudit | None:
    """Return which labels are suspect, and write the review file; None for a task without labels."""
    recipe, splits = data.recipe, data.splits
    if TASKS[recipe.task].has_responses:
        return None
    try:
        predicted = out_of_fold.predict(data.trainer(data.plan.method))
    except (DataError, TrainingError) as error:  # too few rows, or nothing in them to learn from
        return LabelAudit(findings=(label_findings.not_judged(summary(error)),))
    confidence = confidence_of(recipe)
    held_out = [*splits.validation, *splits.test]
    noted = (
        annotator_votes.read(recipe.data, recipe.split, [*splits.train, *held_out], splits.labels)
        if recipe.data.votes
        else None
    )
    votes = noted.votes if noted else (None,) * (len(splits.train) + len(held_out))
    train_rows = _beside(splits.train, predicted.train, predicted, ~predicted.unseen(splits.train))
    if not train_rows.judged.any():
        why = f"{predicted.method} learned no training row's label from other rows"
        return LabelAudit(findings=(label_findings.not_judged(why),))
    held_rows = _beside(held_out, predicted.held_out, predicted)
    of_target = _verdicts(predicted, train_rows, held_rows)
    judged = _Judged(train_rows, held_rows, of_target, (votes[: len(splits.train)], votes[len(splits.train) :]))
    suspects = sorted([*_suspects(data, predicted, judged, 0), *_suspects(data, predicted, judged, 1)], key=_rank)
    ids = {suspect.id for suspect in suspects}
    contents = {row.id: review_file.content_of(row) for row in (*splits.train, *held_out) if row.id in ids}
    review_file.write(data.folder, suspects, contents, jsonl=data.plan.review_jsonl)
    say(f"labels: {len(suspects):,} suspect rows in {data.folder.path / review_file.NAME}")
    share, agreement, unexplained = _estimates(predicted, train_rows, confidence)
    labels = LabelAudit(
        method=predicted.method,
        description=predicted.description,
        folds=int(predicted.folds.max()) + 1,
        confidence=confidence.level,
        agreement=agreement,
        unexplained=unexplained,
        splits=_splits(splits, judged, suspects, share, confidence),
        confusions=label_errors.confusions([gold_of(row) for row in splits.train], judged.verdicts[0]),
        suspects=tuple(map(_masked, [row for row in suspects if row.split == "train"][:SHOWN])),
        held_out_suspects=tuple(map(_masked, [row for row in suspects if row.split != "train"][:SHOWN])),
        neighbours_by=predicted.features.kind,
        votes=_agreement(splits, judged, confidence) if noted else None,
        votes_read=noted.described if noted else "",
        gain=_gain(data, predicted, judged, confidence) if data.plan.cleaning_gain else None,
        review=review_file.NAME,
    )
    return replace(labels, findings=label_findings.of_labels(labels, data.plan.cleaning_gain))


def _masked(suspect: SuspectLabel) -> SuspectLabel:
    """Return the row without personal data in its texts, and in those of its neighbours."""
    pair = None if suspect.text_pair is None else personal_data.masked(suspect.text_pair)
    near = tuple(replace(each, text=personal_data.masked(each.text)) for each in suspect.neighbours)
    return replace(suspect, text=personal_data.masked(suspect.text), text_pair=pair, neighbours=near)


def gold_of(row: Example) -> Gold:
    """Return what a row carries."""
    assert row.gold is not None
    return row.gold


def _rank(suspect: SuspectLabel) -> tuple[bool, float, str]:
    """Rows that the annotators contradict come first, then those whose label is least probable."""
    return "votes" not in suspect.reason, suspect.quality, suspect.id


def _beside(
    rows: Sequence[Example], predictions: Sequence[Any], predicted: OutOfFold, judged: NDArray[np.bool_] | None = None
) -> LabelPredictions:
    """Return the predictions of rows beside what they carry, as numbers."""
    target, known = predicted.target, np.zeros(0, dtype=bool) if judged is None else judged
    if isinstance(target, Number):
        values = np.array([[prediction.value] for prediction in predictions]).reshape(-1, 1)
        return LabelPredictions(values, regression.gold(rows), known)
    classification.check_probabilities(predictions, "judge labels by predictions")
    table = np.array([prediction.probabilities for prediction in predictions], dtype=np.float64)
    table = table.reshape(len(rows), len(target.labels))
    if isinstance(target, MultiLabel):
        return LabelPredictions(table, multilabel.gold(rows, target.labels), known)
    return LabelPredictions(table, np.array(target.encode(rows), dtype=np.intp), known)


def _verdicts(
    predicted: OutOfFold, train: LabelPredictions, held_out: LabelPredictions
) -> tuple[RowVerdicts, RowVerdicts]:
    target = predicted.target
    if isinstance(target, Number):
        return label_errors.of_values(train, held_out)
    if isinstance(target, MultiLabel):
        return label_errors.of_label_sets(train, held_out, target.labels)
    return label_errors.of_labels(train, held_out, target.labels)


def _estimates(
    predicted: OutOfFold, train: LabelPredictions, confidence: Confidence
) -> tuple[Estimate | None, Estimate | None, Estimate | None]:
    """Return the share of wrong training labels, how often the method agrees, and what it cannot explain."""
    target = predicted.target
    if isinstance(target, Number):
        return None, None, None
    if isinstance(target, MultiLabel):
        right = ((train.probabilities >= multilabel.HALF) == train.given).all(axis=1)
        agreement = Estimate.share(int(right.sum()), len(right), confidence.level)
        return label_errors.share_of_label_sets(train, confidence), agreement, None
    right = train.probabilities.argmax(axis=1) == train.given
    agreement = Estimate.share(int(right.sum()), len(right), confidence.level)
    return label_errors.share_of_labels(train, confidence), agreement, label_errors.unexplained(train, confidence)


def _suspects(data: AuditInput, predicted: OutOfFold, judged: _Judged, part: int) -> list[SuspectLabel]:
    """Return the rows that the model or the votes hold for wrong. part: 0 for train, 1 for the held-out splits."""
    splits = data.splits
    rows = [*splits.validation, *splits.test] if part else list(splits.train)
    names = ["validation"] * len(splits.validation) + ["test"] * len(splits.test) if part else ["train"] * len(rows)
    verdicts, votes = judged.verdicts[part], judged.votes[part]
    suggestions: dict[int, Suggestion] = dict(verdicts.suggestions)
    reasons = dict.fromkeys(suggestions, "model")
    for n, (row, counts) in enumerate(zip(rows, votes, strict=True)):
        majority = annotator_agreement.majority(counts) if counts else None
        if majority is not None and majority != row.label and row.label is not None:
            reasons[n] = "model and votes" if n in suggestions else "votes"
            suggestions[n] = replace(suggestions.get(n, Suggestion(majority)), suggested=majority)
    order = sorted(suggestions, key=lambda n: (verdicts.quality[n], rows[n].id))
    neighbours = _neighbours(splits, predicted, rows, order[:WITH_NEIGHBOURS], held_out=bool(part))
    return [
        SuspectLabel(
            **fields_of(Suggestion, suggestions[n]),
            id=rows[n].id,
            split=names[n],
            text=rows[n].text,
            text_pair=rows[n].text_pair,
            given=gold_of(rows[n]),
            quality=float(verdicts.quality[n]),
            reason=reasons[n],
            votes=dict(counts) if (counts := votes[n]) else None,
            neighbours=neighbours.get(n, ()),
        )
        for n in order
    ]


def _neighbours(
    splits: Splits, predicted: OutOfFold, rows: Sequence[Example], places: Sequence[int], *, held_out: bool
) -> Mapping[int, tuple[Neighbour, ...]]:
    """Return the nearest training rows that carry something else, by cosine similarity."""
    if isinstance(predicted.target, Number) or not places:
        return {}
    train, found = splits.train, {}
    numbers: dict[Gold, int] = {}
    carried_N = np.array([numbers.setdefault(gold_of(row), len(numbers)) for row in train])
    step = max(1, SIMILARITIES // len(train))
    for start in range(0, len(places), step):
        chosen = np.array(places[start : start + step], dtype=np.intp)
        similarity_MN = predicted.features.similarities(chosen, held_out=held_out)
        for n, similarity_N in zip(chosen.tolist(), similarity_MN, strict=True):
            similarity_N[carried_N == numbers.get(gold_of(rows[n]), -1)] = -1.0
            nearest = np.argpartition(-similarity_N, min(NEIGHBOURS, len(train) - 1))[:NEIGHBOURS].tolist()
            best = sorted(nearest, key=lambda k, of=similarity_N: (-of[k], k))  # type: ignore[misc]
            found[n] = tuple(
                Neighbour(train[k].id, train[k].text, gold_of(train[k]), round(float(similarity_N[k]), 4))
                for k in best
                if similarity_N[k] > 0
            )
    return found


def _splits(
    splits: Splits, judged: _Judged, suspects: Sequence[SuspectLabel], share: Estimate | None, confidence: Confidence
) -> tuple[SplitLabels, ...]:
    unjudged = int((~judged.train.judged).sum())
    parts = []
    for name, rows in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        if rows:
            count = sum(suspect.split == name for suspect in suspects)
            by_model = sum(suspect.split == name and suspect.reason != "votes" for suspect in suspects)
            of_split = share
            if name != "train" and share is not None:
                of_split = Estimate.share(by_model, len(rows), confidence.level)
            parts.append(SplitLabels(name, len(rows), count, unjudged if name == "train" else 0, of_split))
    return tuple(parts)


def _agreement(
    splits: Splits, judged: _Judged, confidence: Confidence
) -> annotator_agreement.AnnotatorAgreement | None:
    votes = [*judged.votes[0], *judged.votes[1]]
    given = [str(row.label) for row in (*splits.train, *splits.validation, *splits.test)]
    quality_N = np.concatenate([verdicts.quality for verdicts in judged.verdicts])
    return annotator_agreement.measure(votes, given, quality_N, confidence) if any(votes) else None


def _gain(
    data: AuditInput, predicted: OutOfFold, judged: _Judged, confidence: Confidence
) -> label_errors.CleaningGain | None:
    """Return what training without the rows that the model suspects changes."""
    first = len(data.splits.validation)
    test = sum(n >= first for n in judged.verdicts[1].suggestions)
    return cleaning_gain.measure(data.splits, predicted, judged.verdicts[0].suggestions.keys(), test, confidence)
