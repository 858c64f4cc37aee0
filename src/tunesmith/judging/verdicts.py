"""From a judge's reply to its verdict: strictly, so that nothing is read that the judge did not plainly say.

What is no verdict is unscored, with the reason; it never becomes a number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

NUMBER = r"(?P<number>[-+]?\d+(?:[.,]\d+)?)\s*%?"
SCALE = r"(?:\s*(?:/|out of)\s*(?P<scale>\d+(?:\.\d+)?))?"
LABEL = r"(?:(?:final|overall|total|my)\s+)*(?:score|rating|grade|mark|verdict|judgement|judgment)\s*(?:is\s*)?[:=]?\s*"
SCORE = re.compile(rf"(?P<label>{LABEL})?{NUMBER}{SCALE}\.?", re.IGNORECASE | re.ASCII)
CHOICE = re.compile(
    r"(?P<label>(?:final\s+)?(?:verdict|winner|choice|answer)\s*(?:is\s*)?[:=]?\s*)?"
    r"(?P<choice>A|B|C|tie)\.?",
    re.IGNORECASE | re.ASCII,
)
THOUGHT = re.compile(r"^\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
MARKUP = re.compile(r"^[\s*_`#>\"'\[(]+|[\s*_`\"'\])]+$")
FENCE = re.compile(r"^```(?:json)?\s*(.*?)\s*```$", re.DOTALL)
FIELDS = ("score", "rating", "verdict", "winner")
TIE = "tie"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A score, or which of two answers is better (`A`, `B`, `tie`); or neither, and why."""

    score: int | None = None
    choice: str | None = None
    reason: str = ""

    @property
    def scored(self) -> bool:
        """Whether there is a verdict."""
        return self.score is not None or self.choice is not None


def parse(reply: str, *, pairwise: bool = False, material: Iterable[str] = (), cut: bool = False) -> Verdict:
    """The verdict of a reply: all of it, its last line, or a JSON object that is all of it or its last line.

    material: what was judged. A verdict that stands in it, as a line of its own, may be the judge's repetition and not
    its word: it counts for nothing. cut: the reply was ended by the limit of tokens. Different verdicts are none.
    """
    if cut:
        return Verdict(reason="cut off at the limit of tokens")
    text = THOUGHT.sub("", reply, count=1).strip()
    if not text:
        return Verdict(reason="empty reply")
    read = _choice if pairwise else _score
    lines = [text] if _json(text) is not None else [line for line in text.splitlines() if line.strip()]
    found = [read(line) for line in lines]
    last = found[-1]
    if not last.scored:
        return last
    given = [line for one in material for line in [one, *one.splitlines()]]
    claimed = {read(line) for line in given if _labelled(line)}
    if last in claimed or (not _labelled(lines[-1]) and last in map(read, given)):
        return Verdict(reason="the verdict stands in the material")
    said = {one for line, one in zip(lines, found, strict=True) if one.scored and _labelled(line)} - claimed
    return last if said <= {last} else Verdict(reason="several different verdicts")


def _score(line: str) -> Verdict:
    match = SCORE.fullmatch(_json(line) or _bare(line))
    if match is None:
        return Verdict(reason="no verdict on the last line" if _json(line) is None else "no whole number in the JSON")
    number, scale = match["number"], match["scale"]
    if scale is not None and float(scale) != 100:
        return Verdict(reason="a scale other than 0 to 100")
    if not re.fullmatch(r"0|[1-9]\d{0,8}", number):
        return Verdict(reason="a score that is no whole number from 0 to 100")
    score = int(number)
    return Verdict(score=score) if score <= 100 else Verdict(reason="a score above 100")


def _choice(line: str) -> Verdict:
    match = CHOICE.fullmatch(_json(line) or _bare(line))
    if match is None:
        return Verdict(reason="no verdict on the last line")
    choice = match["choice"].upper()
    return Verdict(choice=TIE if choice in ("C", "TIE") else choice)


def _json(text: str) -> str | None:
    """The verdict in a text that is a JSON object with exactly one, as text."""
    fenced = FENCE.match(text.strip())
    try:
        content = json.loads(fenced[1] if fenced else text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return None
    if not (isinstance(content, list) and all(isinstance(pair, tuple) for pair in content)):
        return None
    values = [value for name, value in content if str(name).lower() in FIELDS]
    if len(values) != 1 or isinstance(values[0], bool):
        return "?"
    return values[0] if isinstance(values[0], str) else json.dumps(values[0])


def _bare(line: str) -> str:
    """Without Markdown's emphasis, quotes and brackets around it, and around what follows a colon."""
    stripped = MARKUP.sub("", line)
    head, colon, tail = stripped.partition(":")
    return f"{MARKUP.sub('', head)}: {MARKUP.sub('', tail)}" if colon else stripped


def _labelled(line: str) -> bool:
    """Whether a line says that it is a verdict: a bare number above the last line may be part of an argument."""
    if _json(line) is not None or re.fullmatch(r"\s*\[\[.+\]\]\s*", line):
        return True
    found = SCORE.fullmatch(_bare(line)) or CHOICE.fullmatch(_bare(line))
    return bool(found and found["label"])
