"""qsm-node resend: the results of jobs go to their destinations once more."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dicom_node import config as configuration
from dicom_node.commands._common import Subparsers, state_folder_of, time_of
from dicom_node.commands._jobs import NothingToDo, add_jobs, asked, each, require_remake
from dicom_node.errors import InvalidConfiguration

if TYPE_CHECKING:
    from dicom_node.outbox import Outbox
    from dicom_node.store import Job, Store


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("resend", help="send the results of jobs again")
    add_jobs(parser)
    parser.add_argument("--to", metavar="DESTINATION", help="this one only, though it be new; default: all of them")
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    from dicom_node import exchange
    from dicom_node.outbox import Outbox
    from dicom_node.store import Store

    names = exchange.destination_names(config)
    if options.to is not None and options.to not in names:
        raise InvalidConfiguration(
            f"--to {options.to!r} is no destination; expected one of {', '.join(names) or '(none)'}"
        )
    if not names:
        raise InvalidConfiguration("there is no destination to send to; configure a [[destination]]")
    store = Store(state_folder_of(options.config) / "node.db", owner=False)
    outbox = Outbox(store, frozenset(exchange.committing(config)))
    wanted = [options.to] if options.to else names
    return each(store, options.jobs, lambda job: resend(store, outbox, job, wanted, time_of(store.path.parent)))


def resend(store: Store, outbox: Outbox, job: Job, destinations: Sequence[str], now: float) -> str:
    """What became of it, in words.  Raises NothingToDo."""
    if not all(row.path.is_file() for row in outbox.of(job.id)):
        require_remake(store, job)  # its results have had their time: they are made anew before they are sent
    reason = f"{asked(now)}: it is sent again to {', '.join(destinations)}"
    count = outbox.resend(job.id, destinations, now, reason)
    if not count:
        raise NothingToDo(
            f"job {job.id} is {job.state} ({job.reason}): nothing of it can be sent again; sending, sent, refused and "
            "archived jobs can be, and qsm-node retry runs others"
        )
    return f"is sent again to {', '.join(destinations)}: {count} objects"
