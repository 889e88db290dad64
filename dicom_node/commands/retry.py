"""qsm-node retry: a job runs again."""

from __future__ import annotations

import argparse
import time

from dicom_node.commands._common import DONE, Subparsers, state_folder_of
from dicom_node.errors import NodeError
from dicom_node.states import State


class NothingToRetry(NodeError):
    """A job that does not exist or is not in a state from which it could be run again."""


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("retry", help="run a job again")
    parser.add_argument("job", type=int, metavar="JOB", help="its number, as status shows it")
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    from dicom_node.outbox import Outbox
    from dicom_node.store import Store

    store = Store(state_folder_of(options.config) / "node.db", owner=False)
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
