"""Tokens with their log-probabilities are whole and spell the text, or there are none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunesmith.endpoints.chat_apis import APIS, parse_tokens
from tunesmith.endpoints.chat_client import TokenAlternatives


def entry(token: str, logprob: Any = -0.5, others: Any = (("zzz", -2.0),), **more: Any) -> dict[str, Any]:
    """A token as OpenAI's API and Ollama's return it."""
    alternatives = [{"token": token, "logprob": logprob}, *({"token": t, "logprob": p} for t, p in others)]
    return {"token": token, "logprob": logprob, "top_logprobs": alternatives, **more}


def spelled(*pieces: str) -> list[dict[str, Any]]:
    return [entry(piece) for piece in pieces]


def texts(entries: Any, text: str) -> list[str]:
    return [token.token for token in parse_tokens(entries, text)]


def test_tokens_with_all_their_alternatives() -> None:
    entries = [entry("sp", -0.1, [("h", -2.5), ("x", -9999.0)]), entry("am", 0, [("ot", -30.0)])]
    assert parse_tokens(entries, "spam") == (
        TokenAlternatives("sp", {"sp": -0.1, "h": -2.5, "x": -9999.0}),
        TokenAlternatives("am", {"am": 0.0, "ot": -30.0}),
    )


def test_the_token_itself_is_among_them_even_where_it_was_not_probable() -> None:
    sampled = {"token": "ham", "logprob": -4.0, "top_logprobs": [{"token": "spam", "logprob": -0.1}]}
    assert parse_tokens([sampled], "ham") == (TokenAlternatives("ham", {"spam": -0.1, "ham": -4.0}),)


@pytest.mark.parametrize(
    ("pieces", "text", "kept"),
    [
        (["ham", "<|im_end|>"], "ham", ["ham"]),  # vLLM has the token that ended the text
        ([" ham"], "ham", [" ham"]),  # a server trims the text
        (["\n", "ham", "\n"], "ham", ["\n", "ham"]),
        ([" ham", " or", " spam\n"], "ham or spam", [" ham", " or", " spam\n"]),
        ([""], "", []),
        ([], "", []),
        (["grü", "ße"], "grüße", ["grü", "ße"]),
    ],
)
def test_tokens_that_spell_the_text(pieces: list[str], text: str, kept: list[str]) -> None:
    assert texts(spelled(*pieces), text) == kept


def test_bytes_spell_characters_that_tokens_cut() -> None:
    entries = [entry("\ufffd", bytes=[0xC3]), entry("\ufffd", bytes=[0xA9]), entry("!", bytes=None)]
    assert texts(entries, "é!") == ["\ufffd", "\ufffd", "!"]
    assert texts(entries[:2], "é!") == []


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["ha"], "ham"),  # partial
        (["am"], "ham"),
        (["hammer"], "ham"),
        (["<think>", "so", "</think>", "ham"], "ham"),  # the reasoning's tokens as well
        (["ham"], " ham"),
        ([], "ham"),
    ],
)
def test_tokens_that_do_not_spell_the_text_are_none(pieces: list[str], text: str) -> None:
    assert texts(spelled(*pieces), text) == []


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        5,
        "ham",
        {"token": "ham"},
        [None],
        [["ham"]],
        [{}],
        [{"token": "ham", "logprob": -1}],
        [entry("ham", others=()) | {"top_logprobs": []}],
        [entry("ham") | {"top_logprobs": None}],
        [entry("ham") | {"top_logprobs": 3}],
        [entry("ham", others=[(None, -1)])],
        [entry("ham", others=[("spam", "-1")])],
        [entry("ham", others=[("spam", None)])],
        [entry("ham", None)],
        [entry("ham", True)],
        [entry("ham", "-0.5")],
        [entry("ham", 0.5)],
        [entry("ham", float("nan"))],
        [entry("ham", float("-inf"))],
        [entry("ham", others=[("spam", float("inf"))])],
        [entry("ham", bytes=["h"])],
        [entry("ham", bytes=[300])],
        [entry(5)],  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_what_is_missing_or_wrong_makes_no_tokens_and_the_text_stays(wrong: Any) -> None:
    """Also where all other tokens are whole; JSON that Python reads may hold NaN."""
    assert parse_tokens(wrong, "ham") == ()
    whole = spelled("eggs", " and ")
    if isinstance(wrong, list):
        assert parse_tokens(whole + wrong, "eggs and ham") == ()
    body = {"message": {"content": "ham"}, "logprobs": wrong}
    assert APIS["ollama"].parse_reply(json.loads(json.dumps(body))).text == "ham"
    choice = {"message": {"content": "ham"}, "logprobs": {"content": wrong}}
    reply = APIS["openai"].parse_reply(json.loads(json.dumps({"choices": [choice]})))
    assert (reply.text, reply.tokens) == ("ham", ())


@pytest.mark.parametrize("logprobs", [None, [], {}, {"content": None}, {"refusal": spelled("ham")}, "ham", 1])
def test_logprobs_of_another_form(logprobs: Any) -> None:
    reply = APIS["openai"].parse_reply({"choices": [{"message": {"content": "ham"}, "logprobs": logprobs}]})
    assert (reply.text, reply.tokens) == ("ham", ())


def test_texts_that_no_file_can_hold_are_replaced() -> None:
    body = {"model": "a\ud800", "choices": [{"message": {"content": "ham\udfff"}}]}
    reply = APIS["openai"].parse_reply(body)
    assert (reply.text, reply.model) == ("ham?", "a?")
