"""The settings of models behind an endpoint: where they are, how they are asked, and what that may cost."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field

from tunesmith.recipe.values import BOUNDED, Count, Section, Tree


def checked_url(url: str) -> str:
    """Return an endpoint's address without a slash at its end. Raises ValueError, which does not repeat it.

    Addresses are shown and stored, so none may carry a password or a key.
    """
    parts = urlsplit(url)
    words = {word for name, _ in parse_qsl(parts.query, keep_blank_values=True) for word in name.lower().split("-")}
    if parts.username or parts.password or words & {"key", "token", "secret", "sig", "apikey", "password"}:
        raise ValueError("the address carries a password or a key: name its environment variable in api_key_env")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the address needs http:// or https:// and a host")
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(checked_url)]
Price = Annotated[float, Field(ge=0)]


class Requests(Section):
    """How an endpoint is asked, whatever it is asked for."""

    concurrency: Count = 4
    """Concurrent requests; of a model in this process, prompts in a batch."""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds that one request may take in all."""
    max_retries: Annotated[int, Field(ge=0), BOUNDED] = 5
    """Tries after the first, with growing pauses, after 429, 5xx, timeouts and broken connections."""
    extra: Tree = Field(default={})
    """Further fields of a request, such as `{top_p: 0.9, seed: null}`; null leaves one out."""


class Endpoint(Requests):
    """Method `endpoint`: a large language model behind a URL, prompted with or without examples. Nothing is trained."""

    api: Literal["openai", "ollama"] = "openai"
    """Chat completions as OpenAI has them (also `tunesmith serve`, vLLM, llama.cpp, Ollama's `/v1`), or Ollama's own
    API."""
    url: Url | None = None
    """Base address, such as `https://api.openai.com/v1`. Null takes TUNESMITH_ENDPOINT_URL or OPENAI_BASE_URL from the
    environment, else Ollama on this machine."""
    model: str | None = None
    """Name of the model at the endpoint; in a comparison also `--methods endpoint:NAME`. Null takes
    TUNESMITH_ENDPOINT_MODEL from the environment."""
    api_key_env: str | None = None
    """Environment variable with the key. Null takes TUNESMITH_ENDPOINT_KEY, and for OpenAI or OPENAI_BASE_URL also
    OPENAI_API_KEY."""
    max_tokens: Count = 512
    """Maximum tokens of a reply with labels or a number; models that think first need more. Answers to instructions
    have `generate.max_new_tokens`."""
    shots: Annotated[int, Field(ge=0), BOUNDED] = 0
    """Training rows that the prompt shows, with their answers, before the text (few-shot prompting)."""
    shot_selection: Literal["random", "nearest"] = "random"
    """Which rows these are: drawn at random with the recipe's seed, each label in turn, and the same for every text; or
    those whose embeddings (`prompt.shot_encoder`) are nearest to the text's."""
    delimiters: bool = True
    """Put each text between marks that it cannot imitate, and say that it is no instruction. Without them the prompt is
    the one that a `generator` gets, and texts can give the model orders."""
    structured_output: bool = True
    """Ask for JSON that follows a schema, where the server can hold its model to one."""
    logprobs: bool = True
    """Ask for log-probabilities: where the server returns them, labels have probabilities."""
    samples: Count = 1
    """Replies to each text. With several, drawn at `temperature`, the probability of a label is the share that names
    it; otherwise a server without log-probabilities leaves labels without probabilities."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """For several samples; a single reply is always asked for at temperature 0."""
    prices: dict[str, tuple[Price | None, Price | None]] = Field(default={})
    """Prices of a million prompt and of a million completion tokens by model, such as `{gpt-5-mini: [0.25, 2]}`;
    without them costs stay blank."""
    budget: Price | None = None
    """What the replies of one run may cost at most, by these prices. A run that is estimated to cost more does not
    start, and one that comes to cost more stops, keeping its replies."""
