"""Execute the tutorial notebooks and store their outputs: `python docs/execute_tutorials.py [NAME ...]`.

Outputs are those of a reader's machine without the noise of one: no times of cells, no progress bars, no local paths.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat
from nbformat import NotebookNode

TUTORIALS = Path(__file__).parent / "tutorials"
PARAMETERS = "parameters"
"""Tag of the cell that names the models, the data and the sizes."""
NOISE = ("TqdmWarning", "IProgress", "it/s]")
"""What stderr says that is of the machine and not of the tutorial: bars of other libraries among it."""


def execute(notebook: NotebookNode, folder: Path, parameters: str | None = None, timeout: int = 900) -> NotebookNode:
    """Run all cells in `folder`, whose path is left out of their outputs. Raises CellExecutionError.

    parameters: stands in the place of the cell of this tag.
    """
    if parameters is not None:
        (cell,) = (cell for cell in notebook.cells if PARAMETERS in cell.metadata.get("tags", ()))
        cell.source = parameters
    client = nbclient.NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        content = output if "text" in output else output.get("data", {})
        content.update(
            {name: text.replace(f"{folder}/", "") for name, text in content.items() if isinstance(text, str)}
        )
    return notebook


def clean(notebook: NotebookNode) -> NotebookNode:
    """Leave out what is not of the tutorial: emptied progress bars, times of cells, warnings of notebook libraries."""
    notebook.metadata = NotebookNode(
        kernelspec={"name": "python3", "display_name": "Python 3", "language": "python"},
        language_info={"name": "python"},
    )
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number}"
        cell.metadata = NotebookNode({"tags": tags} if (tags := cell.metadata.get("tags")) else {})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_noise(output)]
            for output in cell.outputs:
                output.get("metadata", {}).clear()
    return notebook


def _is_noise(output: NotebookNode) -> bool:
    if output.output_type == "stream":
        is_said = output.text.strip() and not any(word in output.text for word in NOISE)
        return output.name == "stderr" and not is_said
    return output.output_type == "display_data" and not any(output.data.values())


def main(names: list[str]) -> None:
    """Execute the tutorials of these names, or all."""
    for path in sorted(TUTORIALS.glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(clean(execute(notebook, Path(folder))), path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
