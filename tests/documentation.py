"""The documentation, as tests read it: its pages, their blocks of code, and the programs that make them."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GENERATED = (DOCS / "reference" / "cli.md", DOCS / "reference" / "recipe.md")
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCED = re.compile(r"^ *```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^ *```$", re.MULTILINE | re.DOTALL)


def module_of_docs(name: str) -> ModuleType:
    """Import a program in docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page that are marked with a language."""
    found = FENCED.finditer(page.read_text(encoding="utf-8"))
    return [block["code"] for block in found if block["language"] == language]


GAP = "…"
"""What stands for a part of a message that changes."""


def messages() -> list[str]:
    """Return every text in the source, with a gap for what is filled in."""
    paths = (ROOT / "src" / "tunesmith").rglob("*.py")
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    return [text for node in nodes if (text := _text(node))]


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else GAP for part in node.values)
    return ""
