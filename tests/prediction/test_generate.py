"""Generated answers: the same whatever stands beside them, streamed or not, reloaded or not; without template text."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from tests.tiny_generators import CHAT, FAMILIES, generator, scripted
from tunesmith.data.prompts import TEMPLATES, ChatEncoder
from tunesmith.errors import DataError, ModelError
from tunesmith.models import generation_cache, packing
from tunesmith.prediction.generate import Generator
from tunesmith.protocols import AnswerRequest
from tunesmith.recipe import Generate, Model
from tunesmith.types import Message, Response

GREEDY = Generate(max_new_tokens=12)
DRAWN = Generate(max_new_tokens=12, do_sample=True, temperature=1.2, top_p=0.95, top_k=200, repetition_penalty=1.3)


def asked(*texts: str) -> list[list[Message]]:
    return [[Message("user", text)] for text in texts]


TEXTS = [
    "Why?",
    "Name three colours of the rainbow.",
    "Grüße",
    "a b c d e f g " * 8,
    "日本語で",
    "x",
    "y" * 40,
    "Go on",
    "!",
]


@pytest.mark.parametrize("settings", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("family", FAMILIES)
def test_batch_size_and_order_do_not_matter(family: str, settings: Generate) -> None:
    one = generator(family, pad="[SEP]" if family == "gpt2" else "[PAD]")
    together = one.respond(TEXTS, asked(*TEXTS), settings, 5)
    alone = one.respond(TEXTS, asked(*TEXTS), settings.model_copy(update={"batch_size": 1}), 5)
    backwards = one.respond(TEXTS[::-1], asked(*TEXTS[::-1]), settings, 5)[::-1]
    assert together == alone == backwards
    assert [response.id for response in together] == TEXTS
    assert len({response.text for response in together}) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_computes_no_token_twice_and_none_in_vain(family: str) -> None:
    """Common beginnings of prompts once, and every token of an answer but its last once, without padding."""
    one = generator(family)
    positions: list[int] = []
    prompts = [[*range(40, 70), 10 + number, *[7] * (number % 3)] for number in range(20)]
    limits = [1 + 5 * number % 17 for number in range(20)]
    written(one, prompts, limits, Generate(batch_size=20))  # asks once whether the model can share a cache
    embeddings: Any = one.model.get_input_embeddings()  # type: ignore[operator]
    embeddings.register_forward_pre_hook(lambda _, args: positions.append(args[0].numel()))
    _, responses = written(one, prompts, limits, Generate(batch_size=20))
    own = sum(len(prompt) - 30 for prompt in prompts)
    assert positions[0] == 30 + own
    assert sum(positions[1:]) == sum(response.tokens - 1 for response in responses.values())


def test_a_prompt_takes_the_place_of_an_answer_that_has_ended() -> None:
    """40 answers of 1 to 20 tokens in 4 places: about a step for 4 tokens, and at most one for each prompt."""
    one = generator()
    steps: list[int] = []
    limits = [1 + 7 * number % 20 for number in range(40)]
    prompts = [one.tokenize(conversation) for conversation in asked(*[f"{number}" for number in range(40)])]
    one.model.register_forward_hook(lambda *_: steps.append(1))
    _, responses = written(one, prompts, limits, Generate(batch_size=4))
    total = sum(response.tokens for response in responses.values())
    assert len(steps) < 1.3 * total / 4 + 40


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_cannot_share_a_cache_answers_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = generator(family)
    together = one.respond(TEXTS, asked(*TEXTS), DRAWN, 5)
    other = generator(family)
    monkeypatch.setattr(packing, "sliding_window", lambda model: 8)
    assert other.respond(TEXTS, asked(*TEXTS), DRAWN, 5) == together


def test_fewer_answers_at_once_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 x layers x heads x size x 4 bytes a token, of a quarter of the free memory."""
    model = generator("gpt2").model
    config: Any = model.config
    bytes_per_token = 2 * config.n_layer * config.n_embd * 4
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=4 * 5 * bytes_per_token * 100))
    assert [generation_cache.most_places(model, 100, most) for most in (1, 5, 32)] == [1, 5, 5]
    assert generation_cache.most_places(model, 10_000, 32) == 1


