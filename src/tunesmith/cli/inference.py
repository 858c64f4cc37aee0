"""The commands that use a trained run: evaluate, predict, chat, judge, pseudo-label, export, merge and serve."""

from __future__ import annotations

import argparse
import json
import sys

from tunesmith.cli.explanations import Explain
from tunesmith.cli.shared import (
    Args,
    Command,
    add_columns,
    add_json,
    add_no_verify,
    column_settings,
    show_json,
    split_overrides,
)
from tunesmith.console import say, show, show_bytes
from tunesmith.errors import RecipeError

TARGETS = (
    "safetensors",
    "adapter",
    "pth",
    "onnx",
    "onnx-int8",
    "openvino",
    "torch-export",
    "torchscript",
    "gguf",
    "ollama",
)
"""As exporting/targets.py has them, which is not imported for a help text; a test holds them equal."""


class _Evaluate(Command):
    help = "score runs again, a run on new labelled data, or files of answers"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "sources",
            nargs="+",
            metavar="SOURCE",
            help="run directory, or a JSON, JSONL, CSV or Parquet file with instructions, references and responses; "
            "then data.name=value settings, or evaluate.slices",
        )
        parser.add_argument("--data", help="labelled data for a run of labels or numbers to predict and be scored on")
        add_columns(parser)
        parser.add_argument(
            "--engine",
            default="torch",
            help="what predicts --data: torch (the default), or onnx, onnx-int8 or openvino from the run's exports",
        )
        _add_response_columns(parser, "a file's references")
        parser.add_argument("--report", metavar="FILE.html", help="write a report on the answers, also as Markdown")
        add_json(parser)
        add_no_verify(parser)

    def run(self, args: Args) -> None:
        from tunesmith.pipeline.commands.evaluate import evaluate
        from tunesmith.pipeline.trained_run import describe_scores

        columns = {"responses": args.response, "reference": args.reference, "instruction": args.instruction}
        sources, overrides = split_overrides(args.sources)
        overrides = [*column_settings(args), *overrides]
        options = {"data": args.data, "overrides": overrides, "report": args.report, "engine": args.engine}
        scores = evaluate(*sources, **options, **columns)
        if args.json:
            show_json(scores)
        else:
            show(describe_scores(scores))


class _Predict(Command):
    help = "label texts, or answer prompts, with a trained run"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("run_dir", metavar="RUN", help="run directory")
        parser.add_argument("--text", action="append", default=[], help="a text; may be given several times")
        parser.add_argument("--text-pair", action="append", default=[], help="the second text, once for each --text")
        parser.add_argument("--data", help="predict every row of a file, folder, hub data set or asset; - reads stdin")
        add_columns(parser)
        parser.add_argument(
            "--top-k", type=int, default=1, metavar="K", help="show the K best labels (default: %(default)s)"
        )
        parser.add_argument(
            "--output",
            metavar="OUTPUT",
            help="for the rows, with all columns of --data: a .csv, .jsonl or .parquet file; a folder of such files, "
            "which can be resumed; or - for stdout. Answers to JSON rows also in .json",
        )
        parser.add_argument("--format", choices=["parquet", "csv", "jsonl"], help="of a folder or of stdout")
        parser.add_argument("--only-predictions", action="store_true", help="of the columns of --data keep only id")
        parser.add_argument("--resume", action="store_true", help="finish a folder that was begun")
        parser.add_argument(
            "--chunk-rows",
            type=int,
            metavar="N",
            help="rows of a part of the folder (default: by method, 256 to 16384)",
        )
        parser.add_argument("--overwrite", action="store_true", help="replace an --output that exists")
        parser.add_argument(
            "--keep-formulas",
            action="store_true",
            help="write cells to .csv that a spreadsheet would run as they are, without a ' before them",
        )
        parser.add_argument(
            "--engine",
            default="auto",
            help="what computes labels: torch, or onnx, onnx-int8 or openvino from the run's exports; auto (the "
            "default) takes an export that was faster and gave every label of the run",
        )
        parser.add_argument(
            "overrides", nargs="*", metavar="data.name=value", help="where new data differs; generate.*"
        )
        add_no_verify(parser)

    def run(self, args: Args) -> None:
        from tunesmith import runs
        from tunesmith.pipeline import prediction_output
        from tunesmith.pipeline.commands import predict as predicting
        from tunesmith.pipeline.prediction_output import STDOUT, OutputSettings
        from tunesmith.pipeline.prediction_stream import PredictionSettings

        run, output = runs.find(args.run_dir), args.output
        overrides = [*column_settings(args), *args.overrides]
        settings = PredictionSettings(overrides, args.top_k, args.engine, args.only_predictions, args.chunk_rows)
        writing = OutputSettings(args.format, args.keep_formulas, args.overwrite, args.resume)
        as_json = predicting.is_answered_json(run, args.data, output)
        if output is not None and not as_json:
            prediction_output.check(output, args.data, writing)
        if args.text or args.data is None:
            options = {"overrides": overrides, "top_k": args.top_k, "engine": args.engine}
            rows = predicting.predict(run, args.text, text_pairs=args.text_pair, source=args.data, **options)
            if output in (None, STDOUT):
                show(predicting.table(rows, ".jsonl"), end="")
            else:
                say(f"wrote {len(rows):,} predictions to {predicting.write_texts(rows, output, writing)}")
        elif as_json:
            count, paths = predicting.write_responses(run, args.data, output, settings, overwrite=args.overwrite)
            for path in paths:
                say(f"wrote {count:,} answers to {path}")
        elif output in (None, STDOUT):
            for piece in predicting.prediction_bytes(run, args.data, settings, writing):
                if args.format in (None, "jsonl"):
                    show(piece.decode(), end="")
                else:
                    show_bytes(piece)
        else:
            written = predicting.write_predictions(run, args.data, output, settings, output_settings=writing)
            say(written.sentence())


