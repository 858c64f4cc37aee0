"""Where predictions go: a folder that can be resumed, one file, or stdout; all from the same chunks of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith import processes, runs
from tunesmith.console import say, warn
from tunesmith.data import summary
from tunesmith.data.row_encoders import FORMATS, RowEncoder
from tunesmith.data.rows import merge
from tunesmith.errors import RecipeError
from tunesmith.pipeline import new_data, prediction_folder
from tunesmith.pipeline.prediction_stream import PredictedChunk, PredictionStream, tabular
from tunesmith.reporting.format import counted
from tunesmith.types import DataNote

STDOUT = "-"


@dataclass(frozen=True, slots=True)
class OutputSettings:
    """How predictions are written."""

    format: str | None = None
    """`parquet`, `csv` or `jsonl`, of a folder or stdout; a file says it by its name."""
    keep_formulas: bool = False
    """Whether cells that a spreadsheet would run stand in CSV files as they are."""
    overwrite: bool = False
    """Whether a file, or the predictions of a folder, may be replaced."""
    resume: bool = False
    """Whether a folder that is there is finished."""


@dataclass(slots=True)
class WrittenPredictions:
    """What was written."""

    path: Path | None
    """None for stdout."""
    rows: int = 0
    errors: int = 0
    """Rows without a prediction."""
    formulas: int = 0
    """Cells that a spreadsheet would run, and that were marked."""
    notes: list[DataNote] = field(default_factory=list)

    def add(self, rows: int, errors: int, notes: tuple[DataNote, ...]) -> None:
        """Count the rows of a chunk."""
        self.rows, self.errors = self.rows + rows, self.errors + errors
        self.notes = [*merge([*self.notes, *notes])]

    def sentence(self) -> str:
        """Return what was written, for people."""
        without = f", {self.errors:,} of them empty, for the reason in column error" if self.errors else ""
        return f"wrote {self.rows:,} predictions to {self.path}{without}"

    def report(self) -> None:
        """Say what reading changed or noticed, and what was marked."""
        for line in summary.lines(self.notes):
            say(f"data: {line}")
        warn_of_formulas(self.formulas)


def is_folder(output: str) -> bool:
    """Return whether an output is to be a folder: by its name, or because there is one."""
    return output != STDOUT and (output.endswith(("/", "\\")) or not Path(output).suffix or Path(output).is_dir())


def format_of(output: str, settings: OutputSettings) -> str:
    """Return the format of an output. Raises RecipeError where there is none, or name and setting differ."""
    if settings.format is not None and settings.format not in FORMATS:
        raise RecipeError(f"no such format: {settings.format}", expected=", ".join(FORMATS), do="change --format")
    if output == STDOUT:
        return settings.format or "jsonl"
    if is_folder(output):
        return settings.format or "parquet"
    name = Path(output).suffix[1:]
    if name not in FORMATS:
        expected = f"a name that ends in {', '.join(f'.{known}' for known in FORMATS)}, or a folder"
        raise RecipeError(f"cannot write {output}", expected=expected, do="change --output")
    if settings.format not in (None, name):
        raise RecipeError(f"cannot write {output} as {settings.format}", do="change the name, or leave --format out")
    return name


def check(output: str, source: str | None, settings: OutputSettings) -> None:
    """Raise RecipeError for an output that could not or should not be written, before the work and not after it."""
    format_of(output, settings)
    if is_folder(output):
        if source is None:
            raise RecipeError(f"cannot write {output}", expected="a file: folders are for --data", do="add a suffix")
        if Path(output).resolve().is_relative_to(Path(source).expanduser().resolve()):
            raise RecipeError(f"cannot write {output}: it is in the input", do="give a folder elsewhere")
    else:
        if processes.count() > 1:
            raise RecipeError("several processes write a folder", found=f"--output {output}", do="give a folder")
        if settings.resume:
            do = "give a folder: only what was written whole can be resumed"
            raise RecipeError("--resume is for a folder of predictions", found=f"--output {output}", do=do)
    if settings.resume and settings.overwrite:
        raise RecipeError("--resume and --overwrite exclude each other", do="give one of them")
    if output != STDOUT:
        new_data.check_output(Path(output), source, overwrite=settings.overwrite or is_folder(output))


def write(stream: PredictionStream, output: str, settings: OutputSettings) -> WrittenPredictions:
    """Predict all rows of a source and write them; a file, or a part of a folder, is there whole or not at all."""
    name = format_of(output, settings)
    if is_folder(output):
        return _write_folder(stream, Path(output), name, settings)
    written = WrittenPredictions(Path(output))
    runs.write_whole(Path(output), pieces(stream, name, settings, written))
    written.report()
    return written


def pieces(
    stream: PredictionStream,
    name: str,
    settings: OutputSettings,
    written: WrittenPredictions,
    responses: dict[str, object] | None = None,
) -> Iterator[bytes]:
    """Yield the bytes of a file of predictions, chunk by chunk.

    written: counts them. responses: gets the response to each row, by the place of the row in the source.
    """
    encoder: RowEncoder | None = None
    for chunk in stream.chunks():
        encoder = encoder or stream.encoder(name, keep_formulas=settings.keep_formulas)
        if responses is not None:
            responses.update((where, row["response"]) for where, row in zip(chunk.ids, chunk.rows, strict=True))
        yield _encoded(chunk, encoder, name)
        written.add(len(chunk.rows), chunk.errors, chunk.notes)
    if encoder is not None:
        yield encoder.finish()
        written.formulas = encoder.formulas


def _encoded(chunk: PredictedChunk, encoder: RowEncoder, name: str) -> bytes:
    return encoder.encode(chunk.rows if name == "jsonl" else tabular(chunk.rows))


def _write_folder(stream: PredictionStream, path: Path, name: str, settings: OutputSettings) -> WrittenPredictions:
    folder = prediction_folder.opened(
        path,
        stream,
        name,
        keep_formulas=settings.keep_formulas,
        resume=settings.resume,
        overwrite=settings.overwrite,
    )
    manifest = folder.manifest
    if manifest.complete:
        say(f"{path} is complete: nothing is left to predict")
    else:
        if folder.done:
            say(f"{path}: {counted(len(folder.done), 'part')} of earlier are whole and stay")
        for chunk in stream.chunks(folder.is_missing):
            encoder = stream.encoder(name, keep_formulas=settings.keep_formulas)
            content = _encoded(chunk, encoder, name) + encoder.finish()
            folder.save(chunk, content, encoder.formulas)
        manifest = folder.finish(-(-stream.count // stream.chunk_rows), stream)
    written = WrittenPredictions(path)
    for part in manifest.parts:
        written.add(part.rows, part.errors, part.notes)
        written.formulas += part.formulas
    written.report()
    return written


def warn_of_formulas(count: int, do: str = "--keep-formulas writes them as they are") -> None:
    """Warn of cells of a CSV file that were marked."""
    if count:
        warn(
            f"{counted(count, 'cell')} that a spreadsheet would run as a formula (=, +, -, @, tab or line end first) "
            f"got a ' before the text; {do}"
        )
