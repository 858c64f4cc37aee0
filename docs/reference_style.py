"""How the reference shows docstrings: parameters as lists, records by their fields. Named in mkdocs.yml."""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe

import tunesmith

RECORDS = ("tunesmith.manifest", "tunesmith.types", "tunesmith.serving.schemas", "tunesmith.serving.openai")
"""Modules of what files, requests and responses hold: of these classes, only the fields are shown."""


class ParameterLists(griffe.Extension):
    """Shows `name: meaning` sentences as a list."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        if func.docstring:
            func.docstring.value = listed(func.docstring.value, [parameter.name for parameter in func.parameters])

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        made = cls.members.get("__init__")
        if cls.docstring and isinstance(made, griffe.Function):
            cls.docstring.value = listed(cls.docstring.value, [parameter.name for parameter in made.parameters])


class EstimatorParameters(griffe.Extension):
    """Takes the docstrings of estimators as they are at run time, when settings of the recipe have been filled in."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        if cls.docstring and "{settings}" in cls.docstring.value:
            cls.docstring.value = inspect.cleandoc(getattr(tunesmith, cls.name).__doc__)


class RecordFields(griffe.Extension):
    """Leaves out the methods of records, and settings of pydantic."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        if cls.path.startswith(RECORDS):
            for name, member in list(cls.members.items()):
                if member.is_function or "property" in member.labels or name == "model_config":
                    cls.del_member(name)


def listed(docstring: str, names: list[str]) -> str:
    """Return the docstring with every sentence that begins with a parameter's name and a colon as an item of a list."""
    parameter = "|".join(map(re.escape, names)) or "(?!)"
    sentence = r"(?:(?<=\. )|(?<=\.\n)|(?<=\n\n))"
    first, *items = re.split(rf"{sentence}({parameter}): ", docstring)
    if not items:
        return docstring
    items[-1], *rest = re.split(rf"{sentence}(?=(?:Raises|Returns?) )", items[-1], maxsplit=1)
    pairs = zip(items[::2], items[1::2], strict=True)
    shown = "".join(f"\n- **`{name}`**: {' '.join(meaning.split())}" for name, meaning in pairs)
    return "\n".join([first.rstrip(), shown, "", *rest])
