"""The judges that a recipe names: endpoints with the address and key set for them, or models in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from tunesmith import recipe as recipes
from tunesmith.endpoints.client import Endpoint, JudgeClient, JudgeRequest, Reply
from tunesmith.errors import RecipeError
from tunesmith.judging.judge_prompts import ENDING
from tunesmith.recipe import Generate, Recipe

if TYPE_CHECKING:
    from tunesmith.prediction.generate import Generator

HERE = {"openai": "http://localhost:11434/v1", "ollama": "http://localhost:11434"}
"""Ollama on this machine, by either of its APIs."""
LONGEST = 8192
"""Tokens of question and reply that a local judge may read, where the model itself can."""
OPENAI = "https://api.openai.com/"
CHOICES = {
    "score": [f"Score: {number}" for number in range(101)],
    "pairwise": ["Verdict: A", "Verdict: B", "Verdict: tie"],
}
"""What a constrained judge chooses from, by what it is asked for."""


def of(recipe: Recipe) -> list[JudgeClient]:
    """The judges of a recipe. Raises RecipeError where none is named."""
    settings = recipe.judge
    names = settings.model or tuple(filter(None, [os.environ.get("TUNESMITH_JUDGE_MODEL")]))
    if not names:
        raise RecipeError("no judge", expected="the name of a model", do="set judge.model (--model)")
    if settings.api == "local":
        return [LocalJudge(model, recipe, name) for model, name in zip(names, _short(names), strict=True)]
    url, key = _place(recipe)
    return [
        Endpoint(
            settings.api,
            url,
            name,
            key,
            settings.max_tokens,
            settings.timeout,
            settings.max_retries,
            settings.concurrency,
            settings.extra,
        )
        for name in names
    ]


def _short(models: Sequence[str]) -> Sequence[str]:
    """The last parts of their paths, where that tells them apart."""
    names = [Path(model).name for model in models]
    return names if len(set(names)) == len(names) else models


def _place(recipe: Recipe) -> tuple[str, SecretStr | None]:
    """Address and key. A key from OPENAI_API_KEY goes nowhere but to OpenAI, or where OPENAI_BASE_URL says."""
    settings = recipe.judge
    base = os.environ.get("OPENAI_BASE_URL", "").rstrip("/") if settings.api == "openai" else ""
    url = settings.url or _checked(os.environ.get("TUNESMITH_JUDGE_URL") or base) or HERE[settings.api]
    if settings.api_key is not None:
        return url, settings.api_key
    if settings.api_key_env is not None:
        value = os.environ.get(settings.api_key_env, "")
        if not value.strip():
            raise RecipeError(f"judge.api_key_env: {settings.api_key_env} is not set", do="set it, or name another")
        return url, SecretStr(value)
    value = os.environ.get("TUNESMITH_JUDGE_KEY", "")
    if not value and (url == base or url.startswith(OPENAI)):
        value = os.environ.get("OPENAI_API_KEY", "")
    return url, SecretStr(value) if value.strip() else None


def _checked(url: str) -> str | None:
    return recipes.load({"judge": {"url": url}}).judge.url if url else None


@dataclass(frozen=True)
class LocalJudge:
    """A judge in this process."""

    model: str
    recipe: Recipe
    name: str

    @property
    def identity(self) -> Mapping[str, Any]:
        settings = self.recipe.judge
        return {
            "api": "local",
            "model": self.model,
            "max_tokens": settings.max_tokens,
            "constrained": settings.constrained,
            "dtype": self.recipe.model.dtype,
        }

    def replies(self, asked: Sequence[JudgeRequest]) -> Iterator[tuple[JudgeRequest, Reply]]:
        """In the order given, a batch at a time."""
        size = self.recipe.judge.concurrency
        for start in range(0, len(asked), size):
            group = asked[start : start + size]
            conversations = [one.messages for one in group]
            lengths = [len(ids) for ids in self._generator.chat_encoder.encode_prompts(conversations)]
            fits = [one for one, length in zip(group, lengths, strict=True) if length <= self._room]
            for one in group:
                if one not in fits:
                    yield one, Reply(failure=f"the question is longer than the {self._room:,} tokens left for it")
            if fits:
                found = self._choose(fits) if self.recipe.judge.constrained else self._write(fits)
                yield from zip(fits, found, strict=True)

    @cached_property
    def _generator(self) -> Generator:
        from tunesmith import processes
        from tunesmith.data.prompts import ChatEncoder
        from tunesmith.models import pretrained
        from tunesmith.prediction.generate import Generator

        model = self.recipe.model.model_copy(
            update={
                "name_or_path": self.model,
                "max_length": LONGEST,
                "from_config": None,
                "state_dict": None,
                "dropout": None,
            }
        )
        tokenizer = pretrained.tokenizer(model)
        chat_encoder = ChatEncoder.of(recipes.Prompt(), tokenizer)
        made = pretrained.causal_lm(model, tokenizer, self.recipe.seed).module.eval().to(processes.device())
        return Generator(made, chat_encoder, pretrained.longest_input(model, tokenizer), model)

    @property
    def _settings(self) -> Generate:
        return Generate(max_new_tokens=self.recipe.judge.max_tokens, batch_size=self.recipe.judge.concurrency)

    @property
    def _room(self) -> int:
        """Most tokens of a question."""
        return self._generator.context_length - self._generator.max_answer_tokens(self._settings)

    def _write(self, asked: Sequence[JudgeRequest]) -> Iterator[Reply]:
        lengths = [len(ids) for ids in self._generator.chat_encoder.encode_prompts([one.messages for one in asked])]
        found = self._generator.respond(
            [one.key for one in asked], [one.messages for one in asked], self._settings, asked[0].seed
        )
        for response, length in zip(found, lengths, strict=True):
            yield Reply(response.text, length, response.tokens, cut=not response.ended)

    def _choose(self, asked: Sequence[JudgeRequest]) -> Iterator[Reply]:
        """The verdict that greedy writing would come to, could it write nothing else."""
        from tunesmith.prediction import scoring

        chat_encoder, model = self._generator.chat_encoder, self._generator.model
        prompts = chat_encoder.encode_prompts([one.messages for one in asked])
        for one, prompt in zip(asked, prompts, strict=True):
            choices = CHOICES["pairwise" if one.messages[-1].content.endswith(ENDING["pairwise"]) else "score"]
            tree = scoring.Tree.of(chat_encoder.encode_answers(one.messages, choices))
            read = scoring.score if self._reads_trees else scoring.score_padded
            best = tree.greedy(read(model, [prompt], tree, "auto", "judge"))[0]
            yield Reply(choices[best], len(prompt), len(tree.answers[best]))

    @cached_property
    def _reads_trees(self) -> bool:
        from tunesmith.prediction import scoring
        from tunesmith.types import Message

        asked = [Message("user", "How good is this?")]
        answers = self._generator.chat_encoder.encode_answers(asked, ["Score: 1", "Score: 10", "Score: 99"])
        prompts = self._generator.chat_encoder.encode_prompts([asked])
        return scoring.disagrees(self._generator.model, prompts, answers) is None
