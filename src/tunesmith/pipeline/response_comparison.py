"""Answers from runs and files, model by model on the prompts that all of them answered, and their report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunesmith import runs
from tunesmith.console import say, warn
from tunesmith.data import response_files as files
from tunesmith.data.rows import SHOWN, merge
from tunesmith.data.summary import lines
from tunesmith.errors import DataError, RecipeError, RunError
from tunesmith.evaluation import responses, text_overlap
from tunesmith.evaluation.intervals import Confidence
from tunesmith.manifest import UNKNOWN_COSTS, Costs
from tunesmith.pipeline import in_memory, instruction_runs, run_names
from tunesmith.pipeline.confidence import confidence_of
from tunesmith.pipeline.task_table import task_of
from tunesmith.reporting import generation_report as pages
from tunesmith.reporting.schema import GenerationReport, GenerationResult, ResponseFiles
from tunesmith.runs import Run
from tunesmith.types import DataNote, ResponseRow

Rows = list[ResponseRow]
Key = tuple[str, str, int]
RESAMPLES, SEED = 10_000, 42
"""Of files, which have no recipe that says it."""


@dataclass(frozen=True)
class ResponseColumns:
    """What a file's columns are called, where their names do not say what they are."""

    responses: tuple[str, ...] = ()
    reference: str | None = None
    instruction: str | None = None


@dataclass(frozen=True)
class ModelResponses:
    """One model's answers."""

    name: str
    source: str
    rows: Rows
    costs: Costs = UNKNOWN_COSTS
    """Of training; nothing is known of them where the answers come from a file."""
    changes: tuple[DataNote, ...] = ()
    """What reading them met."""


def compare(sources: Sequence[object], columns: ResponseColumns) -> GenerationReport:
    """Return the report on the answers in runs and files; its `methods` are the models.

    Confidence, resamples and seed are those of the first run, if there is one.
    """
    runs_given = {place: run for place, source in enumerate(sources) if (run := as_run(source)) is not None}
    models_given = [[scorable(model) for model in read(source, columns)] for source in sources]
    names, differing = run_names.unique(
        list(runs_given.values()), [_with_source(models_given[place][0]) for place in runs_given]
    )
    for place, name in zip(runs_given, names, strict=True):
        models_given[place] = [replace(models_given[place][0], name=name)]
    models, dropped = align(named([model for models in models_given for model in models]))
    changes = [*merge(change for model in models for change in model.changes), *dropped]
    for line in lines(changes):
        warn(line)
    if text_overlap.deciding([row.texts[1] for row in models[0].rows]) != "rougeL":
        warn("ROUGE reads the letters a-z and digits only, which most references lack; chrF decides")
    first = next(iter(runs_given.values()), None)
    confidence = confidence_of(first.recipe) if first else Confidence(resamples=RESAMPLES, seed=SEED)
    methods = [
        GenerationResult(
            name=model.name,
            description=model.source,
            costs=model.costs,
            scores=responses.score(model.rows, confidence),
        )
        for model in models
    ]
    return instruction_runs.side_by_side(
        methods,
        {model.name: model.rows for model in models},
        confidence,
        task="answers",
        title=", ".join(dict.fromkeys(Path(model.source).name for model in models)),
        data=ResponseFiles(tuple(changes)),
        signatures=text_overlap.signatures(),
        differing=differing or None,
    )


def write(report: GenerationReport, page: Path) -> None:
    """Write the report as an HTML page, and beside it in Markdown."""
    if page.suffix != ".html" or not page.parent.is_dir():
        raise RecipeError(
            f"cannot write {page}", expected="a name that ends in .html, in a folder that exists", do="change --report"
        )
    runs.write_whole(page, pages.html(report).encode())
    twin = runs.write_whole(page.with_suffix(".md"), pages.markdown(report).encode())
    say(f"wrote {page} and {twin.name}")


def as_run(source: object) -> Run | None:
    """Return the run at a path; None for a file or a table in memory.

    Raises RunError for a folder without a run, DataError for nothing at all.
    """
    if isinstance(source, Run):
        return source
    if not isinstance(source, (str, Path)):
        return None
    place = Path(source).expanduser()
    if not place.exists():
        expected, do = "a run directory, or a file of answers", "check the path"
        raise DataError(f"no such file: {source}", expected=expected, found="nothing", do=do)
    return None if place.is_file() else runs.find(place)


