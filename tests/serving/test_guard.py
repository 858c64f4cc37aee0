"""The guard: what it finds, and that nothing leaves which it has not passed, however an answer arrives."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

from tests.serving_fakes import (
    FakeClassifier,
    FakeGenerator,
    answered,
    application,
    classifier,
    client,
    error,
    generator,
    message,
    post,
    run,
)
from tunesmith.errors import RecipeError
from tunesmith.recipe import Guard as GuardSettings
from tunesmith.serving import patterns
from tunesmith.serving.guard import AuditLog, ContentGuard, OutputBlocked, halves
from tunesmith.serving.patterns import Pattern
from tunesmith.types import Prediction

CARD = "4111 1111 1111 1111"
KEY = "sk-" + "a1B2" * 6
FOUND = {
    "email": ["jo@example.com", "a.b+c@x-y.co.uk", "JO_1@sub.domain.example"],
    "phone": ["+49 170 1234567", "+1 (415) 555-2671", "(020) 7946 0958", "415-555-2671", "0170 1234 567"],
    "card": [CARD, "4111111111111111", "5500-0000-0000-0004", "3400 000000 00009"],
    "key": [KEY, "ghp_" + "x" * 36, "AKIA" + "Q" * 16, "hf_" + "y" * 30, "-----BEGIN RSA PRIVATE KEY-----"],
}
PLAIN = {
    "email": ["a@b", "@home", "price @ 3.50", "x@ y.com"],
    "phone": ["in 1999 and 2001", "12,345.67", "2024-05-06", "room 12", "v1.2.3"],
    "card": ["4111 1111 1111 1112", "1234567890123456", "9999999999999", "12 34 56"],
    "key": ["sk-short", "skeleton-key-of-the-house", "AKIA", "the key is here"],
}


@pytest.mark.parametrize("name", patterns.BUILT_IN)
def test_ready_patterns_find_what_they_should(name: str) -> None:
    one = [Pattern.compile(name)]
    for text in FOUND[name]:
        for around in (text, f"call {text}.", f"({text}), please", f"a\n{text}\nb"):
            spans, _ = patterns.search(one, around)
            assert patterns.mask(around, spans) == around.replace(text, f"[{name}]"), around
    for text in PLAIN[name]:
        assert patterns.search(one, text)[0] == [], text


def test_wrong_patterns_are_refused() -> None:
    for wrong in ("(", "a*", ""):
        with pytest.raises(RecipeError, match="guard"):
            Pattern.compile(wrong)
    with pytest.raises(RecipeError, match=r"single pattern\n.*give a list: \[email, card\]"):
        Pattern.compile("email,card")


def test_a_slow_pattern_blocks_instead_of_hanging() -> None:
    made = application(classifier(), guard={"block": ["(a|aa|aaa)+(b|bb)+$x"]})
    answer = post(made, "/predict", {"inputs": "a" * 5000})
    assert answer.status_code in (200, 400)


PIECES = st.lists(
    st.one_of(
        st.sampled_from([text for texts in FOUND.values() for text in texts]),
        st.sampled_from([text for texts in PLAIN.values() for text in texts]),
        st.sampled_from([" ", "\n", "x", "1", "@", "+", "-", ".", "secret", "sec", "ret", "SECRET 12", "word "]),
    ),
    max_size=12,
)


async def let_out(guard: ContentGuard, pieces: Sequence[str]) -> tuple[list[str], str | None]:
    """What leaves after each piece, and why it ended early."""
    output, out = guard.output_filter("r"), []
    try:
        for number, piece in enumerate([*pieces, ""]):
            out.append(await output.pass_on(piece, number == len(pieces)))
    except OutputBlocked as blocked:
        return [*out, blocked.remaining], blocked.reason
    return out, None


@example(["+1415-555-2671", CARD[:-1] + "2", "@", "+49 170 1234567"], 0, ["phone"])  # it grows until it is none
@given(PIECES, st.integers(0, 2**32), st.sampled_from([[], ["phone"], [r"SECRET \d+"]]))
@settings(max_examples=100, deadline=None)
def test_an_answer_in_pieces_is_the_whole_answer(parts: list[str], seed: int, block: list[str]) -> None:
    """Cut anywhere: what leaves is the same, to the letter, and never a part of what is masked or blocked."""
    text, draw = "".join(parts), random.Random(seed)
    cuts = sorted(draw.sample(range(len(text) + 1), min(len(text), draw.randint(0, 12))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    guard = ContentGuard(GuardSettings(mask=("email", "card", "key", r"sec\w*"), block=tuple(block), max_characters=90))
    whole, why = asyncio.run(let_out(guard, [text]))
    out, reason = asyncio.run(let_out(guard, pieces))
    assert ("".join(out), reason) == ("".join(whole), why)
    if not block:
        spans, _ = patterns.search(guard.patterns, text[:90])
        assert "".join(out) == patterns.mask(text[:90], spans)
    letters, reason = asyncio.run(let_out(guard, list(text)))
    assert ("".join(letters), reason) == ("".join(whole), why)


def test_a_plain_answer_is_hardly_held_back() -> None:
    guard = ContentGuard(GuardSettings(mask=tuple(patterns.BUILT_IN)))
    words = ["The ", "sky ", "is ", "blue", ", ", "and ", "that ", "is ", "all", "."]
    out, _ = asyncio.run(let_out(guard, words))
    for number in range(len(words)):
        said, left = "".join(words[: number + 1]), "".join(out[: number + 1])
        assert said.startswith(left)
        assert len(said) - len(left) <= max(map(len, words))


def test_repetitions() -> None:
    assert patterns.allowed_repeats("a b c d " * 3, 3) is None
    assert patterns.allowed_repeats("no no no no", 3) == len("no no no ")
    text = "he said: I know I KNOW i know I know it"
    assert patterns.allowed_repeats(text, 3) == len("he said: I know I KNOW i know ")
    guard = ContentGuard(GuardSettings(max_repeats=2))
    out, why = asyncio.run(let_out(guard, list("well, yes yes yes yes yes")))
    assert ("".join(out), why) == ("well, yes yes ", "content_filter")
    out, why = asyncio.run(let_out(guard, list("well, yes yes yesterday")))
    assert ("".join(out), why) == ("well, yes yes yesterday", None)


def test_inputs_are_masked_or_refused() -> None:
    predictor, fake = FakeClassifier(), FakeGenerator()
    made = application(
        classifier(model=predictor),
        generator(model=fake),
        guard={"mask": ["email"], "block": ["card"], "max_characters": 80, "max_repeats": 3},
    )
    assert post(made, "/predict", {"inputs": ["ask jo@example.com now", "plain"]}).status_code == 200
    assert sorted(predictor.batches[0]) == ["ask [email] now", "plain"]
    for wrong in (f"my card is {CARD}", "x" * 81, "no " * 4):
        for path, body in (
            ("/predict", {"inputs": ["fine", wrong]}),
            (
                "/v1/chat/completions",
                {"messages": [*message(wrong), {"role": "assistant", "content": "a"}, *message("b")]},
            ),
            ("/v1/completions", {"prompt": wrong}),
        ):
            answer = post(made, path, body)
            assert (answer.status_code, error(answer)["code"]) == (400, "content_filter")
            assert CARD not in answer.text
    post(made, "/v1/chat/completions", {"messages": message("write to jo@example.com")})
    assert fake.written == [("write to [email]", 4)]


@pytest.mark.parametrize("stream", [False, True])
def test_answers_are_masked_and_ended(stream: bool) -> None:
    """Tokens split what is looked for; what was held back comes, masked, when it is known."""
    texts = {
        "mask": f"write to jo@example.com or pay {CARD} today",
        "block": f"the key is {KEY} ok" + " more" * 50,
        "long": "words " * 40,
    }
    fake = FakeGenerator(context_length=10**4, seconds=0.001, answer=lambda text: list(texts[text]))
    settings = {"mask": ["email", "card"], "block": ["key"], "max_characters": 120}
    made = application(generator(model=fake), guard=settings)

    def ask(text: str) -> Any:
        body = {"messages": message(text), "stream": stream, "max_tokens": 300}
        return post(made, "/v1/chat/completions", body)

    assert answered_safely(ask("mask"), stream) == ("write to [email] or pay [card] today", "stop")
    assert answered_safely(ask("block"), stream) == ("the key is ", "content_filter")
    assert answered_safely(ask("long"), stream) == (("words " * 40)[:120], "length")
    while len(fake.written) < 3:  # the last one is still ending when its answer has come
        time.sleep(0.01)
    counts = [count for _, count in fake.written]
    assert counts[0] == len(texts["mask"]) + 1
    assert counts[1] < len(texts["block"]) + 1
    assert counts[2] < len(texts["long"])


def answered_safely(answer: Any, stream: bool) -> tuple[str, str]:
    """An answer's text, and why it ended; nothing of the response, not even one event, has what was masked."""
    assert "jo@" not in answer.text
    assert KEY[:6] not in answer.text
    return answered(answer, stream)


