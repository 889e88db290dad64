"""qsm-node prioritise: jobs go before all others."""

from __future__ import annotations

import argparse

from dicom_node.commands._common import Subparsers, state_folder_of
from dicom_node.commands._jobs import NothingToDo, add_jobs, each
from dicom_node.states import CANCELLABLE, Priority


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("prioritise", help="let jobs go before all others, such as one patient of a cohort")
    add_jobs(parser)
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    from dicom_node.store import Job, Store

    store = Store(state_folder_of(options.config) / "node.db", owner=False)

    def do(job: Job) -> str:
        if job.state not in CANCELLABLE:
            raise NothingToDo(f"job {job.id} is {job.state} ({job.reason}): it waits for nothing")
        return "goes first" if store.put(job.id, Priority.ASKED) else "goes first already"

    return each(store, options.jobs, do)
