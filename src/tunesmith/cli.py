"""The command line: arguments -> one pipeline function each; errors -> a few lines and exit code 2.

Everything heavy is imported by the command that needs it, so `--help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunesmith import __version__
from tunesmith.console import say
from tunesmith.errors import Interrupted, RecipeError, TunesmithError

Args = argparse.Namespace


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code."""
    args = _parse(argv)
    try:
        args.run(args)
    except Interrupted as stop:
        say(str(stop))
        return 128 + stop.signal
    except TunesmithError as error:
        if args.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parse(argv: Sequence[str] | None) -> Args:
    """The arguments. argparse takes words behind an option for strangers; settings may stand anywhere."""
    root = parser()
    args, strangers = root.parse_known_args(argv)
    words = getattr(args, "overrides", getattr(args, "sources", None))
    if words is None or any(word.startswith("-") for word in strangers):
        if strangers:
            root.error(f"unrecognized arguments: {' '.join(strangers)}")
        return args
    words += strangers
    return args


def parser() -> argparse.ArgumentParser:
    """Every command with its arguments; docs/cli.md is generated from it."""
    root = argparse.ArgumentParser(
        prog="tunesmith", description="Fine-tune a text model and know whether it was worth it.",
        epilog="Every setting of a recipe can follow as section.name=value; docs/recipe.md lists them.",
    )  # fmt: skip
    root.add_argument("--version", action="version", version=f"tunesmith {__version__}")
    commands = root.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (run, text, add) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        add(command)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.set_defaults(run=run)
    return root


# --- commands


def _quickstart(args: Args) -> None:
    from tunesmith.pipeline.quickstart import quickstart

    _show_comparison(quickstart(args.overrides, methods=_names(args.methods)))


def _init(args: Args) -> None:
    from tunesmith.recipe.document import init

    print(init(args.task), end="")


def _check(args: Args) -> None:
    from tunesmith.pipeline.check import check, describe

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
    from tunesmith.pipeline.train import train

    if args.seeds:
        from tunesmith.pipeline.seeds import repeat

        print(repeat(args.recipe, args.overrides, _numbers(args.seeds), run_dir=args.run_dir).read_text("report.md"))
        return
    run = train(
        args.recipe, args.overrides, run_dir=args.run_dir, resume=args.resume, quiet=args.quiet,
        closed_test=args.closed_test,
    )  # fmt: skip
    if not args.quiet and processes.is_main():
        _show_run(run)


def _evaluate(args: Args) -> None:
    from tunesmith.pipeline.predict import evaluate

    scores = evaluate(args.run_dir, source=args.data)
    print(json.dumps(scores, indent=2, ensure_ascii=False) if args.json else _headline(scores))


def _predict(args: Args) -> None:
    from tunesmith import runs
    from tunesmith.pipeline import respond
    from tunesmith.pipeline.predict import check_output, predict, table

    output = Path(args.output) if args.output else None
    if output:
        check_output(output)
    run = runs.find(args.run_dir)
    rows = predict(run, args.text, text_pairs=args.text_pair, source=args.data, top_k=args.top_k)
    if run.recipe.task == "instruction" and (args.data or output):
        for path in respond.write(rows, run, args.data, output):
            say(f"wrote {len(rows):,} answers to {path}")
        return
    text = table(rows, output.suffix if output else ".jsonl")
    if output:
        output.write_text(text, encoding="utf-8", newline="")
        say(f"wrote {len(rows):,} predictions to {output}")
    else:
        print(text, end="")


def _chat(args: Args) -> None:
    from tunesmith.pipeline.respond import chat

    talk = chat(args.run_dir, args.overrides, system=args.system)
    say("a line is a question; /reset forgets what was said, /exit or the end of input leaves")
    while (line := _line()) is not None:
        if line == "/reset":
            talk.reset()
        elif line:
            for piece in talk.ask(line):
                print(piece, end="", flush=True)
            print()


