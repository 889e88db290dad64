"""qsm-node compare: two time points of one patient, region by region."""

from __future__ import annotations

import argparse
import json

from dicom_node import config as configuration
from dicom_node.commands._common import DONE, Subparsers


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("compare", help="table two time points of one patient, region by region")
    parser.add_argument("one", metavar="JOB", help="a job's number, or a folder of results")
    parser.add_argument("other", metavar="JOB")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    from dicom_node.compare import compare, in_words_of
    from dicom_node.finished import find_result

    state_folder = configuration.load(options.config).node.state_folder
    found = compare(*(find_result(job, state_folder) for job in (options.one, options.other)))
    print(json.dumps(found.as_data(), indent=1) if options.json else in_words_of(found))
    return DONE
