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
            "--cleaning-gain",
            action="store_true",
            help="also train without the rows whose labels look wrong, and test it",
        )
        parser.add_argument("--review-jsonl", action="store_true", help="write the review file as JSON Lines too")
        parser.add_argument(
            "--apply",
            metavar="REVIEW",
            help="instead: write the data with the decisions of this review file to --output",
        )
        parser.add_argument(
            "--output",
            metavar="PATH",
            help="new folder of the report (default: one in output_dir); with --apply the new data, .csv or .jsonl",
        )
        parser.add_argument("--overwrite", action="store_true", help="with --apply: replace the output")
        parser.add_argument("--strict", action="store_true", help="exit with code 3 where something severe is found")
        add_json(parser)
        add_no_verify(parser)

    def run(self, args: Args) -> int | None:
        from tunesmith.pipeline.commands.audit import audit
        from tunesmith.reporting import audit_report

        if args.apply:
            _apply(args)
            return None
        result = audit(
            *source_of(args),
            method=args.method,
            learning_curve=args.learning_curve,
            cleaning_gain=args.cleaning_gain,
            review_jsonl=args.review_jsonl,
            output=args.output,
        )
        if args.json:
            show_json(result.report)
        else:
            show("\n".join(audit_report.lines(result.report)))
            show(f"\nreport: {result.page}")
        severe = any(finding.severity == "severe" for finding in result.report.findings)
        return 3 if args.strict and severe else None


def _apply(args: Args) -> None:
    from tunesmith.pipeline.commands.apply_review import apply_review

    if not args.output:
        raise RecipeError("--apply needs a file to write", do="give --output FILE.csv or FILE.jsonl")
    cleaned = apply_review(args.apply, *source_of(args), output=args.output, overwrite=args.overwrite)
    if args.json:
        show_json(cleaned.provenance)
    else:
        show(f"data: {cleaned.path}\nprovenance: {cleaned.provenance_path}")


COMMANDS: dict[str, Command] = {"audit": _Audit()}