@dataclass
class Censor(FakeClassifier):
    """Finds `rude` texts toxic; reads only the first `max_length` characters."""

    labels: tuple[str, ...] = ("fine", "toxic")

    def alone(self, text: str, name: str = "0") -> Prediction:
        if "rude" in text[: self.max_length]:
            return Prediction(name, "toxic", (0.1, 0.9))
        return Prediction(name, "fine", (0.8, 0.2))


@pytest.mark.parametrize("stream", [False, True])
def test_another_classifier_as_guard(stream: bool, tmp_path: Path) -> None:
    texts = {"nice": "All is well. " * 40, "bad": "All is well. " * 20 + "You rude thing. " + "More. " * 40}
    words = {text: [f"{word} " for word in texts[text].split()] for text in texts}
    fake = FakeGenerator(context_length=10**4, seconds=0.002, answer=words.__getitem__)
    censor = Censor()
    guard = {"classifier": "somewhere", "thresholds": {"toxic": 0.5}, "audit_log": str(tmp_path / "audit.jsonl")}
    made = application(classifier(), generator(model=fake), guard_classifier=classifier("guard", censor), guard=guard)

    def ask(text: str) -> Any:
        return post(made, "/v1/chat/completions", {"messages": message(text), "stream": stream, "max_tokens": 500})

    assert answered_safely(ask("nice"), stream)[0].strip() == texts["nice"].strip()
    text, finish = answered_safely(ask("bad"), stream)
    assert finish == "content_filter"
    assert "rude" not in text
    assert texts["bad"].startswith(text)
    assert len(text) >= 100
    while len(fake.written) < 2:
        time.sleep(0.01)
    assert fake.written[-1][1] < len(texts["bad"].split()), "the model stops when its answer does"
    for path, body in (
        ("/predict", {"inputs": ["ok", "rude"]}),
        ("/v1/chat/completions", {"messages": message("so rude"), "stream": stream}),
    ):
        answer = post(made, path, body)
        assert (answer.status_code, error(answer)["code"]) == (400, "content_filter")
    audit = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["where"], line["action"], line["rule"]) for line in audit] == [
        ("output", "block", "toxic"),
        ("input", "block", "toxic"),
        ("input", "block", "toxic"),
    ]
    assert all(line["probability"] == 0.9 and len(line["request"]) == 32 and "text" not in line for line in audit)


