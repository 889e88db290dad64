"""qsm-node check: whether a node could run here, and whether its peers answer."""

from __future__ import annotations

import argparse
import time

from dicom_node import config as configuration
from dicom_node import log
from dicom_node.commands._common import DONE, FAILURE, Subparsers


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("check", help="see whether a node could run here, and whether its peers answer")
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    log.configure(config.log.style, "error")
    from dicom_node.check import check, in_words

    findings = list(check(config, time.time()))
    print(in_words(findings))
    return FAILURE if any(finding.verdict == "FAILURE" for finding in findings) else DONE
