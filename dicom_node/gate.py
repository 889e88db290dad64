"""The gate: whether an association request is accepted, and which requests on an association are served.

A-ASSOCIATE-RJ (PS3.8 9.3.4) goes to whoever calls us by another name, is no peer, or has enough associations.  What a
peer has no right to ask is answered 0x0124, not authorised (PS3.7 C), before any service sees it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import structlog
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE, N_ACTION, N_CREATE, N_EVENT_REPORT, N_SET
from pynetdicom.presentation import PresentationContext
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from dicom_node.guard import GuardedSocket
from dicom_node.peers import Peer, Peers, Right, UnknownPeer

NOT_AUTHORISED = 0x0124

# Result, source and reason of PS3.8 9.3.4.
CALLING_AE_NOT_RECOGNISED = (1, 1, 3)
CALLED_AE_NOT_RECOGNISED = (1, 1, 7)
LOCAL_LIMIT_EXCEEDED = (2, 3, 2)
NO_REASON = (1, 1, 1)

_NEEDED: dict[type[Any], Right] = {
    C_FIND: Right.QUERY,
    C_GET: Right.RETRIEVE,
    C_MOVE: Right.RETRIEVE,
    N_ACTION: Right.COMMIT,
    N_CREATE: Right.MPPS,
    N_SET: Right.MPPS,
    N_EVENT_REPORT: Right.REPORT,
}

log = structlog.get_logger(__name__)


class Gate:
    """Knows who is inside.  maximum: associations at once, of all peers together.

    on_rejected: told the peer ("" for nobody known), the calling AE title, the address and the reason.
    on_denied: told what a peer has asked for without the right to.  refusal: what services answer to a request before
    their handlers see it, a status and a comment; None for what is to be served.
    """

    def __init__(
        self,
        peers: Peers,
        ae_title: str,
        maximum: int,
        on_rejected: Callable[[str, str, str, str], None] = lambda peer, ae_title, host, reason: None,
        on_denied: Callable[[Association, str, Right], None] = lambda association, asked_for, right: None,
        refusal: Callable[[Any], tuple[int, str] | None] = lambda request: None,
    ) -> None:
        self._peers = peers
        self._ae_title = ae_title
        self._maximum = maximum
        self._on_rejected = on_rejected
        self._on_denied = on_denied
        self._refusal = refusal
        self._inside: dict[Association, Peer] = {}
        self._lock = threading.Lock()

    def requested(self, event: evt.Event, names: frozenset[str] | None) -> None:
        """For EVT_REQUESTED.  names: those in the certificate of the caller, None without TLS."""
        try:
            self._admit(event.assoc, names)
        except Exception:  # pynetdicom would swallow it and negotiate: whoever cannot be judged stays outside
            log.exception("association_not_judged")
            self.left(event.assoc)
            event.assoc.acse.send_reject(*NO_REASON)
            event.assoc.kill()

    def _admit(self, association: Association, names: frozenset[str] | None) -> None:
        request: Any = association.requestor.primitive
        calling, called = str(request.calling_ae_title).strip(), str(request.called_ae_title).strip()
        address = str(association.requestor.address)
        caller = {"calling_ae_title": calling, "host": address, "tls": names is not None}
        if called != self._ae_title:
            reason = f"it calls {called}, this is {self._ae_title}"
            return self._reject(association, CALLED_AE_NOT_RECOGNISED, reason, caller)
        try:
            peer = self._peers.recognise(calling, address, names)
        except UnknownPeer as error:
            return self._reject(association, CALLING_AE_NOT_RECOGNISED, str(error), caller)
        with self._lock:
            of_peer = sum(other.name == peer.name for other in self._inside.values())
            free = len(self._inside) < self._maximum and of_peer < peer.associations
            if free:
                self._inside[association] = peer
        if not free:
            reason = f"{of_peer} associations of it are open"
            return self._reject(association, LOCAL_LIMIT_EXCEEDED, reason, caller, peer.name)
        association.acceptor.supported_contexts = [
            context
            for context in association.acceptor.supported_contexts
            if peer.may_have(str(context.abstract_syntax)) or not _is_storage(context)
            if context.scu_role or _is_asked_back(context, association)
        ]
        guard = association.dul.socket
        assert isinstance(guard, GuardedSocket)
        guard.messages.may_store = Right.STORE in peer.may
        self._serve_only_what_is_due(association, peer)
        return None

    def peer(self, association: Association) -> Peer:
        """Whose association it is.  Raises KeyError for one that was not let in."""
        with self._lock:
            return self._inside[association]

    def left(self, association: Association) -> None:
        """An association has ended."""
        with self._lock:
            self._inside.pop(association, None)

    def _serve_only_what_is_due(self, association: Association, peer: Peer) -> None:
        """Every request of an association passes `_serve_request` of pynetdicom 3.0.4, whatever service it is for."""
        serve = association._serve_request

        def serve_what_is_due(message: Any, context_id: int) -> None:
            needed = _NEEDED.get(type(message))
            if not message.is_valid_request:
                return serve(message, context_id)
            if needed is not None and needed not in peer.may:
                self._on_denied(association, message.msg_type, needed)
                refusal: tuple[int, str] | None = (NOT_AUTHORISED, "")
            else:
                refusal = self._refusal(message)
            if refusal is None:
                return serve(message, context_id)
            return association.dimse.send_msg(_answer(message, *refusal), context_id)

        association._serve_request = serve_what_is_due  # type: ignore[method-assign,assignment]  # there is no other place for it

    def _reject(
        self,
        association: Association,
        answer: tuple[int, int, int],
        reason: str,
        caller: dict[str, Any],
        peer: str = "",
    ) -> None:
        log.warning("association_rejected", reason=reason, **caller)
        association.acse.send_reject(*answer)
        association.kill()
        self._on_rejected(peer, caller["calling_ae_title"], caller["host"], reason)


def _answer(message: Any, status: int, comment: str) -> Any:
    """The response that ends a request."""
    answer = type(message)()
    answer.MessageIDBeingRespondedTo = message.MessageID
    answer.AffectedSOPClassUID = getattr(message, "AffectedSOPClassUID", None) or message.RequestedSOPClassUID
    if hasattr(answer, "AffectedSOPInstanceUID"):
        answer.AffectedSOPInstanceUID = getattr(message, "AffectedSOPInstanceUID", None) or getattr(
            message, "RequestedSOPInstanceUID", None
        )
    answer.Status = status
    if comment:
        answer.ErrorComment = comment
    return answer


def _is_asked_back(context: PresentationContext, association: Association) -> bool:
    """Whether the caller proposes itself as SCP: it wants such objects from us and brings none."""
    assert context.abstract_syntax is not None
    role = association.requestor.role_selection.get(context.abstract_syntax)
    return role is not None and bool(role.scp_role)


def _is_storage(context: PresentationContext) -> bool:
    assert context.abstract_syntax is not None
    return issubclass(uid_to_service_class(context.abstract_syntax), StorageServiceClass)
