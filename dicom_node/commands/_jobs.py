"""What the commands share that act on jobs of a node, which may be running: each change is one transaction in its
database, and the node sees it in its next round.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dicom_node.commands._common import DONE, FAILURE
from dicom_node.errors import InvalidConfiguration, NodeError

if TYPE_CHECKING:
    from dicom_node.store import Job, Store


class NothingToDo(NodeError):
    """A job that does not exist, or of which this cannot be asked where it stands."""


def add_jobs(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    count = "*" if optional else "+"
    parser.add_argument("jobs", type=int, nargs=count, metavar="JOB", help="its number, as status shows it")


def asked(now: float) -> str:
    """For the journal: "asked for by anna on 2026-01-31 14:05 UTC"."""
    return f"asked for by {who()} on {datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M} UTC"


def who() -> str:
    """The login name of whoever calls, behind sudo too; a number for one who has none."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def require_remake(store: Store, job: Job) -> None:
    """Raises NothingToDo where a job could not be made anew, or, delivered, not alike: it is better off as it is."""
    from dicom_node.alone import LOCK_FILE, process
    from dicom_node.manner import read_manner, told_by
    from dicom_node.outbox import Outbox

    if gone := len(job.images) - len(store.paths(job.images)):
        if process(store.path.parent / LOCK_FILE).get("reads_anew"):
            raise NothingToDo(
                f"job {job.id} is {job.state}, and the node has yet to read {gone} of its {len(job.images)} images: "
                "ask again when qsm-node status says no more that it reads them"
            )
        raise NothingToDo(
            f"job {job.id} is {job.state}, and {gone} of its {len(job.images)} images are gone from the node: it could "
            "not be made anew; send or fetch them again first"
        )
    if not Outbox(store).has_delivered(job.id):
        return
    try:
        read_manner(job.made_with or told_by(store.path.parent / "jobs" / str(job.id)))
    except InvalidConfiguration as error:
        raise NothingToDo(
            f"job {job.id} is {job.state}, and could not be made alike: {error}; "
            f"qsm-node reprocess {job.id} --recipe NAME makes a further result of its images"
        ) from error


def each(store: Store, numbers: Iterable[int], do: Callable[[Job], str]) -> int:
    """Does something with each job and prints what it says of it; the others are done where one cannot be.

    Returns the exit code.
    """
    code = DONE
    for number in dict.fromkeys(numbers):
        try:
            job = store.job(number)
            if job is None:
                raise NothingToDo(f"there is no job {number}; qsm-node status lists them")
            print(f"job {number} {do(job)}")
        except NodeError as error:
            print(f"qsm-node: {error}", file=sys.stderr)
            code = FAILURE
    return code
