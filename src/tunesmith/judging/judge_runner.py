"""A sitting: every item put to a judge once a seed, pairs in both orders, through its journal; and what it cost."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.console import meter, warn
from tunesmith.endpoints import journal
from tunesmith.endpoints.client import JudgeClient, JudgeRequest
from tunesmith.endpoints.journal import Journal
from tunesmith.judging.judge_prompts import JudgeItem, Rubric
from tunesmith.judging.verdicts import parse

SURE = "Sure!"
REFERENCE = "reference"
"""The control that is as good as an answer can be; all others answer nothing."""
PAIR = "\x1f"
"""Between the names of the two models of a pair."""


@dataclass(frozen=True)
class JudgeRun:
    """What came of it: a row an item, seed and order; and what all of them cost, in whatever run they were asked."""

    rows: list[dict[str, Any]]
    costs: dict[str, int]


@dataclass(frozen=True)
class JudgeQuery:
    """An item in one order with one seed, and the key of its verdict."""

    item: JudgeItem
    seed: int
    swapped: bool
    asked: JudgeRequest

    def row(self, judge: str, entry: dict[str, Any]) -> dict[str, Any]:
        """The verdict as evaluation takes it. Of a pair `choice` is the model that won, or `tie`."""
        item, choice = self.item, entry["choice"]
        models = item.model.split(PAIR)
        if choice in ("A", "B"):
            choice = models[("A", "B").index(choice) ^ self.swapped]
        return {
            "id": item.id,
            "model": item.model,
            "models": models,
            "turn": len(item.turns),
            "control": item.control,
            "judge": judge,
            "seed": self.seed,
            "order": "ba" if self.swapped else "ab",
            "score": entry["score"],
            "choice": choice,
            "reason": entry["reason"],
            "reply": entry["reply"],
            "length": len(item.last.responses[0].split()),
        }


def run_judge(
    judge: JudgeClient, items: Sequence[JudgeItem], rubric: Rubric, seeds: Sequence[int], log: Journal
) -> JudgeRun:
    """A judge's verdicts on all items, controls among them: one row an item, seed and order.

    What the journal holds is not asked again; equal questions are asked once. Raises JudgeError where the judge cannot
    go on; the journal then keeps what was said.
    """
    places = list(_places(judge, items, rubric, seeds))
    open_: dict[str, JudgeQuery] = {}
    for place in places:
        if place.asked.key not in log:
            open_.setdefault(place.asked.key, place)
    order = sorted(open_)  # by key, that is at random: controls lie among answers, and models among each other
    with meter(f"judge {judge.name}", len(order)) as show:
        unscored = 0
        for done, (asked, reply) in enumerate(judge.replies([open_[name].asked for name in order]), 1):
            place = open_[asked.key]
            said = parse(reply.text, pairwise=place.item.pairwise, material=place.item.material(), cut=reply.cut)
            unscored += not said.scored
            reason = f"no reply: {reply.failure}" if reply.failure else said.reason
            log.add(
                asked.key,
                {
                    "id": place.item.id,
                    "model": place.item.model,
                    "turn": len(place.item.turns),
                    "control": place.item.control,
                    "seed": place.seed,
                    "order": "ba" if place.swapped else "ab",
                    "score": said.score,
                    "choice": said.choice,
                    "reason": reason,
                    "reply": reply.text,
                    "read": reply.read,
                    "written": reply.written,
                    "tries": reply.tries,
                    "failure": reply.failure,
                },
            )
            show(done, f"{unscored} unscored" if unscored else "")
    failed = sum(bool(log.entries[place.asked.key]["failure"]) for place in places)
    if failed:
        warn(f"{failed:,} of {len(places):,} questions had no reply; run the same command again to ask them once more")
    rows = [place.row(judge.name, log.entries[place.asked.key]) for place in places]
    entries = [log.entries[name] for name in {place.asked.key for place in places}]
    costs = {name: sum(entry[name] for entry in entries) for name in ("tries", "read", "written")}
    return JudgeRun(rows, {"verdicts": len(rows), "questions": len(entries), **costs})


def controls(items: Sequence[JudgeItem], number: int, seed: int) -> list[JudgeItem]:
    """Tests of the judge, made of `number` of the items: nonsense instead of the answer, and the reference itself.

    In pairs the reference stands against each nonsense. Rows without a reference give only the first two kinds, and
    pairs then none.
    """
    first = {item.id: item for item in items if len(item.turns) == 1}
    pool = sorted(first.values(), key=lambda item: (item.last.reference is None, item.id))
    known = [item for item in pool if item.last.reference is not None]
    draw = random.Random(seed)  # noqa: S311 - a sample, not a secret
    chosen = draw.sample(known or pool, min(number, len(known or pool)))
    found = []
    for item in chosen:
        others = sorted({one.last.reference or "" for one in known} - {item.last.reference})
        answers = {"empty": "", "sure": SURE} | ({"shuffled": draw.choice(others)} if others and known else {})
        if item.pairwise:
            found += [_control(item, name, item.last.reference, text) for name, text in answers.items() if known]
        else:
            answers |= {REFERENCE: item.last.reference or ""} if known else {}
            found += [_control(item, name, text) for name, text in answers.items()]
    return found


def _control(item: JudgeItem, name: str, *responses: str | None) -> JudgeItem:
    turn = replace(item.last, responses=tuple(text or "" for text in responses))
    return JudgeItem(item.id, PAIR.join([REFERENCE, name]) if item.pairwise else name, (turn,), name)


def _places(
    judge: JudgeClient, items: Sequence[JudgeItem], rubric: Rubric, seeds: Sequence[int]
) -> Iterator[JudgeQuery]:
    for item in items:
        for swapped in (False, True) if item.pairwise else (False,):
            messages = rubric.messages(item.swapped() if swapped else item)
            for seed in seeds:
                name = journal.key(judge.identity, messages, seed)
                yield JudgeQuery(item, seed, swapped, JudgeRequest(name, messages, seed))
