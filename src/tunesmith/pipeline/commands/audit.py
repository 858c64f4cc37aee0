"""`tunesmith audit`: leaks, wrong labels, learning curves, and what the texts are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from tunesmith import disk, integrity, recipe as recipes, runs
from tunesmith.auditing.findings import Finding
from tunesmith.auditing.learning_curves import LearningCurveAudit
from tunesmith.console import say
from tunesmith.data import frames, summary
from tunesmith.errors import RecipeError, RunError, TunesmithError
from tunesmith.integrity import PLAN
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
from tunesmith.pipeline.audit_sections.active_labelling_section import Pool
from tunesmith.pipeline.audit_sections.audit_input import AuditInput, AuditOptions, AuditPlan, CurveSettings
from tunesmith.pipeline.curve_training import CurvePlan
from tunesmith.pipeline.run_names import short_name, source_name
from tunesmith.pipeline.task_table import read_splits
from tunesmith.recipe import Recipe
from tunesmith.reporting import audit_report, notebook
from tunesmith.reporting.audit_schema import AuditReport
from tunesmith.reporting.notebook import ReportPage
from tunesmith.runs import RECIPE, Run
from tunesmith.types import Splits

if TYPE_CHECKING:
    import pandas as pd

SECTIONS = {
    "duplicates": duplicate_section.audit,
    "paraphrases": paraphrase_section.audit,
    "labels": label_section.audit,
    "texts": text_section.audit,
    "conversations": conversation_section.audit,
}
"""The parts of every audit."""
FILE = "audit.json"
COLUMNS = ("severity", "headline", "rows", "where", "do")
"""Of the table of findings."""


@dataclass(frozen=True, repr=False)
class Audit(ReportPage):
    """What an audit found, and where its report lies."""

    path: Path
    report: AuditReport

    @property
    def page(self) -> Path:
        """The report."""
        return self.path / "report.html"

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found, the severe first: each has a `headline`, a `severity`, `rows`, `where` and what to `do`."""
        return self.report.findings

    def table(self) -> pd.DataFrame:
        """Return the findings as a pandas DataFrame, the severe first.

        Its columns are those of a finding: `severity` (`severe`, `warning` or `note`), `headline`, `rows` (how many it
        concerns; missing where it concerns all), `where` (ids of the first of them, a list), and `do`.
        """
        columns = {name: [getattr(each, name) for each in self.findings] for name in COLUMNS}
        columns["where"] = [list(each.where) for each in self.findings]
        return frames.data_frame(columns).astype({"rows": "Int64"})

    def __repr__(self) -> str:
        return "\n".join([*audit_report.lines(self.report), f"\nreport: {self.page}"])

    def _repr_html_(self) -> str:
        head = ("severity", "finding", "what to do")
        rows = [(each.severity, each.headline, each.do) for each in self.findings]
        return notebook.card(self.report.title, audit_report.headline(self.report), (head, rows), self.page)


def load_audit(path: str | Path) -> Audit:
    """Return the audit in a folder that `tunesmith.audit` wrote. Raises RunError where there is none."""
    folder = Run(Path(path))
    if not (folder.path / FILE).is_file():
        raise RunError(f"{path} is not the folder of a finished audit", expected=f"a folder with {FILE}")
    return Audit(folder.path, folder.load(FILE, AuditReport))


@dataclass(frozen=True)
class _Inputs:
    """What an audit reads before it begins."""

    splits: Splits
    curve: CurvePlan | None = None
    pool: Pool | None = None

    @property
    def fingerprint(self) -> str:
        """Of the data."""
        return self.splits.fingerprints["data"]


