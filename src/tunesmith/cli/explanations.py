"""The command that explains predictions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tunesmith.cli.shared import Args, Command, add_columns, add_json, add_no_verify, column_settings, show_json
from tunesmith.console import say

METHODS = ("auto", "exact", "integrated-gradients", "occlusion")
"""As prediction/attribution.py has them, which is not imported for a help text; a test holds them equal."""


class Explain(Command):
    """`tunesmith explain`."""

    help = "show which words made a prediction"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("run_dir", metavar="RUN", help="run directory")
        parser.add_argument("--text", action="append", default=[], help="a text; may be given several times")
        parser.add_argument("--text-pair", action="append", default=[], help="the second text, once for each --text")
        parser.add_argument("--data", help="explain every row of a file, folder, hub data set or asset")
        add_columns(parser)
        parser.add_argument("--label", help="explain the score of this label (default: the predicted one)")
        parser.add_argument(
            "--method",
            choices=METHODS,
            default=METHODS[0],
            help="exact, of linear runs; integrated-gradients, of encoders; occlusion, of all; auto (the default) is "
            "the first of these that the run can have",
        )
        parser.add_argument("--html", metavar="FILE", help="write a page with the texts and their words in colour")
        parser.add_argument("--output", metavar="FILE", help="a .jsonl file for the rows, with all columns of --data")
        parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
        parser.add_argument("overrides", nargs="*", metavar="data.name=value", help="where new data differs")
        add_json(parser)
        add_no_verify(parser)

    def run(self, args: Args) -> None:
        from tunesmith import runs
        from tunesmith.pipeline.commands.explain import check_files, explain, write
        from tunesmith.reporting import explanation_report

        output, html = (Path(name) if name else None for name in (args.output, args.html))
        overrides = [*column_settings(args), *args.overrides]
        check_files(output, html, args.data, overwrite=args.overwrite)
        run = runs.find(args.run_dir)
        options = {"source": args.data, "overrides": overrides, "label": args.label, "method": args.method}
        explanations = explain(run, args.text, text_pairs=args.text_pair, **options)
        for file in write(explanations, run, args.data, overrides, output=output, html=html):
            say(f"wrote {len(explanations):,} explanations to {file}")
        if args.json:
            show_json(explanations)
        elif output is None and html is None:
            colours = sys.stdout.isatty()
            texts = [explanation_report.text(explanation, colours=colours) for explanation in explanations]
            print("\n\n".join(texts))  # printable, but for its own colours
