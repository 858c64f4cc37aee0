"""Prices, break-even and the caveats of endpoints in reports, from finished runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import tunesmith
from tests import tiny
from tests.sample_reports import Balance
from tests.small_runs import instruct, learn
from tunesmith import cli
from tunesmith.errors import RecipeError
from tunesmith.evaluation.determinism import FILE, Determinism
from tunesmith.evaluation.intervals import Confidence
from tunesmith.evaluation.prediction_costs import MethodPrices
from tunesmith.manifest import EndpointCosts
from tunesmith.pipeline import run_report
from tunesmith.pipeline.commands.compare import Comparison
from tunesmith.pipeline.task_table import TASKS
from tunesmith.reporting import terminal
from tunesmith.reporting.format import price
from tunesmith.runs import Run

USAGE = EndpointCosts(
    model="gpt-5-mini-2025-08-07",
    requests=41,
    reused=7,
    prompt_tokens=12_345,
    completion_tokens=67,
    price=0.072,  # of the 36 test rows: 0.002 each
    waited=12.0,
    latency=(0.5, 1.25, 3.5),
)
Train = Callable[..., Run]


@pytest.fixture
def linear(reviews: Path, tmp_path: Path) -> Train:
    """Trains a run on 240 rows, 36 of them in test, whose seconds are then set to round numbers."""

    def train(name: str, *settings: str) -> Run:
        source = {"method": "linear", "data": {"path": str(reviews)}, "output_dir": str(tmp_path / "runs")}
        run = tunesmith.train(
            source, ["bootstrap_samples=100", "split.test_size=36", *settings], run_dir=tmp_path / name, quiet=True
        )
        costs = replace(run.finished.costs, train_seconds=1800.0, seconds_per_1000=3.6)
        run.save_manifest(replace(run.finished, costs=costs))
        return run

    return train


def as_endpoint(run: Run, usage: EndpointCosts, repeated: Determinism | None = None) -> Run:
    """A run as method `endpoint` leaves it."""
    if repeated:
        run.write(FILE, repeated)
    manifest = run.finished
    costs = replace(manifest.costs, train_seconds=0.1, trainable=0, parameters=0, endpoint=usage)
    run.save_manifest(replace(manifest, name="endpoint:gpt", costs=costs))
    return run


def shown(comparison: Comparison) -> tuple[str, str, str]:
    """The page without tags, the Markdown twin and the terminal's table."""
    page = comparison.page.read_text()
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    text = " ".join(re.sub(r"<[^>]+>", " ", page.split("<body>")[1]).split())
    return text, (comparison.path / "report.md").read_text(), terminal.table(comparison.report)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r" \| |   +", line.strip("| "))]


def test_a_comparison_with_an_endpoint_says_what_each_costs_and_when_training_pays(linear: Train) -> None:
    settings = ("price_per_hour=0.5", "currency=EUR")
    dear, cheap = linear("dear", *settings), linear("cheap", *settings)
    endpoint = as_endpoint(dear, USAGE, Determinism(20, 5, 2))
    comparison = tunesmith.compare([cheap.path, endpoint.path])
    # training: half an hour at 0.5; 1,000 predictions: 3.6 s, against 2 by the endpoint
    prices = comparison.report.prices
    assert prices is not None
    assert (prices.methods["linear"].training, prices.methods["linear"].per_1000) == (0.25, pytest.approx(0.0005))
    assert (prices.methods["endpoint:gpt"].training, prices.methods["endpoint:gpt"].per_1000) == (0.0, 2.0)
    assert [pair.predictions for pair in prices.break_evens] == [126]
    assert comparison.verdict.endswith("Against endpoint:gpt, linear pays from 130 predictions on.")
    page, markdown, table = shown(comparison)
    for text in (markdown, table):
        rows = [cells(line) for line in text.splitlines()]
        assert ["Method", "Price of 1,000 predictions", "Price of training", "Pays against endpoint:gpt from"] in rows
        assert ["linear", "0.00050 EUR", "0.25 EUR", "130"] in rows
        assert any(row[:3] == ["endpoint:gpt", "2.00 EUR", "none"] for row in rows)
        assert ["Prompt tokens", "12,345"] in rows
        assert ["Price", "0.072 EUR"] in rows
    assert "linear 0.00050 EUR 0.25 EUR 130 endpoint:gpt 2.00 EUR none" in page
    for text in (page, markdown.replace("\\", ""), table):
        text = " ".join(text.replace("|", " ").split())
        assert "Model that answered gpt-5-mini-2025-08-07" in text
        assert "Completion tokens 67 HTTP requests 41 Replies of an earlier run 7" in text
        assert "Latency, median 0.5 s Latency, 95% below 1.2 s Latency, 99% below 3.5 s" in text
        assert "Waited before retries 12 s" in text
        assert "The test rows may be in the training data of a model behind an endpoint" in text
        assert "gpt-5-mini-2025-08-07 answered. The provider may change the model behind this name" in text
        assert "asked twice, 2 of 20 rows got another label [2.8%, 30.1%], 5 another wording" in text
    stored = json.loads((comparison.path / "comparison.json").read_text())
    assert stored["prices"]["break_evens"] == [{"method": "linear", "endpoint": "endpoint:gpt", "predictions": 126}]


