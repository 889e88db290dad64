"""Whoever the node calls: whether they answer, and what is wrong between us if they do not."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from dicom_node import exchange, qido
from dicom_node.call import Destination, SendSettings, echo
from dicom_node.check.finding import Finding
from dicom_node.config import Config
from dicom_node.errors import NodeError
from dicom_node.tls import Identity
from dicom_node.web import WebService

LOOPBACK = ("127.0.0.1", "::1", "localhost")
CALLS_AT_ONCE = 16


def neighbours(config: Config, identity: Identity | None) -> Iterator[Finding]:
    """In the order of the configuration; all are called at once, each for as long as its time-outs let it."""
    if not config.destinations and not config.web_destinations:
        remedy = "name an archive in [[destination]] or [[web_destination]]"
        yield Finding("warning", "destination", "none: results stay in the state folder", remedy)
    if not config.peers and config.receive.host not in LOOPBACK:
        found = f"none: whoever reaches {config.receive.host} may send images"
        yield Finding("warning", "peers", found, "name them in [[peer]]")
    settings = exchange.send_settings(config, identity)
    dicom = [*map(exchange.destination, config.destinations), *exchange.archives(config).values()]
    web = [exchange.web_service(one) for one in (*config.web_destinations, *config.web_sources)]
    for service in web:
        yield from _secret(service)
    calls: list[Callable[[], Finding]] = [
        *(partial(_echoed, target, settings) for target in dict.fromkeys(dicom)),
        *(partial(_asked, service, settings) for service in web),
    ]
    with ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
        yield from pool.map(lambda call: call(), calls)


def _echoed(target: Destination, settings: SendSettings) -> Finding:
    what = f"C-ECHO {target.name}"
    try:
        echo(target, settings)
    except NodeError as error:
        return _failure(what, error)
    return Finding("good", what, f"{target.words} answers")


def _asked(service: WebService, settings: SendSettings) -> Finding:
    what = f"DICOMweb {service.name}"
    try:
        qido.ask(service, settings)
    except NodeError as error:
        return _failure(what, error)
    return Finding("good", what, f"{service.url} answers")


def _failure(what: str, error: NodeError) -> Finding:
    """What the rooms that call say ends with what to look at."""
    found, _, remedy = str(error).partition("; ")
    return Finding("FAILURE", what, found, remedy)


def _secret(service: WebService) -> Iterator[Finding]:
    if not service.secret_file:
        return
    file = Path(service.secret_file).expanduser()
    if file.is_file() and file.stat().st_mode & stat.S_IRWXO:
        yield Finding("warning", f"secret of {service.name}", f"{file} can be read by everybody", f"chmod 0600 {file}")
