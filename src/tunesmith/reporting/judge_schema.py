"""What judged.json holds, as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tunesmith import records
from tunesmith.endpoints.chat_client import ClientIdentity
from tunesmith.evaluation.judge_pairs import JudgePairs
from tunesmith.evaluation.judge_scores import JudgeScores
from tunesmith.records import omitted_if_none
from tunesmith.reporting.header import Header


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeClient(ClientIdentity):
    """A judge: everything that could change its verdicts."""

    name: str


@dataclass(frozen=True, slots=True)
class RubricSummary:
    """How judges were asked."""

    file: str | None
    """None for the built-in rubric."""
    fingerprint: str
    references: bool
    verbatim: bool | None = omitted_if_none()
    """True where the texts were not fenced."""


@dataclass(frozen=True, slots=True)
class JudgeCosts:
    """What all judges took, in whichever run they were asked; seconds are those of the last run alone."""

    verdicts: int
    questions: int
    tries: int
    """Requests, retries among them."""
    read: int
    """Prompt tokens."""
    written: int
    """Completion tokens."""
    price: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """One model's answer with its score, and what the judge wrote."""

    name: str
    response: str
    score: float | None
    reply: str


@dataclass(frozen=True, slots=True)
class ScoredPrompt:
    """All models' answers to one prompt."""

    id: str
    turn: int
    prompt: str
    reference: str | None
    answers: tuple[ScoredAnswer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReport(Header):
    """What judged.json holds, whatever the mode."""

    judges: tuple[JudgeClient, ...]
    seeds: tuple[int, ...]
    rubric: RubricSummary
    costs: JudgeCosts
    shown: dict[str, tuple[ScoredPrompt, ...]] = field(default_factory=dict)
    """The `best` and the `worst` answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeScoreReport(JudgeScores, JudgeReport):
    """judged.json where answers were scored."""

    mode: Literal["score"] = "score"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgePairReport(JudgePairs, JudgeReport):
    """judged.json where pairs were compared."""

    mode: Literal["pairwise"] = "pairwise"


def load_judge_report(content: object, where: str = "judged.json") -> JudgeScoreReport | JudgePairReport:
    """Return the report of a parsed judged.json. Raises RunError where it is damaged."""
    if isinstance(content, dict) and content.get("mode") == "pairwise":
        return records.load(JudgePairReport, content, where)
    return records.load(JudgeScoreReport, content, where)
