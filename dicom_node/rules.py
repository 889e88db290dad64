"""What settings must have in common, of one table or of several.  Each rule yields every place where they contradict.

So that all is told at once, rules are asked of files that have other faults too: a setting that is at fault by itself
is `Unsaid` then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dicom_node.lines import Location
from dicom_node.settings import RESUME, Destination, Peer, network

if TYPE_CHECKING:
    from dicom_node.config import Config

Contradiction = tuple[Location, str]
"""The setting to be mended, by the names in the file, and what is wrong with it and what to do."""


class Unsaid(str):
    """Stands for a setting that is at fault: given, whatever it is, and neither equal to another nor more nor less, so
    that no rule finds fault with it a second time.  Its text is for messages about other settings of its table.
    """

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __lt__(self, other: object) -> bool:
        return False

    def __gt__(self, other: object) -> bool:
        return False


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


def _peers_can_be_called(config: Config) -> Iterator[Contradiction]:
    for place, peer in enumerate(config.peers):
        if peer.port and "/" in peer.address:
            yield (
                ("peer", place, "port"),
                f"a port can not be called at the network {peer.address}; give the peer one address",
            )


def _scanners_are_named(config: Config) -> Iterator[Contradiction]:
    for place, scanner in enumerate(config.scanners):
        if not (scanner.station_name.strip() or scanner.serial_number.strip()):
            yield ("scanner", place), "a scanner has no name; give its station_name, its serial_number or both"


def _tls_is_whole(config: Config) -> Iterator[Contradiction]:
    tls = config.tls
    given = [bool(tls.certificate), bool(tls.key), bool(tls.authorities)]
    if any(given) and not all(given):
        yield ("tls",), "TLS needs all of certificate, key and authorities; name the missing files, or none"
    if tls.only and not tls.certificate:
        yield (
            ("tls", "only"),
            "tls.only without a certificate would hear nobody; name certificate, key and authorities",
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


def _looks_have_a_place(config: Config) -> Iterator[Contradiction]:
    if config.fetch.schedule and not config.fetch.peer:
        yield ("fetch", "schedule"), "fetch.schedule needs a peer to look in; name a [[peer]] or a [[web_source]]"


def _secrets_are_told_to_nobody_else(config: Config) -> Iterator[Contradiction]:
    """No message quotes what may hold one."""
    destinations = [("web_destination", place, one) for place, one in enumerate(config.web_destinations)]
    sources = [("web_source", place, one) for place, one in enumerate(config.web_sources)]
    for table, place, one in (*destinations, *sources):
        if ":" in one.user and not one.token_url:
            yield (
                (table, place, "user"),
                f"user of {one.name} has a colon, which basic authentication cannot tell (RFC 7617 2); take another",
            )
        if one.user and not one.secret_file:
            yield (
                (table, place, "user"),
                f"user of {one.name} has no password; write it to a file and name that as secret_file",
            )
        if one.token_url and not one.user:
            yield (
                (table, place, "token_url"),
                f"token_url of {one.name} needs a client; name it as user, and the file with its secret as secret_file",
            )
        if one.scope and not one.token_url:
            yield (table, place, "scope"), f"scope of {one.name} is asked of a token server; name it as token_url"
        for setting, url in (("url", one.url), ("token_url", one.token_url)):
            host = urlsplit(url).hostname
            if one.secret_file and url.startswith("http:") and not _is_here(host):
                yield (
                    (table, place, setting),
                    f"the secret of {one.name} would go to {host} in the clear; expected an https url",
                )


def _messages_can_be_sent(config: Config) -> Iterator[Contradiction]:
    notify = config.notify
    if notify.mail_to and not notify.mail_from:
        yield ("notify", "mail_to"), "mail needs a sender; give notify.mail_from an address of the site"
    if bool(notify.mail_user) != bool(notify.mail_secret_file):
        yield (
            ("notify", "mail_user" if notify.mail_user else "mail_secret_file"),
            "notify.mail_user and notify.mail_secret_file go together; give both, or neither",
        )
    if notify.mail_user and notify.mail_security == "none" and not _is_here(notify.mail_host):
        yield (
            ("notify", "mail_host"),
            f"a password would go to {notify.mail_host} in the clear; set notify.mail_security",
        )
    host = urlsplit(notify.webhook).hostname
    if notify.webhook.startswith("http:") and not _is_here(host):
        yield (
            ("notify", "webhook"),
            f"what notify.webhook is told would go to {host} in the clear; expected an https url",
        )


def _room_can_be_made(config: Config) -> Iterator[Contradiction]:
    free, minimum = config.retention.free_bytes, config.retention.minimum_free_bytes
    if free > 0 and free / RESUME < minimum:
        yield (
            ("retention", "free_bytes"),
            f"retention.free_bytes is {free}; expected 0 or at least {int(RESUME * minimum)}: senders that were turned "
            "away below minimum_free_bytes are taken again from there on, and room must be made up to it",
        )


def _is_here(host: str | None) -> bool:
    """Whether it is this machine."""
    return host in ("127.0.0.1", "::1", "localhost")


RULES: tuple[Callable[[Config], Iterator[Contradiction]], ...] = (
    _names_are_unique,
    _peers_can_be_told_apart,
    _peers_can_be_called,
    _scanners_are_named,
    _tls_is_whole,
    _ports_differ,
    _certificates_can_be_checked,
    _archive_can_be_asked,
    _looks_have_a_place,
    _secrets_are_told_to_nobody_else,
    _messages_can_be_sent,
    _room_can_be_made,
)
