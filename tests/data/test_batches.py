"""Sampling decides what is learned; layout only what it costs."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from tests import tiny
from tunesmith.data.batches import BalancedSampler, GroupedSampler, MicroBatches, Padded, Sampler, collate, plan
from tunesmith.data.encode import IGNORE, Encoded, encode
from tunesmith.tasks.classification import SingleLabel
from tunesmith.types import Example

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60)


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 5))
def test_every_example_once_an_epoch(num_examples: int, size: int, seed: int) -> None:
    sampler = Sampler(num_examples, size, seed)
    for epoch in range(3):
        steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
        drawn = [index for step in steps for index in sampler.draw(step)]
        assert sorted(drawn) == list(range(num_examples))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    first, again, other = (Sampler(100, 7, seed) for seed in (1, 1, 2))
    assert [first.draw(step) for step in range(30)] == [again.draw(step) for step in range(29, -1, -1)][::-1]
    assert first.draw(0) != other.draw(0)
    assert first.draw(0) != first.draw(first.steps_per_epoch)


def test_balanced_sampling_draws_every_label_equally_often() -> None:
    """Of 100 rows one label has 90, one 9 and one a single one; within a label every row is equally likely."""
    labels = ["often"] * 90 + ["seldom"] * 9 + ["once"]
    sampler, plain = BalancedSampler(100, 16, 5, labels), Sampler(100, 16, 5)
    drawn = [sampler.draw(step) for step in range(700)]
    assert sampler.steps_per_epoch == plain.steps_per_epoch
    assert [len(step) for step in drawn] == [len(plain.draw(step)) for step in range(700)]
    indices = [index for step in drawn for index in step]
    counts = Counter(labels[index] for index in indices)
    for label in counts:
        assert counts[label] / len(indices) == pytest.approx(1 / 3, abs=0.02)
    rows = Counter(index for index in indices if labels[index] == "seldom")
    assert sorted(rows) == list(range(90, 99))
    assert max(rows.values()) < 1.25 * min(rows.values())
    assert len({*indices}) == 100


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=60), st.integers(1, 20), st.integers(0, 5))
def test_grouped_sampling_draws_every_example_once_an_epoch_in_steps_of_one_size(
    labels: list[str], size: int, seed: int
) -> None:
    sampler, orders = GroupedSampler(len(labels), size, seed, labels), []
    for epoch in range(3):
        steps = [sampler.draw(epoch * sampler.steps_per_epoch + step) for step in range(sampler.steps_per_epoch)]
        assert max(map(len, steps)) <= size
        assert max(map(len, steps)) - min(map(len, steps)) <= 1
        orders.append([index for step in steps for index in step])
        assert sorted(orders[-1]) == list(range(len(labels)))
    assert sampler.draw(0) == GroupedSampler(len(labels), size, seed, labels).draw(0)
    if len(labels) > 12:
        assert orders[0] != orders[1]


def test_a_grouped_step_has_pairs_of_one_label_however_many_labels_there_are() -> None:
    """150 labels with 8 examples each, 64 a step: of 2,016 pairs, 13 share a label in a plain order."""
    labels = [str(number % 150) for number in range(1200)]

    def pairs(sampler: Sampler) -> float:
        counts = [Counter(labels[index] for index in sampler.draw(step)) for step in range(sampler.steps_per_epoch)]
        return sum(n * (n - 1) / 2 for count in counts for n in count.values()) / len(counts)

    assert pairs(Sampler(1200, 64, 0)) < 20
    assert pairs(GroupedSampler(1200, 64, 0, labels)) > 90


def test_balanced_sampling_depends_on_seed_and_step_alone() -> None:
    labels = ["a", "b", "b", "b", "b"] * 10
    first, again, other = (BalancedSampler(50, 8, seed, labels) for seed in (1, 1, 2))
    assert [first.draw(step) for step in range(20)] == [again.draw(step) for step in range(19, -1, -1)][::-1]
    assert first.draw(0) != other.draw(0)
    assert first.draw(0) != first.draw(first.steps_per_epoch)


@given(LENGTHS, st.integers(1, 1000))
def test_plan_keeps_the_budget_and_every_row(lengths: list[int], most: int) -> None:
    groups = plan(lengths, most)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= most


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 20))
def test_processes_share_a_step_without_gap_or_overlap(processes: int, size: int) -> None:
    """A process without an example gets a row without a label, which adds nothing but takes part."""
    encoded = [Encoded(f"r{i}", {"input_ids": [1] * (i % 7 + 1)}, label=0) for i in range(23)]
    sampler = Sampler(len(encoded), size, 0)
    words = tiny.tokenizer("bert")
    for step in range(sampler.steps_per_epoch):
        shares = [MicroBatches(encoded, sampler, Padded(words), 20, rank, processes)(step) for rank in range(processes)]
        assert all(shares)
        labels = [
            (name, label)
            for share in shares
            for batch in share
            for name, label in zip(batch.ids, batch.labels.tolist(), strict=True)
        ]
        assert sorted(name for name, label in labels if label != IGNORE) == sorted(f"r{i}" for i in sampler.draw(step))


def test_encoding_counts_what_it_cuts() -> None:
    words = tiny.tokenizer("bert")
    rows = [Example("a", "the goal"), Example("b", "the a of in on with"), Example("c", "the " * 50)]
    encoded, changes = encode(rows, words, 6)
    assert [len(one) for one in encoded] == [4, 6, 6]
    assert encoded[1].inputs["input_ids"][-1] == words.sep_token_id
    assert [(change.count, change.where) for change in changes] == [(2, ("b", "c"))]
    assert encode(rows[:1], words, 6)[1] == []


def test_pairs_and_labels() -> None:
    words = tiny.tokenizer("bert")
    rows = [Example("a", "the goal", "a match", "tech"), Example("b", "in", "on", "sport")]
    encoded, _ = encode(rows, words, 20, SingleLabel(("sport", "tech")))
    assert [one.label for one in encoded] == [1, 0]
    assert [one.label for one in encode(rows, words, 20)[0]] == [IGNORE, IGNORE]
    assert encoded[0].inputs["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]


def test_padding_follows_the_tokenizer() -> None:
    for family, column in (("bert", -1), ("xlnet", 0)):
        words = tiny.tokenizer(family)
        encoded, _ = encode([Example("a", "the goal"), Example("b", "the goal of the match")], words, 20)
        batch = collate(encoded, words)
        assert batch.inputs["attention_mask"][0, column] == 0
        assert batch.inputs["input_ids"][0, column] == words.pad_token_id


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "xlnet"])
def test_what_is_cut_is_what_tokenizers_cut(family: str, side: str) -> None:
    draw, tokenizer = random.Random(0), tiny.tokenizer(family)
    tokenizer.truncation_side = side

    def text() -> str:
        return " ".join(draw.choices(tiny.FILLER, k=draw.randint(1, 40)))

    for number in range(150):
        pair = text() if number % 3 else None
        limit = draw.randint(4, 60)
        (found,), _ = encode([Example("1", one := text(), pair)], tokenizer, limit)
        expected = tokenizer(one, pair, truncation=True, max_length=limit, return_attention_mask=False)
        assert found.inputs == dict(expected)


@pytest.mark.parametrize("limit", [5, 9, 12])
def test_tokenizers_in_python_cut_by_themselves(limit: int) -> None:
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    rows = [Example("1", "a goal", "b team"), Example("2", "a", "b")]
    (cut, whole), (change,) = encode(rows, tokenizer, limit)
    expected = tokenizer("a goal", "b team", truncation=True, max_length=limit)["input_ids"]
    assert (cut.inputs["input_ids"], len(cut)) == (expected, limit)
    assert whole.inputs["input_ids"] == tokenizer("a", "b")["input_ids"]
    assert change.where == ("1",)


def test_two_long_texts_are_not_cut_into_every_part_beside_every_other() -> None:
    """A tokenizer that cuts would make 6,250 x 6,250 pairs of parts here: more than any memory."""
    tokenizer = tiny.tokenizer("bert")
    (found,), _ = encode([Example("1", "goal " * 100_000, "team " * 100_000)], tokenizer, 35)
    assert len(found) == 35
    goal, team = tokenizer.convert_tokens_to_ids(["goal", "team"])
    assert [found.inputs["input_ids"].count(word) for word in (goal, team)] == [16, 16]
