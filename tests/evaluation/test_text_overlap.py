"""ROUGE, BLEU, chrF and token F1: the libraries' own numbers, as they are and on every resample."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from tests import tiny
from tunesmith.evaluation import intervals, length_bias, responses, text_overlap
from tunesmith.evaluation.intervals import Confidence
from tunesmith.types import ResponseRow

WORDS = [word for words in tiny.WORDS.values() for word in words] + tiny.FILLER
ODD = [
    ("", "Paris."),
    ("Paris.", "Paris."),
    ("  the  PARIS!!", "Paris"),
    ("running runs", "run"),
    ("头发很长", "头发长"),
    ("é ñ ü", "e n u"),
    ("a", "the"),
    ("x" * 300, "y"),
    ("1. one\n2. two\n3. two", "1. one\n2. two"),
    ("…", "…"),
]


def rows(number: int, longest: int = 40, seed: int = 0) -> list[ResponseRow]:
    """Responses that share more or less with their references, empty and odd ones among them."""
    draw = random.Random(seed)
    pairs = ODD[:number]
    while len(pairs) < number:
        reference = draw.choices(WORDS, k=draw.randint(1, longest))
        kept = [word for word in reference if draw.random() < 0.7] + draw.choices(WORDS, k=draw.randint(0, 6))
        pairs.append((" ".join(kept), " ".join(reference).capitalize() + "."))
    return [
        ResponseRow(str(n), f"question {n}", response=response, reference=reference)
        for n, (response, reference) in enumerate(pairs)
    ]


def library(given: list[ResponseRow]) -> dict[str, float]:
    """The figures, straight from the reference libraries."""
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    scored = [scorer.score(row.reference, row.response) for row in given]
    texts, references = [row.response for row in given], [row.reference for row in given]
    return {name: float(np.mean([one[name].fmeasure for one in scored])) for name in text_overlap.ROUGE} | {
        "bleu": sacrebleu.corpus_bleu(texts, [references], force=True).score,
        "chrf": sacrebleu.corpus_chrf(texts, [references]).score,
    }


def measured(given: list[ResponseRow], draws: Any = None) -> dict[str, float]:
    draws = np.arange(len(given))[None] if draws is None else draws
    return {
        name: float(value[0])
        for name, value in text_overlap.measure(text_overlap.tabulate([row.texts for row in given]), draws).items()
    }


def test_sacrebleu_still_has_the_private_methods_that_text_overlap_calls() -> None:
    from sacrebleu.metrics import BLEU, CHRF

    needed = {
        BLEU: ("_extract_corpus_statistics", "_compute_score_from_stats"),
        CHRF: ("_extract_corpus_statistics", "_compute_f_score"),
    }
    lost = [
        f"{metric.__name__}.{name}" for metric, names in needed.items() for name in names if not hasattr(metric, name)
    ]
    assert not lost, (
        f"sacrebleu {sacrebleu.__version__} lacks {lost}: adapt evaluation/text_overlap.py, or pin sacrebleu"
    )
    sizes = [len(metric()._extract_corpus_statistics(["a b"], [["a c"]])[0]) for metric in needed]
    parts = [text_overlap.SUMMED[name] for name in ("bleu", "chrf")]
    assert sizes == [part.stop - part.start for part in parts], "sacrebleu sums other numbers: adapt SUMMED"


def test_a_corpus_has_the_libraries_scores_to_the_last_digit() -> None:
    for given in (rows(200), rows(10), rows(60, longest=200, seed=1)):
        ours = measured(given)
        for name, value in library(given).items():
            assert ours[name] == value, name


def test_every_row_alone_has_the_libraries_scores_to_the_last_digit() -> None:
    given = rows(60)
    each = text_overlap.each(text_overlap.tabulate([row.texts for row in given]))
    for place, row in enumerate(given):
        alone = library([row])
        assert measured([row])["bleu"] == alone["bleu"]
        for name in (*text_overlap.ROUGE, "chrf"):
            assert each[name][place] == alone[name]
        assert each["chrf"][place] == sacrebleu.sentence_chrf(row.response, [row.reference]).score


def test_resampled_numbers_are_the_scores_of_the_resampled_texts() -> None:
    given = rows(50)
    for seed in range(5):
        draws = np.random.default_rng(seed).integers(50, size=(1, 50))
        texts = [given[place] for place in draws[0]]
        ours = measured(given, draws)
        for name, value in library(texts).items():
            assert ours[name] == pytest.approx(value, rel=1e-13)
        assert (ours["bleu"], ours["chrf"]) == (library(texts)["bleu"], library(texts)["chrf"])
        words = [sum(len(getattr(row, side).split()) for row in texts) for side in ("response", "reference")]
        assert ours["length_ratio"] == words[0] / words[1]


@pytest.mark.parametrize(
    ("response", "reference", "value"),
    [
        ("The cat sat.", "a cat sat", 1.0),
        ("cat", "the dog", 0.0),
        ("the cat sat down", "cat sat", 0.8),
        ("a a a", "the", 1.0),
        ("", "cat", 0.0),
        ("cat cat", "cat", 2 / 3),
        ("U.S.A.", "usa", 1.0),
    ],
)
def test_token_f1_is_that_of_squad(response: str, reference: str, value: float) -> None:
    assert text_overlap.token_f1(response, reference) == pytest.approx(value)


def test_what_decides_depends_on_the_references_script() -> None:
    assert text_overlap.deciding(["Paris", "42", "北京"]) == "rougeL"
    assert text_overlap.deciding(["Москва", "42", "北京"]) == "chrf"
    assert text_overlap.signatures()["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp")


def test_ten_thousand_resamples_are_measured_512_at_once() -> None:
    """Of a thousand rows each: 20 calls, whose arrays have a size that does not depend on rows or resamples."""
    table = text_overlap.tabulate([row.texts for row in rows(1000)])
    sizes: list[int] = []

    def measure(draws_BN: Any) -> dict[str, Any]:
        sizes.append(draws_BN.size)
        return text_overlap.measure(table, draws_BN)

    found = intervals.bootstrap(measure, 1000, 10_000, 0)
    assert len(sizes) == 20
    assert max(sizes) <= intervals.DRAWS_AT_ONCE
    assert all(values.shape == (10_000,) and np.isfinite(values).all() for values in found.values())


def test_intervals_cover_in_93_to_97_percent_of_simulated_sets() -> None:
    """A thousand sets: a mean over rows (of skewed scores) and a ratio of sums (of lengths that go together)."""
    draw = np.random.default_rng(5)
    sets, N, B, hits = 1000, 150, Confidence().resamples, {"mean": 0, "ratio": 0}
    truth = {"mean": 0.4, "ratio": 1.25}  # of Beta(2, 3); E[1.25 reference] / E[reference]
    for number in range(sets):
        scores, references = draw.beta(2, 3, N), 1 + draw.poisson(7, N)
        values_NC = np.stack([np.ones(N), scores, references, draw.poisson(1.25 * references)], axis=1)

        def measure(draws: Any, values_NC: Any = values_NC) -> dict[str, Any]:
            rows, score, reference, response = intervals.sums(values_NC, draws).T
            return {"mean": score / rows, "ratio": response / reference}

        values = measure(np.arange(N)[None])
        drawn = intervals.bootstrap(measure, N, B, number)
        for name in hits:
            low, high = intervals.percentile(float(values[name][0]), drawn[name], 0.95)
            hits[name] += low <= truth[name] <= high
    assert all(0.93 <= count / sets <= 0.97 for count in hits.values()), hits


def test_scores_have_every_figure_and_equal_bits() -> None:
    given = rows(80)
    scores = responses.score(given, Confidence(resamples=200, seed=3))
    assert set(scores.headline) == {*text_overlap.FIGURES, "exact_match", "answer_only", "empty"}
    assert scores == responses.score(given, Confidence(resamples=200, seed=3))
    assert scores.headline["bleu"].value == library(given)["bleu"]
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in scores.headline.values())
    told = [replace(row, ended=True, tokens=3, loss=2.0, learned=4) for row in given]
    assert set(responses.score(told, Confidence(resamples=200, seed=3)).headline) == set(responses.HIGHER_IS_BETTER)


def test_length_effects_are_seen() -> None:
    given = [
        ResponseRow(str(i), "p", reference="word " * words, response="word " * words * (1 + i // 60))
        for i in range(120)
        for words in [1 + i % 20]
    ]
    found = length_bias.describe(given, Confidence(resamples=200, seed=0))
    assert found
    assert (found.shorter, found.longer) == (0.0, 0.0)  # half are exactly twice as long
    assert [third.ratio for third in found.thirds] == pytest.approx([1.5] * 3)
    assert found.correlations["words of answer and reference"].value > 0.8
    assert found.correlations["words of the reference and ROUGE-L"].value < 0.1
    same = length_bias.describe([replace(row, response="word") for row in given], Confidence(resamples=200, seed=0))
    assert same
    assert same.correlations["words of answer and reference"] is None
    assert length_bias.describe([ResponseRow("1", "p", reference="r")], Confidence(resamples=200, seed=0)) is None
