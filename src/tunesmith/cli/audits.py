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
            "--loss-outliers",
            action="store_true",
            help="let the base model predict the responses to instructions, and name the odd ones",
        )
        parser.add_argument("--output", metavar="FOLDER", help="new folder of the report (default: one in output_dir)")
        parser.add_argument("--strict", action="store_true", help="exit with code 3 where something severe is found")
        add_json(parser)
        add_no_verify(parser)

    def run(self, args: Args) -> int | None:
        from tunesmith.pipeline.commands.audit import audit
        from tunesmith.reporting import audit_report

        result = audit(
            *source_of(args),
            method=args.method,
            learning_curve=args.learning_curve,
            loss_outliers=args.loss_outliers,
            output=args.output,
        )
        if args.json:
            show_json(result.report)
        else:
            show("\n".join(audit_report.lines(result.report)))
            show(f"\nreport: {result.page}")
        severe = any(finding.severity == "severe" for finding in result.report.findings)
        return 3 if args.strict and severe else None


COMMANDS: dict[str, Command] = {"audit": _Audit()}
