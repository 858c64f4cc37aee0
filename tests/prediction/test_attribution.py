"""Contributions add up to what they explain, to the last digit where they are exact; words stand where they say."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import tiny
from tunesmith.cli import explanations as cli_explanations
from tunesmith.errors import RecipeError
from tunesmith.models import linear
from tunesmith.models.linear import LinearPredictor, Regression
from tunesmith.models.ngrams import BagOfWords
from tunesmith.prediction import attribution
from tunesmith.prediction.words import Words, spans
from tunesmith.recipe import Linear
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.tasks.text_targets import Target
from tunesmith.types import Example, Explanation, Prediction

Models = Callable[[str], Path]
ODD = "İstanbul's ΟΔΟΣ, it isn’t 2|c| a\u0301 b  naïve_word ... 東京タワー!\n(don't)\tx हिन्दी 😀😀 ß\u2028end"
ANALYZERS = (
    Linear(word_ngrams=(1, 3)),
    Linear(word_ngrams=(2, 2), lowercase=False),
    Linear(word_ngrams=None, char_ngrams=(1, 4)),
    Linear(char_ngrams=(2, 9), vectorizer="count"),
)
TARGETS: dict[str, Target] = {
    "two labels": SingleLabel(("sport", "tech")),
    "three labels": SingleLabel(("sport", "tech", "world")),
    "a number": Number(20, 5),
    "sets of labels": MultiLabel(("sport", "tech", "world")),
}


def examples(target: Target, pair: bool = False, rows: int = 60) -> list[Example]:
    labels = [label for label in tiny.WORDS if label in (target.labels or tiny.WORDS)]
    return [
        Example(str(number), f"{text}, {text}.", text[::-1] if pair else None, label, value=float(len(text)))
        if not isinstance(target, MultiLabel)
        else Example(str(number), text, text[::-1] if pair else None, labels=(label,) if number % 4 else ())
        for number, (text, label) in enumerate(tiny.texts(rows, labels=labels))
    ]


def total(explanation: Explanation) -> float:
    assert explanation.baseline is not None
    return explanation.baseline + math.fsum(word.contribution for word in explanation.words)


def test_words_are_runs_of_letters_punctuation_and_single_ideographs() -> None:
    words = [ODD[start:end] for start, end in spans(ODD)]
    assert words[:6] == ["İstanbul's", "ΟΔΟΣ", ",", "it", "isn’t", "2"]
    assert words[words.index("naïve_word") :] == [
        *("naïve_word", "...", *"東京タワー", "!", "(", "don't", ")", "x", "हिन्दी", "😀😀", "ß", "end")
    ]
    assert "".join(words) == "".join(ODD.split())


@pytest.mark.parametrize("settings", ANALYZERS)
@pytest.mark.parametrize("text", [ODD, "goal", "a", " x ", "The goal.The GOAL"])
def test_every_ngram_is_where_it_says(settings: Linear, text: str) -> None:
    example, analyze = Example("1", text, text[::-1]), BagOfWords(settings)
    located = list(analyze.located(example))
    assert [gram for gram, _ in located] == analyze(example)
    for gram, places in located:
        source = text[::-1] if gram.startswith("2|") else text
        found = " ".join(source[start:end] for start, end in places)
        assert found.strip()
        if "c|" not in gram and gram.isascii() and found.isascii():
            assert (found.lower() if settings.lowercase else found) == gram.removeprefix("2|")


@pytest.mark.parametrize("settings", ANALYZERS)
@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_exact_contributions_and_the_bias_are_the_logit(settings: Linear, pair: bool, target: Target) -> None:
    rows = examples(target, pair)
    fitted = linear.fit(rows, target, settings.model_copy(update={"min_df": 1}), np.ones(len(target.labels)))
    predictor = fitted.predictor
    assert isinstance(predictor, LinearPredictor)
    unseen = [*rows[:5], Example("odd", ODD, ODD[::-1] if pair else None)]
    for label in (None, *target.labels):
        for explanation in attribution.explain(predictor, unseen, label):
            (example,) = (row for row in unseen if row.id == explanation.id)
            logits = predictor.logits([example])[0]
            output = predictor.labels.index(explanation.label) if explanation.label else 0
            expected = target_number(predictor, example) if isinstance(target, Number) else logits[output]
            if isinstance(target, SingleLabel) and len(target.labels) == 2:
                expected = logits[output] - logits[1 - output]
            assert explanation.method == "exact"
            assert explanation.ngrams is not None
            ngrams = math.fsum(ngram.contribution for ngram in explanation.ngrams)
            assert explanation.score == pytest.approx(expected, abs=1e-9)
            assert total(explanation) == pytest.approx(expected, abs=1e-9)
            assert ngrams + explanation.baseline == pytest.approx(expected, abs=1e-9)
            assert all(ngram.contribution == ngram.value * ngram.weight for ngram in explanation.ngrams)
            for word in explanation.words:
                text = example.text_pair if word.second else example.text
                assert text is not None
                assert text[word.start : word.start + len(word.word)] == word.word


def target_number(predictor: LinearPredictor, example: Example) -> float:
    value: float = predictor.predict([example])[0].value
    return value


def test_an_ngram_is_divided_over_its_words_by_hand() -> None:
    regression = Regression(np.array([[1.0, 2.0, -3.0], [0.0, 0.5, 1.0], [5.0, 0.0, 0.0]]), np.array([0.25, 0.0, 0.0]))
    settings = Linear(word_ngrams=(1, 2), vectorizer="count")
    vocabulary = {"good": 0, "good team": 1, "bad": 2}
    predictor = LinearPredictor(SingleLabel(("a", "b", "c")), settings, vocabulary, None, regression)
    (explained,) = attribution.explain(predictor, [Example("1", "Good team! good team, Bad")], "a")
    assert [(word.word, word.contribution) for word in explained.words] == [
        *(("Good", 2.0), ("team", 1.0), ("!", 0.0), ("good", 2.0), ("team", 1.0), (",", 0.0), ("Bad", -3.0))
    ]
    assert explained.ngrams is not None
    assert [(ngram.ngram, ngram.count, ngram.contribution) for ngram in explained.ngrams] == [
        *(("good team", 2, 4.0), ("bad", 1, -3.0), ("good", 2, 2.0))
    ]
    assert (explained.score, explained.baseline, explained.predicted) == (3.25, 0.25, "c")


def test_weights_of_low_rank_are_multiplied_out() -> None:
    draw = np.random.default_rng(0)
    regression = Regression(draw.normal(size=(4, 2)), draw.normal(size=4), draw.normal(size=(5, 2)))
    vocabulary = {word: number for number, word in enumerate(("goal", "match", "team", "coach", "score"))}
    predictor = LinearPredictor(SingleLabel(tuple("abcd")), Linear(), vocabulary, np.ones(5), regression)
    example = Example("1", "goal team goal score")
    for number, label in enumerate("abcd"):
        (explained,) = attribution.explain(predictor, [example], label)
        assert total(explained) == pytest.approx(predictor.logits([example])[0][number], abs=1e-9)


def test_leaving_a_word_out_of_counts_is_exact_too() -> None:
    """Two labels and single words: without a word, the logit is less by just its contribution."""
    target = SingleLabel(("sport", "tech"))
    rows = examples(target)
    settings = Linear(vectorizer="count", word_ngrams=(1, 1))
    predictor: Any = linear.fit(rows, target, settings, np.ones(2)).predictor
    for explained, occluded in zip(
        attribution.explain(predictor, rows[:5]),
        attribution.explain(predictor, rows[:5], method="occlusion"),
        strict=True,
    ):
        difference = [a.contribution - b.contribution for a, b in zip(explained.words, occluded.words, strict=True)]
        assert np.abs(difference).max() < 1e-9
        assert occluded.score == pytest.approx(explained.score, abs=1e-9)
        assert occluded.baseline is None


def test_a_word_counts_where_its_characters_are() -> None:
    words = Words(Example("1", "ab  cd", "  e "))
    words.add(0, (0, 6), 4.0)
    words.add(0, (1, 3), 1.0)
    words.add(0, (2, 4), 0.5)  # white space: the word before
    words.add(1, (0, 2), 0.25)  # the first of its own text, as there is none before
    assert [word.contribution for word in words.contributions()] == [3.5, 2.0, 0.25]


# --- occlusion


@dataclass
class Keywords:
    """Gives label `b` by the words `good` and `bad`; reads four words."""

    labels: tuple[str, ...] = ("a", "b")
    max_length: int | None = 4
    asked: list[str] | None = None

    def predict(self, rows: Sequence[Example]) -> list[Prediction]:
        if self.asked is not None:
            self.asked += [row.text for row in rows]
        found = []
        for row in rows:
            words = f"{row.text} {row.text_pair or ''}".split()[: self.max_length]
            odds = math.exp(2 * words.count("good") - words.count("bad"))
            found.append(Prediction(row.id, "b" if odds >= 1 else "a", (1 / (1 + odds), odds / (1 + odds))))
        return found

    def count_tokens(self, example: Example) -> int:
        return len(example.text.split())


def test_occlusion_leaves_words_out_with_a_space() -> None:
    predictor: Any = Keywords(max_length=None, asked=[])
    (explained,) = attribution.explain(predictor, [Example("1", "good  old, bad")])
    assert [(word.word, round(word.contribution, 9)) for word in explained.words] == [
        *(("good", 2), ("old", 0), (",", 0), ("bad", -1))
    ]
    assert explained.score == pytest.approx(1)
    assert explained.probability == pytest.approx(1 / (1 + math.exp(-1)))
    assert predictor.asked[2:] == [" old, bad", "good  , bad", "good  old bad", "good  old,"]
    (alone,) = attribution.explain(predictor, [Example("1", "good")])
    assert predictor.asked[-1] == "..."
    assert alone.words[0].contribution == pytest.approx(2)


def test_words_that_are_not_read_add_nothing_and_do_not_move_up() -> None:
    predictor: Any = Keywords(asked=[])
    (explained,) = attribution.explain(predictor, [Example("1", "so good and bad good good good")])
    assert [round(word.contribution, 9) for word in explained.words] == [0, 2, 0, -1, 0, 0, 0]
    assert len(predictor.asked) == 1 + 1 + 4
    (pair,) = attribution.explain(predictor, [Example("1", "so good", "bad")])
    assert [(word.contribution > 0, bool(word.second)) for word in pair.words] == [
        *((False, False), (True, False), (False, True))
    ]


def test_certain_predictions_have_finite_scores() -> None:
    predictor: Any = Keywords(max_length=None)
    (explained,) = attribution.explain(predictor, [Example("1", "good " * 100)], "a")
    assert explained.score == -attribution.MOST
    assert all(math.isfinite(word.contribution) for word in explained.words)


def test_what_cannot_be_explained_is_said() -> None:
    predictor: Any = Keywords()
    for options, expected in (
        ({"label": "c"}, "no label 'c'"),
        ({"method": "exact"}, "cannot explain this model by exact"),
        ({"method": "integrated-gradients"}, "expected: auto, occlusion"),
        ({"method": "guess"}, "no method 'guess'"),
    ):
        with pytest.raises(RecipeError, match=expected):
            attribution.explain(predictor, [Example("1", "good")], **options)
    assert (attribution.AUTO, *attribution.METHODS) == cli_explanations.METHODS


# --- encoders


def encoder(folder: Path, target: Target, **options: Any) -> Any:
    """An encoder with random weights, wide enough for its scores to differ."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from tunesmith.prediction.classify import Encoder, EncoderPredictor, layout_of
    from tunesmith.tasks import text_targets

    torch.manual_seed(1)
    config = text_targets.to_config(target)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.pad_token or "[PAD]"
    loaded: Any = AutoModelForSequenceClassification
    model = loaded.from_pretrained(folder, num_labels=max(1, len(target.labels)), pad_token_id=tokenizer.pad_token_id)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2) if parameter.dim() > 1 else None
    model.config.update(config)
    layout, _ = layout_of(model.eval(), tokenizer)
    return EncoderPredictor(target, Encoder(model, tokenizer, options.get("max_length", 128), layout=layout))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_integrated_gradients_are_complete(target: Target, tiny_models: Models) -> None:
    predictor = encoder(tiny_models("bert"), target)
    rows = examples(target, rows=3) + examples(target, pair=True, rows=3)
    for label in (None, *target.labels):
        for explained, row in zip_rows(attribution.explain(predictor, rows, label), rows):
            assert explained.method == "integrated-gradients"
            assert explained.baseline is not None
            assert explained.gap is not None
            difference = explained.score - explained.baseline
            assert abs(difference) > 0.01, "a baseline that differs"
            assert abs(explained.gap) <= attribution.TOLERANCE * max(1, abs(difference))
            assert total(explained) + explained.gap == pytest.approx(explained.score, abs=1e-9)
            logits = predictor.logits([row])[0]
            output = predictor.labels.index(explained.label) if explained.label else 0
            assert explained.score == pytest.approx(score_of(target, logits, output), abs=1e-3)


