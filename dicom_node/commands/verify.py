"""qsm-node verify: whether what the node holds is still what it took in."""

from __future__ import annotations

import argparse
import json
import time

from dicom_node.commands._common import DONE, FAILURE, Subparsers, state_folder_of


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        "verify", help="check every stored file against what was taken in; exits 1 if any fails"
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    from dicom_node.verify import as_data, in_words, verify

    found = verify(state_folder_of(options.config), time.time())
    print(json.dumps(as_data(found), indent=1) if options.json else in_words(found))
    return FAILURE if found.findings else DONE
