"""What a judge's choices between two answers say: who wins, how steady the judge is, and what the order does. Pure.

A verdict is a row as in judgements.py; `choice` is the model that won, `tie`, or None where unscored, `order` is `ab`
or `ba`, and `models` names both. A pair is won only where both orders say so: where they disagree, it is a tie.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.intervals import Confidence, holm, mcnemar_exact, wilson
from tunesmith.evaluation.judge_scores import WRONG, Verdict, unscored

TIE = "tie"
Both = tuple[str | None, str | None]
"""The choice in the order ab, and in the order ba."""


def summarize(verdicts: Sequence[Verdict], confidence: Confidence) -> dict[str, Any]:
    """Everything that a report says of pairs, ready for JSON."""
    answers = [one for one in verdicts if not one["control"]]
    missed = unscored(answers)
    pairs = [_pair(rows, confidence, missed["withheld"]) for rows in _by_models(answers).values()]
    for pair, corrected in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = corrected
        pair["distinguishable"] = corrected < 1 - confidence.level and not missed["withheld"]
    return {
        "mode": "pairwise",
        "confidence": confidence.level,
        "pairs": pairs,
        "position": position(answers, confidence.level),
        "reliability": reliability([one for one in verdicts if one["control"]]),
        "unscored": missed,
    }


def position(verdicts: Sequence[Verdict], confidence: float) -> dict[str, Any]:
    """How often the first answer shown won, the second, or neither; and how often both orders agree."""
    scored = [one for one in verdicts if one["choice"] is not None]
    first = sum(one["choice"] == one["models"][one["order"] == "ba"] for one in scored)
    ties = sum(one["choice"] == TIE for one in scored)
    second = len(scored) - first - ties
    both = [pair for pair in _orders(verdicts).values() if None not in pair]
    return {
        "first": first,
        "second": second,
        "ties": ties,
        "first_share": _share(first, first + second, confidence),
        "consistent": _share(sum(a == b for a, b in both), len(both), confidence),
        "p": mcnemar_exact(first, second) if first + second else None,
    }


def reliability(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Whether the judge prefers the reference to nonsense, whichever is shown first."""
    kinds = []
    for name in dict.fromkeys(one["control"] for one in verdicts):
        rows = [one for one in verdicts if one["control"] == name]
        missing = sum(one["choice"] is None for one in rows)
        wrong = sum(one["choice"] not in (None, one["models"][0]) for one in rows)
        kinds.append({"control": name, "verdicts": len(rows), "unscored": missing, "wrong": wrong, "mean": None})
    rows, failed = (sum(one["verdicts"] for one in kinds), sum(one["wrong"] + one["unscored"] for one in kinds))
    reasons = []
    if rows and failed > WRONG * rows:
        reasons.append(f"in {failed} of {rows} verdicts it did not prefer the reference to an answer that says nothing")
    return {"trusted": False if reasons else True if rows else None, "reasons": reasons, "controls": kinds}


def _pair(rows: Sequence[Verdict], confidence: Confidence, withheld: bool) -> dict[str, Any]:
    """Wins of either side; rate counts a tie as half a win, and its interval is Wilson's on that count."""
    a, b = rows[0]["models"]
    settled = _per_place(rows)
    wins, losses, ties = (sum(one == side for one in settled) for side in (a, b, TIE))
    decided = wins + losses + ties
    rate = None
    if decided and not withheld:
        low, high = wilson_of(wins + ties / 2, decided, confidence.level)
        rate = {"value": (wins + ties / 2) / decided, "low": low, "high": high}
    return {
        "a": a,
        "b": b,
        "rows": len(settled),
        "decided": decided,
        "wins": wins,
        "losses": losses,
        "ties": ties,
        "rate": rate,
        "p": mcnemar_exact(wins, losses) if wins + losses else 1.0,
    }


def wilson_of(successes: float, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's interval where halves count: between those of the whole numbers on either side."""
    below, above = int(successes), int(successes + 0.5)
    return wilson(below, n, confidence)[0], wilson(above, n, confidence)[1]


def _per_place(verdicts: Sequence[Verdict]) -> list[str | None]:
    """Who won each row and turn: the side that more judges and seeds say won. They are no rows of their own."""
    said: dict[tuple[Any, ...], list[str | None]] = defaultdict(list)
    for (_, name, turn, _, _), both in _orders(verdicts).items():
        said[name, turn].append(_settled(both))
    a, b = verdicts[0]["models"]
    found: list[str | None] = []
    for votes in said.values():
        ahead = votes.count(a) - votes.count(b)
        known = any(vote is not None for vote in votes)
        found.append((a if ahead > 0 else b if ahead < 0 else TIE) if known else None)
    return found


def _settled(both: Both) -> str | None:
    if None in both:
        return None
    return both[0] if both[0] == both[1] else TIE


def _orders(verdicts: Sequence[Verdict]) -> dict[tuple[Any, ...], Both]:
    """Per row, turn, judge and seed the two choices."""
    found: dict[tuple[Any, ...], dict[str, str | None]] = defaultdict(dict)
    for one in verdicts:
        place = (one["model"], one["id"], one["turn"], one["judge"], one["seed"])
        found[place][one["order"]] = one["choice"]
    return {place: (orders.get("ab"), orders.get("ba")) for place, orders in found.items()}


def _by_models(verdicts: Sequence[Verdict]) -> dict[str, list[Verdict]]:
    found: dict[str, list[Verdict]] = defaultdict(list)
    for one in verdicts:
        found[one["model"]].append(one)
    return found


def _share(count: int, of: int, confidence: float) -> Mapping[str, float] | None:
    if not of:
        return None
    low, high = wilson(count, of, confidence)
    return {"value": count / of, "low": low, "high": high}