def read(source: object, columns: ResponseColumns, *, graded: bool = True) -> list[ModelResponses]:
    """Return the models whose answers a source holds: a run's one, or those of a table's columns of responses.

    graded: a file must have a column of references.
    """
    run = as_run(source)
    if run is not None:
        if not task_of(run).has_responses:
            raise RunError(
                f"{run.path} is a classification run; it has no responses", do="compare such runs: tunesmith compare"
            )
        return [
            ModelResponses(run.manifest.name, str(run.path), run.predictions("test", ResponseRow), run.finished.costs)
        ]
    with in_memory.as_path(source) as name:
        path, parts = Path(name).expanduser(), columns
        parsed = files.read(
            path, responses=parts.responses, reference=parts.reference, instruction=parts.instruction, graded=graded
        )
    changes = [parsed.changes, *[()] * (len(parsed.models) - 1)]  # they concern all models, and are reported once
    return [
        ModelResponses(name, str(path), rows, changes=met)
        for (name, rows), met in zip(parsed.models.items(), changes, strict=True)
    ]


def scorable(model: ModelResponses) -> ModelResponses:
    """Return a model without rows that have no reference; a response missing in a file counts as an empty answer."""
    ungraded = [row.id for row in model.rows if row.reference is None]
    rows = [row for row in model.rows if row.reference is not None]
    unanswered = [row.id for row in rows if row.missing]
    if not rows:
        found = f"{len(model.rows):,} rows without one"
        do = "give a file with references"
        raise DataError(f"{model.source}: no row with a reference", expected="references", found=found, do=do)
    reasons = {
        f"left out of {model.name}: no reference": ungraded,
        f"no response of {model.name}: counts as an empty answer": unanswered,
    }
    changes = (DataNote(reason, len(ids), tuple(ids[:SHOWN])) for reason, ids in reasons.items() if ids)
    filled = [replace(row, response="") if row.missing else row for row in rows]
    return replace(model, rows=filled, changes=(*model.changes, *changes))


def align(models: Sequence[ModelResponses]) -> tuple[list[ModelResponses], list[DataNote]]:
    """Return the models on the prompts that all have, in the order of the first, and what had to be left out.

    Prompts are the same where their texts and their references are. Raises RunError where there are none.
    """
    if len(models) == 1:
        return list(models), []
    by_loss = all(row.learned is not None for model in models for row in model.rows)
    keyed = [_keyed([row for row in model.rows if by_loss or row.response is not None]) for model in models]
    common = [key for key in keyed[0] if all(key in other for other in keyed[1:])]
    if not common:
        prompts = [next(iter(rows), ("nothing", "", 0))[0][:60] for rows in keyed]
        raise RunError(
            f"{models[0].name} and {models[1].name} have no prompt with the same reference in common",
            found="; ".join(f"{model.name}: {prompt!r}" for model, prompt in zip(models, prompts, strict=True)),
            do="give answers to the same prompts, or evaluate each alone",
        )
    dropped = [
        DataNote(f"left out: a prompt of {model.name} that the others did not answer", len(left), tuple(left[:SHOWN]))
        for model, rows in zip(models, keyed, strict=True)
        if (left := [row.id for key, row in rows.items() if key not in set(common)])
    ]
    ids = {key: keyed[0][key].id for key in common}
    aligned = [
        replace(model, rows=[replace(rows[key], id=ids[key]) for key in common])
        for model, rows in zip(models, keyed, strict=True)
    ]
    return aligned, dropped


def _keyed(rows: Rows) -> dict[Key, ResponseRow]:
    """Return rows by prompt and reference; those that occur several times are numbered."""
    seen: Counter[tuple[str, str]] = Counter()
    keyed: dict[Key, ResponseRow] = {}
    for row in rows:
        texts = (" ".join(row.prompt.split()), " ".join(row.texts[1].split()))
        keyed[(*texts, seen[texts])] = row
        seen[texts] += 1
    return keyed


def named(models: Sequence[ModelResponses]) -> list[ModelResponses]:
    """Return the models with unique names: where two share one, their sources are added."""
    for addition in (_with_source, None):
        counts = Counter(model.name for model in models)
        numbers: Counter[str] = Counter()
        renamed = []
        for model in models:
            name = model.name
            if counts[name] > 1:
                numbers[name] += 1
                name = addition(model) if addition else f"{name} {numbers[name]}"
            renamed.append(replace(model, name=name))
        models = renamed
    return list(models)


def _with_source(model: ModelResponses) -> str:
    return f"{Path(model.source).name.split('.')[0]}: {model.name}"


def aligned_ids(models: Sequence[ModelResponses]) -> list[list[str]]:
    """Return row ids under which models can be compared: that of the first model's row with the same prompt."""
    first: dict[tuple[str, int], str] = {}
    aligned = []
    for model in models:
        seen: Counter[str] = Counter()
        ids = []
        for row in model.rows:
            place = row.prompt, seen[row.prompt]
            seen[row.prompt] += 1
            ids.append(first.setdefault(place, row.id))
        aligned.append(ids if len(set(ids)) == len(ids) else [row.id for row in model.rows])
    return aligned
