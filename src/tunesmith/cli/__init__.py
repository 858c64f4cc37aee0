"""The command line: arguments -> one pipeline function each; errors -> a few lines and exit code 2.

Everything heavy is imported by the command that needs it, so `--help` answers at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from tunesmith import __version__, console, disk, processes
from tunesmith.cli import audits, experiments, inference, inspect
from tunesmith.cli.shared import Command, as_settings
from tunesmith.errors import Interrupted, MissingExtra, TunesmithError

COMMANDS: dict[str, Command] = audits.COMMANDS | experiments.COMMANDS | inference.COMMANDS | inspect.COMMANDS
NEURAL = ("accelerate", "peft", "torch", "transformers")
"""Dependencies that method `linear` does without; small installations leave them out (deploy/linear.txt)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code. argv: None for the arguments of this process, which ends after it."""
    if argv is None:
        processes.run_one_command()
    root = parser()
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments:
        root.print_help()
        return 0
    args, unrecognized = root.parse_known_args(as_settings(arguments))
    words = getattr(args, "overrides", getattr(args, "sources", None))
    if unrecognized and (words is None or any(word.startswith("-") for word in unrecognized)):
        wrong = next((word.partition("=")[0] for word in unrecognized if word.startswith("-")), unrecognized[0])
        options = sorted(set(re.findall(r"--[a-z][a-z-]*", args.parser.format_help())))
        known = [option for option in options if option.startswith(wrong)] or get_close_matches(wrong, options)
        hint = f"; did you mean {' or '.join(known)}?" if known else ""
        root.error(f"unrecognized arguments: {' '.join(unrecognized)}{hint}")
    if words is not None:
        words += unrecognized  # settings may follow an option, where argparse does not recognize them
    if log_format := getattr(args, "log_format", None):
        os.environ[console.FORMAT_VARIABLE] = log_format  # as the processes see it that this one starts
    console.configure(logging.DEBUG if args.verbose else logging.WARNING if args.quiet else logging.INFO)
    try:
        if getattr(args, "no_verify", False):
            from tunesmith import integrity

            with integrity.unverified():
                return args.run(args) or 0
        return args.run(args) or 0
    except Interrupted as stop:
        console.say(str(stop))
        return 128 + stop.signal
    except TunesmithError as error:
        if args.debug:
            raise
        console.fail(str(error))
        return 2
    except KeyboardInterrupt:
        if not getattr(args, "worker", False):  # else the command that started it says so
            console.say("interrupted")
        return 130
    except BrokenPipeError:  # the reader of our output closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if args.debug or (refusal := _refusal(error)) is None:
            raise
        console.fail(str(refusal))
        return 2
    return 0


def _refusal(error: Exception) -> TunesmithError | None:
    """Return what another library's exception says of the machine, as an error; None where it is a bug."""
    if isinstance(error, ModuleNotFoundError) and error.name in NEURAL:
        return MissingExtra(
            f"cannot go on without {error.name}: {error.name} is not installed",
            do=f"pip install {' '.join(NEURAL)}; without them, use method linear (--methods linear, method=linear)",
        )
    return None if disk.code(error) is None else disk.refusal(error, "use")


class _Parser(argparse.ArgumentParser):
    """Its messages quote arguments, which may hold control characters as other texts do."""

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(console.printable(message), file)


def parser() -> argparse.ArgumentParser:
    """Return the parser of every command; docs/reference/cli.md is generated from it."""
    root = _Parser(
        prog="tunesmith",
        description="Fine-tune a text model and know whether it was worth it.",
        epilog="Every setting of a recipe can follow as section.name=value; docs/reference/recipe.md lists them.",
        allow_abbrev=False,
    )
    root.add_argument("--version", action="version", version=f"tunesmith {__version__}")
    commands = root.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        description = command.help[0].upper() + command.help[1:] + "."
        subparser = commands.add_parser(name, help=command.help, description=description, allow_abbrev=False)
        command.add_arguments(subparser)
        subparser.add_argument("-v", "--verbose", action="store_true", help="log more, with times and source lines")
        subparser.add_argument("-q", "--quiet", action="store_true", help="log only warnings and errors")
        subparser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        subparser.set_defaults(run=command.run, parser=subparser)
    return root
