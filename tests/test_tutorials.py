"""The tutorial notebooks run, and say what their outputs say; and what a cell shows while tunesmith works."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from tests import tiny

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.ipynb"))
NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?%?")
SETUP = "import pandas as pd, tunesmith\nfrom pathlib import Path\nfrom tests import tiny\n"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """docs/execute_tutorials.py."""
    spec = importlib.util.spec_from_file_location("execute_tutorials", ROOT / "docs/execute_tutorials.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _kernel_sees_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")


def stored(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def shown(output: NotebookNode) -> str:
    """Everything that an output says."""
    return str(output.text) if output.output_type == "stream" else "\n".join(map(str, output.data.values()))


# --- the stored notebooks


def test_there_are_three() -> None:
    assert [path.stem for path in TUTORIALS] == ["clean_data", "compare_classifiers", "tune_and_judge"]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_stored_outputs_are_whole_small_and_of_no_machine(path: Path) -> None:
    notebook = stored(path)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run from top to bottom"
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook)), "a picture"
    assert path.stat().st_size < 500_000
    text = path.read_text(encoding="utf-8")
    for word in ("/tmp/", "/home/", "/root/", "site-packages", str(ROOT)):
        assert word not in text


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_figures_in_the_prose_are_those_of_the_cells(path: Path) -> None:
    """Every number of two digits or more, and every share."""
    notebook = stored(path)
    said = "\n".join([*map(shown, outputs(notebook)), *(c.source for c in notebook.cells if c.cell_type == "code")])
    known = set(numbers(said))
    prose = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    figures = set(numbers(re.sub(r"`[^`]*`|\(https?:[^)]*\)", "", prose)))
    unknown = sorted(figure for figure in figures if len(figure) > 1 and not is_said(figure, known))
    assert unknown == []
    assert len(figures) > 5


def numbers(text: str) -> list[str]:
    return [number.rstrip(",").replace(",", "") for number in NUMBER.findall(text)]


def is_said(figure: str, known: set[str]) -> bool:
    """Whether a figure is among the numbers, or is one of them with fewer decimals."""
    if figure in known or "%" in figure:
        return figure in known
    digits = len(figure.partition(".")[2])
    return digits > 0 and any(f"{float(number):.{digits}f}" == figure for number in known if "%" not in number)


# --- executed, with a tiny corpus and tiny models


@pytest.fixture(scope="module")
def tiny_parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A corpus like that of the tutorials, an encoder and a generator."""
    folder = tmp_path_factory.mktemp("parts")
    for number, (text, label) in enumerate(tiny.texts(300)):
        file = folder / "articles" / label / f"{number:03}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n\n{text} and more of {number}\n\nthe end\n")
    encoder = tiny.model("bert", folder / "bert")
    generator = tiny.generator("llama", folder / "llama", max_position_embeddings=4096)
    return {"articles": folder / "articles", "encoder": encoder, "model": generator}


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tiny_parts: dict[str, Path], tool: ModuleType, tmp_path: Path) -> None:
    notebook = stored(path)
    before = [bool(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]
    parameters = [f"{name} = Path({str(value)!r})" for name, value in tiny_parts.items() if name == "articles"]
    parameters += [f"{name} = {str(value)!r}" for name, value in tiny_parts.items() if name != "articles"]
    executed = tool.execute(notebook, tmp_path, "\n".join(["from pathlib import Path", *parameters, "steps = 2"]), 120)
    cleaned = tool.clean(executed)
    assert [bool(cell.outputs) for cell in cleaned.cells if cell.cell_type == "code"] == before
    assert len(outputs(cleaned)) < 30


# --- what a cell shows while work is under way


def run(tool: ModuleType, folder: Path, *cells: str) -> list[list[NotebookNode]]:
    """The outputs of each cell after the first, which prepares them."""
    sources = [SETUP + cells[0], *cells[1:]]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    executed: Any = tool.execute(notebook, folder, timeout=120)
    return [cell.outputs for cell in executed.cells[1:]]


def test_a_notebook_shows_progress_results_and_warnings(tool: ModuleType, tmp_path: Path) -> None:
    """Bars leave nothing behind; other processes do not fill the cell; warnings and results stay."""
    bar, compared, failed = run(
        tool,
        tmp_path,
        "from tunesmith import console\n"
        "table = pd.DataFrame(tiny.texts(120), columns=['text', 'label'])\n"
        "model = str(tiny.model('bert', Path('bert')))\n"
        "seen = []\n"
        "real = console.display\n"
        "console.display = lambda content: seen.append(content) or real(content)",
        "import time\n"
        "for _ in console.track(range(8), '<b>reading'): time.sleep(0.2)\n"
        "console.warn('look at this')\n"
        "print(seen[0]['text/html'])",
        "settings = {'model': model, 'num_train_epochs': 1, 'bootstrap_samples': 100}\n"
        "tunesmith.compare(table, methods=['linear', 'encoder'], **settings)",
        "try:\n"
        "    tunesmith.compare(table, methods=['encoder'], model='nowhere')\n"
        "except tunesmith.TunesmithError as error:\n"
        "    print(error)",
    )
    texts = [shown(output) for output in bar]
    assert "".join(texts).count("<progress") == 1, "the bar that was drawn is gone"
    assert any('max="8"></progress> &lt;b&gt;reading: ' in text for text in texts)
    assert any(output.output_type == "stream" and "look at this" in output.text for output in bar)
    (result,) = (output for output in compared if any(output.get("data", {}).values()))
    assert result.output_type == "execute_result"
    assert "<td" in result.data["text/html"]
    assert " linear " in result.data["text/plain"], "what a terminal shows"
    assert not [output for output in compared if output.output_type == "stream"]
    (logged,) = ("".join(o.text for o in failed if o.output_type == "stream" and o.name == name) for name in ["stderr"])
    assert "error: cannot load nowhere" in logged
    assert len(logged.splitlines()) < 20
