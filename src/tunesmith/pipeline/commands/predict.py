"""`tunesmith predict`: the labels or the responses of a finished run for texts."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from tunesmith import data, records, runs
from tunesmith.console import printable, warn
from tunesmith.data import conversations, files, frames, spreadsheets
from tunesmith.errors import DataError, RecipeError
from tunesmith.pipeline import engines, generated_responses, in_memory, new_data
from tunesmith.pipeline.fitting import methods
from tunesmith.pipeline.task_table import task_of
from tunesmith.protocols import TextPredictor
from tunesmith.reporting.format import counted
from tunesmith.runs import Run
from tunesmith.tasks import classification
from tunesmith.types import Example, Message, MultilabelPrediction, ValuePrediction

Row: TypeAlias = dict[str, Any]
GENERATED = "generated_predictions.jsonl"
FIELD = "model_response"
COLUMNS = ("id", "prompt", "response", "tokens", "ended", "reference")
"""What is shown of a response."""
READ = {*COLUMNS[1:], *conversations.COLUMNS}
"""The columns of a source that a response's own take the place of."""
LABEL, PROBABILITY, PROBABILITIES = "predicted_label", "probability", "probabilities"
LABELS, VALUE = "predicted_labels", "predicted_value"
ABSTAINED, LABEL_SET = "abstained", "label_set"
"""The columns that are added to those of the data."""


def predict(
    run: str | Path | Run,
    texts: object = (),
    *,
    text_pairs: object = (),
    source: object = None,
    overrides: Sequence[str] = (),
    top_k: int = 1,
    engine: str = "auto",
) -> list[Row]:
    """Predict some texts, or every row of a data source, with a finished run.

    texts: a string, or a list, series or array of strings. source: a path, a name, or a table in memory, which may
    also stand in the place of texts. Of texts, returns rows `{"id", "text", "label", "score"}`, with `top_k` > 1 also
    `"scores"`: the best labels with their probabilities, best first. Of a source, returns its rows with all columns, an
    `id` where they have none, and `predicted_label`, `probability` and, with `top_k` > 1, `probabilities`. Where the
    recipe decides so (`decide`), both have `abstained` and `label_set` too. Of a regression run, `"value"` or
    `predicted_value` takes the place of label and probability; of a multilabel run, `"labels"` and `"scores"`, or
    `predicted_labels` and `probabilities` (of those labels, or of the `top_k` best). Without probabilities, `score` and
    `probability`, or `scores` and `probabilities`, are None, and `top_k` has to be 1.
    overrides:
    `data.*` where the source differs from the training data in its columns, encoding or rows, and `generate.*`.
    engine: what computes labels: `torch`, `auto` or a key of `engines.ENGINES`; `auto` takes an export in the run that
    was faster and gave every label of the run.
    Of an instruction run the texts are prompts, and the rows `{"id", "prompt", "response", "tokens", "ended"}`, with
    the source's columns that are no turns.
    """
    run = run if isinstance(run, Run) else runs.find(run)
    if source is None and frames.rows(texts) is not None:
        source, texts = texts, ()
    singles, seconds = frames.texts(texts), frames.texts(text_pairs)
    if source is None:
        return _predicted(run, None, overrides, top_k, engine, from_texts(singles, seconds))
    if singles:
        raise RecipeError("texts and a data source exclude each other", do="give one of them")
    with in_memory.as_path(source) as path:
        return _predicted(run, path, overrides, top_k, engine)


