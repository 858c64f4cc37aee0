"""Labels scored in a tree are what every label scored alone would be; the modes keep their promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from tests.tiny_generators import FAMILIES, byte_tokenizer, generator, scripted
from tunesmith.data.label_questions import LabelQuestion
from tunesmith.data.prompts import ChatEncoder
from tunesmith.errors import ModelError
from tunesmith.models import adapters
from tunesmith.models.architectures import LoadedModel
from tunesmith.prediction import scoring
from tunesmith.prediction.generate import Generator
from tunesmith.prediction.label import LabelClassifier
from tunesmith.recipe import Adapter, Predict, Prompt
from tunesmith.tasks import calibration
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.decisions import Decision
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.types import NO_LABEL, Example, Prediction

MANY = ("1", "2", "22", "2 of a kind", "negative", "negation", "Ü", "positive")
"""Tokens are bytes here: single tokens, one the beginning of another, shared beginnings, split letters."""
FEW = ("a", "b")
EXAMPLES = [Example(f"row:{i}", text) for i, (text, _) in enumerate(tiny.texts(12))]


def classifier(
    family: str = "llama",
    labels: tuple[str, ...] = MANY,
    max_tokens: int | str = "auto",
    max_length: int = 300,
    **settings: Any,
) -> LabelClassifier:
    one = generator(family, "classify", max_length=max_length)
    question = LabelQuestion.of(Prompt(), labels)
    return LabelClassifier(one, SingleLabel(labels), question, Predict(**settings), max_tokens)


def naive(one: LabelClassifier, example: Example, normalize: bool = True) -> list[float]:
    """A forward pass for every label, each sequence alone and whole."""
    scores = []
    prompter = one.generator.chat_encoder
    for text in one.question.texts:
        (prompt,) = prompter.encode_prompts([one.question.ask(example)])
        (answer,) = prompter.encode_answers(one.question.ask(example), [text])
        with torch.no_grad():
            logs = one.generator.model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        each = [float(logs[len(prompt) + i - 1, token]) for i, token in enumerate(answer)]
        scores.append(sum(each) / (len(each) if normalize else 1))
    odds = np.exp(np.array(scores) - max(scores))
    return list(odds / odds.sum())


def rows(predictions: list[Prediction]) -> Any:
    return np.array([prediction.probabilities for prediction in predictions])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("labels", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize("family", [*FAMILIES, "qwen3"])
def test_equals_every_label_scored_alone(family: str, labels: tuple[str, ...], normalize: bool) -> None:
    one = classifier(family, labels, normalize_length=normalize)
    found = one.predict(EXAMPLES)
    assert one._reads_trees
    expected = [naive(one, example, normalize) for example in EXAMPLES]
    assert np.abs(rows(found) - expected).max() < 1e-5
    for prediction in found:
        assert prediction.label == labels[int(np.argmax(prediction.probabilities))]
        assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("mode", ["score", "constrained", "free"])
@pytest.mark.parametrize("family", FAMILIES)
def test_batch_size_and_order_do_not_matter(family: str, mode: str) -> None:
    one = classifier(family, mode=mode)
    together = one.predict(EXAMPLES)
    alone = [one.predict([example])[0] for example in EXAMPLES]
    backwards = one.predict(EXAMPLES[::-1])[::-1]
    # so few tokens that rows stand alone and the tree is read in parts
    parts = classifier(family, mode=mode, max_tokens=5).predict(EXAMPLES)
    for other in (alone, backwards, parts):
        assert [p.id for p in other] == [e.id for e in EXAMPLES]
        assert [p.label for p in other] == [p.label for p in together]
        assert rows(other) == pytest.approx(rows(together), abs=1e-5)
        assert rows(other).shape == (len(EXAMPLES), 0 if mode == "free" else len(MANY))


@pytest.mark.parametrize("mode", ["score", "constrained"])
def test_padded_fallback_equals(mode: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    expected = classifier(mode=mode).predict(EXAMPLES)
    monkeypatch.setattr(scoring, "disagrees", lambda *_: "it was told to")
    one = classifier(mode=mode)
    found = [one.predict(EXAMPLES), one.predict(EXAMPLES)][1]
    assert [p.label for p in found] == [p.label for p in expected]
    assert np.abs(rows(found) - rows(expected)).max() < 1e-5
    assert capsys.readouterr().err.count("scored one by one, which is slow: it was told to") == 1


@pytest.mark.parametrize(
    ("family", "sizes", "reads"),
    [
        ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 2}, False),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, False),
        ("gemma2", tiny.DECODER_LIKE | {"num_key_value_heads": 1, "head_dim": 16, "sliding_window": 64}, False),
        (
            "gemma2",
            tiny.DECODER_LIKE
            | {"num_key_value_heads": 1, "head_dim": 16, "sliding_window": 999, "final_logit_softcapping": 1.0},
            True,
        ),
    ],
)
def test_a_tree_is_tried_before_it_is_used(family: str, sizes: dict[str, Any], reads: bool) -> None:
    """ALiBi and state spaces have no positions to set; a window is shorter than the prompts; capped logits stay so."""
    words = byte_tokenizer()
    attention = "sdpa" if family in FAMILIES else "eager"
    model = tiny.causal(family, attention, vocab_size=len(words), **sizes | {"max_position_embeddings": 512})
    prompter = ChatEncoder.of(Prompt(template="classify"), words)
    question = LabelQuestion.of(Prompt(), MANY)
    one = LabelClassifier(Generator(model, prompter, 300), SingleLabel(MANY), question, Predict())
    found = one.predict(EXAMPLES[:3])
    assert one._reads_trees == reads
    assert np.abs(rows(found) - [naive(one, example) for example in EXAMPLES[:3]]).max() < 1e-5


def test_an_adapter_takes_part() -> None:
    one = classifier()
    plain = rows(one.predict(EXAMPLES[:3]))
    adapted = adapters.attach(LoadedModel(one.generator.model), Adapter(kind="lora"), "CAUSAL_LM", "none", 0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.normal_()
    tuned = Generator(adapted.eval(), one.generator.chat_encoder, 300)
    other = LabelClassifier(tuned, one.target, one.question, Predict())
    found = rows(other.predict(EXAMPLES[:3]))
    assert np.abs(found - plain).max() > 1e-3
    assert np.abs(found - [naive(other, example) for example in EXAMPLES[:3]]).max() < 1e-5


def test_calibration_divides_by_what_nothing_says() -> None:
    """By hand, from uncalibrated predictions; of pairs by pairs that say nothing."""
    plain, calibrated = classifier(), classifier(calibrate=True)
    for pair in (None, "the other", None):
        empty = [Example(text, text, pair and text) for text in ("N/A", "[MASK]", "...")]
        nothing = rows(plain.predict(empty)).mean(axis=0)
        examples = [Example(one.id, one.text, pair) for one in EXAMPLES]
        odds = rows(plain.predict(examples)) / nothing
        assert np.abs(rows(calibrated.predict(examples)) - odds / odds.sum(axis=1, keepdims=True)).max() < 1e-5


@pytest.mark.parametrize("labels", [FEW, MANY], ids=["few", "many"])
@pytest.mark.parametrize("family", FAMILIES)
def test_constrained_is_what_the_library_generates(family: str, labels: tuple[str, ...]) -> None:
    one = classifier(family, labels, mode="constrained")
    prompter = one.generator.chat_encoder
    answers = prompter.encode_answers(one.question.ask(EXAMPLES[0]), one.question.texts)
    for example, prediction in zip(EXAMPLES, one.predict(EXAMPLES), strict=True):
        (prompt,) = prompter.encode_prompts([one.question.ask(example)])

        def allowed(_: int, ids: Any, start: int = len(prompt)) -> list[int]:
            done = ids[start:].tolist()
            return [answer[len(done)] for answer in answers if answer[: len(done)] == done and len(answer) > len(done)]

        written = one.generator.model.generate(  # type: ignore[operator]
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            prefix_allowed_tokens_fn=allowed,
            max_new_tokens=20,
            eos_token_id=3,
            pad_token_id=0,
        )
        assert prediction.label == labels[answers.index(written[0, len(prompt) :].tolist())]
        assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("written", "label"),
    [
        ("Ü", "Ü"),
        ("ü ", "Ü"),
        (" NEGATIVE\n", "negative"),
        ("2", "2"),
        ("2 of", NO_LABEL),
        ("negative.", NO_LABEL),
        ("", NO_LABEL),
    ],
)
def test_free_takes_a_label_or_nothing(written: str, label: str, capsys: pytest.CaptureFixture[str]) -> None:
    one = classifier(mode="free")
    scripted(one.generator, written)
    (found,) = one.predict(EXAMPLES[:1])
    assert found.label == label
    assert not found.probabilities
    assert ("1 of 1 answers are no label" in capsys.readouterr().err) == (label == NO_LABEL)


def test_capitals_count_where_only_they_differ() -> None:
    for written, label in (("US", "US"), ("us", "us"), ("Us", NO_LABEL)):
        one = classifier(labels=("US", "us"), mode="free")
        scripted(one.generator, written)
        assert one.predict(EXAMPLES[:1])[0].label == label


def test_long_texts_and_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    one = classifier(max_length=200)
    (long, pair) = one.predict([Example("a", "word " * 500), Example("b", "left", "right")])
    assert "1 of 2 prompts were shortened" in capsys.readouterr().err
    assert one.predict([Example("b", "left", "right")])[0].label == pair.label
    assert sum(long.probabilities) == pytest.approx(1)


@pytest.mark.parametrize("mode", ["score", "constrained", "free"])
def test_reloaded_predicts_the_same_bits(mode: str, tmp_path: Path) -> None:
    one = classifier(mode=mode, calibrate=True)
    before = one.predict(EXAMPLES)
    one.save(tmp_path / "saved")
    again = LabelClassifier.load(tmp_path / "saved")
    assert (again.target, again.question, again.settings) == (one.target, one.question, one.settings)
    assert again.predict(EXAMPLES) == before


def test_a_calibration_is_applied_to_the_log_probabilities() -> None:
    one = classifier(labels=FEW)
    odds = rows(one.predict(EXAMPLES)) ** 0.5
    expected = odds / odds.sum(axis=1, keepdims=True)
    assert np.abs(rows(replace(one, target=DECIDED).predict(EXAMPLES)) - expected).max() < 1e-9


def test_a_generator_is_no_classifier(tmp_path: Path) -> None:
    generator().save(tmp_path)
    with pytest.raises(ModelError, match="no classifier"):
        LabelClassifier.load(tmp_path)


def test_nothing_to_predict_gives_nothing() -> None:
    assert classifier().predict([]) == []


def question_classifier(target: Any, form: Any, labels: tuple[str, ...], **settings: Any) -> LabelClassifier:
    one = generator("llama", "classify", max_length=300)
    return LabelClassifier(one, target, LabelQuestion.of(Prompt(), labels, form), Predict(**settings))


def log_probability(one: LabelClassifier, example: Example, answer: str) -> float:
    """Of the text of an answer, after its prompt, in a forward pass of its own."""
    words = one.generator.chat_encoder
    (prompt,), (ids,) = words.encode_prompts([one.question.ask(example)]), words.tokens([answer])
    with torch.no_grad():
        logs = one.generator.model(torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
    return sum(float(logs[len(prompt) + i - 1, token]) for i, token in enumerate(ids))


@pytest.mark.parametrize("calibrate", [False, True])
def test_each_label_has_the_probability_of_yes_against_no(calibrate: bool) -> None:
    one = question_classifier(MultiLabel(MANY), "each", MANY, calibrate=calibrate)
    nothing = [Example(text, text) for text in ("N/A", "[MASK]", "...")]

    def alone(example: Example) -> Any:
        yes, no = (
            np.array([log_probability(one, example, f"{label}: {word}") for label in MANY]) for word in ("yes", "no")
        )
        return 1 / (1 + np.exp(no - yes))

    expected = np.array([alone(example) for example in EXAMPLES[:4]])
    if calibrate:
        prior = np.mean([alone(example) for example in nothing], axis=0)
        odds = expected / (1 - expected) * (1 - prior) / prior
        expected = odds / (1 + odds)
    found = one.predict(EXAMPLES[:4])
    assert np.abs(rows(found) - expected).max() < 1e-5
    assert [p.labels for p in found] == [
        tuple(label for label, p in zip(MANY, row, strict=True) if p >= 0.5) for row in expected
    ]
    strict = replace(one, target=MultiLabel(MANY, (0.999,) * len(MANY)))
    assert all(not prediction.labels for prediction in strict.predict(EXAMPLES[:4]))


def test_a_number_is_the_mean_of_its_probabilities() -> None:
    stars = ("-1", "0.5", "2")
    one = question_classifier(Number(10, 5), "number", stars)
    expected = [naive(one, example, normalize=False) @ np.array([-1, 0.5, 2]) for example in EXAMPLES]
    assert [p.value for p in one.predict(EXAMPLES)] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("written", "labels", "unknown"),
    [
        ("joy, anger", ("anger", "joy"), None),
        (" JOY ", ("joy",), None),
        ("None", (), None),
        ("joy, gladness", ("joy",), "'gladness'"),
        ("joy, none", ("joy",), "'none'"),
        ("joy.", (), "'joy.'"),
        ("", (), "''"),
    ],
)
def test_a_list_takes_labels_and_names_the_rest(
    written: str, labels: tuple[str, ...], unknown: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    moods = ("anger", "joy")
    one = question_classifier(MultiLabel(moods), "list", moods, mode="free")
    scripted(one.generator, written)
    (found,) = one.predict(EXAMPLES[:1])
    assert found.labels == labels
    assert not found.probabilities
    note = capsys.readouterr().err
    assert (f"1 of 1 answers have something else than labels: {unknown}" in note) == (unknown is not None)


DECIDED = SingleLabel(FEW, Decision(calibration.Calibration("temperature", scale=(0.5,)), set_above=0.4))


@pytest.mark.parametrize(
    ("target", "form", "labels"),
    [
        (DECIDED, "label", FEW),
        (MultiLabel(FEW, (0.2, 0.7)), "each", FEW),
        (MultiLabel(FEW), "list", FEW),
        (Number(3, 2), "number", ("1", "5")),
    ],
)
def test_reloaded_targets_are_the_same_bits(target: Any, form: Any, labels: tuple[str, ...], tmp_path: Path) -> None:
    one = question_classifier(target, form, labels, mode="free" if form == "list" else "score", calibrate=True)
    before = one.predict(EXAMPLES)
    one.save(tmp_path / "saved")
    again = LabelClassifier.load(tmp_path / "saved")
    assert (again.target, again.question, again.settings) == (one.target, one.question, one.settings)
    assert again.predict(EXAMPLES) == before
