"""Receive: the C-ECHO and C-STORE SCP.

0x0000 is answered only after the object has been admitted (`dicom_node.admission`) and made durable
(`dicom_node.spool`).  What is refused goes to quarantine, and the sender is told why.
"""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog
from pydicom.uid import UID
from pynetdicom import _config, evt
from pynetdicom.association import Association

from dicom_node.admission import (
    ADMITTED_SOP_CLASSES,
    ADMITTED_TRANSFER_SYNTAXES,
    CANNOT_UNDERSTAND,
    OUT_OF_RESOURCES,
    SOP_CLASS_NOT_SUPPORTED,
    NotAdmitted,
    admit,
)
from dicom_node.aside import install_aside
from dicom_node.call import Entity
from dicom_node.contacts import Contact, Event, OnContact, Transfer
from dicom_node.gate import NOT_AUTHORISED, Gate
from dicom_node.guard import Limits
from dicom_node.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, VERIFICATION
from dicom_node.listen import Listener
from dicom_node.messages import Answer, StoreRequest, Taking
from dicom_node.part import Part
from dicom_node.peers import ANYBODY, Peer, Peers, Right
from dicom_node.spool import Kept, ReceivedObject, Spool, SpoolFull
from dicom_node.structure import Encoded
from dicom_node.surprise import words
from dicom_node.tls import Identity

SUCCESS = 0x0000
_CONNECTIONS, _CONNECTIONS_OF_ADDRESS = 10, 2
"""TCP connections at once, in all and from one address, as multiples of `maximum_associations`."""
_ERROR_COMMENT_LENGTH = 64  # LO (PS3.7 C.4)
AGAIN_LATER = "send it again later"
"""How a comment ends on what is no fault of the object."""

# pynetdicom's own handlers format every message for a debug log: slow, and it would name patients.
_config.LOG_HANDLER_LEVEL = "none"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ReceiveSettings:
    """Times are in seconds, sizes in bytes.

    port: 0 takes a free one.  maximum_associations: of all peers together.
    association_timeout: for an association request to arrive.  pdu_timeout: for a PDU that has begun.
    idle_timeout: scanners keep an association open while they scan.  drain_timeout: for senders to finish at `stop`.
    """

    host: str = "127.0.0.1"
    port: int = 11112
    ae_title: str = "QSMNODE"
    maximum_associations: int = 20
    maximum_pdu: int = 2**17
    maximum_object_bytes: int = 2**31
    association_timeout: float = 30.0
    pdu_timeout: float = 30.0
    idle_timeout: float = 300.0
    drain_timeout: float = 5.0


@dataclass(frozen=True)
class Secure:
    """How TLS is listened for.  port: 0 takes a free one.  only: nobody is heard on the plain port."""

    identity: Identity
    port: int
    only: bool = False


@dataclass(frozen=True)
class Service:
    """Something besides C-STORE that peers may ask for.

    contexts: abstract syntaxes, each with the transfer syntaxes it is served in.  handlers: by pynetdicom's events.
    returns: what is sent to a peer that proposes itself as SCP of it (C-GET), and is not taken from anybody.
    refusal: of a request of whatever service, before any handler: a status and a comment, None for none.
    """

    contexts: Mapping[str, Sequence[str]]
    handlers: Sequence[tuple[Any, Callable[[evt.Event], Any]]]
    returns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    refusal: Callable[[Any], tuple[int, str] | None] = lambda request: None


