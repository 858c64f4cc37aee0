"""What can be wrong with the form of a response, whatever it says: counted, with the rows concerned."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunesmith.types import ResponseRow

MARKERS = re.compile(
    r"""\#{3}\s*(?:instruction|response)\b\s*:?
      | \#{3}\s*(?:input|output|question|answer|human|user|assistant|system)\s*:
      | <\|[\w.\- ]{1,40}\|> | \[/?INST\] | <</?SYS>> | </?s> | <eos> | <bos> | <\|?endoftext\|?>
      | </?(?:start|end)_of_(?:turn|text)>
      | ^[ \t]*(?:human|user|assistant)[ \t]*:
      | below[ ]is[ ]an[ ]instruction[ ]that[ ]describes[ ]a[ ]task""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
"""What templates write and answers do not: headings, special tokens, role names at the start of a line."""
ROLE = re.compile(r"^(?:System|User|Assistant): ")
"""Before each turn of a prompt of several turns."""
SHORTEST = 4
"""Words that an instruction needs, to count as repeated: shorter ones can belong to an answer."""
LOOP, LOOPED = 3, 0.5
"""A response loops where more than half of its groups of three words occurred in it before."""
SHORTEST_LOOP = 20
"""Words that an answer needs for that to be judged."""
SHOWN = 5
"""Rows that are named for each flaw."""


def empty(row: ResponseRow) -> bool:
    """Whether there is no text, or only white space."""
    return not row.texts[0].strip()


def template_text(row: ResponseRow) -> bool:
    """Whether a marker of some prompt template occurs that the reference does not have too."""
    response, reference = ({plain(match[0]) for match in MARKERS.finditer(text)} for text in row.texts)
    return bool(response - reference)


def repeats_instruction(row: ResponseRow) -> bool:
    """Whether the instruction or the whole prompt occurs word for word, unless in the reference too."""
    response, reference = map(plain, row.texts)
    instruction = row.instruction or ROLE.sub("", row.prompt.split("\n\n")[0])
    questions = {plain(row.prompt), plain(instruction)}
    return any(len(text.split()) >= SHORTEST and text in response and text not in reference for text in questions)


def answer_only(row: ResponseRow) -> bool:
    """Whether it is an answer and nothing else: not empty, no template text, no repeated instruction."""
    return not (empty(row) or template_text(row) or repeats_instruction(row))


def loops(row: ResponseRow) -> bool:
    """Whether groups of words are repeated over and over (Holtzman et al. 2020), unless in the reference too."""
    response, reference = map(_loops, row.texts)
    return response and not reference


FLAWS: dict[str, Callable[[ResponseRow], bool]] = {
    "no response in the data": lambda row: bool(row.missing),
    "empty": empty,
    "not ended": lambda row: row.ended is False,
    "template text": template_text,
    "repeats the instruction": repeats_instruction,
    "repeats itself": loops,
}


@dataclass(frozen=True, slots=True)
class FormatFlaw:
    """How many responses have a flaw."""

    count: int
    where: tuple[str, ...]
    """The ids of the first few."""


def count(rows: Sequence[ResponseRow]) -> dict[str, FormatFlaw]:
    """Count all of FLAWS, and responses that several different prompts got, though their references differ.

    Without any row that tells whether its response had ended, that flaw is left out.
    """
    ending_known = any(row.ended is not None for row in rows)
    flawed = {
        name: [row.id for row in rows if holds(row)]
        for name, holds in FLAWS.items()
        if name != "not ended" or ending_known
    }
    cases = {(plain(row.texts[0]), plain(row.prompt), plain(row.texts[1])) for row in rows}
    prompts = Counter(response for response, _, _ in cases)
    references = Counter(response for response, _ in {(response, reference) for response, _, reference in cases})
    flawed["same answer to different prompts"] = [
        row.id for row in rows if (text := plain(row.texts[0])) and prompts[text] > 1 and references[text] > 1
    ]
    return {name: FormatFlaw(len(ids), tuple(ids[:SHOWN])) for name, ids in flawed.items()}


def _loops(text: str) -> bool:
    words = text.casefold().split()
    if len(words) < SHORTEST_LOOP:
        return False
    groups = [tuple(words[i : i + LOOP]) for i in range(len(words) - LOOP + 1)]
    return 1 - len(set(groups)) / len(groups) > LOOPED


def plain(text: str) -> str:
    """Return a text without case and with single spaces, as texts are compared here."""
    return " ".join(text.split()).casefold()
