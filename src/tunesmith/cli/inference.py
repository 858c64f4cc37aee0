"""The commands that use a trained run."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tunesmith import records
from tunesmith.cli.shared import Args, Command, add_json, is_override, show_scores
from tunesmith.console import say
from tunesmith.errors import RecipeError

TARGETS = (
    "safetensors",
    "adapter",
    "pth",
    "onnx",
    "onnx-int8",
    "torch-export",
    "torchscript",
    "gguf",
    "ollama",
)
"""As exporting/targets.py has them, which is not imported for a help text; a test holds them equal."""


def _evaluate(args: Args) -> None:
    from tunesmith.pipeline.commands.evaluate import evaluate

    columns = {"responses": args.response, "reference": args.reference, "instruction": args.instruction}
    scores = evaluate(*args.sources, data=args.data, report=args.report, **columns)
    print(json.dumps(scores, indent=2, ensure_ascii=False) if args.json else show_scores(scores))


def _predict(args: Args) -> None:
    from tunesmith import runs
    from tunesmith.pipeline.commands.predict import check_output, predict, table, write
    from tunesmith.pipeline.task_table import task_of

    output = Path(args.output) if args.output else None
    run = runs.find(args.run_dir)
    if output:
        check_output(output, run, args.data)
    rows = predict(run, args.text, text_pairs=args.text_pair, source=args.data, top_k=args.top_k)
    answers = task_of(run).has_responses
    if not (output or (answers and args.data)):
        print(table(rows, ".jsonl"), end="")
        return
    for path in write(rows, run, args.data, output):
        say(f"wrote {len(rows):,} {'answers' if answers else 'predictions'} to {path}")


def _chat(args: Args) -> None:
    from tunesmith.pipeline.commands.chat import chat

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
    from tunesmith.pipeline.commands.export import export

    more = {"source": args.data, "rows": args.rows, "precision": args.precision, "allow_loss": args.allow_loss}
    print(json.dumps(export(args.run_dir, args.to, args.output, **more), indent=2))


def _merge(args: Args) -> None:
    from tunesmith.pipeline.commands.export import merge

    print(json.dumps(merge(args.run_dir, args.output), indent=2))


def _judge(args: Args) -> None:
    sources = [word for word in args.sources if not is_override(word)]
    if args.scores:
        from tunesmith.pipeline.external_scores import describe, judge_scores

        scores = judge_scores(*sources)
        print(json.dumps(records.dump(scores), indent=2, ensure_ascii=False) if args.json else describe(scores))
        return
    from tunesmith.pipeline.commands.judge import JudgeInput, judge
    from tunesmith.pipeline.response_comparison import ResponseColumns

    named = {"url": args.url, "model": args.model or None, "api": args.api, "api_key_env": args.api_key_env}
    settings = [f"judge.{name}={json.dumps(value)}" for name, value in named.items() if value is not None]
    settings += [word for word in args.sources if is_override(word)]
    if args.questions:
        judge_input = JudgeInput(questions=args.questions, references=args.reference, pairwise=args.pairwise)
    else:
        columns = ResponseColumns(tuple(args.response), args.reference, args.instruction)
        judge_input = JudgeInput(columns, pairwise=args.pairwise)
    found = judge(*sources, overrides=settings, recipe=args.recipe, judge_input=judge_input, output=args.output)
    if args.json:
        print(json.dumps(records.dump(found.report), indent=2, ensure_ascii=False))
    else:
        print(f"{(found.folder.path / 'judge.md').read_text(encoding='utf-8')}\nreport: {found.page}")


def _pseudo_label(args: Args) -> None:
    from tunesmith.pipeline.commands.pseudo_label import pseudo_label

    run_dirs = [word for word in args.sources if not is_override(word)]
    found = pseudo_label(
        *run_dirs,
        source=args.data,
        samples=args.samples,
        threshold=args.threshold,
        answer=args.answer,
        output=args.output,
        overrides=[word for word in args.sources if is_override(word)],
    )
    print(found.page.with_suffix(".md").read_text(encoding="utf-8"))
    print(f"kept: {found.kept}\nleft out: {found.left_out}\nreport: {found.page}")


def _serve(args: Args) -> None:
    from tunesmith.pipeline.commands.serve import serve

    found = [word for word in args.sources if not is_override(word)]
    if not found:
        raise RecipeError("nothing to serve", do="name a run directory")
    serve(found, [word for word in args.sources if is_override(word)], recipe=args.recipe)


def _line() -> str | None:
    """The next line that somebody types, or None at the end."""
    try:
        line = input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None
    return None if line in ("/exit", "/quit") else line


def _add_evaluate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="run directory, or a JSON, JSONL, CSV or Parquet file with instructions, references and responses",
    )
    command.add_argument("--data", help="labelled data for a classification run to predict and be scored on")
    _add_columns(command, "a file's references")
    command.add_argument("--report", metavar="FILE.html", help="write a page about the answers, and its Markdown twin")
    add_json(command)


def _add_columns(command: argparse.ArgumentParser, references: str) -> None:
    """What the columns of a file of answers are called, where their names do not say it."""
    command.add_argument(
        "--response", action="append", default=[], metavar="FIELD", help="a file's responses; once for each model"
    )
    command.add_argument("--reference", metavar="FIELD", help=references)
    command.add_argument("--instruction", metavar="FIELD", help="a file's instructions")


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


def _add_judge(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="run directories, or JSON, JSONL, CSV or Parquet files with answers; then judge.name=value settings",
    )
    command.add_argument("--url", help="address of the endpoint, such as http://localhost:8000/v1")
    command.add_argument("--model", action="append", metavar="NAME", help="the judge; may be given several times")
    command.add_argument("--api", choices=["openai", "ollama", "local"], help="how the endpoint is spoken to")
    command.add_argument("--api-key-env", metavar="NAME", help="environment variable that holds the endpoint's key")
    command.add_argument("--recipe", help="recipe file with a judge section (default: that of the first run)")
    _add_columns(command, "a file's references; with --questions a file of them")
    command.add_argument("--questions", metavar="FILE", help="questions of several turns, such as MT-bench's")
    command.add_argument("--pairwise", action="store_true", help="compare each two models, in both orders")
    command.add_argument("--output", metavar="FOLDER", help="where to write (default: the run, or beside the file)")
    command.add_argument("--scores", action="store_true", help="read scores from the files instead of asking a judge")
    add_json(command)


def _add_pseudo_label(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "sources", nargs="+", metavar="RUN", help="run directories; several vote; then generate.name=value settings"
    )
    command.add_argument("--data", required=True, help="rows to label: a file, folder, hub data set or asset")
    command.add_argument("--samples", type=int, default=8, metavar="N", help="answers to a prompt (default: 8)")
    command.add_argument(
        "--threshold", type=float, default=0.75, metavar="T", help="least agreement to keep (default: %(default)s)"
    )
    command.add_argument(
        "--answer",
        choices=["text", "number"],
        default="text",
        help="answers agree as whole texts, or in their final number (default: %(default)s)",
    )
    command.add_argument("--output", metavar="FILE", help="a new .jsonl file (default: in the first run)")


def _add_serve(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "sources",
        nargs="+",
        metavar="RUN",
        help="run directories, served under their names; then serve.name=value settings such as port=8001",
    )
    command.add_argument("--recipe", metavar="FILE", help="take section serve of this recipe, not of the first run's")


COMMANDS: dict[str, Command] = {
    "evaluate": (_evaluate, "score runs again, a run on new labelled data, or files of answers", _add_evaluate),
    "predict": (_predict, "label texts, or answer prompts, with a trained run", _add_predict),
    "chat": (_chat, "talk to a model that answers instructions", _add_chat),
    "judge": (_judge, "have answers scored or compared by a judge, and test the judge", _add_judge),
    "pseudo-label": (_pseudo_label, "label new rows where samples or runs agree", _add_pseudo_label),
    "export": (_export, "write a run's model for other software, with proof", _add_export),
    "serve": (_serve, "answer requests over HTTP with trained runs", _add_serve),
    "merge": (_merge, "write a run's adapter into a full model, with proof", _add_merge),
}
