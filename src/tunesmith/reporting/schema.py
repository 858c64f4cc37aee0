"""What reports show, as frozen dataclasses: made in `pipeline/`, written by `records.dump`, read by the templates.

The numbers inside (estimates, scores, paired tests) are those of `evaluation/`; nothing is computed from here on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tunesmith.auditing.learning_curves import LearningCurveAudit
from tunesmith.evaluation.clean_scores import CleanScores
from tunesmith.evaluation.determinism import Determinism
from tunesmith.evaluation.label_pairs import LabelPair
from tunesmith.evaluation.length_bias import LengthBias
from tunesmith.evaluation.metric_pairs import MetricPair
from tunesmith.evaluation.metrics import ClassificationScores
from tunesmith.evaluation.multilabel_scores import MultilabelScores
from tunesmith.evaluation.prediction_costs import PriceComparison
from tunesmith.evaluation.response_pairs import ResponseComparison, ResponsePair
from tunesmith.evaluation.responses import GenerationScores
from tunesmith.evaluation.self_consistency import ThresholdPoint
from tunesmith.evaluation.slices import SliceScores
from tunesmith.evaluation.value_scores import RegressionScores
from tunesmith.hardware import Environment
from tunesmith.manifest import Costs, EndpointCosts, TrainingNotes
from tunesmith.records import omitted_if_none
from tunesmith.reporting.header import DifferingSettings, Header
from tunesmith.reporting.judge_schema import JudgePairReport, JudgeScoreReport
from tunesmith.tasks.decisions import DecisionFit
from tunesmith.types import DataNote, DataSummary, WordContribution


@dataclass(frozen=True, slots=True)
class Curve:
    """What training showed over its optimizer steps, as (step, value) pairs."""

    loss: tuple[tuple[int, float], ...]
    validation: tuple[tuple[int, float], ...]
    """The metric that decides which checkpoint is kept."""
    validation_metric: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """An example whose prediction is wrong."""

    id: str
    text: str
    text_pair: str | None
    gold: str
    predicted: str
    probability: float | None
    """None where mistakes are drawn at random, as not all predictions have probabilities."""
    words: tuple[WordContribution, ...] | None = omitted_if_none()
    """What its words contribute to the predicted label, without weak ones; None where that was not computed."""


@dataclass(frozen=True, slots=True)
class WorstMistakes:
    """worst.json: the most confidently wrong test examples, worst first; without probabilities some drawn at random."""

    worst: tuple[Mistake, ...] = ()


@dataclass(frozen=True, slots=True)
class SamplePrediction:
    """A held-out example with its most probable labels."""

    id: str
    text: str
    text_pair: str | None
    gold: str
    labels: tuple[tuple[str, float | None], ...]
    """Labels with their probabilities, most probable first; the predicted one alone where there are none."""


@dataclass(frozen=True, slots=True)
class SamplePredictions:
    """sample_predictions.json: a few examples drawn from a held-out split."""

    split: str
    rows: tuple[SamplePrediction, ...]


@dataclass(frozen=True, slots=True)
class LabelMistake:
    """An example of which a label was missed or wrongly given."""

    id: str
    text: str
    text_pair: str | None
    gold: tuple[str, ...]
    predicted: tuple[str, ...]
    label: str | None
    """The label that is most wrong, with the probability that it was given; None where mistakes are drawn at random."""
    probability: float | None


@dataclass(frozen=True, slots=True)
class WorstLabelMistakes:
    """worst.json of a multilabel run: test examples with the most confidently wrong labels, worst first; without
    probabilities some drawn at random."""

    worst: tuple[LabelMistake, ...] = ()


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """An example whose predicted number is far from its own."""

    id: str
    text: str
    text_pair: str | None
    gold: float
    predicted: float


@dataclass(frozen=True, slots=True)
class LargestErrors:
    """worst.json of a regression: the test examples with the largest errors, largest first."""

    worst: tuple[ErrorRow, ...] = ()


@dataclass(frozen=True, slots=True)
class SampleResponse:
    """What a model answered to a row that is shown."""

    name: str
    loss: float | None
    closeness: float
    """Likeness to the reference, by the figure that counts."""
    response: str | None
    tokens: int | None
    ended: bool | None


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A prompt with the responses of all models, to read side by side."""

    id: str
    prompt: str
    reference: str | None
    answers: tuple[SampleResponse, ...]


@dataclass(frozen=True, slots=True)
class SampleGroup:
    """Rows that are shown for one reason."""

    title: str
    rows: tuple[SampleRow, ...]


