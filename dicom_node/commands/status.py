"""qsm-node status: the jobs with state, age and reason, who called, and where results go."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from dicom_node import config as configuration
from dicom_node.commands._common import DONE, Subparsers, state_folder_of, time_of

EVERY = 2.0
"""Seconds between two looks of `--watch`."""
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
"""ECMA-48: what is there is written over, so that nothing flickers."""


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("status", help="list the jobs with state, age and reason")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--watch", action="store_true", help=f"look again every {EVERY:.0f} s, until interrupted")
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    state_folder = state_folder_of(options.config)
    enough = configuration.load(options.config).retention.minimum_free_bytes
    print(_look(state_folder, enough, options.json))
    while options.watch:
        time.sleep(EVERY)
        said = _look(state_folder, enough, options.json)
        print(_over(said) if sys.stdout.isatty() and not options.json else said, flush=True)
    return DONE


def _look(state_folder: Path, enough: int, as_json: bool) -> str:
    from dicom_node.status import NEWEST_DONE, in_words, status

    now = time_of(state_folder)
    found = status(state_folder, now, enough, None if as_json else NEWEST_DONE)
    return json.dumps(found, indent=1) if as_json else in_words(found, now, shutil.get_terminal_size().columns)


def _over(said: str) -> str:
    """Written from the top of the terminal, as many lines as it has."""
    height = shutil.get_terminal_size().lines - 1
    lines = said.splitlines()
    if len(lines) > height:
        lines = [*lines[: height - 1], f"… {len(lines) - height + 1} more lines"]
    return _HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_BELOW
