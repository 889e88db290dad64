"""`qsm-node check`: whether a node of this configuration could run here, and whether its peers answer."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dicom_node import exchange, stow
from dicom_node.call import SendSettings, echo
from dicom_node.config import Config, recipe_file
from dicom_node.errors import NodeError
from dicom_node.reconstruct import read_recipe
from dicom_node.status import LOW_SPACE, process
from dicom_node.store import Store
from dicom_node.tls import Files, Identity, UnusableCertificate

SOON = 30 * 86400.0
"""Seconds before a certificate ends from which people are warned."""

Verdict = Literal["good", "warning", "FAILURE"]


@dataclass(frozen=True)
class Finding:
    """One line of the table.  told: what was found, and what to do about it."""

    verdict: Verdict
    what: str
    told: str


def check(config: Config, now: float) -> Iterator[Finding]:
    """Each finding as it is made: the last ones take as long as peers take to answer.

    The configuration itself has been loaded, and with it every setting looked at.
    """
    yield _recipe(config.reconstruct.recipe)
    yield from _state_folder(config.node.state_folder)
    running = process(config.node.state_folder / "node.lock")["running"]
    if not (config.tls.only and config.tls.certificate):
        yield _port(config.receive.host, config.receive.port, running)
    identity = None
    if config.tls.certificate:
        yield _port(config.receive.host, config.tls.port, running)
        try:
            identity = exchange.identity(config)
            yield _certificate(config, now)
        except UnusableCertificate as error:
            yield Finding("FAILURE", "certificate", str(error))
    yield from _peers(config, exchange.send_settings(config, identity))


def in_words(findings: list[Finding]) -> str:
    """A line for each, in columns."""
    width = max(len(finding.what) for finding in findings)
    return "\n".join(f"{one.verdict:8} {one.what:{width}}  {one.told}" for one in findings)


def _recipe(name: str) -> Finding:
    try:
        read_recipe(recipe_file(name))
    except (NodeError, OSError, ValueError) as error:
        return Finding("FAILURE", "recipe", str(error))
    return Finding("good", "recipe", f"{name} can be read")


def _state_folder(folder: Path) -> Iterator[Finding]:
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding("FAILURE", "state folder", f"{there} may not be written by this user: change its owner or rights")
        return
    free = shutil.disk_usage(there).free
    if free > LOW_SPACE:
        yield Finding("good", "state folder", f"{folder}, {free / 2**30:.1f} GiB free")
    else:
        yield Finding("warning", "state folder", f"{folder}, only {free / 2**20:.0f} MiB free: make room")
    if (folder / "node.db").is_file():
        try:
            Store(folder / "node.db", owner=False).close()
            yield Finding("good", "database", "of this version")
        except NodeError as error:
            yield Finding("warning", "database", str(error))


def _port(host: str, port: int, running: bool) -> Finding:
    what = f"port {port}"
    if running:
        return Finding("good", what, "a node runs in this state folder and has it, or will at its next start")
    try:
        with socket.create_server((host, port)):
            return Finding("good", what, f"can be listened on at {host}")
    except OSError as error:
        why = os.strerror(error.errno or 0)
        return Finding("FAILURE", what, f"cannot be listened on at {host}: {why}; end who has it, or take another")


def _certificate(config: Config, now: float) -> Finding:
    tls = config.tls
    ends = _end_of(Files(*(Path(name).expanduser() for name in (tls.certificate, tls.key, tls.authorities))))
    days = (ends - now) / 86400
    if ends < now + SOON:
        return Finding("warning", "certificate", f"ends in {days:.0f} days: renew {tls.certificate}, without a restart")
    return Finding("good", "certificate", f"ends in {days:.0f} days")


def _end_of(files: Files) -> float:
    """When our certificate ends, in seconds since the epoch: told by a hand-shake with ourselves, which checks it too.

    Raises UnusableCertificate.
    """
    Identity(files)  # they can be read, and belong together
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(files.certificate, files.key, password="")
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(files.certificate)  # it need not be of an authority that we believe
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = client.wrap_bio(to_client, to_server)
    here = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (there, here, there):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLError as error:
            raise UnusableCertificate(f"{files.certificate} is not valid: {error}; renew it") from error
    shown = there.getpeercert()
    assert shown, "the hand-shake is over"
    return float(ssl.cert_time_to_seconds(str(shown["notAfter"])))


def _peers(config: Config, settings: SendSettings) -> Iterator[Finding]:
    called = [exchange.destination(destination) for destination in config.destinations]
    if not called and not config.web_destinations:
        yield Finding("warning", "destination", "none: results stay in the state folder")
    if not config.peers and config.receive.host not in ("127.0.0.1", "::1", "localhost"):
        yield Finding(
            "warning", "peers", f"none: whoever reaches {config.receive.host} may send images; name them in [[peer]]"
        )
    for target in [*called, *exchange.archives(config).values()]:
        try:
            echo(target, settings)
            yield Finding("good", f"C-ECHO {target.name}", f"{target.words} answers")
        except NodeError as error:
            yield Finding("FAILURE", f"C-ECHO {target.name}", str(error))
    for web in [*config.web_destinations, *config.web_sources]:
        try:
            stow.ask(exchange.web_service(web), settings)
            yield Finding("good", f"DICOMweb {web.name}", f"{web.url} answers")
        except NodeError as error:
            yield Finding("FAILURE", f"DICOMweb {web.name}", str(error))