def test_unknown_prices_stay_blank_and_are_never_0(linear: Train) -> None:
    endpoint = as_endpoint(linear("b"), replace(USAGE, price=None, model="a-1, a-2"))
    comparison = tunesmith.compare([linear("a").path, endpoint.path])
    page, markdown, table = shown(comparison)
    for text in (markdown, table):
        rows = [cells(line) for line in text.splitlines()]
        assert ["linear", "–", "–", "–"] in rows
        assert any(row[:3] == ["endpoint:gpt", "–", "none"] for row in rows)
        assert ["Price", "–"] in rows
        assert "several models answered (a-1, a-2), and the scores mix them" in text
        assert "whether it answers the same twice was not measured" in text
    assert "– is not known" in page
    assert "pays" not in comparison.verdict
    assert "worth its cost" not in comparison.verdict  # the endpoint trained faster, and may yet cost more


def test_predictions_that_cost_more_than_the_endpoints_never_pay(linear: Train) -> None:
    endpoint = as_endpoint(linear("b"), replace(USAGE, price=1e-6))
    comparison = tunesmith.compare([linear("a").path, endpoint.path], ["costs.price_per_hour=0.5"])
    assert comparison.verdict.endswith("Against endpoint:gpt, linear never pays.")
    assert ["linear", "0.00050", "0.25", "never"] in [cells(line) for line in shown(comparison)[1].splitlines()]


def test_finished_runs_get_the_price_of_an_hour_later_and_nothing_else(
    linear: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(linear(name, f"C={name}").path) for name in ("1", "5")]
    without = tunesmith.compare(runs)
    assert without.report.prices is None
    assert not any("Prices" in text or "Caveats" in text for text in shown(without))
    assert "prices" not in json.loads((without.path / "comparison.json").read_text())
    assert cli.main(["compare", *runs, "price_per_hour=2"]) == 0
    printed = [cells(line) for line in capsys.readouterr().out.splitlines()]
    assert ["linear (linear.C=1)", "0.0020", "1.00"] in printed
    assert Run(Path(runs[0])).recipe.costs.price_per_hour is None
    with pytest.raises(RecipeError, match="as they are") as refused:
        tunesmith.compare(runs, ["price_per_hour=2", "linear.C=3"])
    assert "linear.C=3" in str(refused.value)


def test_a_model_card_has_prices_and_caveats_where_the_run_has_them(linear: Train) -> None:
    run = linear("a", "price_per_hour=0.5")
    run_report.write_run(run)
    card = (run.path / "README.md").read_text()
    assert "| linear | 0.00050 | 0.25 |" in card
    assert "behind an endpoint" not in card
    run_report.write_run(as_endpoint(run, USAGE))
    card = (run.path / "README.md").read_text()
    limits, costs = card.split("## Limits")[1].split("## Costs")
    assert "may be in the training data" in limits
    assert "| Completion tokens | 67 |" in costs
    assert "Pays against" not in costs


def test_reports_of_other_tasks_have_prices_too(tmp_path: Path) -> None:
    run = learn("regression", "linear", tmp_path / "numbers", tmp_path)
    report = run_report.build([as_endpoint(run, USAGE, Determinism(20, 5, 0))], Confidence(resamples=100))
    answers = instruct(tiny.generator("llama", tmp_path / "llama"), tmp_path / "answers", "price_per_hour=3600")
    own = run_report.build([answers], Confidence(resamples=100))
    for made, texts in (
        (report, ("0 of 20 rows got another number [0%, 16.1%], 5 another wording", "12,345")),
        (own, ("Price of 1,000 answers", price(answers.finished.costs.train_seconds))),
    ):
        page = TASKS[made.task].html(made)
        parser = Balance()
        parser.feed(page)
        assert parser.open == []
        for shown_in in (page, TASKS[made.task].markdown(made).replace("\\", ""), terminal.table(made)):
            assert all(text in shown_in for text in texts)
    assert own.prices is not None
    assert own.prices.methods["base"] == MethodPrices(training=0.0, per_1000=None)


def test_published_data_is_probably_known_to_an_endpoint(linear: Train) -> None:
    run = as_endpoint(linear("a"), USAGE)
    assert "published" not in run.read("manifest.json")["data"]
    manifest = run.finished
    run.save_manifest(replace(manifest, data=replace(manifest.data, source="pypi:bbc-news", published=True)))
    report = run_report.build([run], Confidence(resamples=100))
    markdown = TASKS["classification"].markdown(report)
    assert "pypi:bbc-news can be downloaded by anyone" in markdown
    assert "its test rows are probably in the training data" in markdown
