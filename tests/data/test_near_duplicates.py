"""Near-duplicates are found by MinHash and computed exactly."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest

from tests.random_texts import WORDS, text
from tunesmith.data import example_table, folded_texts, minhash, near_duplicates, shingles, text_folds
from tunesmith.data.near_duplicates import find
from tunesmith.data.text_keys import text_key
from tunesmith.types import Example, Message


def rows(*texts: str) -> list[Example]:
    return [Example(f"r{n}", text) for n, text in enumerate(texts)]


def shingled(folded: str) -> set[object]:
    words = folded.split()
    return {*words, *pairwise(words)}


def jaccard(a: str, b: str) -> float:
    one, other = (shingled(text_folds.fold(each)) for each in (a, b))
    return len(one & other) / len(one | other)


def test_the_reported_similarity_is_exact() -> None:
    generator = random.Random(0)
    texts = []
    for seed in range(12):  # fewer than 100 texts, so that every word counts
        words = text(seed).split()
        texts.append(" ".join(words))
        for changes in range(1, 8):
            for _ in range(changes):
                words[generator.randrange(len(words))] = generator.choice(WORDS)
            texts.append(" ".join(words))
    examples = rows(*texts)
    index = find([examples], 0.6)
    by_number = {index.numbers[text_key(row)]: row.text for row in reversed(examples)}
    reported = {
        (a, b): similarity for a, b, similarity in zip(index.first, index.second, index.similarity, strict=True)
    }
    expected = {
        (a, b): jaccard(by_number[a], by_number[b])
        for a, b in combinations(sorted(by_number), 2)
        if jaccard(by_number[a], by_number[b]) >= 0.6
    }
    assert len(expected) > 60
    assert reported.keys() <= expected.keys()
    assert all(similarity == pytest.approx(expected[pair]) for pair, similarity in reported.items())
    assert len(reported) >= 0.97 * len(expected)
    assert {pair for pair, similarity in expected.items() if similarity >= 0.75} <= reported.keys()


def key(text: str) -> int:
    return text_key(Example("", text))


def test_texts_equal_after_folds_share_a_number() -> None:
    index = find([rows("Good movie!", "good  MOVIE", "bad movie"), rows("<b>good</b> movie")], 0.7)
    assert [
        index.numbers[key(words)] for words in ("Good movie!", "good  MOVIE", "bad movie", "<b>good</b> movie")
    ] == [
        0,
        0,
        1,
        0,
    ]


def test_pairs_of_texts_are_as_similar_as_their_less_similar_texts() -> None:
    premise, other = text(1, 40), text(2, 40)
    pairs = [
        Example("a", premise, text_pair="one thing is so"),
        Example("b", premise + " indeed", text_pair="one thing is so"),
        Example("c", premise, text_pair="quite another matter entirely"),
        Example("d", other, text_pair="one thing is so"),
    ]
    index = find([pairs], 0.7)
    assert list(zip(index.first, index.second, strict=True)) == [(0, 1)]
    assert index.similarity == [pytest.approx(jaccard(pairs[0].text, pairs[1].text))]


def test_a_long_system_message_makes_no_questions_alike() -> None:
    def conversation(name: str, asked: str) -> Example:
        messages = (Message("system", text(3, 200)), Message("user", asked), Message("assistant", name))
        return Example(name, f"{text(3, 200)}\n\n{asked}", messages=messages)

    asked = text(4, 20)
    index = find([[conversation("a", asked), conversation("b", "why?"), conversation("c", asked + " please")]], 0.7)
    assert list(zip(index.first, index.second, strict=True)) == [(0, 2)]


def test_rows_that_share_a_long_part_are_compared_by_the_other() -> None:
    """300 questions, each asked twice with another last word, of a tenth of the rows with one long system message."""

    def conversation(name: str, system: str, asked: str) -> Example:
        return Example(name, f"{system}\n\n{asked}", messages=(Message("system", system), Message("user", asked)))

    shared = text(3, 300)
    asked = [f"{text(100 + n, 20)} {word}" for n in range(300) for word in ("now", "soon")]
    alike = [conversation(f"a{n}", shared, each) for n, each in enumerate(asked)]
    others = [conversation(f"b{n}", text(5000 + n, 10), text(20_000 + n, 20)) for n in range(3000)]
    index = find([[*alike, *others]], 0.7)
    pairs = set(zip(index.first, index.second, strict=True))
    assert len(pairs & {(2 * n, 2 * n + 1) for n in range(300)}) >= 297
    assert len(pairs) < 310


def test_what_a_template_says_does_not_count() -> None:
    template = text(5, 30)
    examples = rows(*(f"{template} {text(100 + n, 8)}" for n in range(150)), f"{template} {text(100, 8)} end")
    index = find([examples], 0.7)
    assert list(zip(index.first, index.second, strict=True)) == [(0, 150)]
    assert find([rows(*(row.text for row in examples[:50]))], 0.7).similarity  # too few to know a template


def test_languages_without_spaces_are_compared_by_characters() -> None:
    chinese = "本公司今日宣布将于下周在北京推出全新的电动汽车并计划明年出口欧洲市场"
    index = find(
        [rows(chinese, chinese.replace("北京", "上海"), "天气预报说明天有雨请大家带好雨伞出门注意安全路上小心")], 0.7
    )
    assert list(zip(index.first, index.second, strict=True)) == [(0, 1)]


def test_thousands_of_alike_texts_cost_no_more_than_others() -> None:
    base = text(6, 40).split()
    generator = random.Random(1)
    alike, others = [], [text(1000 + n, 40) for n in range(5000)]
    for _ in range(1000):
        words = list(base)
        words[generator.randrange(40)] = generator.choice(WORDS)
        words[generator.randrange(40)] = generator.choice(WORDS)
        alike.append(" ".join(words))
    seconds = []
    for texts in (others, others[1000:] + alike):
        start = time.process_time()
        index = find([rows(*texts)], 0.7)
        seconds.append(time.process_time() - start)
    bands = minhash.SLOTS // minhash.rows_per_band(0.7)
    assert 5000 <= len(index.first) <= 1000 * bands * (minhash.NEIGHBOURS + 1)
    assert seconds[1] < 3 * seconds[0] + 1


def test_in_a_crowded_band_rows_of_other_splits_are_met() -> None:
    base = text(7, 60)
    alike = [f"{base} {WORDS[n % 100]} {WORDS[n // 100]}" for n in range(300)]
    train = rows(*alike, *(text(1000 + n, 60) for n in range(1700)))
    test = [replace(row, id=f"t{n}") for n, row in enumerate(rows(f"{base} {text(8, 2)}", f"{base} {text(9, 2)}"))]
    index = find([train, test], 0.7)
    numbers = [index.numbers[text_key(row)] for row in test]
    near = {*index.first, *index.second}
    crossing = [pair for pair in zip(index.first, index.second, strict=True) if pair[1] in numbers and pair[0] < 2000]
    assert near >= {*numbers}
    assert {b for _, b in crossing} == {*numbers}


def test_at_threshold_1_only_equal_texts_are_sought() -> None:
    index = find([rows(text(1), text(1) + " more", text(1).upper())], 1.0)
    assert (index.first, index.numbers[key(text(1))]) == ((), index.numbers[key(text(1).upper())])


def test_odd_texts_are_no_trouble() -> None:
    examples = rows("", " ", "!", "?", "a", "\ud800", "x" * 100_000, "y " * 50_000, "\0", "one two three " * 3000)
    index = find([examples, []], 0.7)
    assert len(index.numbers) == len(examples)
    assert index.numbers[key("")] == index.numbers[key(" ")] != index.numbers[key("!")]
    assert find([[]], 0.7).numbers == {}


def test_every_process_computes_the_same() -> None:
    program = (
        "from tests.random_texts import text\n"
        "from tunesmith.data.near_duplicates import find\n"
        "from tunesmith.types import Example\n"
        "texts = [text(n) for n in range(50)]\n"
        "index = find([[Example('', t) for t in (*texts, *(t + ' more words' for t in texts))]], 0.7)\n"
        "print(index.first, index.second, index.similarity)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop()) > 1000


def shingles_of(texts: Sequence[str]) -> list[list[int]]:
    encoded = [shingles.encode(text) for text in texts]
    hashes, bounds = shingles.of_texts(b"".join(encoded), np.cumsum([0, *map(len, encoded)]))
    return [hashes[start:end].tolist() for start, end in pairwise(bounds)]


def test_worker_processes_and_texts_in_a_file_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [
        replace(row, text_pair="pair")
        for row in rows(*(f"{text(seed % 90)} {WORDS[seed // 90]}" for seed in range(200)))
    ]
    expected = find([examples[:150], examples[150:]], 0.7)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(example_table, "MOST_BYTES", 1000)
    monkeypatch.setattr(folded_texts, "MOST_BYTES", 1000)
    monkeypatch.setattr(folded_texts, "WAITING", 7)
    monkeypatch.setattr(near_duplicates, "AT_ONCE", 5000)
    tables = [example_table.collect(part) for part in (examples[:150], examples[150:])]
    assert all(isinstance(table, example_table.ExampleTable) for table in tables)
    index = find(tables, 0.7)
    assert len(index.first) > 50
    assert (index.first, index.second, index.similarity) == (expected.first, expected.second, expected.similarity)
    assert index.numbers.of_rows(examples).tolist() == expected.numbers.of_rows(examples).tolist()


def test_different_words_have_different_hashes() -> None:
    long = ["x" * length for length in range(1, 300)]
    words = [*WORDS, *long, *(word[:-1] + "y" for word in long[1:]), "z", "xz"]
    assert len({hashed for hashes in shingles_of(words) for hashed in hashes}) == len(set(words))
    texts = [" ".join(words[start : start + 3]) for start in range(len(words) - 3)]
    for three, hashes in zip(texts, shingles_of(texts), strict=True):
        assert {*hashes} > {hashed for word in shingles_of(three.split()) for hashed in word}
    several = shingles_of(["a b c", "", "c b a", "a", "東京 é"])
    assert [len(set(hashes)) for hashes in several] == [5, 0, 5, 1, 5]
    assert {*several[0][::2]} == {*several[2][::2]}
    assert {*several[0]} & {*several[2]} == {*several[0][::2]}
    assert {*several[3]} < {*several[0]}


@pytest.mark.parametrize("threshold", [0.4, 0.5, 0.7, 0.8, 0.9, 0.95])
def test_bands_find_pairs_at_the_threshold(threshold: float) -> None:
    rows_of_band = minhash.rows_per_band(threshold)
    assert 1 - (1 - threshold**rows_of_band) ** (minhash.SLOTS // rows_of_band) >= minhash.RECALL
