"""What instructions and responses are made of: contradictions, flaws of answers, mixed languages, odd lengths."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.auditing import languages
from tunesmith.auditing.findings import Finding
from tunesmith.auditing.row_counts import RowCount
from tunesmith.data import personal_data
from tunesmith.evaluation import format_checks
from tunesmith.evaluation.format_checks import plain
from tunesmith.records import omitted_if_none
from tunesmith.types import Example, Message, ResponseRow

PLACEHOLDER = re.compile(
    r"\W*(?:n/?a|none|null|nan|nil|todo|tbd|no ?(?:answer|output|response|input)|empty|unknown|\?)?\W*", re.IGNORECASE
)
"""A whole answer that says nothing."""
REFUSAL = re.compile(
    r"""\bas\ an?\ (?:ai|artificial\ intelligence|(?:large\ )?language\ model)\b
      | \bi(?:['’]m|\ am)\ (?:just\ |only\ )?an?\ (?:ai|(?:large\ )?language\ model)\b
      | \bi(?:['’]m|\ am)\ (?:sorry|unable|not\ able|afraid)[^.!?\n]{0,40}\b(?:can(?:no|['’])t|unable|not\ able)\b
      | \bi\ (?:can(?:not|['’]t)|am\ (?:unable|not\ able)\ to|['’]m\ (?:unable|not\ able)\ to|won['’]t)
        \ (?:assist|help|provide|fulfil+|comply|answer|generate|create|complete|access|browse|engage|discuss|do\ that)\b
      | \bcomo\ (?:una?\ )?(?:modelo\ de\ lenguaje|ia|inteligencia\ artificial)\b
      | \bals\ (?:ein\ |eine\ )?(?:ki|ki-modell|sprachmodell|künstliche\ intelligenz)\b
      | \ben\ tant\ qu(?:e\ |['’])(?:modèle\ de\ langage|ia|intelligence\ artificielle)\b
      | \bкак\ (?:языковая\ модель|искусственный\ интеллект|ии)\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""In English, Spanish, German, French and Russian."""
REFUSES_WITHIN = 250
"""Characters of an answer in which a refusal stands."""
TRANSLATION = re.compile(
    r"translat|traduc|traduz|übersetz|tradui|перев[её]д|翻译|翻訳|번역|in (?:the )?\w+ language", re.IGNORECASE
)
ALIKE = ("es gl ca pt an oc", "no nb nn da sv", "hr sr bs sl", "id ms", "cs sk", "ru uk be bg mk", "zh ja", "af nl")
"""Languages that are taken for one another."""
LONG_ANSWER, LONG_LINE = 20, 8
"""Words of an answer, and of its last line, from which on it should end with a punctuation mark."""
UNFINISHED = 0.2
"""Where more of the long answers than this end without one, that is how they are written."""
SAME_ANSWER = 5
"""Words that an answer to different prompts needs to be counted."""
FAR = 4.0
"""Robust standard deviations of the logarithm of a length, from which on a length is odd (Iglewicz and Hoaglin 1993
take 3.5)."""
SHOWN = 8
"""Rows with odd losses that are listed on each side."""
CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class AnswerFlaw:
    """One kind of flaw in answers, or in prompts."""

    kind: str
    count: RowCount
    example: str
    """The part of a text that shows it, where one does; with personal data masked."""


@dataclass(frozen=True, slots=True)
class Contradictions:
    """Prompts with different answers. Prompts and answers are compared without case and with single spaces."""

    prompts: int
    count: RowCount
    across_splits: int
    """Prompts that stand in two splits with different answers."""
    exact: int
    """Prompts that are equal to the letter."""


@dataclass(frozen=True, slots=True)
class LanguageMix:
    """Answers in another language than their prompt, translations aside."""

    checked: int
    """Conversations of which both languages are known."""
    count: RowCount
    pairs: dict[str, int]
    """Rows by the languages, `Spanish answered in English`, the most frequent first."""


@dataclass(frozen=True, slots=True)
class LossRow:
    """How well the base model predicts a response."""

    id: str
    loss: float
    """Mean over the tokens of the response, in nats."""
    tokens: int


@dataclass(frozen=True, slots=True)
class LossOutliers:
    """The responses that the base model predicts worst and best."""

    model: str
    rows: int
    median: float
    highest: tuple[LossRow, ...]
    """Odd or wrong responses, other languages, noise."""
    lowest: tuple[LossRow, ...]
    """Responses that the model knows by heart, or that repeat the prompt."""
    high: RowCount
    """Rows whose loss is odd."""
    low: RowCount


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationAudit:
    """What instructions and responses are made of, as numbers."""

    findings: tuple[Finding, ...] = ()
    rows: int
    several_turns: int
    """Conversations of more than one question."""
    systems: int
    """Different system messages."""
    contradictions: Contradictions
    flaws: tuple[AnswerFlaw, ...]
    """The most frequent first."""
    languages: LanguageMix
    short: RowCount
    """Last answers that are oddly short."""
    long: RowCount
    losses: LossOutliers | None = omitted_if_none()


Check = Callable[[ResponseRow], "re.Match[str] | bool | None"]


def _placeholder(row: ResponseRow) -> bool:
    return PLACEHOLDER.fullmatch(row.texts[0]) is not None


def _refusal(row: ResponseRow) -> re.Match[str] | None:
    return REFUSAL.search(row.texts[0][:REFUSES_WITHIN])


def _open_code(row: ResponseRow) -> bool:
    return row.texts[0].count("```") % 2 == 1


def _marker(row: ResponseRow) -> re.Match[str] | None:
    return format_checks.MARKERS.search(row.texts[0])


def _marker_in_prompt(row: ResponseRow) -> re.Match[str] | None:
    return format_checks.MARKERS.search(row.prompt)


CHECKS: dict[str, Check] = {
    "says nothing": _placeholder,
    "refusal, or speaks as an AI": _refusal,
    "code block without an end": _open_code,
    "template text in the answer": _marker,
    "template text in the prompt": _marker_in_prompt,
    "repeats the instruction": format_checks.repeats_instruction,
    "repeats itself": format_checks.loops,
}
"""Flaws by name. Each looks at a question with its answer."""
UNENDED, SAME = "ends without a punctuation mark", "same answer to different prompts"


def audit(rows_by_split: Mapping[str, Sequence[Example]]) -> ConversationAudit | None:
    """Return what conversations are made of, without findings; None where nothing is answered."""
    rows = [row for rows in rows_by_split.values() for row in rows if len(row.messages) > 1]
    if not rows:
        return None
    lengths = np.array([len(row.messages[-1].content) for row in rows])
    short, long = odd(np.log(np.maximum(1, lengths)))
    systems = {row.messages[0].content for row in rows if row.messages[0].role == "system"}
    return ConversationAudit(
        rows=len(rows),
        several_turns=sum(sum(message.role == "user" for message in row.messages) > 1 for row in rows),
        systems=len(systems),
        contradictions=contradictions(rows_by_split),
        flaws=_flaws(rows),
        languages=_language_mix(rows),
        short=RowCount.of(rows[place].id for place in short),
        long=RowCount.of(rows[place].id for place in long),
    )


def contradictions(rows_by_split: Mapping[str, Sequence[Example]]) -> Contradictions:
    """Return the prompts, with all turns before, that have different answers."""
    rows = [(split, row) for split, rows in rows_by_split.items() for row in rows if len(row.messages) > 1]
    by_prompt = defaultdict[str, list[tuple[str, Example]]](list)
    for split, row in rows:
        by_prompt[plain(row.text)].append((split, row))
    ids: list[str] = []
    prompts = across = exact = 0
    for group in by_prompt.values():
        answers = {plain(row.messages[-1].content) for _, row in group}
        if len(answers) > 1:
            prompts += 1
            across += len({split for split, _ in group}) > 1
            exact += len({row.text for _, row in group}) == 1
            ids += [row.id for _, row in group]
    return Contradictions(prompts, RowCount.of(ids), across, exact)


def turns(row: Example) -> Iterator[ResponseRow]:
    """Yield each question of a conversation with its answer."""
    asked: Message | None = None
    for message in row.messages:
        if message.role == "assistant" and asked is not None:
            prompt = f"{asked.content}\n\n{asked.input}" if asked.input else asked.content
            yield ResponseRow(row.id, prompt, asked.content, response=message.content, reference="")
        asked = message if message.role == "user" else asked


def _flaws(rows: Sequence[Example]) -> tuple[AnswerFlaw, ...]:
    ids: dict[str, list[str]] = defaultdict(list)
    examples: dict[str, str] = {}
    prompts_by_answer = defaultdict[str, set[str]](set)
    rows_by_answer = defaultdict[str, list[str]](list)
    ended = long = 0
    for row in rows:
        for turn in turns(row):
            for name, check in CHECKS.items():
                if match := check(turn):
                    ids[name].append(row.id)
                    if isinstance(match, re.Match):
                        examples.setdefault(name, personal_data.masked(match[0].strip()))
            state = _ending(turn.texts[0])
            long, ended = long + (state is not None), ended + (state is True)
            if state is False:
                ids[UNENDED].append(row.id)
            answer = plain(turn.texts[0])
            if len(answer.split()) >= SAME_ANSWER:
                prompts_by_answer[answer].add(plain(turn.prompt))
                rows_by_answer[answer].append(row.id)
    if long and 1 - ended / long > UNFINISHED:
        ids.pop(UNENDED, None)
    for answer, prompts in prompts_by_answer.items():
        ids[SAME] += rows_by_answer[answer] if len(prompts) > 1 else []
    counts = {name: RowCount.of(dict.fromkeys(where)) for name, where in ids.items() if where}
    flaws = [AnswerFlaw(name, count, examples.get(name, "")) for name, count in counts.items()]
    return tuple(sorted(flaws, key=lambda flaw: -flaw.count.rows))


def _ending(answer: str) -> bool | None:
    """Return whether a long answer ends as sentences do; None for a short one, or one that ends with a list or code."""
    last = answer.rstrip().rpartition("\n")[2].strip()
    if len(answer.split()) < LONG_ANSWER or len(last.split()) < LONG_LINE or re.match(r"[-*•|#>]|\d+[.)]|```", last):
        return None
    end = last[-1]
    return not (end in ",;([{-–" or (end.isalpha() and end < "\u0530"))


def _language_mix(rows: Sequence[Example]) -> LanguageMix:
    alike = {code: number for number, codes in enumerate(ALIKE) for code in codes.split()}
    checked, ids, pairs = 0, [], defaultdict[str, int](int)
    for row in _spread(rows, languages.MOST_TEXTS):
        question, answer = row.messages[-2].content, CODE.sub("", row.messages[-1].content)
        if row.messages[-2].input or not (languages.is_long_enough(question) and languages.is_long_enough(answer)):
            continue
        asked, answered = languages.identify(question), languages.identify(answer)
        if asked is None or answered is None:
            continue
        checked += 1
        name = languages.NAMES.get(answered, answered)
        wanted = TRANSLATION.search(question) or name.casefold() in question.casefold()
        if alike.get(asked, asked) != alike.get(answered, answered) and not wanted:
            ids.append(row.id)
            pairs[f"{languages.NAMES.get(asked, asked)} answered in {name}"] += 1
    return LanguageMix(checked, RowCount.of(ids), dict(sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))))


def _spread(rows: Sequence[Example], most: int) -> Sequence[Example]:
    """Return at most this number of rows, evenly spread."""
    return rows if len(rows) <= most else [rows[place * len(rows) // most] for place in range(most)]


def odd(values_N: np.ndarray) -> tuple[list[int], list[int]]:
    """Return the places of values far below and far above the median, by the median absolute deviation."""
    middle = np.median(values_N)
    spread = 1.4826 * float(np.median(np.abs(values_N - middle)))
    if not spread:
        return [], []
    distance_N = (values_N - middle) / spread
    return np.flatnonzero(distance_N < -FAR).tolist(), np.flatnonzero(distance_N > FAR).tolist()


def loss_outliers(model: str, rows: Sequence[LossRow]) -> LossOutliers | None:
    """Return the responses with the highest and lowest losses; None without any."""
    if not rows:
        return None
    losses_N = np.array([row.loss for row in rows])
    low, high = odd(losses_N)
    ranked = sorted(rows, key=lambda row: (row.loss, row.id))
    return LossOutliers(
        model=model,
        rows=len(rows),
        median=float(np.median(losses_N)),
        highest=tuple(ranked[::-1][:SHOWN]),
        lowest=tuple(ranked[:SHOWN]),
        high=RowCount.of(rows[place].id for place in high),
        low=RowCount.of(rows[place].id for place in low),
    )
