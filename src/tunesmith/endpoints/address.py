"""Where an endpoint is and which key it gets: as its settings say, or else the environment."""

from __future__ import annotations

import os

from pydantic import SecretStr

from tunesmith.errors import RecipeError
from tunesmith.recipe.endpoint_settings import checked_url

LOCAL_OLLAMA = {"openai": "http://localhost:11434/v1", "ollama": "http://localhost:11434"}
"""Ollama on this machine, by either of its APIs."""
OPENAI = "https://api.openai.com/"


def url_and_key(
    section: str, api: str, url: str | None, key: SecretStr | None, key_variable: str | None
) -> tuple[str, SecretStr | None]:
    """Return the address and the key of the endpoint that a section of the recipe describes.

    section: its name, which also names the variables that stand in for missing settings: TUNESMITH_JUDGE_URL and
    TUNESMITH_JUDGE_KEY of `judge`. OPENAI_BASE_URL is next, for OpenAI's API. OPENAI_API_KEY goes only to OpenAI, or
    where OPENAI_BASE_URL says. key_variable: the variable that holds the key. Raises RecipeError where that is unset,
    or where an address from the environment is none.
    """
    own = f"TUNESMITH_{section.upper()}"
    base = os.environ.get("OPENAI_BASE_URL", "").rstrip("/") if api == "openai" else ""
    if url is None:
        try:
            url = checked_url(os.environ.get(f"{own}_URL") or base or LOCAL_OLLAMA[api])
        except ValueError as error:
            raise RecipeError(f"{own}_URL or OPENAI_BASE_URL: {error}", do=f"set {section}.url") from None
    if key is not None:
        return url, key
    if key_variable is not None:
        value = os.environ.get(key_variable, "")
        if not value.strip():
            raise RecipeError(f"{section}.api_key_env: {key_variable} is not set", do="set it, or name another")
        return url, SecretStr(value)
    value = os.environ.get(f"{own}_KEY", "")
    if not value and (url == base or url.startswith(OPENAI)):
        value = os.environ.get("OPENAI_API_KEY", "")
    return url, SecretStr(value) if value.strip() else None