class _Chat(Command):
    help = "talk to a model that answers instructions"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("run_dir", metavar="RUN", help="run directory of an instruction run")
        parser.add_argument("--system", help="a system message")
        parser.add_argument(
            "overrides", nargs="*", metavar="generate.name=value", help="such as generate.do_sample=true"
        )
        add_no_verify(parser)

    def run(self, args: Args) -> None:
        from tunesmith.pipeline.commands.chat import chat

        conversation = chat(args.run_dir, args.overrides, system=args.system)
        say("type a message; /reset clears the conversation, /exit or Ctrl-D quits")
        while True:
            try:
                line = input("> " if sys.stdin.isatty() else "").strip()
            except EOFError:
                return
            if line in ("/exit", "/quit"):
                return
            if line == "/reset":
                conversation.reset()
            elif line:
                for piece in conversation.ask(line):
                    show(piece, end="")
                show("")


class _Export(Command):
    help = "write a run's model for other software, with proof"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("run_dir", metavar="RUN", help="run directory")
        parser.add_argument("--to", required=True, metavar="TARGET", help=f"one of {', '.join(TARGETS)}")
        parser.add_argument("--output", metavar="FOLDER", help="new folder (default: RUN/export/TARGET)")
        parser.add_argument(
            "--precision",
            default="auto",
            help="number format of the weights: float32, float16, bfloat16, q8_0 (default: the target's own)",
        )
        parser.add_argument("--data", help="rows to compare on, instead of the run's own held-out ones")
        parser.add_argument("--rows", type=int, default=50, help="how many rows to compare on (default: %(default)s)")
        parser.add_argument("--allow-loss", action="store_true", help="keep rounded weights whatever they change")
        parser.add_argument("--name", metavar="FILE.pth", help="file name with --to pth (default: MODELSIZE-sft.pth)")
        parser.add_argument(
            "--push", metavar="ORG/NAME", help="upload to the Hugging Face hub, with the key in HF_TOKEN"
        )
        add_no_verify(parser)

    def run(self, args: Args) -> None:
        from tunesmith.pipeline.commands.export import export
        from tunesmith.pipeline.hub_upload import Repository

        repository = Repository.open(args.push) if args.push else None

        options = {"source": args.data, "rows": args.rows, "precision": args.precision, "allow_loss": args.allow_loss}
        report = export(args.run_dir, args.to, args.output, name=args.name, **options)
        if repository:
            repository.upload(str(report.folder))
        show_json(report)


class _Merge(Command):
    help = "write a run's adapter into a full model, with proof"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("run_dir", metavar="RUN", help="run directory with an adapter")
        parser.add_argument("--output", metavar="FOLDER", required=True, help="new folder for the full model")
        add_no_verify(parser)

    def run(self, args: Args) -> None:
        from tunesmith.pipeline.commands.export import merge

        show_json(merge(args.run_dir, args.output))