def test_equals_the_likeliest_token_after_token() -> None:
    """Against a loop without any cache or padding."""
    one = generator("gpt_neox")
    for text in TEXTS[:3]:
        (ids,) = one.chat_encoder.encode_prompts(asked(text))
        start = len(ids)
        while len(ids) - start < 12 and ids[-1] not in one.chat_encoder.end_ids:
            with torch.no_grad():
                ids.append(int(one.model(torch.tensor([ids])).logits[0, -1].argmax()))
        (response,) = one.respond([text], asked(text), GREEDY, 0)
        assert response.tokens == len(ids) - start
        assert response.text == one.chat_encoder.tokenizer.decode(ids[start:], skip_special_tokens=True).strip()


def test_seeds_and_numbers_draw_anew() -> None:
    one = generator()
    first, again, other = (one.respond(TEXTS, asked(*TEXTS), DRAWN, seed) for seed in (1, 1, 2))
    assert first == again
    assert [r.text for r in first] != [r.text for r in other]
    several, others = one.samples(asked("Why?", "Go on"), 11, DRAWN, 1)
    assert [r.id for r in several] == [str(number) for number in range(11)]
    assert (several[0].text, others[0].text) == (first[0].text, first[TEXTS.index("Go on")].text)
    assert len({r.text for r in several}) > 5
    assert len({r.text for r in one.samples(asked("Why?"), 3, GREEDY, 1)[0]}) == 1


def test_draws_as_often_as_the_model_says() -> None:
    """The first token of 3,000 samples against its probabilities with temperature, top-k and top-p."""
    from tunesmith.prediction.sampling import GenerationRow, choose_tokens

    scores_V = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0])
    settings = Generate(do_sample=True, temperature=0.7, top_k=4, top_p=0.9)
    rows = [GenerationRow([1, 2], 0, 1, settings, number) for number in range(3000)]
    taken = torch.tensor(choose_tokens(rows, scores_V.expand(3000, -1)))
    expected_V = (scores_V / 0.7).softmax(-1)
    expected_V[4:] = 0
    expected_V /= expected_V.sum()
    expected_V[3 if float(expected_V[:3].sum()) >= 0.9 else 4 :] = 0
    counts_V = torch.bincount(taken, minlength=6) / 3000
    assert torch.allclose(counts_V, expected_V / expected_V.sum(), atol=0.03)
    assert float(counts_V[3:].sum()) == 0


def test_a_models_own_generation_settings_do_not_count() -> None:
    one = generator()
    plain = one.respond(TEXTS, asked(*TEXTS), GREEDY, 0)
    own = one.model.generation_config
    own.update(do_sample=True, temperature=9.0, top_k=3, top_p=0.2, repetition_penalty=5.0, no_repeat_ngram_size=1)
    before = own.to_dict()
    assert one.respond(TEXTS, asked(*TEXTS), GREEDY, 0) == plain
    assert own.to_dict() == before


def test_a_repetition_penalty_forbids() -> None:
    settings = Generate(max_new_tokens=30, repetition_penalty=1e6)
    (response,) = generator().respond(["a"], asked("abc"), settings, 0)
    assert response.tokens > 5
    assert not {*response.text} & {*"abcdefginos"}  # letters of the prompt; answers too are used up


@pytest.mark.parametrize("settings", [GREEDY, DRAWN, Generate(max_new_tokens=60)], ids=["greedy", "drawn", "long"])
def test_streams_what_it_responds(settings: Generate) -> None:
    one = generator()
    for text in TEXTS:
        pieces = list(one.stream(asked(text)[0], settings, 3))
        assert "".join(pieces) == one.respond([text], asked(text), settings, 3)[0].text
        assert all(pieces)


@pytest.mark.parametrize("text", ["Grüße, 日本語! 🌈", "  two \n\n lines  ", "a ### b", "ends\n\n### Instr", ""])
def test_streams_whole_letters(text: str) -> None:
    assert "".join(scripted(generator(), text).stream(asked("?")[0], Generate(max_new_tokens=100), 0)) == text.strip()


def test_streams_piece_by_piece() -> None:
    pieces = list(scripted(generator(), "Grüße").stream(asked("?")[0], GREEDY, 0))
    assert pieces == ["G", "r", "ü", "ß", "e"]


def test_closing_a_stream_ends_the_writing() -> None:
    one = scripted(generator(), "x" * 200)
    calls: list[int] = []
    one.model.register_forward_hook(lambda *_: calls.append(1))
    before = threading.active_count()
    stream = one.stream(asked("?")[0], Generate(max_new_tokens=200), 0)
    assert next(stream) == "x"
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert len(calls) < 200


