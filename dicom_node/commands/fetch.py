"""qsm-node fetch: multi-echo gradient echoes are found in an archive and fetched."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date

from dicom_node import config as configuration
from dicom_node import log
from dicom_node.commands._audit import witnessed
from dicom_node.commands._common import DONE, Subparsers, state_folder_of, time_of
from dicom_node.errors import InvalidConfiguration, PeerFailure
from dicom_node.states import FETCHES


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("fetch", help="find multi-echo gradient echoes in an archive and have them fetched")
    parser.add_argument(
        "--from", dest="peer", metavar="PEER", help="a [[peer]] with a port or a [[web_source]]; default: [fetch] peer"
    )
    parser.add_argument("--patient", default="", metavar="ID", help="of this patient; * and ? are wild")
    parser.add_argument("--study", default="", metavar="UID", help="this study")
    parser.add_argument("--accession", default="", metavar="NUMBER", help="of this request")
    parser.add_argument("--since", type=_date, metavar="DATE", help="not older, such as 2026-01-31")
    parser.add_argument("--until", type=_date, metavar="DATE", help="not newer")
    parser.add_argument("--dry-run", action="store_true", help="only tell what is found")
    parser.add_argument(
        "--again", action="store_true", help="also what was made into a map before and whose images are gone since"
    )
    parser.add_argument(
        "--list",
        nargs="?",
        const="",
        choices=["", *FETCHES, "all"],
        metavar="STATE",
        help=f"sum up what was asked for so far, or list all of it, or what is {', '.join(FETCHES)}",
    )
    parser.add_argument("--json", action="store_true", help="with --list, for machines")
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    log.configure(config.log.style, "warning")
    if options.list is not None:
        return _list(options, config)
    from dicom_node import exchange
    from dicom_node.fetch_text import found_in_words
    from dicom_node.fetches import Fetches
    from dicom_node.seek import Candidate, Wanted, seek
    from dicom_node.store import Store

    sources = exchange.sources(config)
    name = options.peer or config.fetch.peer
    if name not in sources:
        known = ", ".join(sources) or "(none)"
        raise InvalidConfiguration(
            f"--from {name!r} is no [[peer]] with a port and no [[web_source]]; expected one of {known}"
        )
    wanted = Wanted(options.patient, options.study, options.accession, options.since or "", options.until or "")
    if wanted == Wanted():
        raise InvalidConfiguration("all of an archive is asked for; name --patient, --study, --accession or --since")
    counts: Counter[str] = Counter()

    def told() -> Iterator[Candidate]:
        """What is found is printed as it is: a cohort takes a while."""
        settings = exchange.send_settings(config, exchange.identity(config))
        with witnessed(config) as witness:
            asks = witness.asks(sources[name])
            for one, line in found_in_words(seek(wanted, sources[name], settings, on_query=asks)):
                counts["left" if one.against else "good"] += 1
                print(line, flush=True)
                yield one

    if options.dry_run:
        for _ in told():
            pass
        print(f"{counts.total()} series found, {counts['good']} of them to be fetched")
        return DONE
    store = Store(state_folder_of(options.config) / "node.db", owner=False)
    try:
        new = Fetches(store).add(name, told(), time_of(store.path.parent), again=options.again)
    except PeerFailure as error:
        raise PeerFailure(f"{error}; what was found before is kept ({counts.total()} series), ask again") from error
    left_alone = counts["good"] - new
    print(
        f"{counts.total()} series found, {counts['good']} good ones, {left_alone} of these known, here or made before\n"
        f"{new} series are to be fetched, when the node runs; qsm-node fetch --list tells how far it is"
    )
    return DONE


def _list(options: argparse.Namespace, config: configuration.Config) -> int:
    from dicom_node.fetch_text import listed_in_words, summed_up
    from dicom_node.fetches import Fetches
    from dicom_node.store import Store

    folder = state_folder_of(options.config)
    now = time_of(folder)
    found = Fetches(Store(folder / "node.db", owner=False)).listed()
    chosen = [fetch for fetch in found if options.list in ("", "all", fetch.state)]
    if options.json:
        print(json.dumps([asdict(fetch) for fetch in chosen], indent=1))
        return DONE
    print(summed_up(found, config.fetch.studies_per_hour, now))
    if options.list and chosen:
        print(f"\n{listed_in_words(chosen, now)}")
    return DONE


def _date(value: str) -> str:
    """As DICOM has it (DA)."""
    try:
        return date.fromisoformat(value).strftime("%Y%m%d")
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{value!r} is no date; expected such as 2026-01-31") from error
