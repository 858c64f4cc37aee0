"""Running a judge over items: once per seed, pairs in both orders, controls mixed in, every reply in a journal."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from tunesmith.endpoints.chat_client import ChatClient, EndpointReply, EndpointRequest
from tunesmith.endpoints.completion import complete
from tunesmith.endpoints.journal import Journal, request_key
from tunesmith.endpoints.token_usage import TokenPrices, TokenUsage
from tunesmith.errors import DataError
from tunesmith.evaluation.judge_scores import JudgeDecision, Verdict
from tunesmith.judging.judge_prompts import CHOICES, JudgeItem, Rubric
from tunesmith.judging.reply_parsing import parse

SURE = "Sure!"
REFERENCE = "reference"
"""The control that is as good as an answer can be; all others answer nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRecord(JudgeDecision):
    """A line of a judge's journal; `choice` is `A`, `B` or `tie`: the responses as they were shown."""

    read: int
    written: int
    tries: int
    failure: str

    @property
    def usage(self) -> TokenUsage:
        """What the question used."""
        return TokenUsage(self.read, self.written, self.tries)


@dataclass(frozen=True, slots=True)
class JudgeRun:
    """What one judge decided, and what that took."""

    verdicts: list[Verdict]
    """One per item, seed and order."""
    questions: int
    usage: TokenUsage
    """Of all questions, in whichever run they were asked."""
    seconds: float
    """Of this run alone."""


@dataclass(frozen=True, slots=True)
class JudgeQuery:
    """An item in one order with one seed, as a request."""

    item: JudgeItem
    seed: int
    swapped: bool
    request: EndpointRequest

    @property
    def order(self) -> str:
        return "ba" if self.swapped else "ab"

    def record(self, reply: EndpointReply) -> JudgeRecord:
        """Return the journal's line for a reply."""
        item = self.item
        parsed = parse(reply.text, pairwise=item.pairwise, material=item.material(), truncated=reply.truncated)
        return JudgeRecord(
            id=item.id,
            models=item.models,
            turn=len(item.turns),
            control=item.control,
            seed=self.seed,
            order=self.order,
            score=parsed.score,
            choice=parsed.choice,
            reason=f"no reply: {reply.failure}" if reply.failure else parsed.reason,
            reply=reply.text,
            read=reply.usage.prompt_tokens,
            written=reply.usage.completion_tokens,
            tries=reply.usage.requests,
            failure=reply.failure,
        )

    def verdict(self, judge: str, record: JudgeRecord) -> Verdict:
        """Return the verdict of a record, which may have been made for an equal question of another item."""
        choice = record.choice
        if choice in ("A", "B"):
            choice = self.item.models[("A", "B").index(choice) ^ self.swapped]
        return Verdict(
            id=self.item.id,
            models=self.item.models,
            turn=len(self.item.turns),
            control=self.item.control,
            judge=judge,
            seed=self.seed,
            order=self.order,
            score=record.score,
            choice=choice,
            reason=record.reason,
            reply=record.reply,
            length=len(self.item.last.responses[0].split()),
        )


def run_judge(
    judge: ChatClient,
    items: Sequence[JudgeItem],
    rubric: Rubric,
    seeds: Sequence[int],
    journal: Journal[JudgeRecord],
    prices: TokenPrices | None = None,
) -> JudgeRun:
    """Return a judge's verdicts on all items, controls among them. Raises EndpointError as `complete` does."""
    queries = []
    for item in items:
        for swapped in (False, True) if item.pairwise else (False,):
            messages = rubric.messages(item.swapped() if swapped else item)
            for seed in seeds:
                key = request_key(judge.identity, messages, seed)
                request = EndpointRequest(key, messages, seed, CHOICES[item.mode])
                queries.append(JudgeQuery(item, seed, swapped, request))
    first = {query.request.key: query for query in reversed(queries)}
    # Sorting by key, which is a hash, shuffles: controls lie among answers, and models among each other.
    requests = [first[key].request for key in sorted(first)]
    totals = complete(
        judge,
        requests,
        journal,
        lambda request, reply: first[request.key].record(reply),
        title=f"judge {judge.name}",
        prices=prices,
    )
    records = {key: journal[key] for key in first}
    verdicts = [query.verdict(judge.name, records[query.request.key]) for query in queries]
    usage = TokenUsage.total(record.usage for record in records.values())
    return JudgeRun(verdicts, len(records), usage, totals.seconds)


def pairs(items: Sequence[JudgeItem]) -> list[JudgeItem]:
    """Return each two models' answers to one question, as one item. Raises DataError where there are no two."""
    by_turn: dict[tuple[str, int], list[JudgeItem]] = {}
    for item in items:
        by_turn.setdefault((item.id, len(item.turns)), []).append(item)
    paired = []
    for same in by_turn.values():
        for a, b in combinations(same, 2):
            turns = (
                replace(first, responses=(*first.responses, *second.responses))
                for first, second in zip(a.turns, b.turns, strict=True)
            )
            paired.append(JudgeItem(a.id, (*a.models, *b.models), tuple(turns)))
    if not paired:
        raise DataError(
            "no two models answered one question",
            expected="answers of two models",
            found=f"{len(items)} answers, each the only one to its question",
            do="give a second file, or --response",
        )
    return paired


def controls(items: Sequence[JudgeItem], number: int, seed: int) -> list[JudgeItem]:
    """Return tests of the judge, made from `number` of the items: nonsense as the answer, and the reference itself.

    In pairs the reference competes with each nonsense. Rows without a reference give only the first two kinds, and
    pairs then none.
    """
    first = {item.id: item for item in items if len(item.turns) == 1}
    pool = sorted(first.values(), key=lambda item: (item.last.reference is None, item.id))
    with_reference = [item for item in pool if item.last.reference is not None]
    draw = random.Random(seed)  # noqa: S311 - a sample, not a secret
    chosen = draw.sample(with_reference or pool, min(number, len(with_reference or pool)))
    tests = []
    for item in chosen:
        others = sorted({other.last.reference or "" for other in with_reference} - {item.last.reference})
        reference = item.last.reference or ""
        answers = {"empty": "", "sure": SURE} | ({"shuffled": draw.choice(others)} if others else {})
        if not item.pairwise:
            answers |= {REFERENCE: reference} if with_reference else {}
            tests += [_control(item, name, (name,), (text,)) for name, text in answers.items()]
        elif with_reference:
            tests += [_control(item, name, (REFERENCE, name), (reference, text)) for name, text in answers.items()]
    return tests


def _control(item: JudgeItem, name: str, models: tuple[str, ...], responses: tuple[str, ...]) -> JudgeItem:
    return JudgeItem(item.id, models, (replace(item.last, responses=responses),), name)
