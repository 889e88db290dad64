"""qsm-node status: the jobs with state, age and reason."""

from __future__ import annotations

import argparse
import json
import time

from dicom_node.commands._common import DONE, Subparsers, state_folder_of


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("status", help="list the jobs with state, age and reason")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    from dicom_node.status import in_words, status

    now = time.time()
    found = status(state_folder_of(options.config), now)
    print(json.dumps(found, indent=1) if options.json else in_words(found, now))
    return DONE
