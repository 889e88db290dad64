"""The command line: serve, reconstruct, inspect, status, retry.

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

    for command in (serve, reconstruct, inspect, status, retry):
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
    from dicom_node.reconstruct import read_recipe

    recipe = read_recipe(recipe_file)
    return reconstruct_folder(
        options.input, options.out, recipe, options.nifti, config.scanners, config.output, options.mask
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
    elif job.state in (State.FAILED, State.REVIEW, State.SENT) and store.run_again(job, now):
        done = "is run again"
    else:
        raise NothingToRetry(
            f"job {job.id} is {job.state} ({job.reason}): there is nothing to run again; failed, refused and sent "
            "jobs and those in review can be, and the pauses of a sending job can be ended"
        )
    print(f"job {job.id} {done}")
    return DONE


def _state_folder(config: Path | None) -> Path:
    folder = configuration.load(config).node.state_folder
    if not (folder / "node.db").is_file():
        raise NodeError(f"no node was ever started in {folder}: start one with qsm-node serve, or name its --config")
    return folder


def _complain(message: object, code: int) -> int:
    print(f"qsm-node: {message}", file=sys.stderr)
    return code
