"""`tunesmith serve`: trained runs behind HTTP."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tunesmith import recipe as recipes, runs
from tunesmith.console import say
from tunesmith.errors import MissingExtra, RecipeError, RunError
from tunesmith.pipeline.commands.export import FOLDER, ROWS
from tunesmith.pipeline.fitting.methods import METHODS, load_classifier, load_generator
from tunesmith.pipeline.task_table import task_of
from tunesmith.protocols import Classifier
from tunesmith.recipe import Serve
from tunesmith.runs import Run
from tunesmith.types import Example, Message

ONNX = ("onnx", "onnx-int8")
"""Exports that can compute in torch's place."""


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
    # the address comes before the models are loaded: one that is taken is an error at once
    with server.listen(settings) as socket, closing(load(served, settings)) as handlers:
        host, port = socket.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        names = ", ".join(handlers.models)
        say(f"serving {names} at {address} (try it there in a browser; {address}/docs says how)")
        server.run(app.create(handlers, keys), settings, socket)


def load(served: Sequence[Run], settings: Serve) -> Any:
    """Return the handlers of some runs: their models loaded and tried once. Raises RunError where two have one name."""
    from tunesmith.serving.handlers import Handlers

    names = [run.path.resolve().name for run in served]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RunError(f"two runs are called {', '.join(sorted(twice))}", do="rename one of the folders")
    models = {name: _served(name, run, settings) for name, run in zip(names, served, strict=True)}
    judge = None
    if settings.guard.classifier is not None:
        run = runs.find(settings.guard.classifier)
        if task_of(run).has_responses or run.recipe.data.text_pair is not None:
            raise RecipeError(f"serve.guard.classifier: {run.path} does not classify single texts")
        judge = _served("guard", run, settings.model_copy(update={"engine": "auto", "max_input_tokens": None}))
        if unknown := sorted(set(settings.guard.thresholds) - set(judge.classifier.labels)):
            expected = ", ".join(judge.classifier.labels)
            raise RecipeError(f"serve.guard.thresholds names {', '.join(unknown)}", expected=expected)
    handlers = Handlers(models, settings, judge)
    _ = handlers.guard.patterns  # invalid ones are an error now, and so is a log that cannot be written
    return handlers


def engine(run: Run, settings: Serve) -> Classifier:
    """Return what computes a classification run's labels, by `serve.engine`.

    Raises RunError where there is no such export.
    """
    _check_engine(run, settings)
    name = _fastest(run) if settings.engine == "auto" else settings.engine
    if name == "torch":
        return load_classifier(run)
    from tunesmith.exporting import onnx

    folder = run.path / FOLDER / name
    if not folder.is_dir():
        raise RunError(
            f"{run.path} has no {name} export", do=f"tunesmith export {run.path} --to {name}, or serve.engine=torch"
        )
    say(f"{run.path}: labels by ONNX Runtime, from {folder}")
    return onnx.load(folder)


def _check_engine(run: Run, settings: Serve) -> None:
    if settings.engine in ONNX and settings.engine not in METHODS[run.recipe.method].export_targets:
        able = [name for name, method in METHODS.items() if settings.engine in method.export_targets]
        raise RunError(
            f"{run.path} cannot be computed by serve.engine={settings.engine}",
            expected=f"a run of method {' or '.join(able)}",
            found=f"a {run.recipe.method} run",
            do="serve.engine=auto",
        )


def _fastest(run: Run) -> str:
    """Return the export in the run that was faster than the run itself and held against it.

    The proof must be on as many rows as `export` takes by itself. `torch` where none was, and without ONNX Runtime.
    """
    from tunesmith.exporting import parity

    speeds = {"torch": 1.0}
    files = {name: run.path / FOLDER / name / parity.FILE for name in ONNX if importlib.util.find_spec("onnxruntime")}
    splits = run.manifest.data.splits
    held_out = next((splits[name].rows for name in ("test", "validation") if splits[name].rows), ROWS)
    for name, file in files.items():
        if file.is_file():
            proof = json.loads(file.read_text(encoding="utf-8"))
            if parity.problem(proof, exact=name == "onnx") is None and proof["rows"] >= min(ROWS, held_out):
                speeds[name] = proof.get("speed", 0.0)
    return max(speeds, key=lambda name: speeds[name])


def _served(name: str, run: Run, settings: Serve) -> Any:
    """Return a run as serving knows it, after a first answer: what is done at first use is done then."""
    from tunesmith.serving.backends import ServedClassifier, ServedGenerator

    recipe, created = run.recipe, int(time.time())
    say(f"loading {run.path}")
    if task_of(run).has_responses:
        _check_engine(run, settings)
        generator = load_generator(run)
        prompt = generator.tokenize([Message("user", "Hello")])
        generator.write([prompt], [1], [0], recipe.generate, lambda *_: True)
        return ServedGenerator(
            name, generator, recipe.generate, settings.max_input_tokens, settings.max_completion_tokens, created
        )
    classifier = engine(run, settings)
    pairs = recipe.data.text_pair is not None
    first = Example("first", "Hello", "Hello" if pairs else None)
    classifier.predict([first])
    prompted = classifier.rendered_prompt(first) is not None
    return ServedClassifier(name, classifier, pairs, settings.max_input_tokens, prompted, created)