def audit(
    source: object = None,
    overrides: Sequence[str] = (),
    *,
    output: str | Path | None = None,
    resume: str | Path | None = None,
    **options: Unpack[AuditOptions],
) -> Audit:
    """Look at the data of a recipe, a source or a run, and say what is wrong with it and what more of it would bring.

    source: a recipe, data (path, name, or table in memory), or a run, whose recipe is taken. overrides: settings of the
    recipe as `section.name=value`; those with a name of their own among the options, as in `text_column="review"`, and
    any other, may be given by it. output: an empty or new
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
        return _resumed(Run(Path(resume)))
    if isinstance(source, Run) or (isinstance(source, (str, Path)) and runs.is_run(source)):
        source = runs.find(source.path if isinstance(source, Run) else source).recipe
    overrides = [*overrides, *recipes.overrides_of(_settings(options))]
    recipe = recipes.load(in_memory.recipe_source({} if source is None else source, overrides), overrides)
    if "on_bad_rows" not in recipe.data.model_fields_set:  # rows that training would refuse are a finding
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"on_bad_rows": "drop"})})
    return _begun(recipe, _planned(options), output)


PLANNED = {item.name for item in fields(AuditPlan)}


def _settings(options: AuditOptions) -> dict[str, object]:
    """Return those of the options that are settings of a recipe."""
    return {name: value for name, value in options.items() if name not in PLANNED}


def _planned(options: AuditOptions) -> AuditPlan:
    curve, pool = options.get("learning_curve", False), options.get("unlabelled")
    given = {
        **{name: value for name, value in options.items() if name in PLANNED},
        "paraphrases": paraphrase_section.threshold_of(options.get("paraphrases", False)),
        "learning_curve": CurveSettings() if curve is True else curve or None,
        "unlabelled": None if pool is None else in_memory.kept_source(pool),
    }
    return AuditPlan(**given)  # type: ignore[arg-type]


def _begun(recipe: Recipe, plan: AuditPlan, output: str | Path | None) -> Audit:
    """Audit into a new folder. One that is given is taken before the data is read, which may last."""
    text = recipes.dump(recipe)
    plan = replace(plan, recipe=hashlib.sha256(text.encode()).hexdigest())
    with ExitStack() as held:
        if output:
            folder, inputs = _taken(Path(output), recipe, plan, held)
        else:
            inputs = _read(recipe, plan)  # what cannot be audited leaves no folder behind
            folder = runs.create(recipe.output_dir, "audit", short_name(recipe))
            folder.write(RECIPE, text)
            held.enter_context(_alone(folder))
        plan = replace(plan, fingerprint=inputs.fingerprint)
        folder.write(PLAN, plan, signed=True)
        return _audit(recipe, plan, folder, inputs)


def _taken(output: Path, recipe: Recipe, plan: AuditPlan, held: ExitStack) -> tuple[Run, _Inputs]:
    """Take a folder, new or empty, for this process alone, and read the data. Where that fails, it is as it was.

    held: keeps the folder for as long as the audit lasts.
    """
    is_new = not output.exists()

    def claim(run: Run) -> None:
        if (run.path / RECIPE).exists():
            raise RunError(f"{output} is not empty", found=RECIPE, do="give another --output")
        with _withdrawn(run.path, is_new):
            run.write(RECIPE, recipes.dump(recipe))
            run.write(PLAN, plan, signed=True)
        held.enter_context(_alone(run))

    if (output / PLAN).is_file():
        do = f"finish it (tunesmith audit --resume {output}), or give another --output"
        raise RunError(f"{output} is not empty", found="an audit", do=do)
    folder = runs.use(output, claim, option="--output")
    with _withdrawn(folder.path, is_new):
        return folder, _read(recipe, plan)


@contextmanager
def _withdrawn(folder: Path, is_new: bool) -> Iterator[None]:
    """Where the following fails, leave a folder as it was before it was taken."""
    try:
        yield
    except BaseException:
        for name in (PLAN, RECIPE):
            (folder / name).unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def _alone(folder: Run) -> Iterator[None]:
    """Keep other audits out of a folder for as long as this one lasts, or until it is killed."""
    with disk.reserved(folder.path / RECIPE) as is_free:
        if not is_free:
            do = "wait until it has ended, or give another --output"
            raise RunError(f"another audit is running in {folder.path}", do=do)
        yield


def _resumed(folder: Run) -> Audit:
    """Finish the audit in a folder."""
    if not (folder.path / PLAN).is_file():
        raise RunError(f"{folder.path} is not the folder of an audit", expected=f"a folder with {PLAN}")
    plan = folder.load(PLAN, AuditPlan, signed=True)
    if integrity.enabled() and (how := integrity.difference(folder.path / RECIPE, plan.recipe)):
        raise integrity.damaged(folder.path, f"{RECIPE} {how}")
    with _alone(folder):
        inputs = _read(folder.recipe, plan)
        plan = replace(plan, fingerprint=inputs.fingerprint)
        folder.write(PLAN, plan, signed=True)
        return _audit(folder.recipe, plan, folder, inputs)


def _read(recipe: Recipe, plan: AuditPlan) -> _Inputs:
    """Read the data, and check all that is asked of it."""
    label_section.check(recipe, plan.method)
    if recipe.data.streaming:
        raise RecipeError("an audit needs all rows", found="data.streaming=true", do="leave data.streaming out")
    splits = read_splits(recipes.load(recipe, ["split.leaks=report"]) if recipe.split.leaks == "error" else recipe)
    inputs = _Inputs(splits)
    if plan.fingerprint not in ("", inputs.fingerprint):
        raise RunError(
            "the data has changed since the audit began",
            expected=f"fingerprint {plan.fingerprint[:12]}",
            found=inputs.fingerprint[:12],
            do="restore the data, or start a new audit",
        )
    if plan.learning_curve:
        inputs = replace(inputs, curve=learning_curve_section.plan(recipe, splits, plan.learning_curve))
    if plan.unlabelled:
        pool = active_labelling_section.read(recipe, splits, plan.method, plan.unlabelled, plan.next_rows)
        inputs = replace(inputs, pool=pool)
    return inputs


def _audit(recipe: Recipe, plan: AuditPlan, folder: Run, inputs: _Inputs) -> Audit:
    """Audit what was read, and write the report."""
    data = AuditInput(recipe, inputs.splits, folder, plan)
    parts = {name: part(data) for name, part in SECTIONS.items()}
    report = AuditReport(
        title=runs.data_name(source_name(recipe)),
        task=recipe.task,
        data=summary.summarize(inputs.splits, source_name(recipe)),
        learning_curve=_learning_curve(data, inputs.curve) if inputs.curve else None,
        active_labelling=active_labelling_section.audit(data, inputs.pool) if inputs.pool else None,
        **parts,  # type: ignore[arg-type]
    )
    folder.write(FILE, report)
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
