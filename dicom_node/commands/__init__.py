"""The command line: a file for each command, which says how it is called (`register`) and what it does.

Exit codes: 0 done, 1 failure, 2 wrong usage or configuration, 3 nothing reconstructible.  What goes wrong is one
message on stderr; where nobody reads on (`| head`), a command ends with 1 and says nothing.  Heavy imports wait until a
command needs them, so that `status` answers at once.
"""

from __future__ import annotations

import argparse
import os
import select
import sqlite3
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from dicom_node.commands._common import FAILURE, INSTALLED, WRONG_USAGE, installed
from dicom_node.errors import InvalidConfiguration, NodeError

COMMANDS = (
    "serve",
    "reconstruct",
    "inspect",
    "status",
    "journal",
    "retry",
    "cancel",
    "resend",
    "reprocess",
    "prioritise",
    "export",
    "compare",
    "fetch",
    "check",
    "verify",
    "backup",
    "rebuild",
)
"""Modules here, in the order in which `qsm-node --help` lists them."""
AT_A_DESK = ("reconstruct", "inspect")
"""Those that are about a folder of images and no node."""


def main(arguments: list[str] | None = None) -> int:
    try:
        try:
            arguments = sys.argv[1:] if arguments is None else arguments
            named = [command for command in COMMANDS if command in arguments[:1]]
            options = _parser(named or COMMANDS).parse_args(arguments)
            code: int = options.command(options)
        finally:
            sys.stdout.flush()  # at the end of the process it is too late to say how that went
    except BrokenPipeError as error:
        return _cut_off(error)
    except InvalidConfiguration as error:
        return _complain(error, WRONG_USAGE)
    except (NodeError, OSError) as error:
        return _complain(error, FAILURE)
    except sqlite3.Error as error:
        from dicom_node.rebuild import remedy

        return _complain(remedy(error), FAILURE)
    except KeyboardInterrupt:
        return _complain("interrupted", FAILURE)
    return code


def _parser(names: Sequence[str]) -> argparse.ArgumentParser:
    """What is not called is not loaded."""
    parser = argparse.ArgumentParser(
        prog="qsm-node",
        description="Multi-echo gradient echo in, quantitative susceptibility map and report out.  "
        "For research, not for diagnosis.",
    )
    parser.add_argument("--version", action="version", version=f"qsm-node {version('qsm-node')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in names:
        registered = import_module(f"{__name__}.{command}").register(commands)
        is_of_a_node = command not in AT_A_DESK
        else_ = f"{INSTALLED} where that can be read, else " if is_of_a_node else ""
        registered.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            default=installed() if is_of_a_node else None,
            help=f"a TOML file like config/node.toml (default: {else_}every setting at its default)",
        )
    return parser


def _cut_off(error: BrokenPipeError) -> int:
    """Whoever read our words has gone; or it is another pipe, which is worth a word."""
    readers = select.poll()
    readers.register(sys.stdout, 0)
    if not readers.poll(0):
        return _complain(error, FAILURE)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
    return FAILURE


def _complain(message: object, code: int) -> int:
    print(f"qsm-node: {message}", file=sys.stderr)
    return code
