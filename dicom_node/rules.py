"""What settings of different tables must have in common.  Each rule yields every place where they contradict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from dicom_node.lines import Location
from dicom_node.settings import Destination, Peer, network

if TYPE_CHECKING:
    from dicom_node.config import Config

Contradiction = tuple[Location, str]
"""The setting to be mended, by the names in the file, and what is wrong with it and what to do."""


def contradictions(config: Config) -> list[Contradiction]:
    """All of them."""
    return [found for rule in RULES for found in rule(config)]


def _names_are_unique(config: Config) -> Iterator[Contradiction]:
    destinations = [("destination", place, one.name) for place, one in enumerate(config.destinations)]
    webs = [("web_destination", place, one.name) for place, one in enumerate(config.web_destinations)]
    peers = [("peer", place, one.name) for place, one in enumerate(config.peers)]
    sources = [("web_source", place, one.name) for place, one in enumerate(config.web_sources)]
    for kind, named in (("destination", [*destinations, *webs]), ("peer", [*peers, *sources])):
        seen = set()
        for table, place, name in named:
            if name in seen:
                yield (table, place, "name"), f"{kind} {name} is there more than once; give each a name of its own"
            seen.add(name)


def _peers_can_be_told_apart(config: Config) -> Iterator[Contradiction]:
    """Who calls, by title, address and certificate; whom a C-MOVE calls, by title alone."""
    callable_: dict[str, str] = {}
    calling: dict[tuple[str, str, str], str] = {}
    for place, peer in enumerate(config.peers):
        called_too = callable_.setdefault(peer.ae_title, peer.name) if peer.port else peer.name
        if called_too != peer.name:
            yield (
                ("peer", place, "ae_title"),
                f"peers {called_too} and {peer.name} both listen as {peer.ae_title}: a C-MOVE could not tell them "
                "apart; give one of them another ae_title, or no port",
            )
        who = (peer.ae_title, network(peer.address), peer.certificate.lower())
        if (other := calling.setdefault(who, peer.name)) != peer.name:
            yield (
                ("peer", place),
                f"peers {other} and {peer.name} have the same ae_title, address and certificate; make one of them",
            )


def _ports_differ(config: Config) -> Iterator[Contradiction]:
    both = bool(config.tls.certificate) and not config.tls.only
    if both and config.tls.port == config.receive.port != 0:
        yield (
            ("tls", "port"),
            f"tls.port and receive.port are both {config.tls.port}; give them different ports, or set tls.only",
        )


def _certificates_can_be_checked(config: Config) -> Iterator[Contradiction]:
    tables: dict[str, Sequence[Destination | Peer]] = {"destination": config.destinations, "peer": config.peers}
    for table, named in tables.items():
        for place, entry in enumerate(named):
            if entry.certificate and not config.tls.certificate:
                yield (
                    (table, place, "certificate"),
                    f"{entry.name} has a certificate, but this node has none; fill in [tls]",
                )


def _archive_can_be_asked(config: Config) -> Iterator[Contradiction]:
    named = {peer.name: peer for peer in config.peers}
    peer = named.get(config.fetch.peer)
    webs = [source.name for source in config.web_sources]
    if config.fetch.peer and config.fetch.peer not in webs and not (peer and peer.port):
        callable_ = ", ".join([*(name for name, peer in named.items() if peer.port), *webs]) or "(none)"
        yield (
            ("fetch", "peer"),
            f"fetch.peer is {config.fetch.peer!r}: expected a [[peer]] with a port or a [[web_source]], one of "
            f"{callable_}",
        )
    elif peer and config.fetch.by == "move" and "store" not in peer.may:
        yield (
            ("fetch", "by"),
            f"{config.fetch.peer} is to move images to us and may not store; let it (may), or set fetch.by to 'get'",
        )


RULES: tuple[Callable[[Config], Iterator[Contradiction]], ...] = (
    _names_are_unique,
    _peers_can_be_told_apart,
    _ports_differ,
    _certificates_can_be_checked,
    _archive_can_be_asked,
)