def test_where_the_guard_stands_and_what_it_writes_down(tmp_path: Path) -> None:
    async def main() -> None:
        for check, inside, outside in (("inputs", True, False), ("outputs", False, True), ("both", True, True)):
            fake = FakeGenerator(answer=lambda text: list(text))
            log = tmp_path / f"{check}.jsonl"
            guard = {"mask": ["email"], "check": check, "audit_log": str(log)}
            async with client(application(generator(model=fake), guard=guard, log_texts=True)) as one:
                answer = await one.post("/v1/chat/completions", json={"messages": message("a jo@x.de b")})
            assert (fake.written[0][0] == "a [email] b") == inside
            assert answered(answer, False)[0] == "a [email] b"
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            assert [line["where"] for line in lines] == (["input"] if inside else ["output"])
            assert {line["text"] for line in lines} == {"jo@x.de"}
            assert outside or inside

    run(main())


def test_stop_texts_and_the_guard_together() -> None:
    fake = FakeGenerator(answer=lambda text: list("one END two jo@x.de"))
    made = application(generator(model=fake), guard={"mask": ["email"]})
    for stop, expected in (("END", "one "), (["two", "zzz"], "one END "), ("nowhere", "one END two [email]")):
        body = {"messages": message("a"), "stop": stop}
        found = post(made, "/v1/chat/completions", body).json()["choices"][0]
        assert (found["message"]["content"], found["finish_reason"]) == (expected, "stop")


