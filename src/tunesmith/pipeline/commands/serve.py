"""`tunesmith serve`: trained runs behind HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tunesmith import recipe as recipes, runs
from tunesmith.console import say
from tunesmith.errors import MissingExtra, RecipeError, RunError
from tunesmith.pipeline import engines
from tunesmith.pipeline.task_table import task_of
from tunesmith.prediction import attribution
from tunesmith.protocols import AnswerRequest, Predictor, TextGenerator, TextPredictor
from tunesmith.recipe import Serve
from tunesmith.runs import Run
from tunesmith.tasks.multilabel import MultiLabel
from tunesmith.types import Example, Explanation, Message, PredictionRow, ValuePrediction


def serve(run_dirs: Sequence[str | Path], overrides: Sequence[str] = (), *, recipe: str | Path | None = None) -> None:
    """Serve one run or several, each under its folder's name, until SIGTERM or Ctrl-C.

    The settings are section `serve` of `recipe`, or else of the first run's own; overrides come on top.
    """
    try:
        from tunesmith.serving import app, server
    except ImportError as error:
        raise MissingExtra(
            "serving needs fastapi, uvicorn and prometheus-client",
            found=str(error),
            do="pip install 'tunesmith[serve]'",
        ) from None
    served = [runs.find(path) for path in run_dirs]
    settings = recipes.load(recipe or served[0].recipe, overrides, sections=("serve",)).serve
    keys = server.keys(settings)
    # the address is bound before the models are loaded: where it is taken, that is an error at once
    with server.listen(settings) as socket, closing(load(served, settings)) as handlers:
        host, port = socket.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        say(f"serving {', '.join(handlers.models)} at {address} (open it in a browser; {address}/docs has the API)")
        server.run(app.create(handlers, keys), settings, socket)


def load(served: Sequence[Run], settings: Serve) -> Any:
    """Return the handlers of some runs, with their models loaded and tried once.

    Raises RunError where two runs have the same name.
    """
    from tunesmith.serving.handlers import Handlers

    names = [run.path.resolve().name for run in served]
    if duplicates := {name for name in names if names.count(name) > 1}:
        raise RunError(f"two runs are called {', '.join(sorted(duplicates))}", do="rename one of the folders")
    models = {name: _served(name, run, settings) for name, run in zip(names, served, strict=True)}
    guard = None
    if settings.guard.classifier is not None:
        run = runs.find(settings.guard.classifier)
        pairs = run.recipe.data.text_pair is not None
        if task_of(run).row is not PredictionRow or pairs:
            raise RecipeError(
                f"serve.guard.classifier: {run.path} does not classify single texts",
                expected="a run of task classification",
                found=f"task {run.recipe.task}{', with pairs of texts' if pairs else ''}",
            )
        guard = _served("guard", run, settings.model_copy(update={"engine": "auto", "max_input_tokens": None}))
        if not guard.gives_probabilities:
            raise RecipeError(
                f"serve.guard.classifier: {run.path} gives no probabilities",
                expected="a run whose labels have probabilities",
                found=f"predict.mode={run.recipe.predict.mode}",
            )
        if unknown := sorted(set(settings.guard.thresholds) - set(guard.classifier.labels)):
            expected = ", ".join(guard.classifier.labels)
            raise RecipeError(f"serve.guard.thresholds names {', '.join(unknown)}", expected=expected)
    handlers = Handlers(models, settings, guard)
    _ = handlers.guard.patterns  # an invalid pattern, or an audit log that cannot be written, is an error now
    return handlers


def engine(run: Run, settings: Serve) -> Predictor:
    """Return what computes a run's labels or answers; `auto` is `generate.engine` for a run that answers."""
    if settings.engine == "auto" and task_of(run).has_responses:
        return engines.load(run, run.recipe.generate.engine, "generate.engine")
    return engines.load(run, settings.engine, "serve.engine")


def _served(name: str, run: Run, settings: Serve) -> Any:
    """Return a run as a served model, after a first answer, which does what is only done at first use."""
    from tunesmith.serving.backends import ServedClassifier, ServedGenerator

    recipe, created = run.recipe, int(time.time())
    say(f"loading {run.path}")
    if task_of(run).has_responses:
        generator = engine(run, settings)
        assert isinstance(generator, TextGenerator)
        prompt = generator.tokenize([Message("user", "Hello")])
        requests = [AnswerRequest(prompt, 1, 0, recipe.generate, lambda *_: True)]
        generator.write(lambda free: [requests.pop()] if requests else [], 1)
        return ServedGenerator(
            name, generator, recipe.generate, settings.max_input_tokens, settings.max_completion_tokens, created
        )
    classifier = engine(run, settings)
    assert isinstance(classifier, TextPredictor)
    pairs = recipe.data.text_pair is not None
    first = Example("first", "Hello", "Hello" if pairs else None)
    (tried,) = classifier.predict([first])
    gives_probabilities = isinstance(tried, ValuePrediction) or bool(tried.probabilities)
    prompted, target, thresholds = classifier.rendered_prompt(first) is not None, classifier.target, None
    if isinstance(target, MultiLabel) and gives_probabilities:
        thresholds = dict(zip(target.labels, target.thresholds, strict=True))

    def explainer(example: Example, label: str | None, on_batch: Callable[[], None]) -> list[Explanation]:
        return attribution.explain(classifier, [example], label, on_batch=on_batch)

    limit = settings.max_input_tokens
    return ServedClassifier(
        name,
        classifier,
        pairs,
        limit,
        prompted,
        created,
        explainer if gives_probabilities else None,
        recipe.task,
        thresholds,
        gives_probabilities,
    )