@dataclass(frozen=True)
class Offered:
    """An object as it is handed to the node.  encoded: the data set without File Meta, in `transfer_syntax`.

    part: the file of the spool's receiving/ that it lies in already, behind its File Meta.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax: UID
    encoded: Encoded
    part: Path | None = None


Bring = Callable[[str, str, UID], Taking]
"""Begins to take an object of a SOP class, with a SOP Instance UID, in a transfer syntax."""


@dataclass(frozen=True)
class Stored:
    """An object that is durable in the spool.

    repeated: the same bytes had been acknowledged before; whoever indexes must take it as the same object.
    """

    path: Path
    association: str
    received_at: float
    repeated: bool = False


@dataclass(frozen=True)
class Refused:
    """An object that is not used.  status: what the sender was told, 0x0000 for a duplicate with other content.

    path: the quarantine note (.json), or the file set aside in conflicts/; None when there was no room for it.
    """

    reason: str
    status: int
    association: str
    received_at: float
    sop_instance_uid: str
    calling_ae_title: str
    path: Path | None


@dataclass
class _Open:
    """An association of a sender, from its acceptance to the end of its thread."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    calling_ae_title: str = ""
    peer: str = ""
    host: str = ""
    stored: int = 0
    refused: int = 0
    denied: Counter[Right] = field(default_factory=Counter)
    """How often each right was lacking."""
    transfers: dict[str, Transfer] = field(default_factory=dict)
    """By Study Instance UID."""

    def took(self, received: ReceivedObject, path: Path) -> None:
        self.stored += 1
        transfer = self.transfers.setdefault(received.study_instance_uid, Transfer(Counter(), path))
        transfer.sop_classes[received.sop_class_uid] += 1


