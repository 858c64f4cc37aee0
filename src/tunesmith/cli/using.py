"""The commands that use a trained run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tunesmith.cli.shared import Args, Command, add_json, headline
from tunesmith.console import say
from tunesmith.errors import RecipeError


def _evaluate(args: Args) -> None:
    from tunesmith.pipeline.predict import evaluate

    scores = evaluate(args.run_dir, source=args.data)
    print(json.dumps(scores, indent=2, ensure_ascii=False) if args.json else headline(scores))


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


def _merge(args: Args) -> None:
    from tunesmith.pipeline.merge import merge

    print(json.dumps(merge(args.run_dir, args.output), indent=2))


def _serve(args: Args) -> None:
    from tunesmith.pipeline.serve import serve

    words = [(word, "=" in word and not Path(word).exists()) for word in args.sources]
    found = [word for word, setting in words if not setting]
    if not found:
        raise RecipeError("nothing to serve", do="name a run directory")
    serve(found, [word for word, setting in words if setting], recipe=args.recipe)


def _line() -> str | None:
    """The next line that somebody types, or None at the end."""
    try:
        line = input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None
    return None if line in ("/exit", "/quit") else line


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument("run_dir", metavar="RUN", help="run directory")
    command.add_argument("--data", help="labelled data to predict and score instead of the stored test predictions")
    add_json(command)


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


def _add_chat(command: argparse.ArgumentParser) -> None:
    command.add_argument("run_dir", metavar="RUN", help="run directory of an instruction run")
    command.add_argument("--system", help="a system message")
    command.add_argument("overrides", nargs="*", metavar="generate.name=value", help="such as generate.do_sample=true")


def _add_merge(command: argparse.ArgumentParser) -> None:
    command.add_argument("run_dir", metavar="RUN", help="run directory with an adapter")
    command.add_argument("--output", metavar="FOLDER", required=True, help="new folder for the full model")


def _add_serve(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "sources", nargs="+", metavar="RUN",
        help="run directories, served under their names; then serve.name=value settings such as port=8001",
    )  # fmt: skip
    command.add_argument("--recipe", metavar="FILE", help="take section serve of this recipe, not of the first run's")


COMMANDS: dict[str, Command] = {
    "evaluate": (_evaluate, "score a run again, or on new labelled data", _add_evaluate),
    "predict": (_predict, "label texts, or answer prompts, with a trained run", _add_predict),
    "chat": (_chat, "talk to a model that answers instructions", _add_chat),
    "serve": (_serve, "answer requests over HTTP with trained runs", _add_serve),
    "merge": (_merge, "write a run's adapter into a full model, with proof", _add_merge),
}
