"""qsm-node check: whether a node could run here, and whether its peers answer."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node import config as configuration
from dicom_node import log
from dicom_node.commands._common import ASK_AS_SERVICE, DONE, FAILURE, Subparsers, is_hidden

if TYPE_CHECKING:
    from dicom_node.check.finding import Finding


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("check", help="see whether a node could run here, and whether its peers answer")
    parser.add_argument(
        "--settings", action="store_true", help="only the configuration and the files it names; nobody is called"
    )
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    log.configure(config.log.style, "error")
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # the table says it, with what to do
    from dicom_node.check import check, has_failed, in_words

    findings = [_read(options.config), *check(config, time.time(), settings_only=options.settings)]
    if options.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    else:
        print(in_words(findings, shutil.get_terminal_size((120, 24)).columns))
    return FAILURE if has_failed(findings) else DONE


def _read(file: Path | None) -> Finding:
    """Whose configuration this is about; it could be read."""
    from dicom_node.check.finding import Finding

    if file is None and is_hidden():
        found = "the one of this machine's service may not be read by you: every setting at its default"
        return Finding("warning", "configuration", found, ASK_AS_SERVICE)
    return Finding("good", "configuration", f"{file}" if file else "no file: every setting at its default")
