"""The judges that a recipe names: endpoints, or models in this process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tunesmith import recipe as recipes, runs
from tunesmith.endpoints import address
from tunesmith.endpoints.chat_client import ChatClient, ClientIdentity, EndpointReply, EndpointRequest, Replies
from tunesmith.endpoints.client import EndpointClient
from tunesmith.endpoints.token_usage import TokenUsage
from tunesmith.errors import RecipeError
from tunesmith.pipeline import engines
from tunesmith.recipe import Generate, Recipe
from tunesmith.runs import MANIFEST

if TYPE_CHECKING:
    from tunesmith.prediction.generate import Generator

MAX_LENGTH = 8192
"""Tokens of question and reply that a local judge handles, where the model itself can."""


def clients(recipe: Recipe) -> list[ChatClient]:
    """Return the judges of a recipe. Raises RecipeError where none is named."""
    settings = recipe.judge
    names = settings.model or tuple(filter(None, [os.environ.get("TUNESMITH_JUDGE_MODEL")]))
    if not names:
        raise RecipeError("no judge", expected="the name of a model", do="set judge.model (--model)")
    if settings.api == "local":
        short = [Path(model).name for model in names]
        unique = len(set(short)) == len(short)
        return [LocalJudge(model, recipe, name) for model, name in zip(names, short if unique else names, strict=True)]
    url, key = address.url_and_key("judge", settings.api, settings.url, settings.api_key, settings.api_key_env)
    return [
        EndpointClient(
            settings.api,
            url,
            name,
            key,
            max_tokens=settings.max_tokens,
            timeout=settings.timeout,
            max_retries=settings.max_retries,
            concurrency=settings.concurrency,
            extra=settings.extra,
        )
        for name in names
    ]


@dataclass(frozen=True)
class LocalJudge:
    """A judge in this process."""

    model: str
    recipe: Recipe
    name: str

    @property
    def identity(self) -> ClientIdentity:
        settings = self.recipe.judge
        return ClientIdentity(
            api=settings.api,
            model=self.model,
            max_tokens=settings.max_tokens,
            constrained=settings.constrained,
            dtype=self.recipe.model.dtype,
        )

    def replies(self, requests: Iterable[EndpointRequest]) -> Replies:
        """Yield replies in the order of the requests, a batch at a time."""
        size, constrained = self.recipe.judge.concurrency, self.recipe.judge.constrained
        limit = self._generator.context_length - self._generator.max_answer_tokens(self._settings)
        unanswered = iter(requests)
        while batch := list(islice(unanswered, size)):
            prompts = self._generator.chat_encoder.encode_prompts([request.messages for request in batch])
            fits = [request for request, prompt in zip(batch, prompts, strict=True) if len(prompt) <= limit]
            for request in batch:
                if request not in fits:
                    yield request, EndpointReply(failure=f"a question of more than {limit:,} tokens")
            if fits:
                yield from zip(fits, self._choose(fits) if constrained else self._generate(fits), strict=True)

    @cached_property
    def _generator(self) -> Generator:
        """The model: a run by its own engine, else by torch."""
        if Path(self.model, MANIFEST).is_file():
            return cast("Generator", engines.load_generator(runs.find(self.model), "auto"))
        from tunesmith import processes
        from tunesmith.data.prompts import ChatEncoder
        from tunesmith.models import pretrained
        from tunesmith.prediction.generate import Generator

        model = self.recipe.model.model_copy(
            update={
                "name_or_path": self.model,
                "max_length": MAX_LENGTH,
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

    def _generate(self, requests: Sequence[EndpointRequest]) -> Iterator[EndpointReply]:
        conversations = [request.messages for request in requests]
        prompts = self._generator.chat_encoder.encode_prompts(conversations)
        responses = self._generator.respond(
            [request.key for request in requests], conversations, self._settings, requests[0].seed
        )
        for response, prompt in zip(responses, prompts, strict=True):
            yield EndpointReply(
                response.text, TokenUsage(len(prompt), response.tokens, 1), truncated=not response.ended
            )

    def _choose(self, requests: Sequence[EndpointRequest]) -> Iterator[EndpointReply]:
        """Yield the choice that greedy decoding would end with, could it write nothing else."""
        from tunesmith.prediction import scoring

        chat_encoder, model = self._generator.chat_encoder, self._generator.model
        prompts = chat_encoder.encode_prompts([request.messages for request in requests])
        for request, prompt in zip(requests, prompts, strict=True):
            tree = scoring.Tree.of(chat_encoder.encode_answers(request.messages, request.choices))
            score = scoring.score if self._reads_trees else scoring.score_padded
            best = tree.greedy(score(model, [prompt], tree, "auto", "judge"))[0]
            yield EndpointReply(request.choices[best], TokenUsage(len(prompt), len(tree.answers[best]), 1))

    @cached_property
    def _reads_trees(self) -> bool:
        from tunesmith.prediction import scoring
        from tunesmith.types import Message

        question = [Message("user", "How good is this?")]
        answers = self._generator.chat_encoder.encode_answers(question, ["Score: 1", "Score: 10", "Score: 99"])
        prompts = self._generator.chat_encoder.encode_prompts([question])
        return scoring.disagrees(self._generator.model, prompts, answers) is None
