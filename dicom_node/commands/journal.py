"""qsm-node journal: everything that happened to one job, in order."""

from __future__ import annotations

import argparse
import json
import shutil

from dicom_node.commands._common import DONE, Subparsers, state_folder_of


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("journal", help="tell everything that happened to one job")
    parser.add_argument("job", type=int, metavar="JOB", help="its number, as status lists it")
    parser.add_argument("--json", action="store_true", help="for machines: one object for each line")
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    from dicom_node.journal import entries, in_words

    found = entries(state_folder_of(options.config), options.job)
    if options.json:
        print("\n".join(json.dumps(entry) for entry in found))
    else:
        print(in_words(found, shutil.get_terminal_size().columns))
    return DONE