class _Judge(Command):
    help = "have answers scored or compared by a judge, and test the judge"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "sources",
            nargs="+",
            metavar="SOURCE",
            help="run directories, or JSON, JSONL, CSV or Parquet files with answers; then judge.name=value settings",
        )
        parser.add_argument("--url", help="address of the endpoint, such as http://localhost:8000/v1")
        parser.add_argument("--model", action="append", metavar="NAME", help="the judge; may be given several times")
        parser.add_argument("--api", choices=["openai", "ollama", "local"], help="endpoint API")
        parser.add_argument("--api-key-env", metavar="NAME", help="environment variable that holds the endpoint's key")
        parser.add_argument("--recipe", help="recipe file with a judge section (default: that of the first run)")
        _add_response_columns(parser, "a file's references; with --questions a file of them")
        parser.add_argument("--questions", metavar="FILE", help="questions of several turns, such as MT-bench's")
        parser.add_argument("--pairwise", action="store_true", help="compare every pair of models, in both orders")
        parser.add_argument("--output", metavar="FOLDER", help="where to write (default: the run, or beside the file)")
        parser.add_argument(
            "--scores", action="store_true", help="read scores from the files instead of asking a judge"
        )
        add_json(parser)
        add_no_verify(parser)

    def run(self, args: Args) -> None:
        sources, overrides = split_overrides(args.sources)
        if args.scores:
            from tunesmith.pipeline.external_scores import describe, judge_scores

            scores = judge_scores(*sources)
            if args.json:
                show_json(scores)
            else:
                show(describe(scores))
            return
        from tunesmith.pipeline.commands.judge import JudgeInput, judge
        from tunesmith.pipeline.response_comparison import ResponseColumns

        named = {"url": args.url, "model": args.model or None, "api": args.api, "api_key_env": args.api_key_env}
        settings = [f"judge.{name}={json.dumps(value)}" for name, value in named.items() if value is not None]
        if args.questions:
            judge_input = JudgeInput(questions=args.questions, references=args.reference, pairwise=args.pairwise)
        else:
            columns = ResponseColumns(tuple(args.response), args.reference, args.instruction)
            judge_input = JudgeInput(columns, pairwise=args.pairwise)
        judged = judge(
            *sources, overrides=settings + overrides, recipe=args.recipe, judge_input=judge_input, output=args.output
        )
        if args.json:
            show_json(judged.report)
        else:
            show(f"{judged.folder.read_text('judge.md')}\nreport: {judged.page}")


class _PseudoLabel(Command):
    help = "label new rows where samples or runs agree"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "sources",
            nargs="+",
            metavar="RUN",
            help="run directories, of which several vote, then data and generate settings; or labelled data (or a "
            "recipe) for a model behind an endpoint, then endpoint.name=value settings",
        )
        parser.add_argument("--data", required=True, help="rows to label: a file, folder, hub data set or asset")
        add_columns(parser)
        parser.add_argument("--samples", type=int, default=8, metavar="N", help="answers per prompt (default: 8)")
        parser.add_argument(
            "--threshold",
            type=float,
            default=0.75,
            metavar="T",
            help="minimum agreement to keep (default: %(default)s)",
        )
        parser.add_argument(
            "--answer",
            choices=["text", "number"],
            default="text",
            help="compare answers as whole texts, or by their final number (default: %(default)s)",
        )
        parser.add_argument("--output", metavar="FILE", help="a new .jsonl file (default: in the first run)")
        parser.add_argument("--overwrite", action="store_true", help="replace an --output that exists")
        add_no_verify(parser)

    def run(self, args: Args) -> None:
        from tunesmith.pipeline.commands.pseudo_label import pseudo_label

        run_dirs, overrides = split_overrides(args.sources)
        labelled = pseudo_label(
            *run_dirs,
            source=args.data,
            samples=args.samples,
            threshold=args.threshold,
            answer=args.answer,
            output=args.output,
            overwrite=args.overwrite,
            overrides=[*column_settings(args), *overrides],
        )
        show(labelled.page.with_suffix(".md").read_text(encoding="utf-8"))
        show(f"kept: {labelled.kept}\nleft out: {labelled.left_out}\nreport: {labelled.page}")


class _Serve(Command):
    help = "answer requests over HTTP with trained runs"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "sources",
            nargs="+",
            metavar="RUN",
            help="run directories, each served under its folder's name, or under another one with NAME=RUN; then "
            "serve.name=value settings such as port=8001",
        )
        parser.add_argument(
            "--recipe", metavar="FILE", help="recipe file with a serve section (default: that of the first run)"
        )
        parser.add_argument(
            "--log-format",
            choices=["text", "json"],
            help="json logs every message as a JSON object on a line (default: TUNESMITH_LOG, or text)",
        )
        add_no_verify(parser)

    def run(self, args: Args) -> None:
        from tunesmith.pipeline.commands.serve import serve
        from tunesmith.recipe import aliases

        _, words = split_overrides(args.sources)
        overrides = [word for word in words if aliases.is_setting(word.partition("=")[0].strip(), ("serve",))]
        run_dirs = [word for word in args.sources if word not in overrides]
        if not run_dirs:
            raise RecipeError("nothing to serve", do="name a run directory")
        serve(run_dirs, overrides, recipe=args.recipe)


def _add_response_columns(parser: argparse.ArgumentParser, references: str) -> None:
    """Add the names of the columns of a file of responses, where they are not the usual ones."""
    parser.add_argument(
        "--response", action="append", default=[], metavar="FIELD", help="a file's responses; once for each model"
    )
    parser.add_argument("--reference", metavar="FIELD", help=references)
    parser.add_argument("--instruction", metavar="FIELD", help="a file's instructions")


COMMANDS: dict[str, Command] = {
    "evaluate": _Evaluate(),
    "predict": _Predict(),
    "explain": Explain(),
    "chat": _Chat(),
    "judge": _Judge(),
    "pseudo-label": _PseudoLabel(),
    "export": _Export(),
    "serve": _Serve(),
    "merge": _Merge(),
}
