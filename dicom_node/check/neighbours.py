"""Whoever the node calls: whether they answer and offer what is asked of them, and what is wrong between us if not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pydicom.uid import UID
from pynetdicom.presentation import build_context

from dicom_node import exchange, qido
from dicom_node.call import Destination, SendSettings, associate, echo
from dicom_node.check.finding import Finding
from dicom_node.check.listeners import listeners
from dicom_node.commit import PUSH_MODEL
from dicom_node.config import Config
from dicom_node.errors import NodeError
from dicom_node.fetch import GET, MOVE
from dicom_node.identity import VERIFICATION
from dicom_node.seek import FIND
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
    web = [exchange.web_service(one) for one in (*config.web_destinations, *config.web_sources)]
    calls: list[Callable[[], list[Finding]]] = [
        *(partial(_echoed, target, needs, settings) for target, needs in _needs(config).items()),
        *(partial(_asked, service, settings) for service in web),
        *listeners(config, identity),
    ]
    with ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
        for found in pool.map(lambda call: call(), calls):
            yield from found


def _needs(config: Config) -> dict[Destination, dict[str, str]]:
    """Whom the node calls, and what it asks of each besides to be there and to store: SOP classes with a remedy."""
    needs: dict[Destination, dict[str, str]] = {}
    ours = config.node.ae_title
    for one in config.destinations:
        asked = needs.setdefault(exchange.destination(one), {})
        if one.commitment:
            asked[PUSH_MODEL] = f"set commitment = false for {one.name}, or have it offer this to {ours}"
    for name, archive in exchange.archives(config).items():
        asked = needs.setdefault(archive, {})
        if name == config.fetch.peer:
            retrieve, other = (MOVE, "get") if config.fetch.by == "move" else (GET, "move")
            asked[FIND] = f"have {name} offer this to {ours}, or name another [fetch] peer"
            asked[retrieve] = f'have {name} offer this to {ours}, or set [fetch] by = "{other}"'
    return needs


def _echoed(target: Destination, needs: Mapping[str, str], settings: SendSettings) -> list[Finding]:
    what = f"C-ECHO {target.name}"
    try:
        echo(target, settings)
        good = Finding("good", what, f"{target.words} answers")
        return [good, *(_offers(target, needs, settings) if needs else ())]
    except NodeError as error:
        return [_failure(what, error)]


def _offers(target: Destination, needs: Mapping[str, str], settings: SendSettings) -> Iterator[Finding]:
    """Raises PeerFailure."""
    contexts = [build_context(uid) for uid in (VERIFICATION, *needs)]
    with associate(contexts, target, settings) as association:
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
    for uid, remedy in needs.items():
        what = f"{UID(uid).name.rpartition(' - ')[2].removesuffix(' SOP Class')} {target.name}"
        if uid in accepted:
            yield Finding("good", what, f"{target.ae_title} offers it")
        else:
            yield Finding("FAILURE", what, f"{target.ae_title} accepts no presentation context for it", remedy)


def _asked(service: WebService, settings: SendSettings) -> list[Finding]:
    what = f"DICOMweb {service.name}"
    try:
        qido.ask(service, settings)
    except NodeError as error:
        return [_failure(what, error)]
    return [Finding("good", what, f"{service.url} answers")]


def _failure(what: str, error: NodeError) -> Finding:
    """What the rooms that call say ends with what to look at."""
    found, _, remedy = str(error).partition("; ")
    return Finding("FAILURE", what, found, remedy)
