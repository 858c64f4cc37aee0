"""What was decided on validation rows and what that came to, in words: for Markdown and the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.evaluation.decision_scores import DecisionScores
from tunesmith.evaluation.intervals import Estimate
from tunesmith.reporting.format import NOTHING, estimate, metric, p_value, percent, signed_estimate
from tunesmith.tasks.decisions import DecisionFit


def lines(fit: DecisionFit, scores: DecisionScores) -> Iterator[str]:
    """Yield a line for each decision."""
    if fit.calibration and fit.calibration.kind != "none":
        c, kind = fit.calibration, fit.calibration.kind
        before, after = (
            f"log loss {metric(c.log_loss[n])}, calibration error {metric(c.ece[n])}" for n in ("none", kind)
        )
        yield f"calibration: {kind}; cross-validated on {c.rows:,} validation rows: {before} before; {after} after"
    elif fit.calibration and len(fit.calibration.log_loss) > 1:
        yield "calibration: none, as nothing lowers the cross-validated log loss"
    if t := scores.threshold:
        figures = f"precision {_share(t.precision)}, recall {_share(t.recall)}"
        yield f"threshold: {t.label} from a probability of {metric(t.threshold)}; {figures}"
    if costs := scores.costs:
        saved = f"{signed_estimate('cost', costs.saved)} less than the most probable labels, {p_value(costs.saved.p)}"
        yield f"cost per 1,000 rows: {estimate('cost', costs.cost)}; {saved}"
    if a := scores.abstention:
        yield (
            f"abstaining below {metric(a.least_confidence)}: answers {_share(a.coverage)} of the rows with an accuracy "
            f"of {_share(a.accuracy)}; area under the risk-coverage curve {metric(a.aurc)}"
        )
    if s := scores.sets:
        size = f"{s.mean_size:.2f} labels on average"
        yield f"sets of labels for {percent(s.wanted)}: {_share(s.coverage)} have the right label; {size}"
    yield from fit.remarks


def _share(known: Estimate | None) -> str:
    return f"{metric(known.value)} [{metric(known.low)}, {metric(known.high)}]" if known else NOTHING
