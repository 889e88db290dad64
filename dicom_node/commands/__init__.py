"""The command line: a file for each command, which says how it is called (`register`) and what it does.

Exit codes: 0 done, 1 failure, 2 wrong usage or configuration, 3 nothing reconstructible.  What goes wrong is one
message on stderr.  Heavy imports wait until a command needs them, so that `status` answers at once.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from importlib.metadata import version
from pathlib import Path

from dicom_node.commands import (
    backup,
    cancel,
    check,
    compare,
    export,
    fetch,
    inspect,
    journal,
    prioritise,
    rebuild,
    reconstruct,
    reprocess,
    resend,
    retry,
    serve,
    status,
    verify,
)
from dicom_node.commands._common import FAILURE, WRONG_USAGE
from dicom_node.errors import InvalidConfiguration, NodeError

COMMANDS = (
    serve,
    reconstruct,
    inspect,
    status,
    journal,
    retry,
    cancel,
    resend,
    reprocess,
    prioritise,
    export,
    compare,
    fetch,
    check,
    verify,
    backup,
    rebuild,
)
"""In the order in which `qsm-node --help` lists them."""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qsm-node",
        description="Multi-echo gradient echo in, quantitative susceptibility map and report out.  "
        "For research, not for diagnosis.",
    )
    parser.add_argument("--version", action="version", version=f"qsm-node {version('qsm-node')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        registered = command.register(commands)
        registered.add_argument("--config", type=Path, metavar="FILE", help="a TOML file like config/node.toml")
    return parser


def _complain(message: object, code: int) -> int:
    print(f"qsm-node: {message}", file=sys.stderr)
    return code
