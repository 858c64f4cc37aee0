"""The commands that train one run, many runs, or several methods side by side."""

from __future__ import annotations

import argparse
import sys

from tunesmith.cli.shared import (
    Args,
    Command,
    add_columns,
    add_json,
    add_learning_curve,
    add_no_verify,
    add_overrides,
    column_settings,
    names_of,
    numbers_of,
    show_json,
    source_of,
    split_overrides,
)
from tunesmith.console import say, show
from tunesmith.errors import RecipeError


class _Quickstart(Command):
    help = "compare three methods on headlines of BBC News: a complete run in minutes"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_methods(parser)
        add_overrides(parser)

    def run(self, args: Args) -> None:
        from tunesmith.pipeline.commands.quickstart import quickstart

        show(repr(quickstart(args.overrides, methods=names_of(args.methods))))


class _Init(Command):
    help = "print a commented recipe that runs as it is"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("task", choices=["classification", "instruction"], help="what is learned")

    def run(self, args: Args) -> None:
        from tunesmith.recipe.document import init

        show(init(args.task), end="")


class _Check(Command):
    help = "look at the data as training would see it"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_source(parser)
        add_overrides(parser)
        add_json(parser)

    def run(self, args: Args) -> None:
        from tunesmith.pipeline.commands.check import check, describe

        findings = check(*source_of(args))
        if args.json:
            show_json(findings)
        else:
            print(describe(findings, colours=sys.stdout.isatty()))  # printable, but for its own colours


class _Train(Command):
    help = "train, evaluate and report one recipe"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_source(parser)
        add_overrides(parser)
        parser.add_argument("--dry-run", action="store_true", help="print the resolved recipe and stop")
        parser.add_argument("--resume", metavar="RUN", help="resume an interrupted run")
        parser.add_argument(
            "--take-over",
            action="store_true",
            help="with --resume: also a run that a process on another machine was training, which has ended",
        )
        parser.add_argument(
            "--continue",
            metavar="RUN",
            dest="continue_from",
            help="train a finished run's model further, as a new run with its recipe and the settings given",
        )
        parser.add_argument("--run-dir", help="run directory (default: a new one in output_dir)")
        # set where another process shows the results
        parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
        parser.add_argument("--skip-test", action="store_true", help="do not evaluate on the test split")
        _add_seeds(parser)
        add_no_verify(parser)

    def run(self, args: Args) -> None:
        from tunesmith import processes, recipe as recipes

        source, overrides = source_of(args)
        if args.dry_run:
            show(recipes.dump(recipes.load(source or {}, overrides)), end="")
            return
        from tunesmith.pipeline.commands.train import train

        if args.seeds:
            from tunesmith.pipeline.seeds import repeat

            continued = {"--resume": args.resume, "--continue": args.continue_from}
            incompatible = continued | {"--worker": args.worker, "--skip-test": args.skip_test}
            if other := [name for name, value in incompatible.items() if value]:
                raise RecipeError(f"--seeds does not go with {', '.join(other)}", do="leave one of them out")
            repeated = repeat(source or {}, overrides, numbers_of(args.seeds) or (), run_dir=args.run_dir)
            show(repeated.read_text("report.md"))
            return
        run = train(
            source,
            overrides,
            run_dir=args.run_dir,
            resume=args.resume,
            continue_from=args.continue_from,
            quiet=args.worker,
            skip_test=args.skip_test,
            take_over=args.take_over,
        )
        if not args.worker and processes.is_main():
            show(run.summary())


