"""Labels that are probably wrong: which rows, what they should be, and how many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.auditing import confident_learning
from tunesmith.auditing.annotator_agreement import AnnotatorAgreement
from tunesmith.auditing.confident_learning import TINY, NoiseModel
from tunesmith.auditing.findings import Finding
from tunesmith.evaluation.intervals import Confidence, Estimate, Floats, Index, estimates, resamples
from tunesmith.evaluation.paired_tests import PairedDifference
from tunesmith.records import omitted_if_none
from tunesmith.tasks import calibration
from tunesmith.tasks.calibration import Calibration

Gold = str | float | tuple[str, ...]
"""What a row carries: a label, a number, or several labels."""

OUTLYING = 3.5
"""Robust standard deviations from which a number is suspect (Iglewicz and Hoaglin 1993)."""
MAD_SCALE = 1.4826
"""Standard deviation of a normal distribution, in median absolute deviations."""
CELLS = 1 << 26
"""Probabilities that a bootstrap may go through: a few seconds."""
FEWEST_RESAMPLES = 100


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What a suspect row should carry, by the model."""

    suggested: Gold
    given_probability: float | None = omitted_if_none()
    """Of the given label, by a model that has not learned from the row; of several labels that of `label`."""
    suggested_probability: float | None = omitted_if_none()
    label: str | None = omitted_if_none()
    """Of several labels the most suspect one: given though it does not apply, or the reverse."""


@dataclass(frozen=True)
class RowVerdicts:
    """What a model says of the labels of N rows."""

    quality: Floats
    """How probable the given label is, from 0 to 1; of numbers 1 / (1 + distance in robust standard deviations)."""
    suggestions: Mapping[int, Suggestion]
    """Of the suspect rows, by their place."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training row with a similar text and another label."""

    id: str
    text: str
    gold: Gold
    similarity: float
    """Cosine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectLabel(Suggestion):
    """A row whose label is probably wrong."""

    id: str
    split: str
    text: str
    text_pair: str | None = omitted_if_none()
    given: Gold
    quality: float
    """How probable the given label is; rows are ranked by it."""
    reason: str = "model"
    """`model`, `votes`, or `model and votes`."""
    votes: Mapping[str, int] | None = omitted_if_none()
    """Of the annotators, where the data has them."""
    neighbours: tuple[Neighbour, ...] = ()
    """The nearest training rows that carry another label."""


@dataclass(frozen=True, slots=True)
class SplitLabels:
    """The labels of one split."""

    split: str
    rows: int
    suspect: int
    unjudged: int
    """Rows whose label no other fold has."""
    share: Estimate | None
    """Of labels that are probably wrong, among those judged; None of numbers, where suspect means unusual."""


@dataclass(frozen=True, slots=True)
class LabelConfusion:
    """Suspect training rows of one given and one suggested label."""

    given: str
    suggested: str
    rows: int


@dataclass(frozen=True, slots=True)
class CleaningGain:
    """What training without the suspect training rows changes, measured on test rows that are as they were."""

    metric: str
    removed: int
    """Training rows that were left out."""
    before: float
    after: float
    difference: PairedDifference
    """After minus before."""
    helped: bool | None
    """Whether the metric is significantly better (True) or worse (False) after; None where neither is certain."""
    test_suspects: int
    """Test rows whose own labels are suspect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAudit:
    """Labels that are probably wrong, as numbers."""

    findings: tuple[Finding, ...] = ()
    method: str = ""
    """As `compare --methods` names it."""
    description: str = ""
    folds: int = 0
    confidence: float = 0.95
    metric: str = "accuracy"
    """Of the method on rows that it has not learned from."""
    agreement: Estimate | None = omitted_if_none()
    """Share of training rows whose label (all of their labels) the method predicts; None of numbers."""
    unexplained: Estimate | None = omitted_if_none()
    """Share of wrong training labels if labels told nothing that the texts do not; more are not to be expected."""
    splits: tuple[SplitLabels, ...] = ()
    confusions: tuple[LabelConfusion, ...] = ()
    """Most frequent first."""
    suspects: tuple[SuspectLabel, ...] = ()
    """The most suspect training rows."""
    held_out_suspects: tuple[SuspectLabel, ...] = ()
    """The most suspect validation and test rows."""
    neighbours_by: str = ""
    """What similarity is measured on."""
    votes: AnnotatorAgreement | None = omitted_if_none()
    votes_read: str = ""
    """How the columns of `data.votes` were read."""
    gain: CleaningGain | None = omitted_if_none()
    review: str = ""
    """The file with all suspect rows, in the folder of the audit."""

    def of_split(self, name: str) -> SplitLabels | None:
        """Return the numbers of one split."""
        return next((split for split in self.splits if split.split == name), None)


