"""qsm-node backup: a copy of all that a node holds, while it runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dicom_node.commands._common import DONE, FAILURE, Subparsers, state_folder_of


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("backup", help="copy all that the node holds, while it runs")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="new, or an earlier backup to bring up to date")
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    from dicom_node.backup import back_up

    done = back_up(state_folder_of(options.config), options.folder, options.config)
    print(
        f"{options.folder}: {done.copied} files copied ({done.bytes / 2**20:.0f} MiB), {done.kept} were there, "
        f"{done.removed} put aside below gone/ that the node holds no more"
    )
    if done.lost:
        print(
            f"{done.lost} images are lost on the node and kept here: copy them back from "
            f"{options.folder / 'images'} and start the node again",
            file=sys.stderr,
        )
        return FAILURE
    return DONE
