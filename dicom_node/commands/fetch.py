"""qsm-node fetch: multi-echo gradient echoes are found in an archive and fetched."""

from __future__ import annotations

import argparse
import time
from datetime import date

from dicom_node import config as configuration
from dicom_node import log
from dicom_node.commands._common import DONE, Subparsers, state_folder_of
from dicom_node.errors import InvalidConfiguration


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("fetch", help="find multi-echo gradient echoes in an archive and have them fetched")
    parser.add_argument("--from", dest="peer", metavar="PEER", help="a [[peer]] with a port; default: [fetch] peer")
    parser.add_argument("--patient", default="", metavar="ID", help="of this patient; * and ? are wild")
    parser.add_argument("--study", default="", metavar="UID", help="this study")
    parser.add_argument("--accession", default="", metavar="NUMBER", help="of this request")
    parser.add_argument("--since", type=_date, metavar="DATE", help="not older, such as 2026-01-31")
    parser.add_argument("--until", type=_date, metavar="DATE", help="not newer")
    parser.add_argument("--dry-run", action="store_true", help="only tell what is found")
    parser.add_argument("--list", action="store_true", help="list what was found, fetched, done and refused so far")
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    log.configure(config.log.style, "warning")
    from dicom_node import exchange
    from dicom_node.fetch import Fetches
    from dicom_node.fetch_text import found_in_words, listed_in_words
    from dicom_node.seek import Wanted, seek
    from dicom_node.store import Store

    if options.list:
        store = Store(state_folder_of(options.config) / "node.db", owner=False)
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
        store = Store(state_folder_of(options.config) / "node.db", owner=False)
        new = Fetches(store).add(name, found, time.time())
        print(f"{new} series are to be fetched, when the node runs; qsm-node fetch --list tells how far it is")
    return DONE


def _date(value: str) -> str:
    """As DICOM has it (DA)."""
    try:
        return date.fromisoformat(value).strftime("%Y%m%d")
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{value!r} is no date; expected such as 2026-01-31") from error