def _line() -> str | None:
    """The next line that somebody types, or None at the end."""
    try:
        line = input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None
    return None if line in ("/exit", "/quit") else line


def _compare(args: Args) -> None:
    from tunesmith.pipeline.compare import compare

    named = {"data.text": args.text, "data.text_pair": args.text_pair, "data.label": args.label}
    columns = [f"{key}={json.dumps(value)}" for key, value in named.items() if value]
    sources = [word for word in args.sources if not _is_override(word)]
    overrides = [word for word in args.sources if _is_override(word)]
    seeds = _numbers(args.seeds) if args.seeds else None
    _show_comparison(compare(sources, columns + overrides, methods=_names(args.methods), seeds=seeds))


def _merge(args: Args) -> None:
    from tunesmith.pipeline.merge import merge

    print(json.dumps(merge(args.run_dir, args.output), indent=2))


def _sweep(args: Args) -> None:
    from tunesmith.pipeline.sweep import sweep

    folder = sweep(
        args.recipe, args.overrides, sampler=args.sampler, trials=args.trials, storage=args.storage,
        sweep_dir=args.sweep_dir,
    )  # fmt: skip
    if (folder.path / "report.md").exists():
        print(folder.read_text("report.md"))
        print(f"report: {folder.path / 'report.html'}")


def _runs(args: Args) -> None:
    from tunesmith import runs

    if args.action == "list":
        print("\n".join(_run_line(run) for run in runs.listing(args.path or "runs")) or "no runs")
    else:
        _show_run(runs.find(args.path or "."))


def _doctor(args: Args) -> None:
    import yaml

    from tunesmith.pipeline.doctor import doctor

    found = doctor()
    print(
        json.dumps(found, indent=2) if args.json else yaml.safe_dump(found, sort_keys=False, allow_unicode=True), end=""
    )


# --- their arguments


def _add_nothing(command: argparse.ArgumentParser) -> None:
    pass


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


def _add_overrides(command: argparse.ArgumentParser) -> None:
    command.add_argument("overrides", nargs="*", metavar="section.name=value", help="settings on top of the recipe")


def _add_methods(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--methods", help="methods to compare, separated by commas, such as linear,encoder,generator:lora"
    )


def _add_quickstart(command: argparse.ArgumentParser) -> None:
    _add_methods(command)
    _add_overrides(command)


def _add_init(command: argparse.ArgumentParser) -> None:
    command.add_argument("task", choices=["classification", "instruction"], help="what is learned")


