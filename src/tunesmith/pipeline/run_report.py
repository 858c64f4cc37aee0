"""From finished runs to one report: of a single run, or of several on the same split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tunesmith import runs as run_folders
from tunesmith.errors import RunError
from tunesmith.evaluation import prediction_costs
from tunesmith.evaluation.intervals import Confidence
from tunesmith.evaluation.responses import GenerationScores
from tunesmith.pipeline import report_parts, run_names
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.task_table import TASKS, RunReport
from tunesmith.recipe import CostRates
from tunesmith.reporting import conclusions
from tunesmith.reporting.schema import ExportedModel
from tunesmith.runs import Run

FILE = "comparison.json"


def build(runs: Sequence[Run], confidence: Confidence, rates: CostRates | None = None) -> RunReport:
    """Return the report on finished runs. Raises RunError where their tasks or splits differ.

    rates: what computing costs; None where each run's own recipe says it.
    """
    manifests = [run.finished for run in runs]
    first, tasks = manifests[0], [manifest.task for manifest in manifests]
    if len(set(tasks)) > 1:
        raise RunError(
            "runs of different tasks cannot be compared",
            expected=f"only runs of task {tasks[0]}, as {runs[0].path}",
            found=", ".join(f"{run.path} ({task})" for run, task in zip(runs, tasks, strict=True) if task != tasks[0]),
            do="compare runs of one task",
        )
    for run, manifest in zip(runs[1:], manifests[1:], strict=True):
        differing = [
            name
            for name, split in first.data.splits.items()
            if split.fingerprint != manifest.data.splits[name].fingerprint
        ]
        if differing:
            raise RunError(
                f"{runs[0].path} and {run.path} were not made on the same split",
                expected="equal fingerprints of train, validation and test",
                found=f"different {', '.join(differing)}",
                do="train both with the same data, split and seed",
            )
    names, settings = run_names.unique(runs)
    report = TASKS[first.task].report(dict(zip(names, runs, strict=True)), confidence)
    report = replace(report, differing=settings or None)
    levels = {method.scores.confidence for method in report.methods}
    if len(levels) > 1:
        found = ", ".join(f"{level:g}" for level in sorted(levels))
        raise RunError("the runs have intervals of different confidence", found=found, do="train them with one level")
    return _priced(report, {str(run.path): rates or run.recipe.costs for run in runs})


def _priced(report: RunReport, rates: Mapping[str, CostRates]) -> RunReport:
    """Return the report with what its methods cost, where prices are known or one of them is an endpoint.

    rates: what computing costs, by run.
    """
    endpoints = [method.name for method in report.methods if method.costs.endpoint]
    if not endpoints and all(rate.price_per_hour is None for rate in rates.values()):
        return report
    by_method = {}
    for method in report.methods:
        scores, rate = method.scores, rates[method.run]
        rows = scores.answered if isinstance(scores, GenerationScores) else scores.rows
        by_method[method.name] = prediction_costs.prices(method.costs, rows, rate.price_per_hour, rate.currency)
    prices = prediction_costs.compare(by_method, endpoints)
    verdict = " ".join(filter(None, [report.verdict, conclusions.of_prices(prices.break_evens)]))
    return replace(report, prices=prices, verdict=verdict)


def write_run(run: Run) -> None:
    """Write the report, the model card and the loss plot of one run."""
    learned = report_parts.curve(run)
    if learned:
        from tunesmith.reporting import loss_plot

        run_folders.write_whole(run.path / "training_loss.png", loss_plot.draw(learned))
    if run.has("scores.json"):
        report = build([run], confidence_of(run.recipe))
        _write_pages(run, report)
        run.write("README.md", TASKS[report.task].card(report, None))


def card(run: Run, exported: ExportedModel) -> str:
    """Return the model card of an exported run."""
    if not run.has("scores.json"):
        manifest = run.manifest
        head = f"# {report_parts.title(run)}: {manifest.name}\n\n{manifest.description}. It was not tested.\n\n"
        return f"{head}## How to use\n\n{exported.usage}\n"
    report = build([run], confidence_of(run.recipe))
    return TASKS[report.task].card(report, exported)


def write_comparison(folder: Run, report: RunReport) -> None:
    """Write the report on several runs as comparison.json, report.html and report.md."""
    folder.write(FILE, report)
    _write_pages(folder, report)


def read(folder: Run) -> RunReport:
    """Return the report on several runs that was written into a folder. Raises RunError where it is damaged."""
    task = str(folder.read(FILE).get("task"))
    if task not in TASKS:
        raise RunError(f"{folder.path / FILE} is damaged", expected=f"task: {', '.join(TASKS)}", found=task)
    return folder.load(FILE, TASKS[task].report_kind)


def _write_pages(folder: Run, report: RunReport) -> None:
    task = TASKS[report.task]
    folder.write("report.md", task.markdown(report))
    folder.write("report.html", task.html(report))
