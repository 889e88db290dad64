"""Whoever the node tells of troubles and of disclosures: mail server, webhook, audit repository.  Nothing is told."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from functools import partial

from dicom_node.check.finding import Finding
from dicom_node.config import Config
from dicom_node.errors import NodeError
from dicom_node.messengers import knocks
from dicom_node.settings import Audit
from dicom_node.tls import Identity
from dicom_node.trail import connect


def listeners(config: Config, identity: Identity | None) -> list[Callable[[], list[Finding]]]:
    """A call to each that is configured; each takes as long as its time-outs let it."""
    calls: list[Callable[[], list[Finding]]] = [partial(_knocked, way, knock) for way, knock in knocks(config.notify)]
    if config.audit.host:
        calls.append(partial(_audit, config.audit, identity))
    return calls


def _knocked(way: str, knock: Callable[[], str]) -> list[Finding]:
    try:
        return [Finding("good", way, knock())]
    except NodeError as error:
        found, _, remedy = str(error).partition("; ")
        return [Finding("FAILURE", way, found, remedy or f"mend what [notify] says of the {way}")]


def _audit(settings: Audit, identity: Identity | None) -> list[Finding]:
    """Over UDP nobody answers: only the name is looked up."""
    what, where = "audit repository", f"{settings.host}:{settings.port}"
    try:
        if settings.protocol == "udp":
            socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_DGRAM)
            return [Finding("good", what, f"{where} can be found; over UDP it tells nobody whether it listens")]
        context = identity.client() if identity else ssl.create_default_context()
        connect(settings, context).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: of a host that is no name
        remedy = "is it running, are host, port and certificate of [audit] right, do we believe its authority?"
        if settings.protocol == "udp":
            remedy = "is [audit] host right?"
        return [Finding("FAILURE", what, f"{where} cannot be reached: {error}", remedy)]
    return [Finding("good", what, f"{where} takes our TLS connection")]