def _predicted(
    run: Run, source: str | None, overrides: Sequence[str], top_k: int, engine: str, given: Sequence[Example] = ()
) -> list[Row]:
    recipe = new_data.settings(run.recipe, source, overrides)
    columns = new_data.columns(recipe) if source else {}
    examples = new_data.read(recipe) if source else given
    check_pairs(run, examples)
    if task_of(run).has_responses:
        if not source:
            examples = [
                replace(row, id=f"prompt:{n}", messages=(Message("user", row.text),)) for n, row in enumerate(given, 1)
            ]
        generator = engines.load_generator(run, recipe.generate.engine)
        responses = [records.dump(row) for row in generated_responses.respond(generator, recipe, examples)]
        answers = [{name: row.get(name) for name in COLUMNS if name in row or name == "response"} for row in responses]
        # the turns of the source are in `prompt` and `reference`, where `evaluate` and `judge` find them
        own = {place: {k: v for k, v in row.items() if k not in READ} for place, row in columns.items()}
        return [own.get(row["id"], {}) | row | {"id": own.get(row["id"], row)["id"]} for row in answers]
    added = {LABEL, LABELS, PROBABILITY, PROBABILITIES, VALUE}
    if run.recipe.decide.is_set:
        added |= {ABSTAINED, LABEL_SET}
    if top_k > 1:
        added |= {f"{kind}_{rank}" for kind in ("label", PROBABILITY) for rank in range(1, top_k + 1)}
    if taken := added & {name for row in columns.values() for name in row}:
        raise DataError(
            f"{source}: columns that predictions are written to",
            expected="other names",
            found=", ".join(sorted(taken)),
            do="rename them in the data",
        )
    if top_k > 1:
        methods.check_probabilities(run.recipe, f"rank {top_k} labels")
    predictor = engines.load(run, engine, "--engine", least_agreement=1)
    assert isinstance(predictor, TextPredictor)
    if not predictor.labels and top_k > 1:
        raise RecipeError(f"top_k is {top_k}, but {run.path} predicts numbers", do="leave --top-k out")
    if not 1 <= top_k <= max(1, len(predictor.labels)):
        raise RecipeError(f"top_k is {top_k}", expected=f"1 to {len(predictor.labels)}, the number of labels")
    rows: list[Row] = []
    for example, prediction in zip(examples, predictor.predict(examples), strict=True):
        pair = {} if example.text_pair is None else {"text_pair": example.text_pair}
        row: Row = columns[example.id] if source else {"id": example.id, "text": example.text, **pair}
        rows.append(row | _added(prediction, predictor.labels, top_k, of_source=bool(source)))
    return rows


def _added(prediction: Any, labels: Sequence[str], top_k: int, *, of_source: bool) -> Row:
    """Return the columns that a prediction adds to those of a source, or to a text."""
    label, score, scores = (LABEL, PROBABILITY, PROBABILITIES) if of_source else ("label", "score", "scores")
    if isinstance(prediction, ValuePrediction):
        return {VALUE if of_source else "value": prediction.value}
    if isinstance(prediction, MultilabelPrediction):
        ranked = _ranked(prediction, labels)
        known = dict(ranked[:top_k] if top_k > 1 else [pair for pair in ranked if pair[0] in prediction.labels])
        return {LABELS if of_source else "labels": list(prediction.labels), scores: known if ranked else None}
    row: Row = {label: prediction.label, score: classification.probability(prediction, labels)}
    if prediction.abstained is not None:
        row[ABSTAINED] = prediction.abstained
    if prediction.label_set is not None:
        row[LABEL_SET] = list(prediction.label_set)
    return row | ({scores: dict(_ranked(prediction, labels)[:top_k])} if top_k > 1 else {})


def _ranked(prediction: Any, labels: Sequence[str]) -> list[tuple[str, float]]:
    """Return the labels with their probabilities, most probable first; none without probabilities."""
    named = zip(labels, prediction.probabilities, strict=True) if prediction.probabilities else ()
    return sorted(named, key=lambda pair: -pair[1])


def check_output(output: Path | None, run: Run, source: str | None, *, overwrite: bool = False) -> None:
    """Refuse an output file that could not or should not be written, before the work and not after it."""
    answers = task_of(run).has_responses
    if output is None:
        new_data.check_output(run.path / GENERATED, source, overwrite=True)
        return
    if output.suffix not in (".csv", ".jsonl", *([".json"] if answers else [])):
        more = "; for a JSON file's rows also in .json" if answers else ""
        raise RecipeError(
            f"cannot write {output}", expected=f"a name that ends in .csv or .jsonl{more}", do="change --output"
        )
    if output.suffix == ".json" and _json_rows(run, source) is None:
        raise RecipeError(f"{output}: only rows of a JSON file can be written as one", do="write .jsonl or .csv")
    new_data.check_output(output, source, overwrite=overwrite)


def write(
    rows: Sequence[Row],
    run: Run,
    source: str | None,
    output: Path | None,
    overrides: Sequence[str] = (),
    *,
    keep_formulas: bool = False,
) -> list[Path]:
    """Write rows as a file; answers to a JSON file's rows also as the same rows with `model_response` added.

    Without `output` the first lies in the run as generated_predictions.jsonl, and the second beside it. overrides: as
    given to `predict`. keep_formulas: as `table` has it.
    """
    if output is not None and output.suffix != ".json":
        text = table(rows, output.suffix, keep_formulas=keep_formulas)
        return [runs.write_whole(output, text.encode(errors="backslashreplace"))]
    written = [] if output else [run.write(GENERATED, table(rows, ".jsonl"))]
    source_rows = _json_rows(run, source)
    if source_rows is not None and source is not None:
        recipe = new_data.settings(run.recipe, source, overrides)
        examples, _ = data.read_unlabelled(recipe.data, task_of(run).reader)
        answers = {example.id: row["response"] for example, row in zip(examples, rows, strict=True)}
        whole = [
            item | ({FIELD: answers[name]} if (name := f"{Path(source).name}:row {number}") in answers else {})
            if isinstance(item, dict)
            else item
            for number, item in enumerate(source_rows, 1)
        ]
        output = output or run.path / f"{Path(source).stem}-with-responses.json"
        content = printable(json.dumps(whole, indent=4, ensure_ascii=False)) + "\n"
        written.append(runs.write_whole(output, content.encode()))
    return written


