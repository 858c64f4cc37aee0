"""What reports say about prices, and about endpoints: what they took, and what limits the scores and the times.

Pure functions, no files.
"""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.evaluation.determinism import Determinism
from tunesmith.evaluation.intervals import Estimate
from tunesmith.evaluation.prediction_costs import BreakEven, PriceComparison
from tunesmith.manifest import EndpointCosts
from tunesmith.reporting.format import NOTHING, approximate, price, seconds, share
from tunesmith.reporting.markdown import plain, table
from tunesmith.reporting.schema import AnyReport, GenerationReport
from tunesmith.types import DataSummary

Figures = tuple[list[str], list[list[str]]]
"""The head of a table, and its rows."""
CHANGED = {"classification": "another label", "multilabel": "other labels", "regression": "another number"}
"""What a row got the second time, by task."""


def figures(report: AnyReport) -> list[Figures]:
    """Return the table of prices and the one of endpoints, where there is something to say."""
    if report.prices is None:
        return []
    return [_prices(report, report.prices), *([_endpoints(report, report.prices)] if _asked(report) else [])]


def note(report: AnyReport) -> str:
    """Explain the tables."""
    asked, own = bool(_asked(report)), len(_asked(report)) < len(report.methods)
    sentences = {
        "Prices are those of the measured seconds at costs.price_per_hour.": own,
        "The price of an endpoint is that of its tokens at endpoint.prices.": asked,
        "A method pays against an endpoint from the number of predictions on with which it costs no more than the "
        "endpoint, its training included.": asked and own,
        f"{NOTHING} is not known.": any(NOTHING in line for line in figures(report)[0][1]),
    }
    return " ".join(sentence for sentence, applies in sentences.items() if applies)


def caveats(report: AnyReport) -> list[str]:
    """Return what limits times that were measured side by side, and the scores of endpoints; often nothing."""
    return [*_side_by_side(report), *_endpoint_caveats(report)]


def _side_by_side(report: AnyReport) -> Iterator[str]:
    """Yield how many trainings shared the machine while times were measured."""
    shared = {method.costs.side_by_side for method in report.methods} - {None}
    if shared:
        names = [method.name for method in report.methods if method.costs.side_by_side is not None]
        of = "" if len(names) == len(report.methods) else f" of {', '.join(names)}"
        most = max(number for number in shared if number is not None)
        yield (
            f"The times{of} were measured with up to {most} trainings side by side, each with its share of the machine "
            "(compare --parallel). A method alone on the machine is faster."
        )


def _endpoint_caveats(report: AnyReport) -> list[str]:
    """Return what limits the scores of endpoints, whatever they are; nothing in a report without one."""
    if not _asked(report):
        return []
    data = report.data
    if isinstance(data, DataSummary) and data.published:
        seen = (
            f"{data.source} can be downloaded by anyone, unless it is private: its test rows are probably in the "
            "training data of models behind an endpoint, whose scores then say little about new texts."
        )
    else:
        seen = (
            "The test rows may be in the training data of a model behind an endpoint, which would make its scores too "
            "good. Nobody but its provider can tell."
        )
    lines = [seen]
    for method in report.methods:
        if method.costs.endpoint is not None:
            repeated = _repeated(method.determinism, method.scores.confidence, report.task)
            lines += _caveats(method.name, method.costs.endpoint.model, repeated)
    return lines


def tables(report: AnyReport) -> list[str]:
    """Return the tables with their explanation, for Markdown."""
    drawn = [table(list(map(plain, head)), (list(map(plain, row)) for row in rows)) for head, rows in figures(report)]
    return [drawn[0], note(report), *drawn[1:]] if drawn else []


def markdown(report: AnyReport) -> list[str]:
    """Return sections on prices and caveats, where there is something to say."""
    parts = ["## Prices", *drawn] if (drawn := tables(report)) else []
    if lines := caveats(report):
        parts += ["## Caveats", "\n".join(f"- {plain(line)}" for line in lines)]
    return parts


def _asked(report: AnyReport) -> dict[str, EndpointCosts]:
    """Return what the methods that are endpoints took, by name."""
    return {method.name: method.costs.endpoint for method in report.methods if method.costs.endpoint is not None}


def _prices(report: AnyReport, prices: PriceComparison) -> Figures:
    """Return the prices of each method, and from how many predictions on it pays against each endpoint."""
    predicted = "answers" if isinstance(report, GenerationReport) else "predictions"
    asked = _asked(report)
    against = list(asked) if len(asked) < len(report.methods) else []
    pairs = {(pair.method, pair.endpoint): pair for pair in prices.break_evens}
    rows = []
    for method in report.methods:
        known = prices.methods[method.name]
        trained = price(known.training, known.currency) if method.costs.trainable else "none"
        pays = ("" if method.name in asked else _pays(pairs.get((method.name, endpoint))) for endpoint in against)
        rows.append([method.name, price(known.per_1000, known.currency), trained, *pays])
    head = [
        "Method",
        f"Price of 1,000 {predicted}",
        "Price of training",
        *(f"Pays against {name} from" for name in against),
    ]
    return head, rows


def _pays(pair: BreakEven | None) -> str:
    if pair is None:
        return NOTHING
    return "never" if pair.predictions is None else approximate(pair.predictions)


def _endpoints(report: AnyReport, prices: PriceComparison) -> Figures:
    """Return what the predictions of the test rows took, a column for each endpoint."""
    columns = [
        {"Endpoint": name} | _took(costs, prices.methods[name].currency) for name, costs in _asked(report).items()
    ]
    head, *rows = ([what, *(column[what] for column in columns)] for what in columns[0])
    return head, rows


def _took(costs: EndpointCosts, currency: str | None) -> dict[str, str]:
    median, p95, p99 = map(seconds, costs.latency)
    return {
        "Model that answered": costs.model,
        "Price": price(costs.price, currency),
        "Prompt tokens": f"{costs.prompt_tokens:,}",
        "Completion tokens": f"{costs.completion_tokens:,}",
        "HTTP requests": f"{costs.requests:,}",
        "Replies of an earlier run": f"{costs.reused:,}",
        "Latency, median": median,
        "Latency, 95% below": p95,
        "Latency, 99% below": p99,
        "Waited before retries": seconds(costs.waited),
    }


def _caveats(name: str, model: str, repeated: str) -> Iterator[str]:
    """Yield what limits the scores of one endpoint. model: what answered; repeated: what asking twice came to."""
    if "," in model:
        yield f"{name}: several models answered ({model}), and the scores mix them. The provider decides which answers."
    else:
        yield f"{name}: {model} answered. The provider may change the model behind this name, and with it the scores."
    yield f"{name}: {repeated}."


def _repeated(measured: Determinism | None, confidence: float, task: str) -> str:
    """Return `asked twice, 2 of 20 rows got another label [2.8%, 30.1%], 5 another wording`."""
    if measured is None or not measured.rows:
        return "whether it answers the same twice was not measured"
    changed, what, wording = measured.changed, "another answer", ""
    if measured.answer_changed is not None:
        changed, what, wording = measured.answer_changed, CHANGED[task], f", {measured.changed:,} another wording"
    known = Estimate.share(changed, measured.rows, confidence)
    interval = f"[{share(known.low)}, {share(known.high)}]"
    return f"asked twice, {changed:,} of {measured.rows:,} rows got {what} {interval}{wording}"