def _add_check(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", help="recipe file (YAML)")
    _add_overrides(command)
    _add_json(command)


def _add_train(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", nargs="?", help="recipe file (YAML); left out with --resume")
    _add_overrides(command)
    command.add_argument("--dry-run", action="store_true", help="print the resolved recipe and stop")
    command.add_argument("--resume", metavar="RUN", help="go on with a run that was cut off")
    command.add_argument("--run-dir", help="put the run here instead of a new folder in output_dir")
    command.add_argument("--quiet", action="store_true", help="do not repeat the data's changes, nor print the scores")
    command.add_argument("--closed-test", action="store_true", help="leave the test split alone")
    _add_seeds(command)


def _add_seeds(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seeds", metavar="S,S,...", help="repeat with each seed on one split: mean and spread")


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


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("run_dir", metavar="RUN", help="run directory")
    command.add_argument("--data", help="labelled data to predict and score instead of the stored test predictions")
    _add_json(command)


def _add_predict(command: argparse.ArgumentParser) -> None:
    command.add_argument("run_dir", metavar="RUN", help="run directory")
    command.add_argument("--text", action="append", default=[], help="a text; may be given several times")
    command.add_argument("--text-pair", action="append", default=[], help="the second text, once for each --text")
    command.add_argument("--data", help="predict every row of a file, folder, hub data set or asset")
    command.add_argument(
        "--top-k", type=int, default=1, metavar="K", help="show the K best labels (default: %(default)s)"
    )
    command.add_argument(
        "--output", metavar="FILE", help="write to a .csv or .jsonl file; answers to a JSON file's rows also to .json"
    )


def _add_merge(command: argparse.ArgumentParser) -> None:
    command.add_argument("run_dir", metavar="RUN", help="run directory with an adapter")
    command.add_argument("--output", metavar="FOLDER", required=True, help="new folder for the full model")


def _add_chat(command: argparse.ArgumentParser) -> None:
    command.add_argument("run_dir", metavar="RUN", help="run directory of an instruction run")
    command.add_argument("--system", help="a system message")
    command.add_argument("overrides", nargs="*", metavar="generate.name=value", help="such as generate.do_sample=true")


def _add_compare(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "sources", nargs="+", metavar="SOURCE",
        help="one data source or recipe; or several recipes; or run directories; then section.name=value settings",
    )  # fmt: skip
    command.add_argument("--text", help="column with the text")
    command.add_argument("--text-pair", help="column with the second text")
    command.add_argument("--label", help="column with the label")
    _add_methods(command)
    _add_seeds(command)


def _add_runs(command: argparse.ArgumentParser) -> None:
    command.add_argument("action", choices=["list", "show"], help="list the runs in a folder, or show one")
    command.add_argument("path", nargs="?", help="folder with runs (list; default: runs), or run directory (show)")


Command = tuple[Callable[[Args], None], str, Callable[[argparse.ArgumentParser], None]]

COMMANDS: dict[str, Command] = {
    "quickstart": (_quickstart, "compare three methods on BBC News: a complete run in minutes", _add_quickstart),
    "init": (_init, "print a commented recipe that runs as it is", _add_init),
    "check": (_check, "look at the data as training would see it", _add_check),
    "train": (_train, "train, evaluate and report one recipe", _add_train),
    "evaluate": (_evaluate, "score a run again, or on new labelled data", _add_evaluate),
    "predict": (_predict, "label texts, or answer prompts, with a trained run", _add_predict),
    "chat": (_chat, "talk to a model that answers instructions", _add_chat),
    "compare": (_compare, "compare methods, recipes or finished runs on one frozen split", _add_compare),
    "merge": (_merge, "write a run's adapter into a full model, with proof", _add_merge),
    "sweep": (_sweep, "train with many settings, ranked on validation", _add_sweep),
    "runs": (_runs, "list runs, or show one", _add_runs),
    "doctor": (_doctor, "show hardware, versions, extras and which number format pays", _add_json),
}


# --- what they print


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise RecipeError(f"--seeds {text}", expected="whole numbers, such as 1,2,3") from None


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _is_override(word: str) -> bool:
    return "=" in word and not Path(word).exists()


def _show_comparison(comparison: Any) -> None:
    from tunesmith.evaluation import terminal

    print(terminal.table(comparison.content))
    print(f"\n{comparison.verdict}\n\nreport: {comparison.page}")


def _show_run(run: Any) -> None:
    manifest = run.manifest
    print(f"{manifest['name']}: {manifest['description']}")
    if (run.path / "scores.json").exists():
        print(_headline(run.read("scores.json")))
    print(f"run: {run.path}")


def _headline(scores: dict[str, Any]) -> str:
    invalid = f", {scores['invalid']:,} of them given no label" if scores.get("invalid") else ""
    lines = [f"on {scores['rows']:,} rows{invalid}, with {100 * scores['confidence']:g}% intervals:"]
    for name, value in scores["headline"].items():
        lines.append(f"  {name:18} {value['value']:.4f}  [{value['low']:.4f}, {value['high']:.4f}]")
    return "\n".join(lines)


def _run_line(run: Any) -> str:
    manifest = run.manifest
    scores = run.path / "scores.json"
    headline = run.read("scores.json")["headline"] if scores.exists() else {}
    first = next((f"{name} {found['value']:.4f}" for name, found in headline.items()), "no scores")
    return f"{run.path}  {manifest.get('name', '?'):8} {first}  {manifest['data']['source']}"