def table(
    rows: Sequence[Row],
    suffix: str,
    *,
    keep_formulas: bool = False,
    do: str = "--keep-formulas writes them as they are",
) -> str:
    """Return prediction rows as CSV, with lists and objects in JSON, or as JSON Lines.

    In CSV, a cell that a spreadsheet would run as a formula gets a `'` before it, with a warning that counts them and
    says what to `do`; keep_formulas leaves them as they are. Numbers such as -1.5 are none.
    """
    if suffix == ".jsonl":
        return "".join(printable(json.dumps(row, ensure_ascii=False, default=str)) + "\n" for row in rows)
    flat: list[Row] = []
    for row in rows:
        ranks, score = (PROBABILITIES, PROBABILITY) if LABEL in row else ("scores", "score")
        columns = {
            name: json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (list, dict)) else value
            for name, value in row.items()
            if name != ranks
        }
        ranked = row.get(ranks)
        for rank, (label, value) in enumerate(ranked.items() if isinstance(ranked, dict) else (), 1):
            columns |= {f"label_{rank}": label, f"{score}_{rank}": value}
        flat.append(columns)
    names = list(dict.fromkeys(name for row in flat for name in row))
    lines: list[list[Any]] = [names, *([row.get(name) for name in names] for row in flat)]
    if not keep_formulas and (count := sum(spreadsheets.is_formula(cell) for line in lines for cell in line)):
        warn(
            f"{counted(count, 'cell')} that a spreadsheet would run as a formula (=, +, -, @, tab or line end first) "
            f"got a ' before the text; {do}"
        )
        lines = [[spreadsheets.escape(cell) for cell in line] for line in lines]
    out = io.StringIO()
    csv.writer(out).writerows(lines)
    return out.getvalue()


def _json_rows(run: Run, source: str | None) -> list[object] | None:
    """The rows of a JSON file, read as the run's data is; None where the source is no such file."""
    path = Path(source).expanduser() if source else None
    if path is None or path.suffix != ".json" or not path.is_file():
        return None
    text = files.decode(files.File(path, path.name, run.recipe.data.encoding))
    try:
        content = json.loads(text.decoded())
    except ValueError:  # one object a line, under the wrong name
        return None
    return content if isinstance(content, list) else None


def check_pairs(run: Run, examples: Sequence[Example]) -> None:
    """Raise DataError where a run was trained on pairs of texts and these are single ones, or the reverse."""
    paired = run.recipe.data.text_pair is not None
    if examples and (examples[0].text_pair is not None) != paired:
        raise DataError(
            f"{run.path} was trained on {'two texts' if paired else 'one text'} a row",
            expected="two texts" if paired else "one text",
            found="one text" if paired else "two texts",
            do="give --text-pair" if paired else "leave --text-pair out",
        )


def from_texts(texts: Sequence[object], pairs: Sequence[object], action: str = "predict") -> list[Example]:
    """Return texts, or pairs of texts, as examples. Raises DataError, `nothing to ACTION`, where there is none."""
    if not texts:
        do = "give texts (--text) or a data source (--data)"
        raise DataError(f"nothing to {action}", expected="at least one text", found="none", do=do)
    if pairs and len(pairs) != len(texts):
        found, do = f"{len(texts)} texts, {len(pairs)} second texts", "give one second text for each text"
        raise DataError("texts without their second text", expected="pairs of texts", found=found, do=do)
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise TypeError(f"text {number} is a {type(text).__name__}: expected a string")
        if not text.strip():
            found, do = "nothing, or white space alone", "leave it out, or give a text"
            raise DataError(f"text {number} is empty", expected="at least one character", found=found, do=do)
    return [
        Example(f"text:{number}", str(text), None if pair is None else str(pair))
        for number, (text, pair) in enumerate(itertools.zip_longest(texts, pairs), 1)
    ]
