"""Sets up a model behind an endpoint: nothing is trained, and what it will cost is estimated."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from tunesmith.console import say
from tunesmith.data import shots
from tunesmith.data.shots import Embed
from tunesmith.endpoints import address
from tunesmith.endpoints.chat_client import EndpointRequest
from tunesmith.endpoints.client import EndpointClient
from tunesmith.endpoints.token_usage import TokenPrices, TokenUsage
from tunesmith.errors import ModelError, RecipeError, summary
from tunesmith.evaluation import determinism
from tunesmith.hardware import Stopwatch
from tunesmith.manifest import EndpointCosts
from tunesmith.pipeline.fitting.job import Job
from tunesmith.prediction import endpoint_file
from tunesmith.prediction.endpoint_generator import EndpointGenerator
from tunesmith.prediction.endpoint_model import REPEATED, EndpointModel, Requests
from tunesmith.prediction.endpoint_predictor import EndpointPredictor
from tunesmith.prediction.endpoint_prompts import EndpointPrompt
from tunesmith.protocols import Predictor, TrainResult
from tunesmith.recipe import Endpoint, Generate, Recipe
from tunesmith.reporting.format import counted
from tunesmith.tasks import instruction, text_targets
from tunesmith.tasks.text_targets import Target
from tunesmith.types import Splits

Prompted = EndpointPredictor | EndpointGenerator
JOURNALS = "endpoint-replies"
"""The folder of all journals, inside `output_dir`: runs share replies."""
CHARACTERS_PER_TOKEN = 4
"""Of English, roughly: for estimates before a server has counted."""
TOKENS_PER_MESSAGE = 4
"""That templates add, roughly."""


def model_name(recipe: Recipe) -> str:
    """Return the model's name at the endpoint. Raises RecipeError where neither recipe nor environment has one."""
    name = recipe.endpoint.model or os.environ.get("TUNESMITH_ENDPOINT_MODEL", "").strip()
    if not name:
        raise RecipeError(
            "no model for method endpoint",
            expected="the name that the endpoint gives it",
            do="set endpoint.model (--endpoint.model NAME), or compare --methods endpoint:NAME",
        )
    return name


def fit(job: Job) -> TrainResult:
    """Return the prompted model of a recipe. Raises RecipeError where settings do not go together."""
    return TrainResult(_predictor(job.recipe, job.splits, job.target), parameters=0, trainable=0)


def load(folder: Path, recipe: Recipe) -> Predictor:
    """Return the prompted model that a run saved. Raises ModelError for a damaged file."""
    file = folder / endpoint_file.FILE
    try:
        content = endpoint_file.read(folder)
        settings = Endpoint.model_validate(content.settings)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {file}", found=summary(error), do="restore the run from a copy") from None
    model = _model(settings, recipe)
    if content.prompt is None or content.target is None:
        return EndpointGenerator(model, settings, content.system, shots.load(folder, _embedder))
    target = text_targets.of_settings(content.target)
    return EndpointPredictor(model, target, content.prompt, settings, content.seed, shots.load(folder, _embedder))


def announce(recipe: Recipe, splits: Splits, target: Target, runs: int) -> str:
    """Return what the requests of one or several runs will probably come to. RecipeError where it is over the budget.

    Tokens are estimated from characters, as only the server can count them. Replies in the journal cost nothing; of
    several runs, whose prompts differ, all are counted as new.
    """
    predictor, settings = _predictor(recipe, splits, target), recipe.endpoint
    number = characters = messages = 0
    for request in _requests(predictor, recipe, splits):
        if runs > 1 or not predictor.model.has_reply(request):
            number += 1
            messages += len(request.messages)
            characters += sum(len(message.content) for message in request.messages)
    if not number:
        return f"endpoint {predictor.model.client.name}: all replies are in {predictor.model.folder} already"
    prompt_tokens = characters // CHARACTERS_PER_TOKEN + TOKENS_PER_MESSAGE * messages
    usage = TokenUsage(runs * prompt_tokens, runs * number * _answer_tokens(predictor, splits), runs * number)
    price = predictor.model.price(usage)
    if price is not None and settings.budget is not None and price > settings.budget:
        raise RecipeError(
            f"endpoint {predictor.model.client.name} would cost about {price:.2f}, more than endpoint.budget",
            expected=f"at most {settings.budget:g}",
            found=_described(usage),
            do="raise endpoint.budget, take fewer rows (split.test_size), or a cheaper model",
        )
    cost = "price unknown (endpoint.prices)" if price is None else f"price about {price:.2f}"
    several = f" in {counted(runs, 'run')}" if runs > 1 else ""
    return f"endpoint {predictor.model.client.name}: about {_described(usage)}{several}; {cost}"


def rendered(recipe: Recipe, splits: Splits, target: Target) -> str:
    """Return what is asked about the first training row."""
    predictor = _predictor(recipe, splits, target)
    first = splits.train[0]
    if isinstance(predictor, EndpointPredictor):
        return predictor.rendered_prompt(first)
    return predictor.rendered_prompt(instruction.prompt(first))


