"""Functions and classes of the user, which a setting names as `module:name`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from tunesmith import errors
from tunesmith.errors import RecipeError


def load(name: str, setting: str) -> Any:
    """Import what `name` (`module:name`) names; modules in the working folder are found too.

    setting: for the message. Raises RecipeError if it cannot be imported.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the user's module may raise anything
        raise RecipeError(
            f"{setting}: cannot import {name}",
            expected="module:name, of a module that is installed or lies in the working folder",
            found=errors.summary(error),
        ) from error
