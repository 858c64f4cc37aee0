"""`tunesmith predict`: the labels or the responses of a finished run for texts."""

from __future__ import annotations

import collections
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tunesmith import recipe as recipes, runs
from tunesmith.console import printable
from tunesmith.data import files, frames, row_encoders
from tunesmith.data.row_encoders import FORMATS, CsvEncoder, JsonLinesEncoder
from tunesmith.errors import DataError, RecipeError, shorten
from tunesmith.pipeline import engines, in_memory, new_data, prediction_output
from tunesmith.pipeline.prediction_output import OutputSettings, WrittenPredictions
from tunesmith.pipeline.prediction_stream import (
    LabelRows,
    PredictionSettings,
    PredictionStream,
    ResponseRows,
    Row,
    check_pairs,
    load,
    tabular,
)
from tunesmith.pipeline.task_table import task_of
from tunesmith.runs import Run
from tunesmith.types import Example, Message

GENERATED = "generated_predictions.jsonl"
FIELD = "model_response"


def predict(
    run: str | Path | Run,
    texts: object = (),
    *,
    text_pairs: object = (),
    source: object = None,
    overrides: Sequence[str] = (),
    top_k: int = 1,
    engine: str = "auto",
    **settings: object,
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
    overrides and settings: `data.*` where the source differs from the training data in its columns, encoding
    or rows, such as `text_column="review"`, and `generate.*`.
    engine: what computes labels: `torch`, `auto` or a key of `engines.ENGINES`; `auto` takes an export in the run that
    was faster and gave every label of the run.
    Of an instruction run the texts are prompts, and the rows `{"id", "prompt", "response", "tokens", "ended"}`, with
    the source's columns that are no turns.

    All rows are in memory; `predict_rows` yields those of a source one by one, and `write_predictions` writes them.
    """
    run = run if isinstance(run, Run) else runs.find(run)
    if source is None and frames.rows(texts) is not None:
        source, texts = texts, ()
    singles, seconds = frames.texts(texts), frames.texts(text_pairs)
    chosen = PredictionSettings((*overrides, *recipes.overrides_of(settings)), top_k, engine)
    if source is None:
        return predict_texts(run, from_texts(singles, seconds), chosen)
    if singles or seconds:
        raise RecipeError("texts and a data source exclude each other", do="give one of them")
    return list(predict_rows(run, source, chosen))


def predict_rows(
    run: str | Path | Run, source: object, settings: PredictionSettings = PredictionSettings()
) -> Iterator[Row]:
    """Yield the rows that `predict` returns of a source. Memory holds `settings.chunk_rows` of them."""
    run = run if isinstance(run, Run) else runs.find(run)
    with in_memory.as_path(source) as path:
        written = WrittenPredictions(None)
        for chunk in PredictionStream(run, path, settings).chunks():
            yield from chunk.rows
            written.add(len(chunk.rows), chunk.errors, chunk.notes)
        written.report()


def write_predictions(
    run: str | Path | Run,
    source: object,
    output: str | Path,
    settings: PredictionSettings = PredictionSettings(),
    *,
    output_settings: OutputSettings = OutputSettings(),
) -> WrittenPredictions:
    """Predict every row of a source and write them, in as much memory for millions of rows as for thousands.

    output: a .parquet, .csv or .jsonl file, which is there whole or not at all; or a folder of such files, which
    `output_settings.resume` goes on with after a stop, and which several processes fill together under a launcher.
    Rows are those of `predict`, in their order; files without objects have `label_1`, `probability_1` and so on for
    `top_k`. Raises RecipeError for an output that exists, unless it is overwritten or resumed.
    """
    run = run if isinstance(run, Run) else runs.find(run)
    with in_memory.as_path(source) as path:
        prediction_output.check(str(output), path, output_settings)
        return prediction_output.write(PredictionStream(run, path, settings), str(output), output_settings)


def predict_texts(
    run: Run, examples: Sequence[Example], settings: PredictionSettings, *, of_source: bool = False
) -> list[Row]:
    """Predict some texts. of_source: name what is predicted as in the rows of a source."""
    recipe = new_data.settings(run.recipe, None, settings.overrides)
    check_pairs(run, examples)
    if task_of(run).has_responses:
        prompts = [
            replace(row, id=f"prompt:{n}", messages=(Message("user", row.text),)) for n, row in enumerate(examples, 1)
        ]
        answers = ResponseRows(engines.load_generator(run, recipe.generate.engine), recipe).rows(prompts)
        return [{"id": prompt.id} | answer for prompt, answer in zip(prompts, answers, strict=True)]
    predictor = LabelRows(load(run, settings.engine, settings.top_k), settings.top_k, of_source)
    rows = []
    for example, answer in zip(examples, predictor.rows(examples), strict=True):
        pair = {} if example.text_pair is None else {"text_pair": example.text_pair}
        rows.append({"id": example.id, "text": example.text, **pair} | answer)
    return rows


def is_answered_json(run: Run, source: str | None, output: str | None) -> bool:
    """Return whether an output is for the rows of a JSON file with the responses of a run in them.

    Without an output these lie in the run, beside `generated_predictions.jsonl`. Raises RecipeError for a .json output
    of anything else.
    """
    if not task_of(run).has_responses or (output is not None and not output.endswith(".json")):
        return False
    if output is not None and _json_rows(run, source) is None:
        raise RecipeError(f"{output}: only rows of a JSON file can be written as one", do="write .jsonl or .csv")
    return source is not None


def write_responses(
    run: Run, source: object, output: str | None, settings: PredictionSettings, *, overwrite: bool = False
) -> tuple[int, list[Path]]:
    """Write the responses to a JSON file's rows as the same rows with `model_response` added.

    Without `output` it lies in the run beside generated_predictions.jsonl, which has the responses to the rows of any
    source. Returns their number, and the paths.
    """
    with in_memory.as_path(source) as name:
        target = Path(output) if output else run.path / GENERATED
        new_data.check_output(target, name, overwrite=overwrite or not output)
        stream, answers = PredictionStream(run, name, settings), dict[str, object]()
        written = WrittenPredictions(target)
        lines = prediction_output.pieces(stream, "jsonl", OutputSettings(), written, answers)
        paths = [run.write_pieces(GENERATED, lines)] if output is None else []
        collections.deque(lines, maxlen=0)  # to the end, where no file was written
        written.report()
        source_rows = _json_rows(run, name)
    if source_rows is not None:
        whole = [
            item | ({FIELD: answers[row]} if (row := f"{Path(name).name}:row {number}") in answers else {})
            if isinstance(item, dict)
            else item
            for number, item in enumerate(source_rows, 1)
        ]
        path = target if output else run.path / f"{Path(name).stem}-with-responses.json"
        content = printable(json.dumps(whole, indent=4, ensure_ascii=False)) + "\n"
        paths.append(runs.write_whole(path, content.encode()))
    return written.rows, paths


def prediction_bytes(
    run: Run, source: object, settings: PredictionSettings, output_settings: OutputSettings
) -> Iterator[bytes]:
    """Yield the predictions of a source as the bytes of a file, to be written to stdout as they come."""
    with in_memory.as_path(source) as path:
        prediction_output.check(prediction_output.STDOUT, path, output_settings)
        written = WrittenPredictions(None)
        name = prediction_output.format_of(prediction_output.STDOUT, output_settings)
        yield from prediction_output.pieces(PredictionStream(run, path, settings), name, output_settings, written)
        written.report()


def write_texts(rows: Sequence[Row], output: str, settings: OutputSettings) -> Path:
    """Write the rows of some texts as a file."""
    name = prediction_output.format_of(output, settings)
    columns = list(dict.fromkeys(column for row in tabular(rows) for column in row))
    types = row_encoders.column_types(columns, tabular(rows), {}) if name == "parquet" else {}
    encoder = FORMATS[name](columns, types, settings.keep_formulas)
    content = encoder.encode(rows if name == "jsonl" else tabular(rows)) + encoder.finish()
    prediction_output.warn_of_formulas(encoder.formulas)
    return runs.write_whole(Path(output), content)


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
        return JsonLinesEncoder().encode(rows).decode()
    flat = tabular(rows)
    encoder = CsvEncoder(list(dict.fromkeys(name for row in flat for name in row)), keep_formulas)
    text = encoder.encode(flat).decode()
    prediction_output.warn_of_formulas(encoder.formulas, do)
    return text


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
            raise TypeError(f"text {number} is {shorten(repr(text), 50)}: expected a string")
        if not text.strip():
            found, do = "nothing, or white space alone", "leave it out, or give a text"
            raise DataError(f"text {number} is empty", expected="at least one character", found=found, do=do)
    return [
        Example(f"text:{number}", str(text), None if pair is None else str(pair))
        for number, (text, pair) in enumerate(itertools.zip_longest(texts, pairs), 1)
    ]
