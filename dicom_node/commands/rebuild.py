"""qsm-node rebuild: the database made anew from the files."""

from __future__ import annotations

import argparse
import time

from dicom_node import config as configuration
from dicom_node import log
from dicom_node.commands._common import DONE, Subparsers, require_user


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("rebuild", help="make the database anew from the files, while the node is stopped")
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    require_user(config.node.state_folder)
    log.configure(config.log.style, "warning")
    from dicom_node.alone import alone_in
    from dicom_node.convert import describe
    from dicom_node.index import Index
    from dicom_node.rebuild import DATABASE, rebuild
    from dicom_node.relocate import relocate
    from dicom_node.spool import Spool
    from dicom_node.store import Store

    folder = config.node.state_folder
    with alone_in(folder):
        found = rebuild(folder, time.time())
        store = Store(folder / DATABASE)
        relocate(store, folder)
        Index(store, Spool(folder), describe).reconcile()
        images = len(store.indexed())
        store.close()
    states = ", ".join(f"{count} {state}" for state, count in sorted(found.jobs.items())) or "none"
    deliveries = ", ".join(f"{count} {outcome}" for outcome, count in sorted(found.deliveries.items())) or "none"
    print(f"images      {images}")
    print(f"jobs        {states}")
    print(f"deliveries  {deliveries}")
    if found.adopted:
        print(f"adopted     {found.adopted} results without a page in the ledger: look at them, and retry")
    if found.set_aside:
        print(f"the old database is {found.set_aside}: delete it when all is well")
    return DONE