def score_of(target: Target, logits: Any, output: int) -> float:
    if isinstance(target, Number):
        return float(logits[0] * target.scale + target.mean)
    if isinstance(target, MultiLabel):
        return float(logits[output])
    return float(logits[output] - np.logaddexp.reduce(np.delete(logits, output)))


def zip_rows(explanations: Sequence[Explanation], rows: Sequence[Example]) -> list[tuple[Explanation, Example]]:
    known = {(row.id, row.text_pair): row for row in rows}
    return [(explanation, known[explanation.id, explanation.text_pair]) for explanation in explanations]


@pytest.mark.parametrize("family", ["distilbert", "roberta", "xlnet", "deberta", "modernbert", "gpt2"])
def test_encoders_of_every_family_are_explained(family: str, tiny_models: Models) -> None:
    predictor = encoder(tiny_models(family), SingleLabel(("a", "b", "c")), max_length=24)
    long = " ".join(random.Random(0).choices(tiny.FILLER, k=40))
    explained, cut = attribution.explain(predictor, [Example("1", "the goal of the team!"), Example("2", long)])
    assert explained.method == "integrated-gradients"
    for row in (explained, cut):
        assert row.gap is not None
        assert row.baseline is not None
        assert abs(row.gap) <= attribution.TOLERANCE * max(1, abs(row.score - row.baseline))
        assert any(word.contribution for word in row.words)
    unread = [word.contribution == 0 for word in cut.words]
    assert not any(unread[:20])
    assert all(unread[24:])


