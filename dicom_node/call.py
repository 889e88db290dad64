"""Call: the associations that the node requests.  Every wait has an end."""

from __future__ import annotations

import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.transport import AssociationSocket

from dicom_node.checkpoint import install_checkpoint
from dicom_node.errors import PeerFailure, Unreachable
from dicom_node.guard import Limits, install_guard
from dicom_node.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, VERIFICATION
from dicom_node.messages import Begin
from dicom_node.tls import Identity

RETRIEVE_TIMEOUT = 1800.0
"""Seconds without a word from an archive that is asked for images: what it holds may have to come from far, and it need
not tell how far it is (PS3.4 C.4.2.3)."""
LONGEST_RETRIEVE = 6 * 3600.0
"""Seconds that one series may take in all: who tells a word now and then would be listened to for ever."""
MOST_ANSWERS = 100_000
"""Answers to one query; no archive is asked for as many, and memory is not for whatever a peer has to tell."""
PENDING = (0xFF00, 0xFF01)
"""Statuses of an answer after which more come (PS3.7 C.1.5)."""

# No message is formatted for a debug log: slow, and it would name patients.
_config.LOG_HANDLER_LEVEL = "none"


@dataclass(frozen=True)
class Destination:
    """A peer that we call.  name: how the operator calls it.

    certificate: the DNS name that its certificate must hold; with one it is called over TLS, without one never.
    """

    name: str
    host: str
    port: int
    ae_title: str
    certificate: str = ""

    @property
    def words(self) -> str:
        """For messages."""
        return f"{self.name} ({self.ae_title} at {self.host}:{self.port}{' over TLS' if self.certificate else ''})"


@dataclass(frozen=True)
class SendSettings:
    """ae_title: ours.  Times in seconds: to connect, for the answer to an association request, for the answer to one
    C-STORE, and without any byte.  tls: ours, for destinations that have a certificate.  maximum_object_bytes: of one
    that is sent to us (C-GET)."""

    ae_title: str = "QSMNODE"
    connection_timeout: float = 10.0
    association_timeout: float = 30.0
    response_timeout: float = 60.0
    idle_timeout: float = 60.0
    tls: Identity | None = None
    maximum_object_bytes: int = 2**31


def patient(settings: SendSettings) -> SendSettings:
    """As settings, for who is asked for images."""
    return replace(settings, response_timeout=RETRIEVE_TIMEOUT, idle_timeout=RETRIEVE_TIMEOUT)


