"""Who may associate with the node, and what each may do there.

A peer is told by its calling AE title, by the address it comes from and, over TLS, by the name in its certificate; all
of them must agree.  AE titles alone are no proof: whoever can reach a port can claim any.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from dicom_node.errors import NodeError


class Right(StrEnum):
    """What a peer may ask of the node.  Everybody who is let in may ask for C-ECHO."""

    STORE = "store"
    """C-STORE: its images are taken."""
    QUERY = "query"
    """C-FIND."""
    RETRIEVE = "retrieve"
    """C-GET, and C-MOVE to itself or to another peer."""
    COMMIT = "commit"
    """N-ACTION: asks the node to commit itself to keep what it sent."""
    MPPS = "mpps"
    """N-CREATE, N-SET: says which series and images a procedure step of it has made."""
    REPORT = "report"
    """N-EVENT-REPORT: answers what the node asked of it; destinations with `commitment` have it."""


@dataclass(frozen=True)
class Peer:
    """address: a host name, an IP address or a network in CIDR notation.  port: where it listens, 0 if it does not.

    certificate: the name that its certificate must hold; with one, it comes and is called over TLS only, without one
    never.  sop_classes: which it may store and retrieve, empty for all that the node takes.
    associations: how many it may have open at once.
    """

    name: str
    ae_title: str
    address: str
    may: frozenset[Right]
    port: int = 0
    certificate: str = ""
    sop_classes: frozenset[str] = frozenset()
    associations: int = 10

    def may_have(self, sop_class: str) -> bool:
        """Whether it may store and retrieve objects of a class."""
        return not self.sop_classes or sop_class in self.sop_classes


_REPORTING = frozenset({Right.REPORT})
"""Of a destination that answers what it was asked."""


class UnknownPeer(NodeError):
    """Somebody who is not let in; the message says which of title, address and certificate did not fit."""


class Peers:
    """All peers.  anybody: what those may do who are no peer, None to keep them out; never over TLS."""

    def __init__(self, peers: Sequence[Peer] = (), anybody: Peer | None = None) -> None:
        self._known = (tuple(peers), anybody)

    def renew(self, other: Peers) -> None:
        """From now on the same as another.  Who is inside stays, with what it was let in for."""
        self._known = other._known

    def recognise(self, ae_title: str, address: str, certificate: frozenset[str] | None = None) -> Peer:
        """The peer of that title at that address: of several entries that fit, the one that names the fewest addresses.

        Another adds nothing to it but the right to report, and what anybody may do nobody is denied.
        certificate: the names in the certificate that it showed, None without TLS.  Raises UnknownPeer.
        """
        known, stranger = self._known  # at once: a renewal may come meanwhile
        titled = [peer for peer in known if peer.ae_title == ae_title]
        near = [peer for peer in titled if _is_at(peer.address, address)]
        fitting = [peer for peer in near if _is_shown(peer.certificate, certificate)]
        anybody = [stranger] if stranger is not None and certificate is None else []
        if not (titled or anybody):
            raise UnknownPeer("no peer has this AE title")
        if not (near or anybody):
            raise UnknownPeer("the peer of this AE title has another address")
        if not (fitting or anybody):
            shown = "none was shown" if certificate is None else f"it holds {', '.join(sorted(certificate)) or 'none'}"
            raise UnknownPeer(f"the peer of this AE title at this address has another certificate name: {shown}")
        reporting = [peer for peer in fitting if peer.may == _REPORTING]
        nearest = sorted((peer for peer in fitting if peer not in reporting), key=lambda peer: _breadth(peer.address))
        chosen = [*nearest, *anybody, *reporting][0]
        return replace(chosen, may=chosen.may.union(*(peer.may for peer in (*anybody, *reporting))))

    def called(self, ae_title: str) -> Peer | None:
        """The peer of that title that can be called (for the Move Destination of a C-MOVE)."""
        return next((peer for peer in self._known[0] if peer.ae_title == ae_title and peer.port), None)


ANYBODY = Peer("anybody", "", "", frozenset({Right.STORE}), associations=2**16)
"""Where no peer is configured, whoever reaches the port may send."""


def names_in(certificate: ssl._PeerCertRetDictType | None) -> frozenset[str]:
    """Common name and DNS names of a certificate that was verified, in lower case (RFC 6125)."""
    if not certificate:
        return frozenset()
    subject = [entry for part in certificate.get("subject", ()) for entry in part]
    alternatives = certificate.get("subjectAltName", ())
    return frozenset(str(value).lower() for kind, value in [*subject, *alternatives] if kind in ("commonName", "DNS"))


def _is_at(configured: str, address: str) -> bool:
    """A name is looked up each time: it may move."""
    found = _ip(address)
    try:
        return found in ipaddress.ip_network(configured, strict=False)
    except ValueError:
        pass
    try:
        return found in {_ip(str(entry[4][0])) for entry in socket.getaddrinfo(configured, None)}
    except OSError:
        return False


def _breadth(configured: str) -> int:
    """How many addresses it names; a host name is one."""
    try:
        return ipaddress.ip_network(configured, strict=False).num_addresses
    except ValueError:
        return 1


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IPv4 address that came through an IPv6 socket is an IPv4 address."""
    found = ipaddress.ip_address(address.partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found


def _is_shown(configured: str, certificate: frozenset[str] | None) -> bool:
    if certificate is None:
        return not configured
    return bool(configured) and configured.lower() in certificate
