"""Tables from Excel workbooks; the only module that imports python_calamine."""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.data.files import File, check_expansion
from tunesmith.data.rows import Item, Row, Table, listed, no_rows, refuse_repeated
from tunesmith.errors import DataError, MissingExtra, summary
from tunesmith.types import DataNote

SUFFIX = ".xlsx"


def split_sheet(path: Path) -> tuple[Path, str | None]:
    """Return `book.xlsx` and `Reviews` for `book.xlsx#Reviews`; no sheet where the name has none."""
    before, mark, sheet = str(path).partition(f"{SUFFIX}#")
    return (Path(before + SUFFIX), sheet) if mark and sheet else (path, None)


def read_xlsx(file: File) -> Table:
    """A sheet of a workbook: the one that is named, or the first that has rows. The first row with cells is its header.

    Formulas are read as their values, as they were when the workbook was saved. Ids count rows as Excel does.
    """
    try:
        import python_calamine
    except ImportError:
        raise MissingExtra(
            f"cannot read {file.name}: python-calamine is not installed",
            do="pip install 'tunesmith[excel]', or save the sheet as CSV",
        ) from None
    with file.open_seekable() as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            check_expansion(file.name, file.size, unpacked, 0, "save the sheet as CSV, if you do want to read it")
            stream.seek(0)
            workbook = python_calamine.CalamineWorkbook.from_filelike(stream)
            shown = python_calamine.SheetVisibleEnum.Visible
            visible = [sheet.name for sheet in workbook.sheets_metadata if sheet.visible == shown]
            chosen, rows, others = _sheet(file, workbook, visible)
        except (python_calamine.CalamineError, zipfile.BadZipFile, OSError, RuntimeError) as error:
            do = "save it again as .xlsx, without a password, or as CSV"
            raise DataError(
                f"{file.name}: not an Excel workbook that can be read", expected="xlsx", found=summary(error), do=do
            ) from error
    first = next((place for place, row in enumerate(rows) if not _is_empty(row)), None)
    if first is None:
        raise no_rows(f"{file.name} (sheet {chosen})")
    header = ["" if cell in ("", None) else str(_plain(cell)) for cell in rows[first]]
    while header and not header[-1] and all(cell in ("", None) for row in rows for cell in row[len(header) - 1 :]):
        header.pop()
    refuse_repeated(f"{file.name}:{first + 1}", header)
    return Table(file.name, tuple(header), _rows(file.name, header, rows, first, chosen, others))


def _sheet(file: File, workbook: Any, visible: list[str]) -> tuple[str, list[list[Any]], list[str]]:
    """Return the name and rows of the sheet to read, and the names of other sheets with rows."""
    if file.sheet is not None:
        if file.sheet not in workbook.sheet_names:
            raise DataError(
                f"{file.name}: no such sheet",
                expected=f"a sheet of the workbook: {listed(workbook.sheet_names)}",
                found=repr(file.sheet),
                do=f"name one of them, as in {file.path.name}#{workbook.sheet_names[0]}",
            )
        return file.sheet, _cells(workbook, file.sheet), []
    filled = [name for name in visible if workbook.get_sheet_by_name(name).height]
    if not filled:
        raise no_rows(file.name)
    return filled[0], _cells(workbook, filled[0]), filled[1:]


def _cells(workbook: Any, sheet: str) -> list[list[Any]]:
    cells: list[list[Any]] = workbook.get_sheet_by_name(sheet).to_python(skip_empty_area=False)
    return cells


def _rows(
    name: str, header: list[str], rows: list[list[Any]], first: int, sheet: str, others: list[str]
) -> Iterator[Item]:
    if others:
        what = f"read sheet {sheet} of the workbook alone; it also has {listed(others)}"
        yield DataNote(f"{what} (choose with {name}#SHEET)", 1, (name,))
    unnamed = [place for place, column in enumerate(header) if not column]
    for number, row in enumerate(rows[first + 1 :], first + 2):
        where = f"{name}:{number}"
        if _is_empty(row):
            yield DataNote("skipped: empty row", 1, (where,))
            continue
        yield Row(where, {column: _plain(cell) for column, cell in zip(header, row, strict=False)})
        if any(row[place] not in ("", None) for place in (*unnamed, *range(len(header), len(row)))):
            yield DataNote("ignored: cells of a column without a name", 1, (where,))


def _is_empty(row: list[Any]) -> bool:
    return all(cell is None or (isinstance(cell, str) and not cell.strip()) for cell in row)


def _plain(cell: Any) -> Any:
    """Return a cell as CSV and JSON have it: whole numbers without a point, dates in ISO 8601, empty cells as None."""
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time.min:
        return cell.date().isoformat()
    if isinstance(cell, (datetime.date, datetime.time)):
        return cell.isoformat()
    if isinstance(cell, datetime.timedelta):
        return str(cell)
    return None if cell == "" else cell