def test_an_error_in_a_stream_is_raised() -> None:
    one = generator()

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    one.model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(one.stream(asked("?")[0], GREEDY, 0))


@pytest.mark.parametrize(
    ("template", "written", "text", "ended"),
    [
        ("alpaca", "Fine.", "Fine.", True),
        ("alpaca", "Fine.\n\n### Instruction:\nMore", "Fine.", False),
        ("alpaca", "Fine.\n### Response:\nMore", "Fine.", False),
        ("alpaca", "### Input:\nMore", "", False),
        ("alpaca", "In a line ### Input: stays", "In a line ### Input: stays", True),
        ("classify", "good\n\n### Instruction:\n", "good", False),
        ("human-assistant", " Fine.### Human: and?", "Fine.", False),
        ("human-assistant", " Fine. ### Assistant: and?", "Fine.", False),
        ("chat", "the user and the assistant\nuser", "the user and the assistant\nuser", True),
        ("chat", "Fine.\n<|im_start|>user\nMore", "Fine.", False),
        ("plain", "### Instruction:", "### Instruction:", True),
    ],
)
def test_an_answer_has_no_template_text(template: str, written: str, text: str, ended: bool) -> None:
    settings = Generate(max_new_tokens=100)
    (response,) = scripted(generator(template=template), written).respond(["a"], asked("?"), settings, 0)
    assert (response.text, response.ended) == (text, ended)
    assert response.tokens <= len(written.encode()) + 1
    assert "".join(scripted(generator(template=template), written).stream(asked("?")[0], settings, 0)) == text


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("<think>\n\n</think>\n\nFine.", "Fine."),
        ("<think>\nHm.\n</think>\n\nFine.", "<think>\nHm.\n</think>\n\nFine."),
        ("Fine <think>\n\n</think>.", "Fine <think>\n\n</think>."),
        ("<", "<"),
    ],
)
def test_empty_thoughts_of_the_template_are_no_answer(written: str, text: str, tmp_path: Path) -> None:
    template = tmp_path / "qwen3.jinja"
    last = "{% if loop.last and m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    template.write_text(CHAT.replace("{{ m.content }}", last + "{{ m.content }}"))
    settings = Generate(max_new_tokens=100)
    (response,) = scripted(generator(template=str(template)), written).respond(["a"], asked("?"), settings, 0)
    assert (response.text, response.ended) == (text, True)
    pieces = list(scripted(generator(template=str(template)), written).stream(asked("?")[0], settings, 0))
    assert "".join(pieces) == text


def test_what_max_new_tokens_ends_has_not_ended() -> None:
    (response,) = scripted(generator(), "abcdefghijklmnop").respond(["a"], asked("?"), GREEDY, 0)
    assert (response.text, response.tokens, response.ended) == ("abcdefghijkl", 12, False)


@pytest.mark.parametrize("family", FAMILIES)
def test_long_prompts_are_shortened_aloud(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also beyond the model's positions, 512 here."""
    one = generator(family, max_length=100_000)
    texts = ["short", "long " * 300]
    found = one.respond(texts, asked(*texts), Generate(max_new_tokens=1000), 0)
    assert all(response.tokens <= 256 for response in found)
    assert "1 of 2 prompts were shortened to 256 tokens" in capsys.readouterr().err
    with pytest.raises(DataError, match="around a text"):
        generator(family, max_length=8).respond(["a"], asked("?"), GREEDY, 0)


@pytest.mark.parametrize("template", [*TEMPLATES, "chat"])
@pytest.mark.parametrize("tuned", [True, False])
def test_reloaded_asks_and_answers_the_same(template: str, tuned: bool, tmp_path: Path) -> None:
    one = generator(template=template)
    if not tuned:
        one.model.save_pretrained(tmp_path / "base")
        one.chat_encoder.tokenizer.save_pretrained(tmp_path / "base")
        base = Model(name_or_path=str(tmp_path / "base"))
        one = Generator(one.model, ChatEncoder(one.chat_encoder.tokenizer, "Be brief."), 300, base)
    one.save(tmp_path / "saved")
    assert bool(list((tmp_path / "saved").glob("*.safetensors"))) == tuned
    again = Generator.load(tmp_path / "saved")
    assert (again.max_length, again.base, again.chat_encoder.system) == (
        one.max_length,
        one.base,
        one.chat_encoder.system,
    )
    talk = [Message("user", "Hi", "there"), Message("assistant", "Yes?"), Message("user", "Go\non ")]
    conversations = [*asked(*TEXTS), talk]
    assert again.chat_encoder.encode_prompts(conversations) == one.chat_encoder.encode_prompts(conversations)
    names = [str(number) for number in range(len(conversations))]
    assert again.respond(names, conversations, GREEDY, 0) == one.respond(names, conversations, GREEDY, 0)


def test_a_folder_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"prompt\.json"):
        Generator.load(tmp_path)


