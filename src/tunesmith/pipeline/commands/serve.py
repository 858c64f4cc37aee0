"""`tunesmith serve`: trained runs behind HTTP."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from tunesmith import disk, integrity, recipe as recipes, runs
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

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a model may be called that is not called after its folder."""


def serve(
    run_dirs: str | Path | Run | Sequence[str | Path | Run],
    overrides: Sequence[str] = (),
    *,
    recipe: str | Path | None = None,
) -> None:
    """Serve one run or several until SIGTERM or Ctrl-C.

    run_dirs: folders of runs, each served under the folder's name, or under another one: `name=RUN`. The settings are
    section `serve` of `recipe`, or else of the first run's own; overrides come on top.
    """
    try:
        from tunesmith.serving import app, server
    except ImportError as error:
        raise MissingExtra(
            "serving needs fastapi, uvicorn and prometheus-client",
            found=str(error),
            do="pip install 'tunesmith[serve]'",
        ) from None
    run_dirs = [run_dirs] if isinstance(run_dirs, (str, Path, Run)) else run_dirs
    sources = named([each.path if isinstance(each, Run) else each for each in run_dirs])
    first = runs.find(next(iter(sources.values())))
    settings = recipes.load(recipe or first.recipe, overrides, sections=("serve",)).serve
    keys = server.keys(settings)
    with server.holding_reloads(), ExitStack() as stack:
        # the addresses are bound before the models are loaded: where one is taken, that is an error at once
        listeners = [stack.enter_context(server.listen(settings))]
        if (admin := server.listen_admin(settings)) is not None:
            listeners.append(stack.enter_context(admin))
        handlers = stack.enter_context(closing(load(sources, settings)))
        host, port = listeners[0].getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        admin_address = None if admin is None else admin.getsockname()

        def announce() -> None:
            text = f"serving {', '.join(handlers.live)} at {address} (open it in a browser; {address}/docs has the API)"
            say(text, address=address, models={name: model.version for name, model in handlers.live.served.items()})
            if admin_address is not None:
                say(f"reload the models: POST http://127.0.0.1:{admin_address[1]}/admin/reload")

        server.run(app.create(handlers, keys, admin_address), settings, listeners, handlers.live.reload, announce)


def named(sources: Sequence[str | Path]) -> dict[str, Path]:
    """Return folders of runs by the names that they are served under: that of the folder, or the one of `name=RUN`.

    Raises RunError where there is no run, a name is not allowed, or two runs have the same.
    """
    paths: dict[str, Path] = {}
    for source in sources:
        name, equals, path = str(source).partition("=")
        if not equals or Path(source).exists():
            name, path = Path(os.path.abspath(source)).name, str(source)
        elif not NAME.fullmatch(name):
            raise RunError(
                f"{source}: {name or 'nothing'} cannot be the name of a model",
                expected="1 to 64 letters, digits, dots, hyphens and underscores, the first a letter or digit",
            )
        elif not runs.is_run(path):
            raise RunError(
                f"{source}: {path or 'nothing'} is not a run directory, and {name} is no setting of serve",
                expected="name=RUN, or a setting such as port=8001",
                do="see `tunesmith runs list`, and docs/reference/recipe.md for the settings",
            )
        if name in paths:
            raise RunError(
                f"two runs are called {name}",
                found=f"{paths[name]} and {path}",
                do=f"give one another name: tunesmith serve NAME={path}",
            )
        paths[name] = runs.find(path).path
    return paths


def load(sources: Mapping[str, Path], settings: Serve) -> Any:
    """Return the handlers of runs by name, with their models loaded and tried once."""
    from tunesmith.serving.handlers import Handlers

    models = {name: _served(name, path, settings) for name, path in sources.items()}
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
        guard = _served("guard", run.path, settings.model_copy(update={"engine": "auto", "max_input_tokens": None}))
        if not guard.gives_probabilities:
            raise RecipeError(
                f"serve.guard.classifier: {run.path} gives no probabilities",
                expected="a run whose labels have probabilities",
                found=f"predict.mode={run.recipe.predict.mode}",
            )
        if unknown := sorted(set(settings.guard.thresholds) - set(guard.classifier.labels)):
            expected = ", ".join(guard.classifier.labels)
            raise RecipeError(f"serve.guard.thresholds names {', '.join(unknown)}", expected=expected)
    handlers = Handlers(models, settings, guard, lambda name: _served(name, sources[name], settings))
    _ = handlers.guard.patterns  # an invalid pattern, or an audit log that cannot be written, is an error now
    return handlers


def engine(run: Run, settings: Serve) -> Predictor:
    """Return what computes a run's labels or answers; `auto` is `generate.engine` for a run that answers."""
    if settings.engine == "auto" and task_of(run).has_responses:
        return engines.load(run, run.recipe.generate.engine, "generate.engine")
    return engines.load(run, settings.engine, "serve.engine")


def _served(name: str, path: Path, settings: Serve) -> Any:
    """Return a run as a served model, after a first answer, which does what is only done at first use."""
    from tunesmith.pipeline import drift_reference
    from tunesmith.serving.backends import ServedClassifier, ServedGenerator

    say(f"loading {path}")
    run = _pinned(path)
    recipe, created = run.recipe, int(time.time())
    if task_of(run).has_responses:
        generator = engine(run, settings)
        assert isinstance(generator, TextGenerator)
        prompt = generator.tokenize([Message("user", "Hello")])
        requests = [AnswerRequest(prompt, 1, 0, recipe.generate, lambda *_: True)]
        generator.write(lambda free: [requests.pop()] if requests else [], 1)
        return ServedGenerator(
            name,
            generator,
            recipe.generate,
            settings.max_input_tokens,
            settings.max_completion_tokens,
            created,
            version(run),
            run.path.resolve().name,
            tuple(drift_reference.of_run(run)),
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
        version(run),
        run.path.resolve().name,
        tuple(drift_reference.of_run(run, target.labels)),
    )


def version(run: Run) -> str:
    """Return twelve hexadecimal digits that differ where model or recipe do; a copy of a run has the same."""
    files = [run.path / runs.RECIPE, run.model / runs.HASHES]
    with disk.explained("read", run.path):
        digests = [integrity.digest(file) for file in files if file.exists()]  # earlier versions wrote no hashes
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:12]


def _pinned(path: Path) -> Run:
    """Return the run that a folder is now: links are followed once, so that all files come from one run."""
    real = os.path.realpath(path)
    return runs.find(path if real == os.path.abspath(path) else real)