class _Compare(Command):
    help = "compare methods, recipes or finished runs on one frozen split"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "sources",
            nargs="*",
            metavar="SOURCE",
            help="a data source or a recipe; or several recipes; or run directories; then section.name=value settings",
        )
        parser.add_argument("--resume", metavar="FOLDER", help="train the rest of a comparison that was stopped")
        add_columns(parser)
        for option in ("text", "text-pair", "label"):  # as they were called before, here alone
            parser.add_argument(f"--{option}", dest=f"old_{option}", help=argparse.SUPPRESS)
        _add_methods(parser)
        _add_seeds(parser)
        add_learning_curve(parser, "8")
        parser.add_argument(
            "--parallel",
            type=int,
            default=1,
            metavar="N",
            help="train N methods side by side, each with its share of the cores or a GPU of its own (default: 1)",
        )
        add_no_verify(parser)

    def run(self, args: Args) -> None:
        from tunesmith.pipeline.commands.compare import compare

        for option in ("text", "text-pair", "label"):
            if (name := getattr(args, f"old_{option}")) is not None:
                say(f"note: --{option} is now --{option}-column")
                setattr(args, f"{option}-column".replace("-", "_"), name)
        sources, overrides = split_overrides(args.sources)
        seeds = numbers_of(args.seeds)
        settings = [*column_settings(args), *overrides]
        comparison = compare(
            sources,
            settings,
            methods=names_of(args.methods),
            seeds=seeds,
            learning_curve=args.learning_curve,
            smallest=args.smallest,
            resume=args.resume,
            parallel=args.parallel,
        )
        show(repr(comparison))


class _Sweep(Command):
    help = "train with many settings, ranked on validation"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_source(parser)
        parser.add_argument(
            "overrides",
            nargs="*",
            metavar="name=a,b,c",
            help="name=a,b,c or name=low..high is searched, name=value is fixed",
        )
        parser.add_argument(
            "--sampler",
            choices=["grid", "random", "tpe"],
            default="grid",
            help="how settings are chosen (default: %(default)s)",
        )
        parser.add_argument(
            "--trials", type=int, metavar="N", help="number of trials (default: the whole grid, else 20)"
        )
        parser.add_argument(
            "--storage",
            metavar="URL",
            help="Optuna storage that several workers share: journal:PATH, sqlite:///PATH, postgresql://..., redis://...",
        )
        parser.add_argument("--sweep-dir", help="the sweep's folder; give it again to resume, or to add a worker")

    def run(self, args: Args) -> None:
        from tunesmith.pipeline.commands.sweep import sweep

        source, overrides = source_of(args)
        folder = sweep(
            source or {},
            overrides,
            sampler=args.sampler,
            trials=args.trials,
            storage=args.storage,
            sweep_dir=args.sweep_dir,
        )
        if (folder.path / "report.md").exists():
            show(folder.read_text("report.md"))
            show(f"report: {folder.path / 'report.html'}")


class _Distill(Command):
    help = "buy labels from a model behind an endpoint, and train small models on them"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_source(parser)
        add_overrides(parser)
        parser.add_argument("--data", metavar="POOL", help="the texts to label (default: the training rows)")
        parser.add_argument(
            "--threshold",
            type=float,
            default=0.75,
            metavar="T",
            help="minimum agreement to keep (default: %(default)s)",
        )
        _add_methods(parser)

    def run(self, args: Args) -> None:
        from tunesmith.pipeline.commands.distill import distill

        source, overrides = source_of(args)
        made = distill(
            source or {}, overrides, pool=args.data, methods=names_of(args.methods), threshold=args.threshold
        )
        show(repr(made.comparison))
        show(f"labels: {made.labels.kept}\nreport on the labels: {made.labels.page}")


def _add_source(parser: argparse.ArgumentParser) -> None:
    help = "recipe (YAML), or data source: file, folder, hub id, asset"
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=help)
    add_columns(parser)


def _add_methods(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--methods", help="methods to compare, separated by commas, such as linear,encoder,generator:lora"
    )


def _add_seeds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", metavar="S,S,...", help="repeat with each seed on one split: mean and spread")


COMMANDS: dict[str, Command] = {
    "quickstart": _Quickstart(),
    "init": _Init(),
    "check": _Check(),
    "train": _Train(),
    "compare": _Compare(),
    "distill": _Distill(),
    "sweep": _Sweep(),
}
