"""Labels after shots: the probabilities of separate prompts, at the cost of a prompt without shots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from tests.tiny_generators import CHAT, FAMILIES, byte_tokenizer, generator
from tunesmith.data.label_questions import LabelQuestion
from tunesmith.data.prompts import ChatEncoder
from tunesmith.data.shots import Shots, SimilarTexts
from tunesmith.errors import DataError
from tunesmith.prediction import classify, scoring
from tunesmith.prediction.generate import Generator
from tunesmith.prediction.label import LabelClassifier
from tunesmith.recipe import Predict, Prompt
from tunesmith.tasks.classification import SingleLabel
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.tasks.regression import Number
from tunesmith.types import Example

LABELS = ("sport", "tech", "world")
TRAIN = [Example(f"r:{n}", text, label=label) for n, (text, label) in enumerate(tiny.texts(30))]
EXAMPLES = [Example(f"t:{n}", text, label=label) for n, (text, label) in enumerate(tiny.texts(6, seed=1))]
RANDOM = Shots(tuple(TRAIN[:4]))


def letters(examples: Sequence[Example]) -> Any:
    counts = np.array([[1 + row.text.count(chr(97 + k)) for k in range(26)] for row in examples], np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


NEAREST = Shots(tuple(TRAIN), SimilarTexts(4, "letters", letters(TRAIN), letters))


def classifier(
    shots: Shots, family: str = "llama", max_length: int = 2000, template: str = "classify", **settings: Any
) -> LabelClassifier:
    words = byte_tokenizer()
    words.chat_template = CHAT
    model = tiny.causal(family, vocab_size=len(words), **{POSITIONS.get(family, "max_position_embeddings"): 2048})
    for weight in model.parameters():  # further apart than at the start
        if weight.ndim == 2:
            weight.data *= 3
    chat = ChatEncoder.of(Prompt(template=template), words)
    question, kind = LabelQuestion.of(Prompt(), LABELS), Predict(**settings)
    return LabelClassifier(Generator(model, chat, max_length), SingleLabel(LABELS), question, kind, shots=shots)


POSITIONS = {"gpt2": "n_positions"}


def alone(one: LabelClassifier, example: Example) -> Any:
    """The log-probability of every answer after the whole prompt, each in a forward pass of its own."""
    chat = one.generator.chat_encoder
    turns = one.question.ask(example, one.shots.of(example))
    (prompt,) = chat.encode_prompts([turns])
    scores = []
    for answer in one.question.answer_ids(chat, example):
        with torch.no_grad():
            logs = one.generator.model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        scores.append(sum(float(logs[len(prompt) + i - 1, token]) for i, token in enumerate(answer)))
    return np.array(scores)


def probabilities(scores: Any) -> Any:
    odds = np.exp(scores - scores.max())
    return odds / odds.sum()


def rows(predictions: Sequence[Any]) -> Any:
    return np.array([prediction.probabilities for prediction in predictions])


@pytest.mark.parametrize("shots", [RANDOM, NEAREST], ids=["random", "nearest"])
@pytest.mark.parametrize("family", FAMILIES)
def test_probabilities_are_those_of_separate_prompts(family: str, shots: Shots) -> None:
    one = classifier(shots, family, normalize_length=False)
    expected = np.array([probabilities(alone(one, example)) for example in EXAMPLES])
    zero = rows(classifier(Shots(), family, normalize_length=False).predict(EXAMPLES))
    assert np.abs(expected - zero).max() > 1e-4  # shots make a difference
    for found in (one.predict(EXAMPLES), one.predict(EXAMPLES[::-1])[::-1], [one.predict([e])[0] for e in EXAMPLES]):
        assert np.abs(rows(found) - expected).max() < 1e-5
    assert one._reads_trees
    assert len(one._opening.ids) == (0 if shots.similar else len(one._opening_ids))


@pytest.mark.parametrize("template", ["classify", "alpaca", "chat", "human-assistant"])
def test_shots_are_computed_once_for_all_texts(template: str) -> None:
    """Counted are the tokens that the model reads: four shots add their own once, and no text costs more."""
    read: dict[int, list[int]] = {}
    lengths: dict[int, int] = {}
    for shots in (Shots(), RANDOM):
        one, tokens = classifier(shots, template=template), list[int]()
        one._reads_trees  # noqa: B018 - which is tried once for a model
        embedding = one.generator.model.get_input_embeddings()  # type: ignore[operator]
        embedding.register_forward_hook(lambda module, args, output, tokens=tokens: tokens.append(args[0].numel()))
        number = len(shots.rows)
        read[number] = []
        for examples in (EXAMPLES, EXAMPLES[:3], EXAMPLES[3:4], TRAIN[10:20]):
            tokens.clear()
            one.predict(examples)
            read[number].append(sum(tokens))
        (prompt,) = one.generator.chat_encoder.encode_prompts([one.question.ask(EXAMPLES[0], shots.rows)])
        lengths[number] = len(prompt)
    shown = lengths[4] - lengths[0]
    assert shown > 4 * 100
    first, *later = (few - zero for few, zero in zip(read[4], read[0], strict=True))
    assert abs(first - shown) <= 2
    assert max(later) <= 2  # with a long preamble, which stands before the shots, they even read fewer


@pytest.mark.parametrize("mode", ["score", "constrained", "free"])
@pytest.mark.parametrize("shots", [RANDOM, NEAREST], ids=["random", "nearest"])
def test_reloaded_the_prompts_and_predictions_are_the_same(
    mode: str, shots: Shots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classify, "embedder", lambda name: {"letters": letters}[name])
    one = classifier(shots, mode=mode)
    one.save(tmp_path / "saved")
    again = LabelClassifier.load(tmp_path / "saved")
    examples = [*EXAMPLES, *TRAIN[:3]]
    assert again._prompts(examples) == one._prompts(examples)
    assert [again.rendered_prompt(example) for example in examples] == [one.rendered_prompt(e) for e in examples]
    for example in examples:  # what is shown is what is computed
        (ids,) = one.generator.chat_encoder.tokens([one.rendered_prompt(example)])
        assert one._prompts([example]) == [ids]
        assert example.text in one.rendered_prompt(example)
        assert one.rendered_prompt(example).count("### Response:") == 5 - (
            example in shots.rows[:4] and not shots.similar
        )
    found, expected = again.predict(examples), one.predict(examples)
    assert [row.label for row in found] == [row.label for row in expected]
    assert np.allclose(rows(found), rows(expected), rtol=0, atol=1e-6)  # none in mode `free`


@pytest.mark.parametrize(
    ("target", "form", "labels"),
    [(MultiLabel(LABELS), "each", LABELS), (Number(3, 2), "number", ("1", "5"))],
)
def test_sets_of_labels_and_numbers(target: Any, form: Any, labels: tuple[str, ...]) -> None:
    train = [replace(row, label=None, labels=(str(row.label),)) for row in TRAIN[:4]]
    if form == "number":
        train = [Example(row.id, row.text, value=float(1 + 4 * (n % 2))) for n, row in enumerate(TRAIN[:4])]
    one = replace(classifier(Shots(tuple(train))), target=target, question=LabelQuestion.of(Prompt(), labels, form))
    for example, prediction in zip(EXAMPLES, one.predict(EXAMPLES), strict=True):
        scores = alone(one, example)
        if form == "number":
            assert prediction.value == pytest.approx(float(probabilities(scores) @ np.array([1, 5])), abs=1e-5)
        else:
            yes, no = scores[::2], scores[1::2]
            assert np.abs(np.array(prediction.probabilities) - 1 / (1 + np.exp(no - yes))).max() < 1e-5


def test_calibration_shows_the_shots_too() -> None:
    one = classifier(RANDOM, normalize_length=False)
    nothing = np.mean([probabilities(alone(one, Example(text, text))) for text in ("N/A", "[MASK]", "...")], axis=0)
    odds = np.array([probabilities(alone(one, example)) for example in EXAMPLES]) / nothing
    calibrated = replace(one, settings=Predict(normalize_length=False, calibrate=True))
    assert np.abs(rows(calibrated.predict(EXAMPLES)) - odds / odds.sum(axis=1, keepdims=True)).max() < 1e-5


@pytest.mark.parametrize("shots", [RANDOM, NEAREST], ids=["random", "nearest"])
@pytest.mark.parametrize("mode", ["score", "free"])
def test_a_long_text_is_shown_after_fewer_shots(mode: str, shots: Shots, capsys: pytest.CaptureFixture[str]) -> None:
    """It is read whole as long as that is possible, and others keep their shots and probabilities."""
    one = classifier(shots, max_length=1300, mode=mode)
    long, longest = Example("long", "word " * 150), Example("longest", "word " * 400)
    together = one.predict([*EXAMPLES, long, longest])
    note = capsys.readouterr().err
    assert "2 of 8 texts are shown after fewer shots than prompt.shots" in note
    assert "long, longest" in note
    assert "1 of 8 prompts were shortened" in note
    room = one.max_answer_tokens if mode == "score" else one.max_answer_tokens + 3
    (turns,), _ = one._ask([long], room), capsys.readouterr()
    assert 1 < len(turns) < 9
    assert turns[-1].input == long.text
    assert turns[:-1] == one.question.ask(long, one.shots.of(long))[-len(turns) : -1]
    if mode == "score":
        assert np.abs(rows(together[:6]) - rows(one.predict(EXAMPLES))).max() < 1e-5
        assert np.abs(rows(together[6:7]) - rows(one.predict([long]))).max() < 1e-5


def test_shots_that_never_fit_are_an_error() -> None:
    classifier(RANDOM, max_length=1300).check()
    with pytest.raises(
        DataError, match=r"(?s)the question with 4 shots leaves no room.*raise model.max_length, or lower"
    ):
        classifier(RANDOM, max_length=500).check()
    classifier(NEAREST, max_length=500).check()  # which fits depends on the text


def test_a_model_that_reads_no_trees_shows_shots_too(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = rows(classifier(RANDOM).predict(EXAMPLES))
    monkeypatch.setattr(scoring, "disagrees", lambda *_: "it was told to")
    assert np.abs(rows(classifier(RANDOM).predict(EXAMPLES)) - expected).max() < 1e-5


def test_few_rows_are_in_memory_after_a_long_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row of a batch has a copy of the keys and values of the beginning."""
    expected, sizes = rows(classifier(RANDOM).predict(EXAMPLES)), []
    monkeypatch.setattr(scoring, "MAX_CACHED", 2000)
    one = classifier(RANDOM, max_length=1900)
    run = scoring._PromptRows.run

    def counted(self: Any, model: Any, prompts: Any) -> Any:
        sizes.append(len(prompts) * (len(self.prefix.ids) + max(map(len, prompts)) + len(self.part.nodes)))
        return run(self, model, prompts)

    monkeypatch.setattr(scoring._PromptRows, "run", counted)
    assert np.abs(rows(one.predict(EXAMPLES)) - expected).max() < 1e-5
    assert max(size for size in sizes if size) <= 2000 or len(sizes) >= len(EXAMPLES)


