"""The command that audits data."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tunesmith.cli.shared import (
    Args,
    Command,
    add_columns,
    add_json,
    add_learning_curve,
    add_no_verify,
    add_overrides,
    names_of,
    numbers_of,
    show_json,
    source_of,
)
from tunesmith.console import show
from tunesmith.errors import RecipeError

if TYPE_CHECKING:
    from tunesmith.pipeline.commands.audit import Audit


class _Audit(Command):
    help = "find leaks and wrong labels in the data, and what more of it would bring"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("source", nargs="?", metavar="SOURCE", help="data source, recipe, or run directory")
        add_overrides(parser)
        add_columns(parser)
        method = "method whose out-of-fold probabilities find wrong labels (default: probe)"
        parser.add_argument("--method", default="probe", help=method)
        _add_paraphrases(parser)
        _add_labels(parser)
        _add_curve(parser)
        loss = "let the base model predict the responses to instructions, and name the odd ones"
        parser.add_argument("--loss-outliers", action="store_true", help=loss)
        output = "new folder of the report (default: one in output_dir); with --apply the new data, .csv or .jsonl"
        parser.add_argument("--output", metavar="PATH", help=output)
        parser.add_argument("--overwrite", action="store_true", help="with --apply: replace the output")
        parser.add_argument("--strict", action="store_true", help="exit with code 3 where something severe is found")
        add_json(parser)
        add_no_verify(parser)

    def run(self, args: Args) -> int | None:
        if args.apply:
            _apply(args)
            return None
        result = _audit(args)
        if args.json:
            show_json(result.report)
        else:
            show(repr(result))
        severe = any(finding.severity == "severe" for finding in result.findings)
        return 3 if args.strict and severe else None


def _add_paraphrases(parser: argparse.ArgumentParser) -> None:
    similar = "also look for rows that are similar in meaning, by the embeddings of probe"
    parser.add_argument("--paraphrases", action="store_true", help=similar)
    threshold = "cosine similarity from which they are (default: 0.9)"
    parser.add_argument("--paraphrase-threshold", type=float, metavar="C", help=threshold)


def _add_labels(parser: argparse.ArgumentParser) -> None:
    gain = "also train without the rows whose labels look wrong, and test it"
    parser.add_argument("--cleaning-gain", action="store_true", help=gain)
    parser.add_argument("--review-jsonl", action="store_true", help="write the review file as JSON Lines too")
    apply = "instead: write the data with the decisions of this review file to --output"
    parser.add_argument("--apply", metavar="REVIEW", help=apply)


def _add_curve(parser: argparse.ArgumentParser) -> None:
    add_learning_curve(parser, "a 128th of all, or at least 10 rows")
    methods = "methods of the learning curve, separated by commas (default: linear,probe, which take little time)"
    parser.add_argument("--methods", help=methods)
    parser.add_argument("--seeds", metavar="S,S,...", help="seeds of the learning curve (default: three)")
    parser.add_argument("--resume", metavar="FOLDER", help="finish an audit whose learning curve was stopped")
    parser.add_argument("--unlabelled", metavar="FILE", help="rows without labels: say which to label next")
    rows = "how many rows to label next (default: 100)"
    parser.add_argument("--next", type=int, default=100, metavar="N", help=rows)


def _audit(args: Args) -> Audit:
    from tunesmith.pipeline.audit_sections.audit_input import CurveSettings
    from tunesmith.pipeline.commands.audit import audit

    if not args.learning_curve and (args.methods or args.seeds or args.smallest is not None):
        raise RecipeError("--methods, --seeds and --smallest are those of a learning curve", do="add --learning-curve")
    if args.paraphrase_threshold is not None and not args.paraphrases:
        raise RecipeError("--paraphrase-threshold is that of paraphrases", do="add --paraphrases")
    if args.resume:
        return audit(*source_of(args), output=args.output, resume=args.resume)
    return audit(
        *source_of(args),
        output=args.output,
        method=args.method,
        paraphrases=args.paraphrases if args.paraphrase_threshold is None else args.paraphrase_threshold,
        learning_curve=args.learning_curve
        and CurveSettings(names_of(args.methods), numbers_of(args.seeds), args.smallest),
        unlabelled=args.unlabelled,
        next_rows=args.next,
        cleaning_gain=args.cleaning_gain,
        review_jsonl=args.review_jsonl,
        loss_outliers=args.loss_outliers,
    )


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
