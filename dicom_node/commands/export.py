"""qsm-node export: results as BIDS derivatives, or as a table over a cohort."""

from __future__ import annotations

import argparse
from pathlib import Path

from dicom_node import config as configuration
from dicom_node.commands._audit import witnessed
from dicom_node.commands._common import DONE, Subparsers, require_user
from dicom_node.commands._jobs import who
from dicom_node.errors import InvalidConfiguration


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("export", help="write results as BIDS derivatives, or as a table over a cohort")
    parser.add_argument("jobs", nargs="+", metavar="JOB", help="a job's number, or a folder of results")
    parser.add_argument("--bids", type=Path, metavar="FOLDER", help="a BIDS derivative dataset, begun or added to")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="a row for each region of each result")
    parser.add_argument("--subject", type=_label, metavar="LABEL", help="instead of a pseudonym")
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.bids is None and options.csv is None:
        raise InvalidConfiguration("nothing to export to; name a folder with --bids, a file with --csv, or both")
    if options.csv is not None and not options.csv.absolute().parent.is_dir():
        raise InvalidConfiguration(f"{options.csv.parent} is no folder; make it first, nothing was written")
    from dicom_node import log
    from dicom_node.export import Label, export_bids, export_csv
    from dicom_node.finished import find_result
    from dicom_node.pseudonym import KEY_FILE, read_pseudonyms

    config = configuration.load(options.config)
    log.configure(config.log.style, "warning")
    state_folder = config.node.state_folder
    if not (state_folder / KEY_FILE).exists():  # it will be made
        require_user(state_folder)
    results = [find_result(job, state_folder) for job in options.jobs]
    pseudonyms = read_pseudonyms(state_folder)
    labelled = [(result, Label.of(result, pseudonyms, options.subject or "")) for result in results]
    with witnessed(config) as witness:
        for job, (result, label) in zip(options.jobs, labelled, strict=True):
            if options.bids is not None:
                files = export_bids(result, label, options.bids)
                witness.exported(result.files, who(), options.bids)
                print(f"{job}: {len(files)} files of {label.stem} below {options.bids}")
        if options.csv is not None:
            rows = export_csv(labelled, options.csv)
            for result in results:
                witness.exported(result.files, who(), options.csv)
            print(f"{rows} rows in {options.csv}")
    return DONE


def _label(text: str) -> str:
    """A BIDS label: letters and digits."""
    if not (text.isascii() and text.isalnum()):
        raise argparse.ArgumentTypeError(f"{text!r} is no label; expected letters and digits")
    return text
