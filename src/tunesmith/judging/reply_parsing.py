"""Parsing a judge's reply strictly, so that only a plainly stated verdict counts as one.

Anything else is unscored, with the reason; it never becomes a number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from tunesmith.endpoints import reasoning

NUMBER = r"(?P<number>[-+]?\d+(?:[.,]\d+)?)\s*%?"
SCALE = r"(?:\s*(?:/|out of)\s*(?P<scale>\d+(?:\.\d+)?))?"
LABEL = r"(?:(?:final|overall|total|my)\s+)*(?:score|rating|grade|mark|verdict|judgement|judgment)\s*(?:is\s*)?[:=]?\s*"
SCORE = re.compile(rf"(?P<label>{LABEL})?{NUMBER}{SCALE}\.?", re.IGNORECASE | re.ASCII)
CHOICE = re.compile(
    r"(?P<label>(?:final\s+)?(?:verdict|winner|choice|answer)\s*(?:is\s*)?[:=]?\s*)?"
    r"(?P<choice>A|B|C|tie)\.?",
    re.IGNORECASE | re.ASCII,
)
MARKUP = re.compile(r"^[\s*_`#>\"'\[(]+|[\s*_`\"'\])]+$")
FENCE = re.compile(r"^```(?:json)?\s*(.*?)\s*```$", re.DOTALL)
FIELDS = ("score", "rating", "verdict", "winner")
TIE = "tie"


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """A score, or which of two answers is better (`A`, `B`, `tie`); or neither, and why."""

    score: int | None = None
    choice: str | None = None
    reason: str = ""

    @property
    def scored(self) -> bool:
        """Whether the reply states a verdict."""
        return self.score is not None or self.choice is not None


def parse(reply: str, *, pairwise: bool = False, material: Iterable[str] = (), truncated: bool = False) -> ParsedReply:
    """Return the verdict of a reply: the whole reply, its last line, or a JSON object that is either.

    material: what was judged. A verdict that is a line of it may be quoted by the judge and not its own, so it does not
    count. truncated: the reply was ended by the token limit. Several different verdicts count as none.
    """
    if truncated:
        return ParsedReply(reason="cut off at the token limit")
    text = reasoning.removed(reply)
    if not text:
        return ParsedReply(reason="empty reply")
    parse_line = _parse_choice if pairwise else _parse_score
    lines = [text] if _json_verdict(text) is not None else [line for line in text.splitlines() if line.strip()]
    parsed = [parse_line(line) for line in lines]
    last = parsed[-1]
    if not last.scored:
        return last
    material_lines = [line for part in material for line in [part, *part.splitlines()]]
    quoted = {parse_line(line) for line in material_lines if _labelled(line)}
    if last in quoted or (not _labelled(lines[-1]) and last in map(parse_line, material_lines)):
        return ParsedReply(reason="the verdict appears in the material")
    stated = {verdict for line, verdict in zip(lines, parsed, strict=True) if verdict.scored and _labelled(line)}
    return last if stated - quoted <= {last} else ParsedReply(reason="several different verdicts")


def _parse_score(line: str) -> ParsedReply:
    content = _json_verdict(line)
    match = SCORE.fullmatch(content or _without_markup(line))
    if match is None:
        return ParsedReply(reason="no verdict on the last line" if content is None else "no whole number in the JSON")
    number, scale = match["number"], match["scale"]
    if scale is not None and float(scale) != 100:
        return ParsedReply(reason="a scale other than 0 to 100")
    if not re.fullmatch(r"0|[1-9]\d{0,8}", number):
        return ParsedReply(reason="a score that is not a whole number from 0 to 100")
    score = int(number)
    return ParsedReply(score=score) if score <= 100 else ParsedReply(reason="a score above 100")


def _parse_choice(line: str) -> ParsedReply:
    match = CHOICE.fullmatch(_json_verdict(line) or _without_markup(line))
    if match is None:
        return ParsedReply(reason="no verdict on the last line")
    choice = match["choice"].upper()
    return ParsedReply(choice=TIE if choice in ("C", "TIE") else choice)


def _json_verdict(text: str) -> str | None:
    """Return the verdict in a JSON object, as text; `?` unless there is exactly one, None for another text."""
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


def _without_markup(line: str) -> str:
    """Return the line without Markdown emphasis, quotes and brackets around it, and around what follows a colon."""
    stripped = MARKUP.sub("", line)
    head, colon, tail = stripped.partition(":")
    return f"{MARKUP.sub('', head)}: {MARKUP.sub('', tail)}" if colon else stripped


def _labelled(line: str) -> bool:
    """Whether a line calls itself a verdict: a bare number above the last line may be part of an argument."""
    if _json_verdict(line) is not None or re.fullmatch(r"\s*\[\[.+\]\]\s*", line):
        return True
    text = _without_markup(line)
    match = SCORE.fullmatch(text) or CHOICE.fullmatch(text)
    return bool(match and match["label"])
