"""`tunesmith audit`: leaks, wrong labels, learning curves, and what the texts are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from tunesmith import recipe as recipes, runs
from tunesmith.auditing.learning_curves import LearningCurveAudit
from tunesmith.console import say
from tunesmith.data import summary
from tunesmith.errors import RecipeError, RunError, TunesmithError
from tunesmith.pipeline import in_memory
from tunesmith.pipeline.audit_sections import (
    active_labelling_section,
    conversation_section,
    duplicate_section,
    label_section,
    learning_curve_section,
    paraphrase_section,
    text_section,
)
from tunesmith.pipeline.audit_sections.audit_input import AuditInput, AuditOptions, AuditPlan, CurveSettings
from tunesmith.pipeline.commands.train import short_name, source_name
from tunesmith.pipeline.curve_training import CurvePlan
from tunesmith.pipeline.task_table import read_splits
from tunesmith.recipe import Recipe
from tunesmith.reporting import audit_report
from tunesmith.reporting.audit_schema import Audit, AuditReport
from tunesmith.runs import Run

SECTIONS = {
    "duplicates": duplicate_section.audit,
    "paraphrases": paraphrase_section.audit,
    "labels": label_section.audit,
    "texts": text_section.audit,
    "conversations": conversation_section.audit,
}
"""The parts of every audit."""
PLAN = "plan.json"


def audit(
    source: object = None,
    overrides: Sequence[str] = (),
    *,
    output: str | Path | None = None,
    resume: str | Path | None = None,
    **options: Unpack[AuditOptions],
) -> Audit:
    """Look at the data of a recipe, a source or a run, and say what is wrong with it and what more of it would bring.

    source: a recipe, data (path, name, or table in memory), or a run, whose recipe is taken. output: an empty or new
    folder instead of one under `output_dir`. resume: instead of a source, the folder of an audit that was stopped; what
    was trained for its learning curve is kept.

    options: `paraphrases` looks for rows that are similar in meaning, from a cosine similarity of 0.9 or the one given;
    `method` (default: `probe`) gives the probabilities by which wrong labels, and rows to label, are found;
    `learning_curve` trains on growing parts of the data; of the rows `unlabelled` (path, name, or table), `next_rows`
    are chosen to be labelled next; `cleaning_gain` also trains without the rows whose labels look wrong, and tests
    whether that helps; `review_jsonl` writes the review file as JSON Lines too; `loss_outliers` lets the base model of
    task `instruction` predict the responses, and names those that it predicts worst and best.
    """
    if resume is not None:
        if source is not None or overrides or output or options:
            raise RecipeError("a resumed audit keeps its source and settings", do="leave all but --resume out")
        folder = Run(Path(resume))
        if not (folder.path / PLAN).is_file():
            raise RunError(f"{resume} is not the folder of an audit", expected=f"a folder with {PLAN}")
        return _audit(folder.recipe, folder.load(PLAN, AuditPlan), folder)
    if isinstance(source, (str, Path)) and runs.is_run(source):
        source = runs.find(source).recipe
    recipe = recipes.load(in_memory.recipe_source({} if source is None else source, overrides), overrides)
    if "on_bad_rows" not in recipe.data.model_fields_set:  # rows that training would refuse are a finding
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"on_bad_rows": "drop"})})
    return _audit(recipe, _planned(options), None, output)


def _planned(options: AuditOptions) -> AuditPlan:
    curve, pool = options.get("learning_curve", False), options.get("unlabelled")
    given = {
        **options,
        "paraphrases": paraphrase_section.threshold_of(options.get("paraphrases", False)),
        "learning_curve": CurveSettings() if curve is True else curve or None,
        "unlabelled": None if pool is None else str(in_memory.kept_path(pool)),
    }
    return AuditPlan(**given)  # type: ignore[arg-type]


def _audit(recipe: Recipe, plan: AuditPlan, folder: Run | None, output: str | Path | None = None) -> Audit:
    if recipe.data.streaming:
        raise RecipeError("an audit needs all rows", found="data.streaming=true", do="leave data.streaming out")
    splits = read_splits(recipes.load(recipe, ["split.leaks=report"]) if recipe.split.leaks == "error" else recipe)
    fingerprint = splits.fingerprints["data"]
    if plan.fingerprint not in ("", fingerprint):
        raise RunError(
            "the data has changed since the audit began",
            expected=f"fingerprint {plan.fingerprint[:12]}",
            found=fingerprint[:12],
            do="restore the data, or start a new audit",
        )
    planned = learning_curve_section.plan(recipe, splits, plan.learning_curve) if plan.learning_curve else None
    pool = None
    if plan.unlabelled:
        pool = active_labelling_section.read(recipe, splits, plan.method, plan.unlabelled, plan.next_rows)
    if folder is None:
        words = ("audit", short_name(recipe))
        folder = runs.use(output, option="--output") if output else runs.create(recipe.output_dir, *words)
        folder.write(runs.RECIPE, recipes.dump(recipe))
        folder.write(PLAN, replace(plan, fingerprint=fingerprint))
    data = AuditInput(recipe, splits, folder, plan)
    parts = {name: part(data) for name, part in SECTIONS.items()}
    report = AuditReport(
        title=runs.data_name(source_name(recipe)),
        task=recipe.task,
        data=summary.summarize(splits, source_name(recipe)),
        learning_curve=_learning_curve(data, planned) if planned else None,
        active_labelling=active_labelling_section.audit(data, pool) if pool else None,
        **parts,  # type: ignore[arg-type]
    )
    folder.write("audit.json", report)
    folder.write("report.md", audit_report.markdown(report))
    folder.write("report.html", audit_report.html(report))
    say(f"audited {source_name(recipe)} in {folder.path}")
    return Audit(folder.path, report)


def _learning_curve(data: AuditInput, planned: CurvePlan) -> LearningCurveAudit:
    try:
        return learning_curve_section.audit(data, planned)
    except (KeyboardInterrupt, TunesmithError):
        say(f"audit: to train the rest of the learning curve: tunesmith audit --resume {data.folder.path}")
        raise
