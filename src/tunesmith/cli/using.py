"""The commands that use a trained run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tunesmith.cli.shared import Args, Command, add_json, headline
from tunesmith.console import say

TARGETS = (
    "safetensors", "adapter", "pth", "onnx", "onnx-int8", "torch-export", "torchscript", "gguf", "ollama",
)  # fmt: skip
"""As exporting/targets.py has them, which is not imported for a help text; a test holds them equal."""


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


def _export(args: Args) -> None:
    from tunesmith.pipeline.export import export

    more = {"source": args.data, "rows": args.rows, "precision": args.precision, "allow_loss": args.allow_loss}
    print(json.dumps(export(args.run_dir, args.to, args.output, **more), indent=2))


def _merge(args: Args) -> None:
    from tunesmith.pipeline.export import merge

    print(json.dumps(merge(args.run_dir, args.output), indent=2))


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


def _add_export(command: argparse.ArgumentParser) -> None:
    command.add_argument("run_dir", metavar="RUN", help="run directory")
    command.add_argument("--to", required=True, metavar="TARGET", help=f"one of {', '.join(TARGETS)}")
    command.add_argument("--output", metavar="FOLDER", help="new folder (default: RUN/export/TARGET)")
    command.add_argument(
        "--precision",
        default="auto",
        help="of the weights: float32, float16, bfloat16, q8_0 (default: the target's own)",
    )
    command.add_argument("--data", help="rows to compare on, instead of the run's own held-out ones")
    command.add_argument("--rows", type=int, default=50, help="how many rows to compare on (default: %(default)s)")
    command.add_argument("--allow-loss", action="store_true", help="keep rounded weights whatever they change")


def _add_merge(command: argparse.ArgumentParser) -> None:
    command.add_argument("run_dir", metavar="RUN", help="run directory with an adapter")
    command.add_argument("--output", metavar="FOLDER", required=True, help="new folder for the full model")


COMMANDS: dict[str, Command] = {
    "evaluate": (_evaluate, "score a run again, or on new labelled data", _add_evaluate),
    "predict": (_predict, "label texts, or answer prompts, with a trained run", _add_predict),
    "chat": (_chat, "talk to a model that answers instructions", _add_chat),
    "export": (_export, "write a run's model for other software, with proof", _add_export),
    "merge": (_merge, "write a run's adapter into a full model, with proof", _add_merge),
}