def test_instructions_are_answered_after_shots(tmp_path: Path) -> None:
    """The losses of the last answer alone, and the same prompt after reloading."""
    one = generator("llama", "alpaca", max_length=512)
    turns = [Example(row.id, row.text).text for row in TRAIN[:2]]
    from tunesmith.types import Message

    shown = tuple((Message("user", text), Message("assistant", "yes", learned=False)) for text in turns)
    few = replace(one, chat_encoder=replace(one.chat_encoder, shots=shown))
    asked = [Message("user", "Is it?"), Message("assistant", "no")]
    by_hand = [*(turn for shot in shown for turn in shot), *asked]
    assert few.rendered_prompt(asked[:1]) == one.rendered_prompt(by_hand[:-1])
    (loss,), (whole,) = few.losses(["a"], [asked]), one.losses(["a"], [by_hand])
    assert loss == pytest.approx(whole)
    few.save(tmp_path)
    again = Generator.load(tmp_path)
    for prompt in (asked[:1], [Message("system", "Be brief."), *asked[:1]], list(shown[0][:1])):
        assert again.tokenize(prompt) == few.tokenize(prompt)
    own = few.rendered_prompt(list(shown[0][:1]))
    assert own.count(turns[0]) == 1
    assert own.count(turns[1]) == 1
