"""How an exported folder is used by someone without tunesmith."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests import forked


def in_folder(folder: Path, *command: str, without: Sequence[str] = ()) -> str:
    """The output of Python in a folder, where some packages cannot be imported."""
    block = "".join(f"import sys; sys.modules[{name!r}] = None\n" for name in without)
    (folder.parent / "sitecustomize.py").write_text(block)
    paths = os.pathsep.join([str(folder.parent), *sys.path])
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    (folder.parent / "sitecustomize.py").unlink()
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_the_card_says(folder: Path) -> str:
    """What the Python of the model card prints."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return forked.run(forked.script, code, folder)
