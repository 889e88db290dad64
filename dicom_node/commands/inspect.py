"""qsm-node inspect: what would be made of a folder of DICOM files, and why."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from dicom_node import config as configuration
from dicom_node import log
from dicom_node.commands._common import DONE, NOTHING_RECONSTRUCTIBLE, Subparsers
from dicom_node.errors import InvalidConfiguration


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("inspect", help="tell what would be made of a folder of DICOM files, and why")
    parser.add_argument("input", type=Path, metavar="INPUT_DIR", help="DICOM files of any name, in any order")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    if not options.input.is_dir():
        raise InvalidConfiguration(f"{options.input} is no folder; expected a folder of DICOM files")
    config = configuration.load(options.config)
    log.configure(config.log.style, "warning")
    from dicom_node.inspect import inspect
    from dicom_node.inspect_text import in_words

    found = inspect(options.input, config.scanners)
    width = shutil.get_terminal_size().columns
    print(json.dumps(found, indent=1) if options.json else in_words(found, width))
    reconstructible = any(acquisition["verdict"] == "reconstruct" for acquisition in found["acquisitions"])
    return DONE if reconstructible else NOTHING_RECONSTRUCTIBLE
