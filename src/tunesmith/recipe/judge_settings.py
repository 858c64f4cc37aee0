"""The settings of `tunesmith judge`: which model judges, how it is asked, and what that may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr

from tunesmith.recipe.endpoint_settings import Price, Requests, Url
from tunesmith.recipe.values import BOUNDED, Count, as_list, numbers


class Judge(Requests):
    """Settings of `tunesmith judge`: which model judges answers, and how. They do not affect training."""

    api: Literal["openai", "ollama", "local"] = "openai"
    """Chat completions as OpenAI has them (also Ollama's `/v1`, vLLM, llama.cpp), Ollama's own API, or a model in this
    process."""
    url: Url | None = None
    """Base address of the endpoint, such as `https://api.openai.com/v1`. Null takes TUNESMITH_JUDGE_URL or
    OPENAI_BASE_URL from the environment, else Ollama on this machine."""
    model: Annotated[tuple[str, ...], BeforeValidator(as_list)] = ()
    """Name of the model at the endpoint; of `local` a run, hub id, folder, GGUF file or `pypi:` asset. Several judge
    one after the other. Unset takes TUNESMITH_JUDGE_MODEL from the environment."""
    api_key: SecretStr | None = Field(default=None, exclude=True)
    """The endpoint's key; better kept out of files, see `api_key_env`. It is never stored, logged or shown."""
    api_key_env: str | None = None
    """Environment variable with the key. Null takes TUNESMITH_JUDGE_KEY, and for OpenAI or OPENAI_BASE_URL also
    OPENAI_API_KEY."""
    rubric: str | None = None
    """File with the criteria, or a Jinja template of the whole prompt; null uses the built-in one."""
    verbatim: bool = False
    """Send the rubric's template as it is, without marks around the texts and without the line that asks for the
    form of the verdict: for a prompt that must be exact. Texts can then give the judge orders."""
    references: bool = True
    """Show the judge the reference answer, where a row has one."""
    seeds: Annotated[tuple[int, ...], BeforeValidator(numbers), Field(min_length=1)] = (1,)
    """Each answer is judged once with each seed, always at temperature 0."""
    max_tokens: Count = 512
    """Maximum tokens of the judge's reply; a reply that is cut off is unscored."""
    constrained: bool = False
    """For a `local` judge: take the most probable verdict instead of generating one."""
    controls: Annotated[int, Field(ge=0), BOUNDED] = 5
    """Rows of each kind (empty, `Sure!`, the reference, another row's reference) mixed in to test the judge."""
    max_answers: Count | None = None
    """Judge at most this many rows, drawn with the recipe's seed."""
    input_price: Price | None = None
    """Price of a million input tokens; costs are reported where both prices are known."""
    output_price: Price | None = None
    """Price of a million output tokens."""
