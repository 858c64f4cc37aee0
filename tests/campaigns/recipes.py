"""Recipes with settings that nobody would write: `check` has to answer each."""

from __future__ import annotations

from pathlib import Path

from tests import conftest, tiny
from tests.campaigns.campaign import Campaign, Outcome, execute


class Recipes(Campaign):
    """A recipe of the wrong types, depths and sizes."""

    name = "recipes"
    size = 500
    sample = 5

    def attempt(self, number: int, folder: Path) -> Outcome:
        random = self.random(number)
        conftest.write_csv(folder / "reviews.csv", tiny.texts(30))
        (folder / "recipe.yaml").write_text(f"data: {{path: reviews.csv}}\nseed: {random.choice(['x', '1', '-1'])}\n")
        return execute("check", "recipe.yaml", folder=folder).outcome