def test_nothing_to_answer_gives_nothing() -> None:
    assert generator().respond([], [], GREEDY, 0) == []


def written(
    one: Generator, prompts: Sequence[list[int]], limits: Sequence[int], settings: Generate, heard: int | None = None
) -> Any:
    """Pieces and responses of `write`. heard: a row whose listener leaves after two pieces."""
    pieces: dict[int, list[str]] = {row: [] for row in range(len(prompts))}
    responses: dict[int, Response] = {}

    def on_token(row: int, piece: str, response: Response | None) -> bool:
        assert row not in responses
        pieces[row].append(piece)
        if response:
            responses[row] = response
        return row != heard or len(pieces[row]) < 2

    requests = [
        AnswerRequest(prompt, limit, 1, settings, partial(on_token, row))
        for row, (prompt, limit) in enumerate(zip(prompts, limits, strict=True))
    ]
    one.write(lambda free: [requests.pop(0) for _ in range(min(free, len(requests)))], settings.batch_size)
    return pieces, responses


def test_written_together_is_answered_alone() -> None:
    """Piece by piece, each with its own limit; an answer ends when its listener leaves."""
    one = generator()
    limits = [3, 12, 7, 12, 12, 5]
    texts = [f"{text} {number}" for number in range(2) for text in TEXTS[:3]]
    prompts = [one.tokenize(conversation) for conversation in asked(*texts)]
    pieces, responses = written(one, prompts, limits, DRAWN)
    for row, limit in enumerate(limits):
        settings = DRAWN.model_copy(update={"max_new_tokens": limit})
        (alone,) = one.respond(["a"], asked(texts[row]), settings, 1)
        assert "".join(pieces[row]) == alone.text == responses[row].text
        assert (responses[row].tokens, responses[row].ended) == (alone.tokens, alone.ended)
    longest = max(range(6), key=lambda row: responses[row].tokens)
    some, rest = written(one, prompts, limits, DRAWN, longest)
    assert len(some[longest]) == 2
    assert longest not in rest
    assert {row: response for row, response in responses.items() if row != longest} == rest


def test_a_request_that_comes_later_joins_and_is_answered_alone() -> None:
    """Each after some tokens of those before it, with settings of its own."""
    one = generator()
    kinds = [GREEDY, DRAWN, DRAWN.model_copy(update={"temperature": 0.3, "repetition_penalty": 1.0}), GREEDY]
    prompts = [one.tokenize(conversation) for conversation in asked(*TEXTS[:4])]
    alone = [one.respond(["a"], asked(text), kind, 1)[0] for text, kind in zip(TEXTS[:4], kinds, strict=True)]
    responses: dict[int, Response] = {}
    waiting = list(range(4))
    steps = 0

    def take(free: int) -> list[AnswerRequest]:
        nonlocal steps
        steps += 1
        if not waiting or steps % 3 != 1:
            return []
        row = waiting.pop(0)

        def on_token(piece: str, response: Response | None) -> bool:
            if response:
                responses[row] = response
            return True

        return [AnswerRequest(prompts[row], 12, 1, kinds[row], on_token)]

    one.write(take, 3)
    assert [(responses[row].text, responses[row].tokens) for row in range(4)] == [(r.text, r.tokens) for r in alone]


def test_an_answer_that_ends_at_a_heading_is_reported_whole() -> None:
    """With exactly the tokens of `respond`, also in the last row that is still being generated."""
    settings = Generate(max_new_tokens=100, batch_size=1)  # the model is not asked whether it can share
    one, other = (scripted(generator(template="alpaca"), "Fine.\n\n### Instruction:\nMore") for _ in range(2))
    (alone,) = one.respond(["0"], asked("?"), settings, 1)
    pieces, responses = written(other, [other.tokenize(asked("?")[0])], [100], settings)
    assert (replace(responses[0], id="0"), "".join(pieces[0])) == (alone, "Fine.")