def test_more_points_are_taken_where_few_leave_a_gap(tiny_models: Models) -> None:
    predictor = encoder(tiny_models("bert"), SingleLabel(("a", "b")))
    example = Example("1", "the goal of the team")
    gaps = [abs(predictor.integrated_gradients(example, 0, points, lambda: None).gap) for points in (1, 2, 64)]
    assert gaps[0] > gaps[2]
    asked: list[int] = []
    count = replace_points(predictor, asked)
    attribution.explain(count, [example], points=(1, 64))
    assert asked == [2**power for power in range(len(asked))]
    assert len(asked) > 1


def replace_points(predictor: Any, asked: list[int]) -> Any:
    """The predictor, which remembers how many points it was asked for."""

    class Counting(type(predictor)):  # type: ignore[misc]
        def integrated_gradients(self, example: Example, output: int, points: int, on_batch: Any) -> Any:
            asked.append(points)
            return super().integrated_gradients(example, output, points, on_batch)

    return Counting(predictor.target, predictor.encoder)


def test_parameters_get_no_gradients_and_the_model_stays_as_it_is(tiny_models: Models) -> None:
    predictor = encoder(tiny_models("bert"), SingleLabel(("a", "b")))
    rows = [Example("1", "the goal of the team")]
    before = predictor.logits(rows)[0]
    attribution.explain(predictor, rows)
    assert all(parameter.grad is None for parameter in predictor.encoder.model.parameters())
    assert (predictor.logits(rows)[0] == before).all()


def test_what_is_called_before_each_batch_ends_the_work(tiny_models: Models) -> None:
    class Enough(Exception):
        pass

    def stop() -> None:
        raise Enough

    predictor = encoder(tiny_models("bert"), SingleLabel(("a", "b")))
    for method in attribution.METHODS:
        if method != "exact":
            with pytest.raises(Enough):
                attribution.explain(predictor, [Example("1", "the goal")], method=method, on_batch=stop)


def test_occlusion_of_encoders_puts_masks_in_the_places_of_words(tiny_models: Models) -> None:
    predictor = encoder(tiny_models("bert"), SingleLabel(("a", "b")))
    text = "the goal of the team"
    (explained,) = attribution.explain(predictor, [Example("1", text)], "a", "occlusion")
    whole, masked = (predictor.logits([Example("1", t)])[0] for t in (text, text.replace("goal", "[MASK]")))
    expected = (whole[0] - whole[1]) - (masked[0] - masked[1])
    assert explained.words[1].contribution == pytest.approx(expected, abs=1e-4)