class Receiver:
    """Listens from `start` to `stop`.  The callbacks run on a thread of the association, before the sender is answered.

    on_stored: once for each acknowledgement; if it raises, the sender is told 0xA700 and will come again.
    on_refused: once for each object that was refused or set aside.
    on_released: when an association has ended, in whatever way.  clock: seconds since the epoch.
    on_contact: when an association is opened, rejected or over, ours too; it must not raise.
    given: sockets that listen already, by whether for TLS, in place of host and port.
    """

    def __init__(
        self,
        settings: ReceiveSettings,
        spool: Spool,
        on_stored: Callable[[Stored], None],
        on_refused: Callable[[Refused], None],
        clock: Callable[[], float] = time.time,
        on_released: Callable[[str], None] = lambda association: None,
        *,
        peers: Peers | None = None,
        secure: Secure | None = None,
        services: Sequence[Service] = (),
        on_contact: OnContact = lambda contact: None,
        given: Mapping[bool, socket.socket] = MappingProxyType({}),
    ) -> None:
        self._settings = settings
        self._given = given
        self._spool = spool
        self._on_stored = on_stored
        self._on_refused = on_refused
        self._on_released = on_released
        self._clock = clock
        self._open: dict[object, _Open] = {}
        self._open_lock = threading.Lock()
        self._opened = threading.Condition(self._open_lock)
        self._peers = peers or Peers(anybody=ANYBODY)
        self._secure = secure
        self._services = services
        self._on_contact = on_contact
        self._gate = Gate(
            self._peers,
            settings.ae_title,
            settings.maximum_associations,
            self._rejected,
            self._denied,
            self._refusal,
        )
        self._listeners: dict[bool, Listener] = {}
        """By whether TLS is spoken."""

    def start(self) -> None:
        """Bind and listen.  Raises OSError when a port cannot be had."""
        settings = self._settings
        entity = Entity(settings.ae_title)  # it calls, too: for a C-MOVE
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.maximum_pdu_size = settings.maximum_pdu
        entity.maximum_associations = 2**31  # the gate counts those of peers; pynetdicom would count port probes too
        entity.acse_timeout = entity.connection_timeout = settings.association_timeout
        entity.dimse_timeout = settings.idle_timeout
        entity.network_timeout = settings.idle_timeout
        entity.add_supported_context(VERIFICATION, scu_role=True, scp_role=True)
        for sop_class in ADMITTED_SOP_CLASSES:
            # Either role: who asks for C-GET is the SCP of what comes back.
            entity.add_supported_context(sop_class, list(ADMITTED_TRANSFER_SYNTAXES), scu_role=True, scp_role=True)
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, install_aside),
            (evt.EVT_ESTABLISHED, self._established),
            (evt.EVT_C_ECHO, lambda event: SUCCESS),
        ]
        for service in self._services:
            for abstract, transfers in service.contexts.items():
                entity.add_supported_context(abstract, list(transfers), scu_role=True, scp_role=True)
            for abstract, transfers in service.returns.items():
                if abstract not in ADMITTED_SOP_CLASSES:
                    entity.add_supported_context(abstract, list(transfers), scu_role=False, scp_role=True)
            handlers += [(event, _telling(handler)) for event, handler in service.handlers]
        limits = Limits(settings.maximum_pdu, settings.maximum_object_bytes, settings.pdu_timeout)
        most = settings.maximum_associations
        connections = (_CONNECTIONS * most, _CONNECTIONS_OF_ADDRESS * most)
        for port, tls in self._ports():
            secure = tls is not None
            given = self._given.get(secure)
            address = (settings.host, port)
            listener = Listener(
                entity,
                address,
                limits,
                connections,
                self.begin,
                handlers,
                self._gate.requested,
                self._ended,
                tls,
                given,
            )
            self._listeners[secure] = listener
            told = {"host": listener.host, "port": listener.port, "inherited": given is not None}
            log.info("listening", ae_title=settings.ae_title, tls=secure, **told)

    def _ports(self) -> list[tuple[int, Identity | None]]:
        secure = self._secure
        plain = [] if secure and secure.only else [(self._settings.port, None)]
        return [*plain, *([(secure.port, secure.identity)] if secure else [])]

    def stop(self) -> None:
        """Stop listening, let senders finish for `drain_timeout`, then abort them.  What was acknowledged stays."""
        listeners, self._listeners = self._listeners, {}
        for listener in listeners.values():
            listener.stop(self._settings.drain_timeout)

    @property
    def port(self) -> int:
        """The plain port that is listened on; that of TLS where there is no other; 0 where none is."""
        return self._port(False) or self.secure_port

    @property
    def accepting_at(self) -> float:
        """When callers were last looked for on every port, by the monotonic clock; now, where on none."""
        return min((listener.accepting_at for listener in self._listeners.values()), default=time.monotonic())

    @property
    def secure_port(self) -> int:
        """The port that is listened on for TLS, 0 where none is."""
        return self._port(True)

    def _port(self, tls: bool) -> int:
        listener = self._listeners.get(tls)
        return listener.port if listener else 0

    @contextmanager
    def hears(self, association: Association, ae_title: str) -> Iterator[None]:
        """Takes images over an association that we requested (C-GET), by `begin`, as from any sender."""
        with self._open_lock:
            self._open[association] = _Open(calling_ae_title=ae_title)
        try:
            yield
        finally:
            self._ended(association)

    @contextmanager
    def brings(self, source: str) -> Iterator[Bring]:
        """Takes objects that we fetch otherwise than over an association, as from a sender that is open meanwhile.

        source: its name, of which an AE title is made.
        """
        visit = object()
        sender = _Open(calling_ae_title=source[:16])
        with self._open_lock:
            self._open[visit] = sender

        def begin(sop_class_uid: str, sop_instance_uid: str, transfer_syntax: UID) -> Taking:
            named = sop_class_uid, sop_instance_uid, transfer_syntax
            part = self._spool.begin(*named, sender.calling_ae_title)
            return _Arriving(part, lambda encoded: self._take(Offered(*named, encoded, part.path), sender))

        try:
            yield begin
        finally:
            self._closed(visit)

    def peer(self, association: Association) -> Peer:
        """Whose association it is, for the handlers of services."""
        return self._gate.peer(association)

    @property
    def open_associations(self) -> frozenset[str]:
        """Ids of the associations from which more may still come."""
        with self._open_lock:
            return frozenset(sender.id for sender in self._open.values())

    def _established(self, event: evt.Event) -> None:
        requestor, peer = event.assoc.requestor, self._gate.peer(event.assoc).name
        sender = _Open(calling_ae_title=str(requestor.ae_title).strip(), peer=peer, host=str(requestor.address))
        with self._opened:
            self._open[event.assoc] = sender
            self._opened.notify_all()
        log.info(
            "association_opened",
            association=sender.id,
            calling_ae_title=sender.calling_ae_title,
            peer=sender.peer,
            host=sender.host,
            contexts_not_accepted=len(event.assoc.rejected_contexts),
        )
        self._on_contact(Contact(Event.OPENED, sender.peer, sender.calling_ae_title, sender.host, self._clock()))

    def _rejected(self, peer: str, ae_title: str, host: str, reason: str) -> None:
        self._on_contact(Contact(Event.REJECTED, peer, ae_title, host, self._clock(), reason))

    def _denied(self, association: Association, asked_for: str, right: Right) -> None:
        sender = self._sender(association)
        log.warning("not_authorised", peer=sender.peer, asked_for=asked_for, right=right.value)
        sender.denied[right] += 1

    def _refusal(self, request: Any) -> tuple[int, str] | None:
        found = (service.refusal(request) for service in self._services)
        return next((refusal for refusal in found if refusal is not None), None)

    def _sender(self, association: Association) -> _Open:
        """Whose association it is, once it is known: the peer may be faster than the thread that tells of it."""
        with self._opened:
            self._opened.wait_for(lambda: association in self._open, self._settings.association_timeout)
            return self._open[association]

    def _ended(self, association: Association) -> None:
        self._gate.left(association)
        self._closed(association)

    def _closed(self, visit: object) -> None:
        with self._open_lock:
            sender = self._open.pop(visit, None)
        if sender is None:
            return
        denied = sender.denied.total()
        log.info(
            "association_closed", association=sender.id, stored=sender.stored, refused=sender.refused, denied=denied
        )
        self._on_contact(
            Contact(
                Event.CLOSED if sender.host else Event.FETCHED,
                *(sender.peer, sender.calling_ae_title, sender.host, self._clock()),
                f"it has no right to {', '.join(sorted(sender.denied))}" if denied else "",
                stored=sender.stored,
                refused=sender.refused,
                denied=denied,
                transfers=sender.transfers,
            )
        )
        try:
            self._on_released(sender.id)
        except Exception:  # grouping looks at `open_associations` as well
            log.exception("release_not_taken", association=sender.id)

    def begin(self, association: Association, request: StoreRequest) -> Taking:
        """Begins to take what a C-STORE request brings, over an association of a peer or within `hears`."""
        sender = self._sender(association)
        if association.is_acceptor and Right.STORE not in self._gate.peer(association).may:
            self._denied(association, "C-STORE", Right.STORE)
            return _NotAuthorised()
        part = self._spool.begin(
            request.sop_class_uid, request.sop_instance_uid, request.transfer_syntax, sender.calling_ae_title
        )
        return _Arriving(part, lambda encoded: self._stored(request, part, encoded, sender))

    def _stored(self, request: StoreRequest, part: Part, encoded: Encoded, sender: _Open) -> Answer:
        named, agreed = request.sop_class_uid, request.abstract_syntax
        offered = Offered(named, request.sop_instance_uid, request.transfer_syntax, encoded, part.path)
        return self._take(offered, sender, f"the command names {named} in a context for {agreed}" * (named != agreed))

    def _take(self, offered: Offered, sender: _Open, objection: str = "") -> Answer:
        """objection: what is wrong with the class that it was offered as, beside its being one that is taken."""
        received_at = self._clock()
        try:
            if offered.sop_class_uid not in ADMITTED_SOP_CLASSES:
                objection = f"{offered.sop_class_uid} is none of the classes that are taken"
            if objection:
                raise NotAdmitted(SOP_CLASS_NOT_SUPPORTED, objection)
            if offered.transfer_syntax not in ADMITTED_TRANSFER_SYNTAXES:
                raise NotAdmitted(CANNOT_UNDERSTAND, f"its transfer syntax {offered.transfer_syntax} is not read here")
            study = admit(
                offered.encoded,
                sop_class_uid=offered.sop_class_uid,
                sop_instance_uid=offered.sop_instance_uid,
                transfer_syntax=offered.transfer_syntax,
                maximum_bytes=self._settings.maximum_object_bytes,
            )
        except NotAdmitted as error:
            return self._refuse(offered, sender, received_at, error.status, str(error))
        except Exception as error:  # whatever a hostile data set provokes is its own failure, not the daemon's
            log.exception("admission_failed", association=sender.id)
            return self._refuse(offered, sender, received_at, CANNOT_UNDERSTAND, f"cannot be checked: {words(error)}")
        received = ReceivedObject(
            study_instance_uid=study,
            sop_class_uid=offered.sop_class_uid,
            sop_instance_uid=offered.sop_instance_uid,
            transfer_syntax_uid=offered.transfer_syntax,
            source_ae=sender.calling_ae_title,
            encoded=offered.encoded,
            part=offered.part,
        )
        try:
            kept, path = self._spool.keep(received)
            if kept is Kept.CONFLICT:
                self._report_conflict(received, sender, received_at, path)
            else:
                self._on_stored(Stored(path, sender.id, received_at, repeated=kept is Kept.REPEATED))
        except (SpoolFull, OSError) as error:
            log.error("not_stored", association=sender.id, error=str(error))
            return _answer(OUT_OF_RESOURCES, f"no room to store the object, {AGAIN_LATER}")
        except Exception:  # the object is durable but nobody knows of it: let the sender come again
            log.exception("not_indexed", association=sender.id)
            return _answer(OUT_OF_RESOURCES, f"the object could not be indexed, {AGAIN_LATER}")
        sender.took(received, path)
        return _answer(SUCCESS)

    def _refuse(self, offered: Offered, sender: _Open, received_at: float, status: int, reason: str) -> Answer:
        note = {
            "reason": reason,
            "status": f"0x{status:04X}",
            "sop_class_uid": str(offered.sop_class_uid),
            "sop_instance_uid": str(offered.sop_instance_uid),
            "transfer_syntax_uid": str(offered.transfer_syntax),
            "calling_ae_title": sender.calling_ae_title,
            "association": sender.id,
        }
        path = self._spool.quarantine(offered.encoded, note, received_at)
        sender.refused += 1
        log.warning("refused", path=str(path), **note)
        self._report(
            Refused(
                reason=reason,
                status=status,
                association=sender.id,
                received_at=received_at,
                sop_instance_uid=str(offered.sop_instance_uid),
                calling_ae_title=sender.calling_ae_title,
                path=path,
            )
        )
        return _answer(status, reason)

    def _report_conflict(self, received: ReceivedObject, sender: _Open, received_at: float, path: Path) -> None:
        """Not the sender's failure: both versions are safe, the first one is used, the operator is told."""
        reason = "the same SOP Instance UID came before with other content: the first is used, this one is set aside"
        log.warning("conflict", association=sender.id, sop_instance_uid=received.sop_instance_uid, path=str(path))
        self._report(
            Refused(
                reason=reason,
                status=SUCCESS,
                association=sender.id,
                received_at=received_at,
                sop_instance_uid=received.sop_instance_uid,
                calling_ae_title=sender.calling_ae_title,
                path=path,
            )
        )

    def _report(self, refused: Refused) -> None:
        try:
            self._on_refused(refused)
        except Exception:  # the sender's answer does not depend on our bookkeeping of refusals
            log.exception("refusal_not_recorded", association=refused.association)


