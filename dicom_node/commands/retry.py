"""qsm-node retry: jobs run again."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dicom_node.commands._common import DONE, Subparsers, state_folder_of, time_of
from dicom_node.commands._jobs import NothingToDo, add_jobs, asked, each, require_remake
from dicom_node.errors import InvalidConfiguration
from dicom_node.states import State

if TYPE_CHECKING:
    from dicom_node.outbox import Outbox
    from dicom_node.store import Job, Store

BY_STATE = (State.FAILED, State.REFUSED, State.REVIEW, State.CANCELLED)
"""Whose jobs may be taken all together."""


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("retry", help="run jobs again")
    add_jobs(parser, optional=True)
    parser.add_argument(
        "--all", type=State, choices=BY_STATE, metavar="STATE", help=f"every job that is {_or(BY_STATE)}"
    )
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    if bool(options.jobs) == bool(options.all):
        raise InvalidConfiguration("name the jobs to run again, or --all with a state, and not both")
    from dicom_node.outbox import Outbox
    from dicom_node.store import Store

    store = Store(state_folder_of(options.config) / "node.db", owner=False)
    outbox = Outbox(store)
    now = time_of(store.path.parent)
    numbers = options.jobs or [job.id for job in store.jobs(options.all)]
    if not numbers:
        print(f"no job is {options.all}")
        return DONE
    return each(store, numbers, lambda job: retry(store, outbox, job, now))


def retry(store: Store, outbox: Outbox, job: Job, now: float) -> str:
    """What becomes of the job, in words.  Raises NothingToDo."""
    reason = asked(now)
    if job.state is State.SENDING and outbox.hurry(job.id, now):
        return "is sent to its destinations at once"
    if job.state is State.REFUSED and outbox.again(job.id, now, f"{reason}: it is sent again"):
        return "is sent again where it was turned down"
    rerun = (State.FAILED, State.REVIEW, State.SENT, State.ARCHIVED)
    delivered = outbox.has_delivered(job.id)
    if job.state in (State.SENT, State.ARCHIVED) or (delivered and job.state in (*rerun, State.CANCELLED)):
        require_remake(store, job)
    if job.state is State.CANCELLED and store.take_up(job, now, f"{reason}: it is taken up again"):
        return "is taken up again"
    if job.state in rerun and store.run_again(job, now, f"{reason}: it is run again"):
        if delivered:
            return "is run again as it was made before (qsm-node reprocess makes it with another recipe)"
        return "is run again"
    raise NothingToDo(
        f"job {job.id} is {job.state} ({job.reason}): there is nothing to run again; failed, refused, cancelled, sent "
        "and archived jobs and those in review can be, and the pauses of a sending job can be ended"
    )


def _or(states: tuple[State, ...]) -> str:
    return f"{', '.join(states[:-1])} or {states[-1]}"
