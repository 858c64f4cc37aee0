"""Addresses and keys: settings first, then the section's own variables, then OpenAI's; keys go nowhere else."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from tunesmith.endpoints.address import url_and_key
from tunesmith.errors import RecipeError

VARIABLES = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "TUNESMITH_JUDGE_URL", "TUNESMITH_JUDGE_KEY", "TUNESMITH_LABEL_URL")
HOST = "http://127.0.0.1:8000/v1"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def resolve(
    url: str | None = None, key: str | None = None, variable: str | None = None, api: str = "openai"
) -> tuple[str, str | None]:
    address, secret = url_and_key("judge", api, url, SecretStr(key) if key else None, variable)
    return address, secret.get_secret_value() if secret else None


def test_without_settings_it_is_ollama_on_this_machine() -> None:
    assert resolve() == ("http://localhost:11434/v1", None)
    assert resolve(api="ollama") == ("http://localhost:11434", None)


def test_settings_come_before_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_JUDGE_URL", "http://other/v1")
    monkeypatch.setenv("TUNESMITH_JUDGE_KEY", "from the environment")
    assert resolve(HOST, "given") == (HOST, "given")
    assert resolve(HOST) == (HOST, "from the environment")
    monkeypatch.setenv("NAMED", "from a named variable")
    assert resolve(variable="NAMED") == ("http://other/v1", "from a named variable")


def test_each_section_has_variables_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_JUDGE_URL", "http://judge/v1")
    monkeypatch.setenv("TUNESMITH_LABEL_URL", "http://labels/v1/")
    assert url_and_key("label", "openai", None, None, None) == ("http://labels/v1", None)
    assert resolve()[0] == "http://judge/v1"


def test_openai_variables_are_for_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert resolve(HOST) == (HOST, None)
    assert resolve("https://api.openai.com.evil.example/v1")[1] is None
    assert resolve("https://api.openai.com/v1") == ("https://api.openai.com/v1", "secret")
    monkeypatch.setenv("OPENAI_BASE_URL", HOST + "/")
    assert resolve() == (HOST, "secret")
    assert resolve("http://elsewhere/v1")[1] is None
    assert resolve(api="ollama") == ("http://localhost:11434", None)


@pytest.mark.parametrize("url", ["http://user:pw123456@host/v1", "http://h/v1?api-key=pw123456", "ftp://h", "h"])
def test_a_wrong_address_from_the_environment_is_an_error(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("TUNESMITH_JUDGE_URL", url)
    with pytest.raises(RecipeError, match="TUNESMITH_JUDGE_URL") as raised:
        resolve()
    assert "pw123456" not in str(raised.value)


def test_a_named_variable_must_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY", " ")
    for name in ("EMPTY", "NOT_SET_ANYWHERE"):
        with pytest.raises(RecipeError, match=f"judge.api_key_env: {name} is not set"):
            resolve(HOST, variable=name)
