"""What the configuration says of the network, in the words of the rooms that speak it."""

from __future__ import annotations

from pathlib import Path

from dicom_node import config
from dicom_node.call import Destination, SendSettings
from dicom_node.config import Config
from dicom_node.peers import ANYBODY, Peer, Peers, Right
from dicom_node.receive import ReceiveSettings, Secure
from dicom_node.tls import Files, Identity


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
    return SendSettings(ae_title=config.node.ae_title, tls=identity, **timeouts)


def destination(configured: config.Destination) -> Destination:
    return Destination(**configured.model_dump(exclude={"commitment"}))


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
