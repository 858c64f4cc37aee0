"""Shows `name: meaning` sentences of docstrings as lists of parameters. An extension of griffe, named in mkdocs.yml."""

from __future__ import annotations

import re
from typing import Any

import griffe


class ParameterLists(griffe.Extension):
    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        if func.docstring:
            func.docstring.value = listed(func.docstring.value, [parameter.name for parameter in func.parameters])

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        if cls.docstring and "__init__" in cls.members and isinstance(cls.members["__init__"], griffe.Function):
            cls.docstring.value = listed(
                cls.docstring.value, [item.name for item in cls.members["__init__"].parameters]
            )


def listed(docstring: str, names: list[str]) -> str:
    """Return the docstring with every sentence that begins with a parameter's name and a colon as an item of a list."""
    parameter = "|".join(map(re.escape, names)) or "(?!)"
    begins = re.compile(rf"(?:(?<=\. )|(?<=\.\n)|(?<=\n\n))({parameter}): ")
    first, *items = begins.split(docstring)
    pairs = zip(items[::2], items[1::2], strict=True)
    shown = "".join(f"\n- **`{name}`**: {' '.join(meaning.split())}" for name, meaning in pairs)
    return f"{first.rstrip()}\n{shown}" if shown else docstring
