"""qsm-node cancel: jobs are stopped, wherever they stand."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from dicom_node.commands._common import Subparsers, state_folder_of, time_of
from dicom_node.commands._jobs import NothingToDo, add_jobs, each, who
from dicom_node.states import CANCELLABLE, State

if TYPE_CHECKING:
    from dicom_node.store import Job, Store

TRIES = 20
"""A job may move on while it is cancelled; it does not do so as often as this."""


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("cancel", help="stop jobs; nothing more of them is sent, and their images are kept")
    add_jobs(parser)
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    from dicom_node.store import Store

    store = Store(state_folder_of(options.config) / "node.db", owner=False)
    return each(store, options.jobs, lambda job: cancel(store, job, time_of(store.path.parent)))


def cancel(store: Store, job: Job, now: float) -> str:
    """What became of it, in words.  Raises NothingToDo."""
    found: Job | None = job
    for _ in range(TRIES):
        if found is None or found.state not in CANCELLABLE | {State.CANCELLED}:
            break
        if found.state is State.CANCELLED:
            return "is cancelled already"
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
        reason = f"cancelled by {who()} on {when}, when it was {found.state}"
        if store.advance(found.id, found.state, State.CANCELLED, now, reason):
            return f"is cancelled; it was {found.state}"
        found = store.job(job.id)
    state = found.state if found else job.state
    raise NothingToDo(f"job {job.id} is {state}: there is nothing to stop")
