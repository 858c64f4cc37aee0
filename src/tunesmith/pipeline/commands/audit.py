"""`tunesmith audit`: leaks, wrong labels, learning curves, and what the texts are made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunesmith import recipe as recipes, runs
from tunesmith.console import say
from tunesmith.data import summary
from tunesmith.pipeline import in_memory
from tunesmith.pipeline.audit_sections import (
    conversation_section,
    duplicate_section,
    label_section,
    learning_curve_section,
    text_section,
)
from tunesmith.pipeline.audit_sections.audit_input import AuditInput
from tunesmith.pipeline.commands.train import short_name, source_name
from tunesmith.pipeline.task_table import read_splits
from tunesmith.reporting import audit_report
from tunesmith.reporting.audit_schema import Audit, AuditReport

SECTIONS = {
    "duplicates": duplicate_section.audit,
    "labels": label_section.audit,
    "texts": text_section.audit,
    "conversations": conversation_section.audit,
}
"""The parts of every audit."""


def audit(
    source: object = None,
    overrides: Sequence[str] = (),
    *,
    method: str = "probe",
    learning_curve: bool = False,
    loss_outliers: bool = False,
    output: str | Path | None = None,
) -> Audit:
    """Look at the data of a recipe, a source or a run, and say what is wrong with it and what more of it would bring.

    source: a recipe, data (path, name, or table in memory), or a run, whose recipe is taken. method: gives the
    probabilities by which wrong labels are found. loss_outliers: let the base model of task `instruction` predict the
    responses, and name those that it predicts worst and best. output: an empty or new folder instead of one under
    `output_dir`.
    """
    if isinstance(source, (str, Path)) and runs.is_run(source):
        source = runs.find(source).recipe
    recipe = recipes.load(in_memory.recipe_source({} if source is None else source, overrides), overrides)
    if "on_bad_rows" not in recipe.data.model_fields_set:  # rows that training would refuse are a finding
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"on_bad_rows": "drop"})})
    splits = read_splits(recipe)
    folder = (
        runs.use(output, option="--output") if output else runs.create(recipe.output_dir, "audit", short_name(recipe))
    )
    data = AuditInput(recipe, splits, folder, method, loss_outliers)
    parts = {name: part(data) for name, part in SECTIONS.items()}
    report = AuditReport(
        title=runs.data_name(source_name(recipe)),
        task=recipe.task,
        data=summary.summarize(splits, source_name(recipe)),
        learning_curve=learning_curve_section.audit(data) if learning_curve else None,
        **parts,  # type: ignore[arg-type]
    )
    folder.write("audit.json", report)
    folder.write("report.md", audit_report.markdown(report))
    folder.write("report.html", audit_report.html(report))
    say(f"audited {source_name(recipe)} in {folder.path}")
    return Audit(folder.path, report)