@dataclass(frozen=True)
class LabelPredictions:
    """Out-of-fold predictions of training rows, or those of a whole model for held-out rows, beside the labels."""

    probabilities: Floats
    """N x K; of several labels, that each applies. Of numbers N x 1: the predicted number."""
    given: NDArray[Any]
    """N indices of labels; of several labels N x K booleans; of numbers N numbers."""
    judged: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    """Of training rows: whether the models knew the label at all."""


def of_labels(
    train: LabelPredictions, held_out: LabelPredictions, labels: Sequence[str]
) -> tuple[RowVerdicts, RowVerdicts]:
    """Return what confident learning says of training and held-out rows that carry one label each."""
    scale = calibration_of(train)
    noise = NoiseModel.fit(scale.probabilities(train.probabilities[train.judged]), train.given[train.judged])

    def verdicts(rows: LabelPredictions) -> RowVerdicts:
        places_N, given_N = np.arange(len(rows.given)), rows.given
        posterior_NK = noise.posterior(scale.probabilities(rows.probabilities), given_N)
        quality_N = posterior_NK[places_N, given_N]
        suspect_N = confident_learning.is_suspect(posterior_NK, given_N)
        if len(rows.judged):
            suspect_N &= rows.judged
            quality_N = np.where(rows.judged, quality_N, 1.0)
        best_N = posterior_NK.argmax(axis=1)
        found = {}
        for n in np.flatnonzero(suspect_N).tolist():
            pair = rows.probabilities[n, given_N[n]], rows.probabilities[n, best_N[n]]
            found[n] = Suggestion(labels[best_N[n]], float(pair[0]), float(pair[1]))
        return RowVerdicts(quality_N, found)

    return verdicts(train), verdicts(held_out)


def of_label_sets(
    train: LabelPredictions, held_out: LabelPredictions, labels: Sequence[str]
) -> tuple[RowVerdicts, RowVerdicts]:
    """Return the same of rows with several labels: whether each label applies is a question of its own.

    The quality of a row is that of its most suspect label.
    """
    scale = calibration_of(train)
    pairs_N2K = scale.pairs(train.probabilities)
    models = [NoiseModel.fit(pairs_N2K[..., k], train.given[:, k].astype(np.intp)) for k in range(len(labels))]

    def verdicts(rows: LabelPredictions) -> RowVerdicts:
        quality_NK = np.ones(rows.probabilities.shape)
        pairs_N2K = scale.pairs(rows.probabilities)
        for k, model in enumerate(models):
            given_N = rows.given[:, k].astype(np.intp)
            posterior_N2 = model.posterior(pairs_N2K[..., k], given_N)
            quality_NK[:, k] = posterior_N2[np.arange(len(given_N)), given_N]
        found = {}
        for n in np.flatnonzero((quality_NK < 0.5).any(axis=1)).tolist():
            flipped_K = rows.given[n] ^ (quality_NK[n] < 0.5)
            worst = int(quality_NK[n].argmin())
            applies = float(rows.probabilities[n, worst])
            given = applies if rows.given[n, worst] else 1 - applies
            suggested = tuple(label for label, applies in zip(labels, flipped_K, strict=True) if applies)
            found[n] = Suggestion(suggested, given, 1 - given, labels[worst])
        return RowVerdicts(quality_NK.min(axis=1, initial=1.0), found)

    return verdicts(train), verdicts(held_out)


def of_values(train: LabelPredictions, held_out: LabelPredictions) -> tuple[RowVerdicts, RowVerdicts]:
    """Return which numbers are far from what models predict that have not learned from them.

    Far is OUTLYING robust standard deviations of the training rows' residuals: from their median, in units of their
    median absolute deviation.
    """
    residual_N = train.given - train.probabilities[:, 0]
    middle = float(np.median(residual_N))
    # where more than half of the residuals are equal, the mean absolute deviation (Iglewicz and Hoaglin 1993)
    deviation_N = np.abs(residual_N - middle)
    scale = MAD_SCALE * float(np.median(deviation_N)) or 1.253314 * float(deviation_N.mean()) or 1.0

    def verdicts(rows: LabelPredictions) -> RowVerdicts:
        distance_N = np.abs(rows.given - rows.probabilities[:, 0] - middle) / scale
        found = {n: Suggestion(float(rows.probabilities[n, 0])) for n in np.flatnonzero(distance_N > OUTLYING).tolist()}
        return RowVerdicts(1 / (1 + distance_N), found)

    return verdicts(train), verdicts(held_out)


