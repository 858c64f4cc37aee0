"""Reading the replies of a model behind an endpoint: strictly, so that only what was asked for counts as an answer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

from tunesmith.data.label_questions import NONE, LabelQuestion
from tunesmith.endpoints import reasoning
from tunesmith.endpoints.chat_client import TokenAlternatives
from tunesmith.prediction.endpoint_prompts import KEYS

LEAST_MASS = 0.5
"""Labels must have this much of the probability of all texts; below it, what the model would say is not a label."""


def label(question: LabelQuestion, text: str) -> int | None:
    """Return the number of the label that a reply names, from 0; None where it is anything else."""
    answer = _answer(question, text)
    return question.place_of(answer) if isinstance(answer, str) else None


def labels(question: LabelQuestion, text: str) -> list[int] | None:
    """Return the numbers of the labels that a reply lists, from 0; None where it lists anything else.

    A list that says that no label applies is a list.
    """
    answer = _answer(question, text)
    if isinstance(answer, str):
        answer = [] if answer.strip().casefold() == NONE else answer.split(",")
    if not isinstance(answer, list) or not all(isinstance(part, str) for part in answer):
        return None
    places = [question.place_of(part) for part in answer]
    return None if None in places else sorted({place for place in places if place is not None})


def number(question: LabelQuestion, text: str) -> float | None:
    """Return the number that a reply names; None where it is anything else."""
    answer = _answer(question, text)
    if question.labels and (place := question.place_of(str(answer))) is not None:
        return float(question.labels[place])
    try:
        value = float(answer) if isinstance(answer, str | int | float) and not isinstance(answer, bool) else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def probabilities(question: LabelQuestion, text: str, tokens: Sequence[TokenAlternatives]) -> list[float] | None:
    """Return the probability of each label, from the alternatives to each token of a reply that names one.

    A token that leads away from the reply counts for the labels that can still follow, in equal parts. Labels that no
    listed token leads to share, in equal parts, what is not listed at the first token where the labels differ. The sum
    is then 1; None where the listed labels have less than LEAST_MASS, or the tokens are not those of the text.
    """
    named = label(question, text)
    start = _start(question, text)
    if named is None or start is None or "".join(token.token for token in tokens) != text:
        return None
    # the reply as it would be with each of the labels
    candidates = [f"{text[:start]}{answer}".casefold() for answer in question.texts]
    masses = [0.0] * len(candidates)
    written, reached, unlisted = "", 1.0, 0.0
    for token in tokens:
        compatible = [k for k, candidate in enumerate(candidates) if _compatible(candidate, written)]
        if len(compatible) <= 1 or len(written) >= start + len(question.texts[named]):
            break
        listed = {name: math.exp(value) for name, value in token.logprobs.items()}
        if len(written + token.token) > start and not any(masses):
            unlisted = max(0.0, reached * (1 - sum(listed.values())))
        for name, probability in listed.items():
            if name != token.token:
                _share(masses, candidates, written + name, reached * probability)
        reached *= listed.get(token.token, 0.0)
        written += token.token
    _share(masses, candidates, written, reached)
    if not LEAST_MASS <= sum(masses) <= 1 + 1e-3:
        return None
    unreached = [k for k, mass in enumerate(masses) if mass == 0]
    for k in unreached:
        masses[k] = unlisted / len(unreached)
    total = sum(masses)
    return [mass / total for mass in masses]


def _share(masses: list[float], candidates: Sequence[str], written: str, probability: float) -> None:
    """Add a probability to the labels that can follow what is written."""
    places = [k for k, candidate in enumerate(candidates) if _compatible(candidate, written)]
    for place in places:
        masses[place] += probability / len(places)


def _compatible(candidate: str, written: str) -> bool:
    """Whether a text begins with what is written, or is all of it but for white space."""
    written = written.casefold()
    return candidate.startswith(written) or written.startswith(candidate)


def _start(question: LabelQuestion, text: str) -> int | None:
    """Return where the answer begins in a reply; None where it is not to be found once."""
    answer = _answer(question, text)
    if not isinstance(answer, str):
        return None
    start = text.rfind(answer.strip())
    return start if start >= 0 else None


def _answer(question: LabelQuestion, text: str) -> object:
    """Return the answer in a reply: its whole text, or the one entry of a JSON object."""
    text = reasoning.removed(text)
    if text.startswith("{"):
        try:
            content = json.loads(text)
        except ValueError:
            return text
        if isinstance(content, Mapping) and content.keys() == {KEYS[question.form]}:
            return content[KEYS[question.form]]
    return text
