"""The command that audits data."""

from __future__ import annotations

import argparse

from tunesmith.cli.shared import (
    Args,
    Command,
    add_columns,
    add_json,
    add_no_verify,
    add_overrides,
    names_of,
    numbers_of,
    show_json,
    source_of,
)
from tunesmith.console import show
from tunesmith.errors import RecipeError


class _Audit(Command):
    help = "find leaks and wrong labels in the data, and what more of it would bring"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("source", nargs="?", metavar="SOURCE", help="data source, recipe, or run directory")
        add_overrides(parser)
        add_columns(parser)
        parser.add_argument(
            "--method",
            default="probe",
            help="method whose out-of-fold probabilities find wrong labels (default: probe)",
        )
        parser.add_argument("--learning-curve", action="store_true", help="train on growing parts of the data")
        parser.add_argument(
            "--methods",
            help="methods of the learning curve, separated by commas (default: linear,probe, which take little time)",
        )
        parser.add_argument("--seeds", metavar="S,S,...", help="seeds of the learning curve (default: three)")
        parser.add_argument("--resume", metavar="FOLDER", help="finish an audit whose learning curve was stopped")
        parser.add_argument("--unlabelled", metavar="FILE", help="rows without labels: say which to label next")
        parser.add_argument(
            "--next", type=int, default=100, metavar="N", help="how many rows to label next (default: 100)"
        )
        parser.add_argument("--output", metavar="FOLDER", help="new folder of the report (default: one in output_dir)")
        parser.add_argument("--strict", action="store_true", help="exit with code 3 where something severe is found")
        add_json(parser)
        add_no_verify(parser)

    def run(self, args: Args) -> int | None:
        from tunesmith.pipeline.commands.audit import CurveSettings, audit
        from tunesmith.reporting import audit_report

        if not args.learning_curve and (args.methods or args.seeds):
            raise RecipeError("--methods and --seeds are those of a learning curve", do="add --learning-curve")
        curve = CurveSettings(names_of(args.methods), numbers_of(args.seeds)) if args.learning_curve else False
        result = audit(
            *source_of(args),
            method=args.method,
            learning_curve=curve,
            unlabelled=args.unlabelled,
            next_rows=args.next,
            output=args.output,
            resume=args.resume,
        )
        if args.json:
            show_json(result.report)
        else:
            show("\n".join(audit_report.lines(result.report)))
            show(f"\nreport: {result.page}")
        severe = any(finding.severity == "severe" for finding in result.report.findings)
        return 3 if args.strict and severe else None


COMMANDS: dict[str, Command] = {"audit": _Audit()}
