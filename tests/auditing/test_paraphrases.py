"""Rows that are similar in meaning: found exactly, block by block, and never those that are copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.random_texts import text
from tunesmith.auditing import duplicate_audit, paraphrases
from tunesmith.auditing.duplicate_audit import DuplicatePair
from tunesmith.auditing.paraphrases import ParaphraseAudit
from tunesmith.data import near_duplicates
from tunesmith.data.text_keys import text_key
from tunesmith.reporting import paraphrase_report
from tunesmith.types import Example, Message

Splits = Mapping[str, Sequence[Example]]
Vectors = NDArray[np.float64]


def audited(
    splits: Splits, known: Mapping[str, Vectors], threshold: float = 0.9
) -> tuple[ParaphraseAudit, list[DuplicatePair]]:
    """Audit rows whose texts have these embeddings."""

    def embed(texts: Sequence[str]) -> Vectors:
        assert len(set(texts)) == len(texts)
        return np.array([known[each] for each in texts])

    index = near_duplicates.find([*splits.values()], 0.7)
    return paraphrases.audit(splits, index, embed, threshold, "a model")


def cloud(texts: Sequence[str], seed: int = 0) -> dict[str, Vectors]:
    """Embeddings of which many are similar: 40 centres with some noise, of any length."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(40, 8))
    return {each: draw.uniform(0.1, 9) * (centres[draw.integers(40)] + 0.2 * draw.normal(size=8)) for each in texts}


def cosine(first: Vectors, second: Vectors) -> float:
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


@pytest.mark.parametrize("at_once", [1, 700, paraphrases.SIMILARITIES])
def test_every_row_is_compared_with_every_other_one(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paraphrases, "SIMILARITIES", at_once)
    rows = [Example(f"r{n}", text(n), label="x") for n in range(130)]
    rows += [Example(f"copy{n}", text(n).upper(), label="x") for n in range(20)]
    splits = {"train": [*rows[:80], *rows[140:]], "validation": rows[80:100], "test": rows[100:140]}
    known = cloud([row.text for row in rows])
    index = near_duplicates.find([*splits.values()], 0.7)
    expected = {}
    for split, other in duplicate_audit.of_splits(splits):
        for place, row in enumerate(splits[split]):
            others = splits[other][:place] if split == other else splits[other]
            if any(index.numbers[text_key(row)] == index.numbers[text_key(each)] for each in others) or not others:
                continue
            best = max(others, key=lambda each: cosine(known[row.text], known[each.text]))
            if cosine(known[row.text], known[best.text]) >= 0.9:
                expected[split, row.id, other] = best.id
    audit, pairs = audited(splits, known)
    assert len(expected) > 50
    assert {(pair.split, pair.id, pair.other_split): pair.other_id for pair in pairs} == expected
    assert sum(count.paraphrases for count in audit.counts) == len(pairs)
    for pair in pairs:
        assert abs(pair.similarity - cosine(known[pair.text], known[pair.other_text])) < 1e-6
        assert (pair.grade, pair.folds) == ("paraphrase", ())


def test_copies_are_left_out_and_texts_of_other_words_found() -> None:
    texts = {"same": text(1), "near": f"{text(1)} too", "other": text(2)}
    train = [Example("a", texts["same"], label="x")]
    test = [Example(name, each, label="x") for name, each in texts.items()]
    known = dict.fromkeys(texts.values(), np.eye(20)[19] + 0.1)
    for n in range(17):
        test.append(Example(f"far{n}", text(10 + n), label="x"))
        known[text(10 + n)] = np.eye(20)[n]
    audit, pairs = audited({"train": train, "test": test}, known)
    assert [(pair.id, pair.other_id, pair.other_split) for pair in pairs] == [
        ("other", "a", "train"),
        ("other", "same", "test"),
    ]
    assert [(c.split, c.other, c.rows, c.paraphrases) for c in audit.counts] == [
        ("test", "train", 20, 1),
        ("test", "test", 20, 1),
    ]
    assert [finding.severity for finding in audit.findings] == ["warning", "note"]
    assert audit.findings[0].headline == (
        "1 of 20 test rows (5.0%) is similar in meaning to a row of train, and no copy by words."
    )


def test_rows_are_as_similar_as_their_least_similar_part() -> None:
    first, second, third = text(1), text(2), text(3)
    known = {first: np.array([1.0, 0]), second: np.array([1.0, 0.2]), third: np.array([0, 1.0])}
    pairs_of = [Example("a", first, text_pair=first), Example("b", second, text_pair=third)]
    alike = Example("c", second, text_pair=second)
    assert [pair.id for pair in audited({"train": [*pairs_of, alike]}, known)[1]] == ["c"]


def test_conversations_are_compared_by_system_message_and_prompt() -> None:
    def row(name: str, prompt: str, system: str = "") -> Example:
        told = (Message("system", system),) if system else ()
        return Example(name, prompt, messages=(*told, Message("user", prompt), Message("assistant", f"{name} yes")))

    known = {text(1): np.array([1.0, 0]), text(2): np.array([1.0, 0.1]), text(3): np.array([1.0, 0.0])}
    _, pairs = audited({"train": [row("a", text(1)), row("b", text(2)), row("c", text(1), system=text(3))]}, known)
    assert [(pair.id, pair.other_id) for pair in pairs] == [("b", "a")]


@pytest.mark.parametrize("same", [0.0, 1.0])
def test_a_model_that_tells_nothing_apart_is_said_to_do_so(same: float) -> None:
    rows = [Example(f"r{n}", text(n), label="x") for n in range(50)]
    draw = np.random.default_rng(0)
    known = {row.text: np.concatenate([[10 * same], draw.normal(size=7)]) for row in rows}
    audit, _ = audited({"train": rows}, known, threshold=0.9)
    headlines = [finding.headline.split(":")[0] for finding in audit.findings]
    assert ("Similarity in meaning says little" in headlines) == (audit.usual >= 0.9) == bool(same)
    assert not same or len(headlines) == 1


def test_one_row_is_similar_to_nothing() -> None:
    audit, pairs = audited({"train": [Example("a", "x", label="y")]}, {"x": np.zeros(3)})
    assert (audit.counts, audit.pairs, audit.usual, pairs) == ((), (), 0.0, [])


def test_the_page_says_what_was_compared_and_shows_pairs() -> None:
    rows = [Example(f"r{n}", text(n), label="x") for n in range(150)]
    audit, pairs = audited({"train": rows[:100], "test": rows[100:]}, cloud([row.text for row in rows]))
    assert len(audit.pairs) == 3 * duplicate_audit.PAIRS_SHOWN < len(pairs)
    page = "\n".join(paraphrase_report.markdown(audit))
    assert "## Similar in meaning" in page
    assert "embeddings by a model have a cosine similarity of at least 0.9" in page
    assert f"`{max(pairs[:20], key=lambda pair: pair.similarity).id}`" in page
