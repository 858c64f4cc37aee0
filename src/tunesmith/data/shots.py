"""Training rows that a prompt shows with their answers before its text (few-shot): which ones, and their files.

They are the same for every text, or those most like it. Whatever was chosen is stored with the model, so that every
later prompt is, token for token, that of the run. This module imports no torch: it is given what embeds texts.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from tunesmith import records
from tunesmith.console import say
from tunesmith.data.text_keys import text_key
from tunesmith.recipe import Prompt
from tunesmith.records import omitted_if_none
from tunesmith.types import Example, TextKey

FILE, EMBEDDINGS = "shots.json", "shots.safetensors"
DECIMALS = 5
"""Of similarities that are compared: further ones are rounding errors, and rows that are equal in these keep their
order."""
Floats = NDArray[np.float32]
Embed = Callable[[Sequence[Example]], Floats]
"""N examples -> N x D, rows of unit length."""
Embedder = Callable[[str], Embed]
"""The name of an encoder -> what embeds texts with it."""


@dataclass(frozen=True)
class SimilarTexts:
    """How the most similar of some rows are found."""

    number: int
    """How many of them."""
    encoder: str
    """The name of what embeds them."""
    embeddings: Floats = field(repr=False, compare=False)
    """N x D, of the rows."""
    embed: Embed = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ShotsFile:
    """What shots.json holds; embeddings are beside it."""

    rows: tuple[Example, ...]
    nearest: int | None = omitted_if_none()
    encoder: str | None = omitted_if_none()


@dataclass(frozen=True)
class Shots:
    """Training rows that prompts show with their answers."""

    rows: tuple[Example, ...] = ()
    """In the order in which they are shown; with `similar`, those to choose from."""
    similar: SimilarTexts | None = None

    def of(self, example: Example) -> tuple[Example, ...]:
        """Return the shots of a text, the most similar last; never a row with the same text, which has its answer."""
        key = text_key(example)
        if self.similar is None:
            return tuple(row for row in self.rows if text_key(row) != key)
        place = self._places.get(key)
        embeddings_ND = self.similar.embeddings
        # one text at a time: in a batch its embedding would be another in the last digits
        query_D = self.similar.embed([example])[0] if place is None else embeddings_ND[place]
        similarity_N = (embeddings_ND @ query_D).round(DECIMALS)
        if place is not None:
            similarity_N[place] = -np.inf
        count = min(self.similar.number, len(self.rows) - (place is not None))
        nearest = np.argsort(-similarity_N, kind="stable")[:count]
        return tuple(self.rows[i] for i in reversed(nearest))

    @cached_property
    def _places(self) -> dict[TextKey, int]:
        return {text_key(row): place for place, row in enumerate(self.rows)}

    def save(self, folder: Path) -> None:
        """Write the rows, and their embeddings, where there are any."""
        if not self.rows:
            return
        similar = self.similar
        content = ShotsFile(self.rows, *(() if similar is None else (similar.number, similar.encoder)))
        (folder / FILE).write_text(json.dumps(records.dump(content)), encoding="utf-8")
        if similar is not None:
            save_file({"embeddings": similar.embeddings}, folder / EMBEDDINGS)


def load(folder: Path, embedder: Embedder) -> Shots:
    """Return the shots that `save` wrote; none where there is no such file. Raises RunError for a damaged one."""
    if not (folder / FILE).is_file():
        return Shots()
    content = records.read(ShotsFile, folder / FILE)
    if content.nearest is None or content.encoder is None:
        return Shots(content.rows)
    embeddings_ND = load_file(folder / EMBEDDINGS)["embeddings"]
    similar = SimilarTexts(content.nearest, content.encoder, embeddings_ND, embedder(content.encoder))
    return Shots(content.rows, similar)


def choose(train: Sequence[Example], settings: Prompt, seed: int, embedder: Embedder) -> Shots:
    """Return the shots of a recipe, from its training rows; a note says where there are fewer than it asks for.

    No text is shown twice: of rows with the same text, the first counts. embedder: for `nearest` alone.
    """
    rows = list({text_key(row): row for row in reversed(train)}.values())[::-1] if settings.shots else []
    if settings.shots > len(rows):
        say(f"note: {settings.shots} shots are asked for, but train has {len(rows)} different texts: all are shown")
    if settings.shot_selection == "nearest" and rows:
        embed = embedder(settings.shot_encoder)
        return Shots(tuple(rows), SimilarTexts(settings.shots, settings.shot_encoder, embed(rows), embed))
    drawn = draw(rows, settings.shots, seed)
    shown, known = ({label for row in part for label in row.all_labels} for part in (drawn, rows))
    if drawn and len(shown) < len(known):
        say(f"note: the {settings.shots} shots have {len(shown)} of {len(known)} labels")
    return Shots(tuple(drawn))


def draw(rows: Sequence[Example], number: int, seed: int) -> list[Example]:
    """Return `number` rows in random order, or all: each label equally often, and low and high numbers alike.

    A row with several labels counts for the one that it is drawn for. Rows of instructions are drawn as they come.
    """
    generator = random.Random(f"{seed} shots")  # noqa: S311 - repeatable, not secret
    waiting = [sorted(stratum, key=lambda _: generator.random()) for stratum in _strata(rows, number)]
    waiting.sort(key=lambda _: generator.random())
    drawn: dict[int, None] = {}
    while len(drawn) < min(number, len(rows)):
        for stratum in waiting:
            left = [place for place in stratum if place not in drawn]
            if left and len(drawn) < number:
                drawn[left[0]] = None
    return [rows[place] for place in sorted(drawn, key=lambda _: generator.random())]


def _strata(rows: Sequence[Example], number: int) -> list[list[int]]:
    """Return row numbers by label; of numbers as many parts of similar size as rows are drawn, from low to high."""
    if rows and rows[0].value is not None:
        order = sorted(range(len(rows)), key=lambda place: rows[place].value or 0.0)
        return [part.tolist() for part in np.array_split(order, min(number, len(rows)))]
    strata: dict[str | None, list[int]] = {}
    for place, row in enumerate(rows):
        for label in row.all_labels or (None,):
            strata.setdefault(label, []).append(place)
    return list(strata.values())
