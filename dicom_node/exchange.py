"""What the configuration says of the network, in the words of the rooms that speak it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import date
from pathlib import Path

import structlog
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt

from dicom_node import settings
from dicom_node.audit import Author
from dicom_node.call import Destination, SendSettings
from dicom_node.commit import PUSH_MODEL, Commitments, take_report
from dicom_node.config import Config
from dicom_node.fetches import Fetches
from dicom_node.mpps import MPPS, ProcedureSteps
from dicom_node.peers import ANYBODY, Peer, Peers, Right
from dicom_node.receive import ReceiveSettings, Secure, Service
from dicom_node.seek import OnQuery, Wanted, seek
from dicom_node.tls import Files, Identity
from dicom_node.vouch import Vouch
from dicom_node.web import WebService

UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
"""Transfer syntaxes of what is no image."""

log = structlog.get_logger(__name__)


def receive_settings(config: Config) -> ReceiveSettings:
    return ReceiveSettings(**config.receive.model_dump(), ae_title=config.node.ae_title)


def identity(config: Config) -> Identity | None:
    """Our certificate, None without one.  Raises UnusableCertificate."""
    tls = config.tls
    if not tls.certificate:
        return None
    return Identity(Files(*(Path(name).expanduser() for name in (tls.certificate, tls.key, tls.authorities))))


def secure(config: Config, identity: Identity | None) -> Secure | None:
    return Secure(identity, config.tls.port, config.tls.only) if identity else None


def send_settings(config: Config, identity: Identity | None) -> SendSettings:
    timeouts = config.send.model_dump(include=set(SendSettings.__dataclass_fields__))
    largest = config.receive.maximum_object_bytes
    return SendSettings(ae_title=config.node.ae_title, tls=identity, maximum_object_bytes=largest, **timeouts)


def destination(configured: settings.Destination) -> Destination:
    return Destination(**configured.model_dump(exclude={"commitment"}))


def web_service(configured: settings.WebService) -> WebService:
    return WebService(**configured.model_dump())


def destination_names(config: Config) -> list[str]:
    return [*(one.name for one in config.destinations), *(one.name for one in config.web_destinations)]


def committing(config: Config) -> dict[str, str]:
    """AE title, by name, of each destination that is asked for storage commitment."""
    return {entry.name: entry.ae_title for entry in config.destinations if entry.commitment}


def peers(config: Config) -> Peers:
    """Those configured, and the destinations that are asked for commitment: they call us to answer."""
    known = [
        Peer(
            **peer.model_dump(include={"name", "ae_title", "address", "port", "certificate", "associations"}),
            may=frozenset(map(Right, peer.may)),
            sop_classes=frozenset(peer.sop_classes),
        )
        for peer in config.peers
    ]
    reporting = [
        Peer(entry.name, entry.ae_title, entry.host, frozenset({Right.REPORT}), certificate=entry.certificate)
        for entry in config.destinations
        if entry.commitment
    ]
    return Peers([*known, *reporting], anybody=None if config.peers else ANYBODY)


def is_queried(config: Config) -> bool:
    """Whether any peer may query or retrieve."""
    return any(right in peer.may for peer in config.peers for right in (Right.QUERY, Right.RETRIEVE))


def archives(config: Config) -> dict[str, Destination]:
    """Those that may be searched and fetched from, by name: peers that can be called."""
    return {
        peer.name: Destination(peer.name, peer.address, peer.port, peer.ae_title, peer.certificate)
        for peer in config.peers
        if peer.port
    }


def sources(config: Config) -> dict[str, Destination | WebService]:
    """All that may be searched and fetched from: archives, and those that speak DICOMweb."""
    return {**archives(config), **{source.name: web_service(source) for source in config.web_sources}}


def look(
    config: Config,
    fetches: Fetches,
    settings: SendSettings,
    now: float,
    since: date,
    stopping: Callable[[], bool] = lambda: False,
    asks: Callable[[Destination | WebService], OnQuery] = lambda archive: lambda level, keys: None,
) -> None:
    """Writes down what is new in the archive that is looked in regularly, until `stopping`.  Raises PeerFailure.

    asks: is told what each archive is asked.
    """
    archive = sources(config)[config.fetch.peer]
    found = seek(Wanted(since=f"{since:%Y%m%d}"), archive, settings, stopping, asks(archive))
    new = fetches.add(archive.name, found, now)
    log.info("looked", peer=archive.name, since=f"{since:%Y%m%d}", found=new)


def commitment_service(commitments: Commitments, vouch: Vouch) -> Service:
    """Storage commitment, both ways: peers ask us, destinations answer us."""

    def reported(event: evt.Event) -> tuple[int, None]:
        return take_report(event, str(event.assoc.requestor.ae_title).strip(), commitments.report)

    return Service(
        {PUSH_MODEL: UNCOMPRESSED},
        [
            (evt.EVT_ESTABLISHED, vouch.met),
            (evt.EVT_N_ACTION, vouch.requested),
            (evt.EVT_N_EVENT_REPORT, reported),
        ],
    )


def procedure_step_service(steps: ProcedureSteps) -> Service:
    """What scanners tell of what they have made."""
    return Service({MPPS: UNCOMPRESSED}, [(evt.EVT_N_CREATE, steps.created), (evt.EVT_N_SET, steps.set)])


def author(config: Config) -> Author:
    """Who writes the node's audit messages."""
    host = socket.gethostname()
    address = host if config.receive.host in ("0.0.0.0", "::", "") else config.receive.host
    return Author(config.node.ae_title, address, f"{config.node.ae_title}@{host}", config.audit.site)
