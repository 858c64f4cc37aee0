"""Writes the pages of the documentation site into build/docs, from which `make docs-site` builds it.

Beside the pages in this folder the site has:

- the reference of the Python package: everything in `tunesmith.__all__`, read from the source without importing it;
- a page for each file of the repository that a page links to, so that no link leaves the site;
- tutorials: the notebooks in tutorials/, with the outputs that are stored in them.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tunesmith

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
STAGED = ROOT / "build" / "docs"
UNSEARCHED = "---\nsearch: {exclude: true}\n---\n\n"
"""At the head of pages that the search leaves out: code would crowd out the answers."""
FENCED = re.compile(r"(^(?P<fence>```+).*?^(?P=fence)$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?\[[^\]]*\]\()(?!\w+:|#|/)([^)#\s]+)(#[^)\s]*)?\)")
PICTURES = (".png", ".svg")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".sbatch": "bash", ".toml": "toml"}


def stage(folder: Path = STAGED) -> None:
    """Write all pages into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = {path: page_of(path) for path in sorted(DOCS.rglob("*")) if path.suffix in (".md", ".ipynb")}
    pages[DOCS / "reference" / "python.md"] = python_reference()
    pages[DOCS / "tutorials" / "index.md"] = tutorial_index()
    waiting = list(pages)
    while waiting:
        here = waiting.pop()
        for path in linked(here, pages[here]):
            if path not in pages and path.suffix not in PICTURES:
                pages[path] = page_of(path)
                waiting.append(path)
    for path, text in pages.items():
        write(folder / place(path), with_links(path, text).encode())
    for path in sorted(DOCS.rglob("*")):
        if path.suffix in PICTURES or path.parent.name == "assets":
            write(folder / place(path), path.read_bytes())


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def page_of(path: Path) -> str:
    """Return the Markdown of a file: Markdown as it is, a notebook with its outputs, anything else as code."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        files = sorted(file.name for file in path.iterdir() if file.is_file())
        return f"{UNSEARCHED}# {name}/\n\n" + "".join(f"- [{file}]({path.name}/{file})\n" for file in files)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    if path.suffix == ".ipynb":
        return notebook_page(json.loads(text))
    return f"{UNSEARCHED}# {name}\n\n````{LANGUAGES.get(path.suffix, 'text')}\n{text.rstrip()}\n````\n"


# --- links


def place(path: Path) -> str:
    """Return where the page of a file lies in the site."""
    if path.is_relative_to(DOCS):
        name = path.relative_to(DOCS).as_posix()
        return name.removesuffix(".ipynb") + ".md" if path.suffix == ".ipynb" else name
    name = f"source/{path.relative_to(ROOT).as_posix()}"
    return name if path.suffix == ".md" else f"{name}.md"


def target(here: Path, address: str) -> Path:
    return Path(os.path.normpath(here.parent / address))


def linked(here: Path, markdown: str) -> Iterator[Path]:
    """Yield the files of the repository that a page links to."""
    for text in FENCED.sub("", markdown).split("\n"):
        for _, address, _ in LINK.findall(text):
            path = target(here, address)
            if path.exists() and path.is_relative_to(ROOT):
                yield path


def with_links(here: Path, markdown: str) -> str:
    """Point links at where the pages lie in the site. Dead ones stay as they are: the strict build refuses them."""

    def moved(link: re.Match[str]) -> str:
        path = target(here, link[2])
        if not path.exists():
            return link[0]
        address = os.path.relpath(place(path), Path(place(here)).parent)
        return f"{link[1]}{address}{link[3] or ''})"

    return outside_code(markdown, lambda text: LINK.sub(moved, text))


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    parts, end = [], 0
    for block in FENCED.finditer(markdown):
        parts += [change(markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, change(markdown[end:])])


# --- the Python package

INTRODUCTION = """\
# Python API

Every command is a function of the same name, and every function takes a table in memory wherever it takes a path
([data in Python](data.md#in-python)). `import tunesmith` is quick, because what a function needs is imported when it is
first used. Errors that you can fix are subclasses of `tunesmith.errors.TunesmithError`, and say what was expected, what
was found and what to do.
"""


def python_reference() -> str:
    """Return a page with an entry for everything that `import tunesmith` offers."""
    names = [name for name in tunesmith.__all__ if name in tunesmith._HOMES]
    parts = [INTRODUCTION]
    for title, group in (
        ("Functions", [name for name in names if not name[0].isupper()]),
        ("Classes", [name for name in names if name[0].isupper()]),
    ):
        parts.append(f"## {title}\n")
        for name in group:
            style = "numpy, inherited_members: true" if name[0].isupper() else "google"
            options = f"{{heading: {name}, toc_label: {name}, heading_level: 3, docstring_style: {style}}}"
            parts.append(f"::: {tunesmith._HOMES[name]}.{name}\n    options: {options}\n")
    return "\n".join(parts)


# --- notebooks


def tutorial_index() -> str:
    """Return the page that lists the notebooks by their first headings, each with the paragraph below it."""
    parts = [
        "# Tutorials",
        "Notebooks, with the outputs that they printed. Each runs as it is, in a few minutes on two cores.",
    ]
    for path in sorted((DOCS / "tutorials").glob("*.ipynb")):
        prose = FENCED.sub("", page_of(path))
        head = re.search(r"^# (.+)\n+((?:.+\n)*)", prose, re.MULTILINE)
        title, paragraph = head.groups() if head else (path.stem.replace("_", " ").capitalize(), "")
        parts.append(f"## {title}\n\n{paragraph}\n[Read it]({path.name})")
    return "\n\n".join(parts) + "\n"


def notebook_page(notebook: dict[str, Any]) -> str:
    """Return a notebook as Markdown, with the outputs that are stored in it."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
        elif cell["cell_type"] == "code" and text.strip():
            parts.append(f"```python\n{text}\n```")
            parts += [shown for output in cell["outputs"] if (shown := output_block(output))]
    return "\n\n".join(parts) + "\n"


def output_block(output: dict[str, Any]) -> str:
    """Return an output of a cell as HTML: a picture, HTML of its own, or text."""
    data = output.get("data", {})
    if "text/html" in data:
        content = re.sub(r"\n\s*\n", "\n", "".join(data["text/html"]))  # an empty line would end the block
        return f'<div class="output">{content}</div>'
    for kind in ("image/png", "image/svg+xml"):
        if kind in data:
            content = "".join(data[kind])
            encoded = content.strip() if kind == "image/png" else base64.b64encode(content.encode()).decode()
            return f'<div class="output"><img alt="Output of the cell above" src="data:{kind};base64,{encoded}"></div>'
    text = "".join(output.get("text") or data.get("text/plain") or "")
    text = html.escape(re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip())
    text = re.sub(r"\n(?=\s*\n)", "\n&#8203;", text)
    return f'<div class="output"><pre>{text}</pre></div>' if text else ""


if __name__ == "__main__":
    stage()