def account(job: Job, predictor: Predictor, watch: Stopwatch) -> EndpointCosts | None:
    """Return what the predictions of the test rows took, and write how often the model repeats its answers.

    The first rows are asked again for that. watch: gets the seconds that predicting takes, by how long each reply
    took, in whichever run that was. None where there are no test rows.
    """
    if not isinstance(predictor, Prompted) or not job.splits.test:
        return None
    requests = _test_requests(predictor, job.recipe, job.splits)
    repeated = _repeated(predictor, job.recipe, job.splits)
    asked_twice = list(islice(requests, len(repeated)))
    first, second = (predictor.answers(some) for some in (asked_twice, repeated))
    texts = [text for text, _ in first], [text for text, _ in second]
    read = [answer for _, answer in first], [answer for _, answer in second]
    job.run.write(
        determinism.FILE, determinism.compare(texts, read if isinstance(predictor, EndpointPredictor) else None)
    )
    watch.seconds["predict"] = predictor.model.seconds(requests)
    costs = predictor.model.costs(requests)
    reused = f", {costs.reused:,} of the replies from earlier runs" if costs.reused else ""
    price = "" if costs.price is None else f"; price {costs.price:.4g}"
    usage = TokenUsage(costs.prompt_tokens, costs.completion_tokens, costs.requests)
    say(f"endpoint {costs.model}: {_described(usage)}{reused}{price}")
    return costs


def _test_requests(predictor: Prompted, recipe: Recipe, splits: Splits, repetition: int = 0) -> Requests:
    if isinstance(predictor, EndpointPredictor):
        return predictor.requests(splits.test, repetition)
    conversations = [row.messages[:-1] for row in splits.test[: recipe.evaluate.max_responses]]
    return predictor.requests(conversations, recipe.generate, recipe.seed, repetition)


def _repeated(predictor: Prompted, recipe: Recipe, splits: Splits) -> Requests:
    """Return the requests that ask about the first test rows again."""
    return _test_requests(predictor, recipe, replace(splits, test=splits.test[:REPEATED]), repetition=1)


def _requests(predictor: Prompted, recipe: Recipe, splits: Splits) -> Iterator[EndpointRequest]:
    """Return the requests that a run will send."""
    requests = [_test_requests(predictor, recipe, splits), _repeated(predictor, recipe, splits)]
    if isinstance(predictor, EndpointPredictor) and (recipe.decide.is_set or not splits.test):
        requests.append(predictor.requests(splits.validation))
    return chain.from_iterable(requests)


def _answer_tokens(predictor: Prompted, splits: Splits) -> int:
    """Return about how many tokens a reply has: of a label the longest with its JSON, else the training answers'."""
    if isinstance(predictor, EndpointPredictor):
        return max(map(len, predictor.prompt.question.texts), default=4) // CHARACTERS_PER_TOKEN + 8
    answers = [row.messages[-1].content for row in splits.train if row.messages]
    return sum(map(len, answers)) // (CHARACTERS_PER_TOKEN * max(1, len(answers))) + 1


def _described(usage: TokenUsage) -> str:
    tokens = (
        f"{counted(usage.prompt_tokens, 'prompt token')} and {counted(usage.completion_tokens, 'completion token')}"
    )
    return f"{counted(usage.requests, 'request')}, {tokens}"


def _predictor(recipe: Recipe, splits: Splits, target: Target) -> Prompted:
    url, _ = address.url_and_key(
        "endpoint", recipe.endpoint.api, recipe.endpoint.url, None, recipe.endpoint.api_key_env
    )
    settings = recipe.endpoint.model_copy(update={"model": model_name(recipe), "url": url})
    descriptions = recipe.data.label_descriptions
    prompt = EndpointPrompt.about(target, splits.train, recipe.prompt, settings.delimiters, descriptions)
    shown = recipe.prompt.model_copy(update={"shots": settings.shots, "shot_selection": settings.shot_selection})
    chosen = shots.choose(splits.train, shown, recipe.seed, _embedder)
    if prompt is None:
        _check_generation(recipe)
        settings = settings.model_copy(update={"max_tokens": recipe.generate.max_new_tokens})
        return EndpointGenerator(_model(settings, recipe), settings, recipe.prompt.system, chosen)
    return EndpointPredictor(_model(settings, recipe), target, prompt, settings, recipe.seed, chosen)


def _model(settings: Endpoint, recipe: Recipe) -> EndpointModel:
    """Return the model that settings describe, with its key from the environment."""
    name = str(settings.model)
    url, key = address.url_and_key("endpoint", settings.api, settings.url, None, settings.api_key_env)
    client = EndpointClient(
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
    input_price, output_price = settings.prices.get(name, (None, None))
    if settings.budget is not None and None in (input_price, output_price):
        raise RecipeError(
            f"endpoint.budget is set, but the prices of {name} are unknown",
            do=f"set endpoint.prices={{{name}: [INPUT, OUTPUT]}}, per million tokens",
        )
    prices = TokenPrices(input_price, output_price)
    folder = Path(recipe.output_dir) / JOURNALS
    return EndpointModel(client, folder, settings.concurrency, prices, settings.budget)


def _embedder(name: str) -> Embed:
    """Return what embeds texts with an encoder: for the nearest shots, which alone need torch."""
    from tunesmith.prediction import classify

    return classify.embedder(name)


def _check_generation(recipe: Recipe) -> None:
    """Raise RecipeError where answers are to be generated in a way that not every API knows."""
    generate, plain = recipe.generate, Generate()
    names = ("top_p", "top_k", "repetition_penalty")
    if odd := [name for name in names if getattr(generate, name) != getattr(plain, name)]:
        raise RecipeError(
            f"method endpoint does not send generate.{', generate.'.join(odd)}",
            do="name what this server calls it in endpoint.extra",
        )
