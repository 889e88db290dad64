"""qsm-node serve: the node in the foreground."""

from __future__ import annotations

import argparse

from dicom_node import config as configuration
from dicom_node import log
from dicom_node.commands._common import DONE, Subparsers


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("serve", help="run the node in the foreground")
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    log.configure(config.log.style, config.log.level)
    from dicom_node.daemon import serve

    serve(config, lambda: configuration.load(options.config))
    return DONE