def share_of_labels(rows: LabelPredictions, confidence: Confidence) -> Estimate:
    """Return the share of wrong labels among the rows that were judged, with a bootstrap interval over rows.

    Every resample has its own thresholds and confusions. The interval is of chance among rows alone: mistakes that
    follow from the texts are learned by the model and not counted, and rows that it finds hard are.
    """
    probabilities_NK = calibration_of(rows).probabilities(rows.probabilities[rows.judged])
    logs_NK, given_N = np.log(np.maximum(probabilities_NK, TINY)), rows.given[rows.judged]

    def share(draw_N: Index) -> float:
        return float(confident_learning.suspects(probabilities_NK[draw_N], logs_NK[draw_N], given_N[draw_N]).mean())

    return _bootstrapped(share, probabilities_NK.shape, confidence)


def share_of_label_sets(rows: LabelPredictions, confidence: Confidence) -> Estimate:
    """Return the share of rows with a wrong label, likewise."""

    pairs_N2K = calibration_of(rows).pairs(rows.probabilities)
    logs_N2K = np.log(np.maximum(pairs_N2K, TINY))

    def share(draw_N: Index) -> float:
        suspect_N = np.zeros(len(draw_N), dtype=bool)
        for k in range(rows.probabilities.shape[1]):
            given_N, pair_N2 = rows.given[draw_N, k].astype(np.intp), pairs_N2K[draw_N, :, k]
            suspect_N |= confident_learning.suspects(pair_N2, logs_N2K[draw_N, :, k], given_N)
        return float(suspect_N.mean())

    return _bootstrapped(share, rows.probabilities.shape, confidence)


def unexplained(rows: LabelPredictions, confidence: Confidence) -> Estimate:
    """Return the mean calibrated probability that a row carries another label than its own, going by its text.

    So many labels would be wrong if they told nothing that the texts do not.
    """
    probabilities_NK = calibration_of(rows).probabilities(rows.probabilities[rows.judged])
    other_N = 1 - probabilities_NK[np.arange(len(probabilities_NK)), rows.given[rows.judged]]
    return estimates(lambda draws_BN: {"share": other_N[draws_BN].mean(axis=1)}, len(other_N), confidence)["share"]


@dataclass(frozen=True)
class Temperature:
    """What makes out-of-fold probabilities as sure as the labels bear out, of models that are too sure or too timid."""

    calibration: Calibration

    def probabilities(self, probabilities_NK: Floats) -> Floats:
        """Return calibrated probabilities, N x K."""
        return self.calibration.apply(np.log(np.maximum(probabilities_NK, TINY)))

    def pairs(self, probabilities_NK: Floats) -> Floats:
        """Return N x 2 x K, calibrated: that each of K labels does not apply, and that it does."""
        pairs_N2K = np.stack([1 - probabilities_NK, probabilities_NK], axis=1)
        flat = self.probabilities(pairs_N2K.transpose(0, 2, 1).reshape(-1, 2))
        return flat.reshape(*probabilities_NK.shape, 2).transpose(0, 2, 1)


def calibration_of(rows: LabelPredictions) -> Temperature:
    """Return the temperature that fits the labels of training rows best (Guo et al., ICML 2017)."""
    probabilities, given = rows.probabilities[rows.judged], rows.given[rows.judged]
    if given.ndim == 2:
        probabilities = np.stack([1 - probabilities, probabilities], axis=-1).reshape(-1, 2)
        given = given.reshape(-1).astype(np.intp)
    return Temperature(calibration.fit(np.log(np.maximum(probabilities, TINY)), given, "temperature"))


def confusions(given: Sequence[Gold], verdicts: RowVerdicts) -> tuple[LabelConfusion, ...]:
    """Return how often which label is suspected of being which other one, most frequent first.

    Of several labels: how often one is given and should not be (suggested: `not` it), or the reverse.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for n, suggestion in verdicts.suggestions.items():
        carried, suggested = given[n], suggestion.suggested
        if isinstance(carried, tuple) and isinstance(suggested, tuple):
            counts.update((label, f"not {label}") for label in carried if label not in suggested)
            counts.update((f"not {label}", label) for label in suggested if label not in carried)
        elif isinstance(carried, str):
            counts[carried, str(suggested)] += 1
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(LabelConfusion(*pair, rows) for pair, rows in ranked)


def _bootstrapped(measure: Callable[[Index], float], shape: tuple[int, ...], confidence: Confidence) -> Estimate:
    rows, columns = shape
    most = max(FEWEST_RESAMPLES, CELLS // max(1, rows * columns))
    draws = resamples(rows, min(confidence.resamples, most), confidence.seed)
    resampled = np.array([measure(draw_N) for draws_BN in draws for draw_N in draws_BN])
    value = measure(np.arange(rows, dtype=np.intp))
    return Estimate.of(value, resampled, confidence.level)