def test_the_guard_reads_all_of_a_text() -> None:
    """Also what its classifier would cut off; and nothing hides where a text is parted."""
    guard = {"classifier": "somewhere", "thresholds": {"toxic": 0.5}}
    made = application(classifier(), guard_classifier=classifier("guard", Censor(max_length=60)), guard=guard)

    async def main() -> None:
        async with client(made) as one:
            for place in range(0, 1000, 9):
                text = ("nice " * 200)[:place] + "rude" + ("nice " * 200)[place:]
                answer = await one.post("/predict", json={"inputs": ["fine", text]})
                assert answer.status_code == 400, place
            assert (await one.post("/predict", json={"inputs": "nice " * 200})).status_code == 200

    run(main())
    assert [len(half) for half in halves("ab")] == [1, 1]
    assert halves("a") == []


@pytest.mark.parametrize("before", [0, 70, 1000, 4000])
def test_the_guard_reads_the_end_of_an_answer(before: int) -> None:
    text = "It is nice. " * (before // 12) + "You are rude. " + "It is nice. " * 9
    fake = FakeGenerator(context_length=10**4, answer=lambda _: text.split(" "))
    guard = {"classifier": "somewhere", "thresholds": {"toxic": 0.5}, "check": "outputs"}
    made = application(generator(model=fake), guard_classifier=classifier("guard", Censor(max_length=60)), guard=guard)
    body = {"messages": message("a"), "max_tokens": 5000}
    found = post(made, "/v1/chat/completions", body).json()["choices"][0]
    assert found["finish_reason"] == "content_filter"
    assert "rude" not in found["message"]["content"]


def test_more_texts_than_the_queue_holds_are_judged_in_turn() -> None:
    guard = {"classifier": "somewhere", "thresholds": {"toxic": 0.5}}
    made = application(
        classifier(pairs=True),
        generator(model=FakeGenerator(context_length=1000)),
        guard_classifier=classifier("guard", Censor()),
        guard=guard,
        queue_size=4,
        max_inputs=4,
    )
    turns = [*message("hi"), {"role": "assistant", "content": "hello"}] * 9
    for last, status in (("and now?", 200), ("you rude thing", 400)):
        answer = post(made, "/v1/chat/completions", {"messages": [*turns, *message(last)]})
        assert answer.status_code == status, answer.text
        pairs = [{"text": "one", "text_pair": last}] * 4
        assert post(made, "/predict", {"inputs": pairs}).status_code == status


@pytest.mark.parametrize("stream", [False, True])
def test_the_time_of_a_request_is_the_time_of_its_guard_too(stream: bool) -> None:
    guard = {"classifier": "somewhere", "thresholds": {"toxic": 0.5}}
    slow = Censor(seconds=0.1)
    judge = classifier("guard", slow)
    fake = FakeGenerator(
        context_length=10**4, answer=lambda text: ["All is well here. "] * (60 if text == "long" else 10)
    )
    made = application(
        classifier(model=FakeClassifier(seconds=0.1)),
        generator(model=fake),
        guard_classifier=judge,
        guard=guard,
        timeout_seconds=0.5,
        batch_wait_ms=0,
    )
    assert post(made, "/predict", {"inputs": "in time"}).status_code == 200
    body = {"messages": message("short"), "stream": stream, "max_tokens": 80}
    late = post(made, "/v1/chat/completions", body | {"messages": message("long")})
    assert (late.status_code, "timeout" in late.text) == (200 if stream else 503, True)
    slow.may_run = threading.Event()  # the classifier does not come back before the response
    for path, wrong in (("/predict", {"inputs": "late"}), ("/v1/chat/completions", body)):
        answer = post(made, path, wrong)
        assert (answer.status_code, error(answer)["code"]) == (503, "timeout")
    slow.may_run.set()


def test_an_audit_log_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="audit_log"):
        _ = application(classifier(), guard={"mask": ["email"], "audit_log": str(tmp_path)}).handlers.guard  # type: ignore[attr-defined]


def test_a_line_that_a_killed_server_began_stays_alone(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    log.write_text('{"time": "2026-')
    audit = AuditLog(log)
    for request_id in ("1", "2"):
        audit.record(request_id, "input", "mask", "email", "a@b.com")
    cut, *lines = log.read_text().splitlines()
    assert cut == '{"time": "2026-'
    assert [json.loads(line)["request"] for line in lines] == ["1", "2"]
