"""What can be wrong with the form of an answer, whatever it says: counted, with the rows where it stands."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
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
SHORTEST = 4
"""Words that an instruction needs, to count as repeated: shorter ones can belong to an answer."""
LOOP, LOOPED = 3, 0.5
"""An answer goes round in circles where more than half of its groups of three words stood in it before."""
SHORTEST_LOOP = 20
"""Words that an answer needs for that to be judged."""
SHOWN = 5
"""Rows that are named for each flaw."""


def empty(row: Row) -> bool:
    """Nothing, or white space."""
    return not row["response"].strip()


def template_text(row: Row) -> bool:
    """A marker of some prompt template that the reference does not have too."""
    found = {_marker(match) for match in MARKERS.finditer(row["response"])}
    return bool(found - {_marker(match) for match in MARKERS.finditer(row["reference"])})


def repeats_instruction(row: Row) -> bool:
    """The instruction, or the whole prompt, word for word; unless the reference has it too."""
    prompt = row.get("prompt") or ""
    response, reference = _plain(row["response"]), _plain(row["reference"])
    asked = {_plain(prompt), _plain(row.get("instruction") or prompt.split("\n\n")[0])}
    return any(len(one.split()) >= SHORTEST and one in response and one not in reference for one in asked)


def answer_only(row: Row) -> bool:
    """An answer and nothing else: not empty, no template text, no repeated instruction."""
    return not (empty(row) or template_text(row) or repeats_instruction(row))


def loops(row: Row) -> bool:
    """The same groups of words over and over (Holtzman et al. 2020); unless the reference does so too."""
    return _goes_round(row["response"]) and not _goes_round(row["reference"])


FLAWS: dict[str, Callable[[Row], bool]] = {
    "no response in the data": lambda row: bool(row.get("missing")),
    "empty": empty,
    "not ended": lambda row: not row.get("ended", True),
    "template text": template_text,
    "repeats the instruction": repeats_instruction,
    "repeats itself": loops,
}


def count(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """{flaw: {"count", "where"}}, all of FLAWS and answers that several different prompts were given.

    Whether an answer had not ended only some rows tell; without one of them that flaw is left out.
    """
    known = {name: holds for name, holds in FLAWS.items() if name != "not ended" or any("ended" in row for row in rows)}
    found = {name: [str(row["id"]) for row in rows if holds(row)] for name, holds in known.items()}
    found["same answer to different prompts"] = [str(row["id"]) for row in _shared(rows)]
    return {name: {"count": len(ids), "where": ids[:SHOWN]} for name, ids in found.items()}


def _shared(rows: Sequence[Row]) -> list[Row]:
    """Rows whose answer other prompts were given as well, though their references differ."""
    cases = {(_plain(row["response"]), _plain(row["prompt"]), _plain(row["reference"])) for row in rows}
    prompts = Counter(response for response, _, _ in cases)
    references = Counter(response for response, _ in {(response, reference) for response, _, reference in cases})
    return [row for row in rows if (text := _plain(row["response"])) and prompts[text] > 1 and references[text] > 1]


def _goes_round(text: str) -> bool:
    words = text.casefold().split()
    if len(words) < SHORTEST_LOOP:
        return False
    groups = [tuple(words[i : i + LOOP]) for i in range(len(words) - LOOP + 1)]
    return 1 - len(set(groups)) / len(groups) > LOOPED


def _marker(match: re.Match[str]) -> str:
    return _plain(match[0])


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
