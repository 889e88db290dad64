"""qsm-node serve: the node in the foreground."""

from __future__ import annotations

import argparse
import sys

from dicom_node import config as configuration
from dicom_node import log
from dicom_node.commands._common import DONE, Subparsers, require_user

LEFT_OUT = ("gdcm", "numpy", "pandas")
"""pydicom loads NumPy and every decoder that is installed, sqlite-utils pandas: 75 MB that nothing in the daemon uses.
What makes or reads pixels is another process (`dicom_node.apart`)."""


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("serve", help="run the node in the foreground")
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    require_user(config.node.state_folder)
    log.configure(config.log.style, config.log.level)
    for library in LEFT_OUT:
        sys.modules[library] = None  # type: ignore[assignment]  # as if it were not installed (the import system, 5.3.1)
    from dicom_node.daemon import serve

    serve(config, lambda: configuration.load(options.config))
    return DONE
