"""Training in a process of its own: its peak memory is its own, and nothing of it is left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tunesmith import recipe as recipes, runs
from tunesmith.errors import TunesmithError
from tunesmith.recipe import Recipe
from tunesmith.runs import Run


def train(recipe: Recipe, folder: Path, *, closed_test: bool = False) -> Run:
    """Train into `folder`, or go on with the run that was cut off there. What it says goes to the same screen."""
    plan = folder / "recipe.yaml"
    command = [sys.executable, "-m", "tunesmith", "train"]
    if (folder / runs.MANIFEST).is_file():
        command += ["--resume", str(folder)]
    else:
        folder.mkdir(parents=True, exist_ok=True)
        plan.write_text(recipes.dump(recipe), encoding="utf-8")
        command += [str(plan), "--run-dir", str(folder)]
    done = subprocess.run([*command, "--quiet", *(["--closed-test"] if closed_test else [])], check=False)  # noqa: S603
    if done.returncode:
        raise TunesmithError(
            f"training {recipe.method} failed (exit code {done.returncode}); the reason stands above",
            do=f"mend it and try that method alone: tunesmith train {plan}",
        )
    return Run(folder)