class _Arriving:
    """An object that is wanted, as far as it has come.  take: judges and keeps it when it is whole."""

    def __init__(self, part: Part, take: Callable[[Encoded], Answer]) -> None:
        self._part = part
        self._take = take

    def write(self, fragment: memoryview) -> None:
        self._part.write(fragment)

    def finish(self) -> Answer:
        try:
            if self._part.failure is not None:
                log.error("not_stored", error=str(self._part.failure))
                return _answer(OUT_OF_RESOURCES, f"no room to store the object, {AGAIN_LATER}")
            with self._part.encoded() as encoded:
                return self._take(encoded)
        finally:
            self._part.discard()

    def abandon(self) -> None:
        self._part.discard()


class _NotAuthorised:
    """An object that the peer has no right to send."""

    def write(self, fragment: memoryview) -> None:
        pass

    def finish(self) -> Answer:
        return NOT_AUTHORISED, ""

    def abandon(self) -> None:
        pass


def _telling(handler: Callable[[evt.Event], Any]) -> Callable[[evt.Event], Any]:
    """The same handler; what it raises, which pynetdicom answers with a failure, is told by us, who name the peer and
    quote no value.  Most are generators."""

    def handle(event: evt.Event) -> Any:
        try:
            answers = handler(event)
        except Exception:
            _tell_failure(event)
            raise
        return _going_on(answers, event) if isinstance(answers, Iterator) else answers

    return handle


def _going_on(answers: Iterator[Any], event: evt.Event) -> Iterator[Any]:
    try:
        yield from answers
    except Exception:
        _tell_failure(event)
        raise


def _tell_failure(event: evt.Event) -> None:
    requestor = event.assoc.requestor
    log.exception("service_failed", request=event.event.name, ae_title=requestor.ae_title, host=requestor.address)


def _answer(status: int, comment: str = "") -> Answer:
    return status, comment.encode("ascii", "replace").decode("ascii").replace("\\", "/")[:_ERROR_COMMENT_LENGTH]