@dataclass(frozen=True, slots=True)
class StepResponse:
    """A response during training."""

    step: int
    response: str


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """A validation prompt with the responses at each evaluation, in the order of the steps."""

    id: str
    prompt: str
    reference: str
    answers: tuple[StepResponse, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodResult:
    """One method (or model) of a report, whatever its task."""

    name: str
    is_base: bool = False
    """The model before training, beside the one that was made of it."""
    run: str = ""
    """The run directory; empty where there is only a file of responses."""
    description: str
    scores: ClassificationScores | MultilabelScores | RegressionScores | GenerationScores
    train: dict[str, float] | None = omitted_if_none()
    """Metrics of a sample of the training rows."""
    validation: dict[str, float] | None = None
    costs: Costs
    determinism: Determinism | None = omitted_if_none()
    """Of an endpoint that was asked twice."""
    curve: Curve | None = None
    """None where training has no steps."""
    clean: CleanScores | None = omitted_if_none()
    """The scores without the test rows that have a copy in train; None where there are no such rows."""
    slices: SliceScores | None = omitted_if_none()
    notes: TrainingNotes = field(default_factory=TrainingNotes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationResult(MethodResult):
    """One classifier of a report."""

    scores: ClassificationScores
    library: str | None = omitted_if_none()
    """What loads the run's model/ without tunesmith, as model hubs name it."""
    worst: tuple[Mistake, ...] = ()
    sample_predictions: SamplePredictions | None = omitted_if_none()
    decision: DecisionFit | None = omitted_if_none()
    """What was chosen on validation rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultilabelResult(MethodResult):
    """One method of a report that predicts sets of labels."""

    scores: MultilabelScores
    library: str | None = omitted_if_none()
    """What loads the run's model/ without tunesmith, as model hubs name it."""
    worst: tuple[LabelMistake, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionResult(MethodResult):
    """One method of a report that predicts numbers."""

    scores: RegressionScores
    library: str | None = omitted_if_none()
    """What loads the run's model/ without tunesmith, as model hubs name it."""
    worst: tuple[ErrorRow, ...] = ()
    points: tuple[tuple[float, float], ...] = ()
    """Gold and predicted numbers of test rows, of many rows a sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationResult(MethodResult):
    """One generator of a report."""

    scores: GenerationScores
    samples: tuple[TrainingSample, ...] = ()
    saved: str = "model"
    """What lies in the run's model/: the whole `model`, an `adapter`, of an untuned model the `tokenizer`, or of a
    model behind an endpoint the `prompt`."""
    judged: JudgeScoreReport | JudgePairReport | None = None
    """judged.json, where a judge has read the responses."""
    base_model: str | None = None
    """The hub's name of the model that was tuned, if it has one."""
    base_folder: str | None = omitted_if_none()
    """Where transformers finds an untuned model whose name it does not know."""
    settings: dict[str, str | int | None] = field(default_factory=dict)
    """What generating depends on, for people."""
    recipe: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeededEnvironment(Environment):
    """Versions and hardware, and the seed of everything random."""

    seed: int


@dataclass(frozen=True, slots=True)
class ResponseFiles:
    """What is known of the data where there are only files of responses."""

    changes: tuple[DataNote, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Header):
    """What the reports of all tasks share."""

    task: str
    data: DataSummary | ResponseFiles
    environment: SeededEnvironment | None = None
    """None where there is no run, only files of responses."""
    verdict: str
    differing: tuple[DifferingSettings, ...] | None = omitted_if_none()
    """Settings that differ between runs of one method, where their names do not say it."""
    learning_curve: LearningCurveAudit | None = omitted_if_none()
    """The scores of the methods with fewer training rows."""
    prices: PriceComparison | None = omitted_if_none()
    """None where the price of an hour is not known and no method is an endpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationReport(Report):
    """comparison.json of classification runs."""

    task: str = "classification"
    data: DataSummary
    environment: SeededEnvironment
    methods: tuple[ClassificationResult, ...]
    pairs: tuple[LabelPair, ...] = ()
    ranked_by: str | None = omitted_if_none()
    """The metric that ranks the methods, where it is not the accuracy."""
    ranked_pairs: tuple[MetricPair, ...] | None = omitted_if_none()
    """Paired tests by that metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultilabelReport(Report):
    """comparison.json of multilabel runs."""

    task: str = "multilabel"
    data: DataSummary
    environment: SeededEnvironment
    methods: tuple[MultilabelResult, ...]
    pairs: tuple[MetricPair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionReport(Report):
    """comparison.json of regression runs."""

    task: str = "regression"
    data: DataSummary
    environment: SeededEnvironment
    methods: tuple[RegressionResult, ...]
    pairs: tuple[MetricPair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationReport(Report):
    """comparison.json of instruction runs, or the report on files of responses (task `answers`)."""

    methods: tuple[GenerationResult, ...]
    pairs: tuple[ResponsePair, ...] = ()
    compared: ResponseComparison
    shown: tuple[SampleGroup, ...] = ()
    """Groups of rows to read side by side."""
    lengths: dict[str, LengthBias] = field(default_factory=dict)
    signatures: dict[str, str] | None = omitted_if_none()
    """How the overlap figures of files were computed."""

    @property
    def is_of_files(self) -> bool:
        """Whether the responses come from files, which know no losses, costs or training."""
        return isinstance(self.data, ResponseFiles)


AnyReport = ClassificationReport | MultilabelReport | RegressionReport | GenerationReport


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """What the model card of an exported run says beyond the run's own report."""

    usage: str
    """How to use it, in Markdown."""
    library: str
    """What reads it, as model hubs name it."""
    saved: str
    """`adapter` or `model`."""
    changed: str | None = None
    """Why the run's scores are not quite the export's own; the front matter then claims none."""


@dataclass(frozen=True, slots=True)
class RunOrigin:
    """The run that made a pseudo-label."""

    run: str
    model: str
    seed: int
    samples: int | None = omitted_if_none()
    temperature: float | None = omitted_if_none()


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoLabelReport(Header):
    """What was labelled, what was kept, and how much of it is right where that is known."""

    runs: tuple[RunOrigin, ...]
    votes: str
    """What voted, for people."""
    threshold: float
    confidence: float
    rows: int
    kept: int
    left_out: dict[str, int]
    """Rows that were not kept, by reason."""
    labelled: int
    """Rows that have a label of their own; where there are none, test rows of the run."""
    from_test: bool | None = omitted_if_none()
    """True where `labelled`, `chosen` and `curve` are of the test split of the run, which is not among the rows."""
    chosen: ThresholdPoint | None
    curve: tuple[ThresholdPoint, ...]
    histogram: tuple[int, ...]
    """Rows by agreement."""
    endpoint: EndpointCosts | None = omitted_if_none()
    """What the labels took of an endpoint."""