@contextmanager
def associate(
    contexts: list[PresentationContext],
    destination: Destination,
    settings: SendSettings,
    *,
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
    handlers: Sequence[Any] = (),
    begin: Begin | None = None,
) -> Iterator[Association]:
    """An established association; released at the end, aborted if the body fails.

    roles: where ours is not that of the requestor by default.  handlers: pynetdicom's (event, handler) pairs for what
    the peer asks of us meanwhile.  begin: takes objects that it sends (C-GET); then the answer to a request is waited
    for as long as anything comes.  Raises Unreachable when it cannot be had.
    """
    entity = Entity(settings.ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.connection_timeout = settings.connection_timeout
    entity.acse_timeout = settings.association_timeout
    entity.dimse_timeout = settings.response_timeout if begin is None else None
    entity.network_timeout = settings.idle_timeout
    try:
        association = entity.associate(
            destination.host,
            destination.port,
            contexts=contexts,
            ae_title=destination.ae_title,
            ext_neg=list(roles),
            tls_args=_tls(destination, settings),
            evt_handlers=[(evt.EVT_CONN_OPEN, lambda event: tune(event, settings, begin)), *handlers],
        )
    except OSError as error:
        raise Unreachable(f"{destination.words} cannot be found: {error.strerror}; is its host right?") from error
    if not association.is_established:
        raise Unreachable(why_not(association, destination, settings))
    try:
        yield association
    except GeneratorExit:
        association.release()
        raise
    except BaseException:
        association.abort()
        raise
    if association.is_established:
        association.release()


@contextmanager
def given_up_when(stopping: Callable[[], bool], association: Association) -> Iterator[None]:
    """No answer is waited for any longer than until `stopping`: as if the peer had broken off."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            if stopping():
                # What pynetdicom 3.0.4 takes for a peer that broke off; an abort from here would wake nobody.
                association.dimse.msg_queue.put((None, None))
                return

    watcher = threading.Thread(target=watch, name="call watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def tune(event: evt.Event, settings: SendSettings, begin: Begin | None = None) -> None:
    """For EVT_CONN_OPEN of an association that we request: the guards of those that others request from us."""
    install_checkpoint(event)
    # pynetdicom 3.0.4 leaves no time-out: half a PDU, or a peer that does not read, would hold the thread for ever.
    limits = Limits(event.assoc.ae.maximum_pdu_size, settings.maximum_object_bytes, settings.idle_timeout)
    install_guard(event.assoc, limits, begin)


def echo(destination: Destination, settings: SendSettings) -> None:
    """C-ECHO; returns when the peer answered success.  Raises PeerFailure."""
    with associate([build_context(VERIFICATION)], destination, settings) as association:
        answer = association.send_c_echo()
        if "Status" not in answer or answer.Status != 0x0000:
            found = f"0x{answer.Status:04X}" if "Status" in answer else "nothing"
            raise PeerFailure(f"{destination.words} answered a C-ECHO with {found}, expected 0x0000")


def _tls(destination: Destination, settings: SendSettings) -> tuple[ssl.SSLContext, str] | None:
    if not destination.certificate:
        return None
    if settings.tls is None:
        raise Unreachable(f"{destination.words} cannot be called: this node has no certificate; see [tls]")
    return settings.tls.client(), destination.certificate


def why_not(association: Association | None, destination: Destination, settings: SendSettings) -> str:
    """Why there is no association.  association: the one that could not be had, None without even a connection."""
    peer = destination.words
    stock = association.dul.socket if association else None
    failure = stock.failure if isinstance(stock, _Socket) else None
    if (association is None or isinstance(stock, _Socket)) and destination.certificate:
        return (
            f"{peer} took no TLS connection{_because(failure, settings)}; is it running, is this port for TLS, does it "
            f"believe our certificate, is its own of our authorities and for {destination.certificate}?"
        )
    if association is None or isinstance(stock, _Socket):
        return (
            f"{peer} took no TCP connection{_because(failure, settings)}; is it running, are host and port right, is a "
            "firewall between?"
        )
    if association.is_rejected:
        answer = association.acceptor.primitive
        reason = answer.reason_str if answer is not None else "no reason given"
        return (
            f"{peer} rejected the association: {reason}; does it know our AE title {settings.ae_title}, and is "
            f"{destination.ae_title} its own?"
        )
    if association.rejected_contexts and not association.accepted_contexts:
        return f"{peer} accepted none of the {len(association.rejected_contexts)} presentation contexts offered"
    return f"{peer} did not accept the association within {settings.association_timeout} s; is it a DICOM server?"


def _because(failure: OSError | None, settings: SendSettings) -> str:
    if failure is None or isinstance(failure, TimeoutError):
        return f": {'refused, or ' * (failure is None)}no answer within {settings.connection_timeout} s"
    of_certificate: str = getattr(failure, "verify_message", "")  # SSLCertVerificationError has it
    return f": {of_certificate.rstrip('.') or failure.strerror or failure}"


class Entity(AE):
    """One whose sockets tell why there was no connection (`why_not`)."""

    def _create_socket(self, assoc: Association, address: Any, tls_args: Any) -> AssociationSocket:
        made = _Socket(assoc, address=address)
        made.tls_args = tls_args
        return made


class _Socket(AssociationSocket):
    """failure: why there is no connection, which pynetdicom 3.0.4 tells to nobody but its log.

    Once there is one, `install_guard` has put another in its place.
    """

    failure: OSError | None = None

    def _shutdown_socket(self) -> None:
        if isinstance(error := sys.exc_info()[1], OSError):
            self.failure = error
        super()._shutdown_socket()
