"""The commands that train: one run, many, or several methods side by side."""

from __future__ import annotations

import argparse
import json
import sys

from tunesmith.cli.shared import Args, Command, add_json, add_overrides, is_override, show_comparison, show_run
from tunesmith.errors import RecipeError


def _quickstart(args: Args) -> None:
    from tunesmith.pipeline.commands.quickstart import quickstart

    show_comparison(quickstart(args.overrides, methods=_names(args.methods)))


def _init(args: Args) -> None:
    from tunesmith.recipe.document import init

    print(init(args.task), end="")


def _check(args: Args) -> None:
    from tunesmith.pipeline.commands.check import check, describe

    found = check(args.recipe, args.overrides)
    print(
        json.dumps(found, indent=2, ensure_ascii=False) if args.json else describe(found, colours=sys.stdout.isatty())
    )


def _train(args: Args) -> None:
    from tunesmith import processes, recipe as recipes

    if args.resume and args.recipe:  # without a recipe the first setting stands in its place
        args.recipe, args.overrides = None, [args.recipe, *args.overrides]
    if args.dry_run:
        print(recipes.dump(recipes.load(args.recipe or {}, args.overrides)), end="")
        return
    from tunesmith.pipeline.commands.train import train

    if args.seeds:
        from tunesmith.pipeline.seeds import repeat

        given = {"--resume": args.resume, "--worker": args.worker, "--skip-test": args.skip_test}
        if other := [name for name, value in given.items() if value]:
            raise RecipeError(f"--seeds does not go with {', '.join(other)}", do="leave one of them out")
        if args.recipe is None:
            raise RecipeError("nothing to train", do="give a recipe")
        print(repeat(args.recipe, args.overrides, _numbers(args.seeds), run_dir=args.run_dir).read_text("report.md"))
        return
    run = train(
        args.recipe,
        args.overrides,
        run_dir=args.run_dir,
        resume=args.resume,
        quiet=args.worker,
        skip_test=args.skip_test,
    )
    if not args.worker and processes.is_main():
        show_run(run)


def _compare(args: Args) -> None:
    from tunesmith.pipeline.commands.compare import compare

    named = {"data.text": args.text, "data.text_pair": args.text_pair, "data.label": args.label}
    columns = [f"{key}={json.dumps(value)}" for key, value in named.items() if value]
    sources = [word for word in args.sources if not is_override(word)]
    overrides = [word for word in args.sources if is_override(word)]
    seeds = _numbers(args.seeds) if args.seeds else None
    show_comparison(compare(sources, columns + overrides, methods=_names(args.methods), seeds=seeds))


def _sweep(args: Args) -> None:
    from tunesmith.pipeline.commands.sweep import sweep

    folder = sweep(
        args.recipe,
        args.overrides,
        sampler=args.sampler,
        trials=args.trials,
        storage=args.storage,
        sweep_dir=args.sweep_dir,
    )
    if (folder.path / "report.md").exists():
        print(folder.read_text("report.md"))
        print(f"report: {folder.path / 'report.html'}")


def _add_quickstart(command: argparse.ArgumentParser) -> None:
    _add_methods(command)
    add_overrides(command)


def _add_init(command: argparse.ArgumentParser) -> None:
    command.add_argument("task", choices=["classification", "instruction"], help="what is learned")


def _add_check(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", help="recipe file (YAML)")
    add_overrides(command)
    add_json(command)


def _add_train(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", nargs="?", help="recipe file (YAML); left out with --resume")
    add_overrides(command)
    command.add_argument("--dry-run", action="store_true", help="print the resolved recipe and stop")
    command.add_argument("--resume", metavar="RUN", help="go on with a run that was cut off")
    command.add_argument("--run-dir", help="put the run here instead of a new folder in output_dir")
    command.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)  # another process shows the results
    command.add_argument("--skip-test", action="store_true", help="leave the test split alone")
    _add_seeds(command)


def _add_compare(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="one data source or recipe; or several recipes; or run directories; then section.name=value settings",
    )
    command.add_argument("--text", help="column with the text")
    command.add_argument("--text-pair", help="column with the second text")
    command.add_argument("--label", help="column with the label")
    _add_methods(command)
    _add_seeds(command)


def _add_sweep(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", help="recipe file (YAML)")
    command.add_argument(
        "overrides",
        nargs="+",
        metavar="name=a,b,c",
        help="name=a,b,c or name=low..high is searched, name=value is fixed",
    )
    command.add_argument(
        "--sampler", choices=["grid", "random", "tpe"], default="grid", help="how (default: %(default)s)"
    )
    command.add_argument("--trials", type=int, metavar="N", help="trials in all (default: the whole grid, else 20)")
    command.add_argument("--storage", metavar="URL", help="Optuna storage that several workers share")
    command.add_argument("--sweep-dir", help="the sweep's folder; give it again to go on, or to another worker")


def _add_methods(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--methods", help="methods to compare, separated by commas, such as linear,encoder,generator:lora"
    )


def _add_seeds(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seeds", metavar="S,S,...", help="repeat with each seed on one split: mean and spread")


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise RecipeError(f"--seeds {text}", expected="whole numbers, such as 1,2,3") from None


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


COMMANDS: dict[str, Command] = {
    "quickstart": (_quickstart, "compare three methods on BBC News: a complete run in minutes", _add_quickstart),
    "init": (_init, "print a commented recipe that runs as it is", _add_init),
    "check": (_check, "look at the data as training would see it", _add_check),
    "train": (_train, "train, evaluate and report one recipe", _add_train),
    "compare": (_compare, "compare methods, recipes or finished runs on one frozen split", _add_compare),
    "sweep": (_sweep, "train with many settings, ranked on validation", _add_sweep),
}
