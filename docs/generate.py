"""Write the generated pages of docs/reference from the code. A test fails where they differ from what is committed."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tunesmith.cli import parser
from tunesmith.recipe.document import reference

DOCS = Path(__file__).parent / "reference"


def commands() -> str:
    """docs/reference/cli.md: the help of every command."""
    os.environ["COLUMNS"] = "110"
    root = parser()
    parts = ["# Commands", "", "Generated from `tunesmith --help` by `make docs`.", ""]
    parts += ["```", root.format_help().rstrip(), "```"]
    (action,) = (action for action in root._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in action.choices.items():
        parts += ["", f"## {name}", "", "```", command.format_help().rstrip(), "```"]
    return "\n".join(parts) + "\n"


PAGES = {"recipe.md": reference, "cli.md": commands}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
