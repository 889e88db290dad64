"""The command line: serve, reconstruct, inspect, status, retry, export, compare, fetch, check.

Exit codes: 0 done, 1 failure, 2 wrong usage or configuration, 3 nothing reconstructible.  What goes wrong is one
message on stderr.  Heavy imports wait until a command needs them, so that `status` answers at once.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

from dicom_node import config as configuration
from dicom_node import log
from dicom_node.errors import InvalidConfiguration, NodeError
from dicom_node.states import State

DONE, FAILURE, WRONG_USAGE, NOTHING_RECONSTRUCTIBLE = 0, 1, 2, 3


class NothingToRetry(NodeError):
    """A job that does not exist or is not in a state from which it could be run again."""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
    except InvalidConfiguration as error:
        return _complain(error, WRONG_USAGE)
    except (NodeError, OSError, sqlite3.Error) as error:
        return _complain(error, FAILURE)
    except KeyboardInterrupt:
        return _complain("interrupted", FAILURE)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qsm-node",
        description="Multi-echo gradient echo in, quantitative susceptibility map and report out.  "
        "For research, not for diagnosis.",
    )
    parser.add_argument("--version", action="version", version=f"qsm-node {version('qsm-node')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the node in the foreground")
    serve.set_defaults(command=_serve)

    reconstruct = commands.add_parser("reconstruct", help="reconstruct a folder of DICOM files, without a network")
    reconstruct.add_argument("input", type=Path, metavar="INPUT_DIR", help="DICOM files of any name, in any order")
    reconstruct.add_argument("--out", type=Path, required=True, metavar="OUT_DIR")
    reconstruct.add_argument("--recipe", metavar="NAME_OR_FILE", help="default: the configuration's")
    reconstruct.add_argument("--nifti", action="store_true", help="write NIfTI volumes too")
    reconstruct.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="the brain, as NIfTI or DICOM Segmentation on the images' grid (default: a segmentation in INPUT_DIR, or "
        "what the recipe's method finds)",
    )
    reconstruct.set_defaults(command=_reconstruct)

    inspect = commands.add_parser("inspect", help="tell what would be made of a folder of DICOM files, and why")
    inspect.add_argument("input", type=Path, metavar="INPUT_DIR", help="DICOM files of any name, in any order")
    inspect.add_argument("--json", action="store_true", help="for machines")
    inspect.set_defaults(command=_inspect)

    status = commands.add_parser("status", help="list the jobs with state, age and reason")
    status.add_argument("--json", action="store_true", help="for machines")
    status.set_defaults(command=_status)

    retry = commands.add_parser("retry", help="run a job again")
    retry.add_argument("job", type=int, metavar="JOB", help="its number, as status shows it")
    retry.set_defaults(command=_retry)

    export = commands.add_parser("export", help="write results as BIDS derivatives, or as a table over a cohort")
    export.add_argument("jobs", nargs="+", metavar="JOB", help="a job's number, or a folder of results")
    export.add_argument("--bids", type=Path, metavar="FOLDER", help="a BIDS derivative dataset, begun or added to")
    export.add_argument("--csv", type=Path, metavar="FILE", help="a row for each region of each result")
    export.add_argument("--subject", type=_label, metavar="LABEL", help="instead of a pseudonym")
    export.set_defaults(command=_export)

    compare = commands.add_parser("compare", help="table two time points of one patient, region by region")
    compare.add_argument("one", metavar="JOB", help="a job's number, or a folder of results")
    compare.add_argument("other", metavar="JOB")
    compare.add_argument("--json", action="store_true", help="for machines")
    compare.set_defaults(command=_compare)

    fetch = commands.add_parser("fetch", help="find multi-echo gradient echoes in an archive and have them fetched")
    fetch.add_argument("--from", dest="peer", metavar="PEER", help="a [[peer]] with a port; default: [fetch] peer")
    fetch.add_argument("--patient", default="", metavar="ID", help="of this patient; * and ? are wild")
    fetch.add_argument("--study", default="", metavar="UID", help="this study")
    fetch.add_argument("--accession", default="", metavar="NUMBER", help="of this request")
    fetch.add_argument("--since", type=_date, metavar="DATE", help="not older, such as 2026-01-31")
    fetch.add_argument("--until", type=_date, metavar="DATE", help="not newer")
    fetch.add_argument("--dry-run", action="store_true", help="only tell what is found")
    fetch.add_argument("--list", action="store_true", help="list what was found, fetched, done and refused so far")
    fetch.set_defaults(command=_fetch)

    check = commands.add_parser("check", help="see whether a node could run here, and whether its peers answer")
    check.set_defaults(command=_check)

    for command in (check, serve, reconstruct, inspect, status, retry, export, compare, fetch):
        command.add_argument("--config", type=Path, metavar="FILE", help="a TOML file like config/node.toml")
    return parser


def _serve(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    log.configure(config.log.style, config.log.level)
    from dicom_node.daemon import serve

    serve(config)
    return DONE


def _reconstruct(options: argparse.Namespace) -> int:
    if not options.input.is_dir():
        raise InvalidConfiguration(f"{options.input} is no folder; expected a folder of DICOM files")
    if options.mask is not None and not options.mask.is_file():
        raise InvalidConfiguration(f"{options.mask} is no file; expected a mask as NIfTI or DICOM Segmentation")
    config = configuration.load(options.config)
    recipe_file = configuration.recipe_file(options.recipe or config.reconstruct.recipe)
    log.configure(config.log.style, "warning")
    from dicom_node.desk import reconstruct_folder
    from dicom_node.reconstruct import check_device, read_recipe

    recipe = read_recipe(recipe_file)
    check_device(config.reconstruct.device)
    return reconstruct_folder(
        options.input,
        options.out,
        recipe,
        options.nifti,
        config.scanners,
        config.output,
        options.mask,
        config.reconstruct.device,
    )


def _inspect(options: argparse.Namespace) -> int:
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


def _status(options: argparse.Namespace) -> int:
    from dicom_node.status import in_words, status

    now = time.time()
    found = status(_state_folder(options.config), now)
    print(json.dumps(found, indent=1) if options.json else in_words(found, now))
    return DONE


def _retry(options: argparse.Namespace) -> int:
    from dicom_node.outbox import Outbox
    from dicom_node.store import Store

    store = Store(_state_folder(options.config) / "node.db", owner=False)
    job = store.job(options.job)
    now = time.time()
    if job is None:
        raise NothingToRetry(f"there is no job {options.job}; qsm-node status lists them")
    outbox = Outbox(store)
    if job.state is State.SENDING and outbox.hurry(job.id, now):
        done = "is sent to its destinations at once"
    elif job.state is State.REFUSED and outbox.again(job.id, now):
        done = "is sent again where it was turned down"
    elif job.state in (State.FAILED, State.REVIEW, State.SENT, State.ARCHIVED) and store.run_again(job, now):
        done = "is run again"
    else:
        raise NothingToRetry(
            f"job {job.id} is {job.state} ({job.reason}): there is nothing to run again; failed, refused, sent and "
            "archived jobs and those in review can be, and the pauses of a sending job can be ended"
        )
    print(f"job {job.id} {done}")
    return DONE


def _fetch(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    log.configure(config.log.style, "warning")
    from dicom_node import exchange
    from dicom_node.fetch import Fetches
    from dicom_node.fetch_text import found_in_words, listed_in_words
    from dicom_node.seek import Wanted, seek
    from dicom_node.store import Store

    if options.list:
        store = Store(_state_folder(options.config) / "node.db", owner=False)
        print(listed_in_words(Fetches(store).listed(), time.time()))
        return DONE
    archives = exchange.archives(config)
    name = options.peer or config.fetch.peer
    if name not in archives:
        known = ", ".join(archives) or "(none)"
        raise InvalidConfiguration(f"--from {name!r} is no [[peer]] with a port; expected one of {known}")
    wanted = Wanted(options.patient, options.study, options.accession, options.since or "", options.until or "")
    if wanted == Wanted():
        raise InvalidConfiguration("all of an archive is asked for; name --patient, --study, --accession or --since")
    found = list(seek(wanted, archives[name], exchange.send_settings(config, exchange.identity(config))))
    print(found_in_words(found))
    if not options.dry_run:
        store = Store(_state_folder(options.config) / "node.db", owner=False)
        new = Fetches(store).add(name, found, time.time())
        print(f"{new} series are to be fetched, when the node runs; qsm-node fetch --list tells how far it is")
    return DONE


def _check(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    log.configure(config.log.style, "error")
    from dicom_node.check import check, in_words

    findings = list(check(config, time.time()))
    print(in_words(findings))
    return FAILURE if any(finding.verdict == "FAILURE" for finding in findings) else DONE


def _date(value: str) -> str:
    """As DICOM has it (DA)."""
    try:
        return date.fromisoformat(value).strftime("%Y%m%d")
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{value!r} is no date; expected such as 2026-01-31") from error


def _export(options: argparse.Namespace) -> int:
    if options.bids is None and options.csv is None:
        raise InvalidConfiguration("nothing to export to; name a folder with --bids, a file with --csv, or both")
    from dicom_node.export import Label, export_bids, export_csv
    from dicom_node.finished import find_result
    from dicom_node.pseudonym import read_pseudonyms

    state_folder = configuration.load(options.config).node.state_folder
    results = [find_result(job, state_folder) for job in options.jobs]
    pseudonyms = read_pseudonyms(state_folder)
    labelled = [(result, Label.of(result, pseudonyms, options.subject or "")) for result in results]
    for job, (result, label) in zip(options.jobs, labelled, strict=True):
        if options.bids is not None:
            files = export_bids(result, label, options.bids)
            print(f"{job}: {len(files)} files of {label.stem} below {options.bids}")
    if options.csv is not None:
        print(f"{export_csv(labelled, options.csv)} rows in {options.csv}")
    return DONE


def _compare(options: argparse.Namespace) -> int:
    from dicom_node.compare import compare, in_words_of
    from dicom_node.finished import find_result

    state_folder = configuration.load(options.config).node.state_folder
    found = compare(*(find_result(job, state_folder) for job in (options.one, options.other)))
    print(json.dumps(found.as_data(), indent=1) if options.json else in_words_of(found))
    return DONE


def _label(text: str) -> str:
    """A BIDS label: letters and digits."""
    if not (text.isascii() and text.isalnum()):
        raise argparse.ArgumentTypeError(f"{text!r} is no label; expected letters and digits")
    return text


def _state_folder(config: Path | None) -> Path:
    folder = configuration.load(config).node.state_folder
    if not (folder / "node.db").is_file():
        raise NodeError(f"no node was ever started in {folder}: start one with qsm-node serve, or name its --config")
    return folder


def _complain(message: object, code: int) -> int:
    print(f"qsm-node: {message}", file=sys.stderr)
    return code
