"""The listening socket and the threads of its associations, with the guards that stock pynetdicom 3.0.4 lacks.

Closed here and in `dicom_node.guard`: a PDU of any announced length was read before the AE title was looked at; a few
connections that sent seven bytes locked every peer out; a connection that closed without a word held its place until
the association timeout; the end of an association could pass without an event; one silent client of a TLS port kept
everybody waiting; messages and commands that never end filled the memory.  This leans on a private part of pynetdicom
(`_create_association`), which is why its version is pinned and tests hold on to the behaviour.
"""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from dicom_node.guard import GuardedSocket, Limits, install_guard
from dicom_node.messages import Begin
from dicom_node.peers import names_in
from dicom_node.tls import Identity

ABORTED_WITHIN = 1.0
"""Seconds that an abort gets to reach its peer, behind what is on its way already."""

log = structlog.get_logger(__name__)


class Listener:
    """Listens from its construction to `stop`.  Raises OSError when the address cannot be had.

    connections: at once, in all and from one address, whatever becomes of them.  begin: takes objects.
    handlers: pynetdicom's (event, handler) pairs.  on_requested: given EVT_REQUESTED and the names in the certificate
    of the caller, None without TLS.  on_ended: called once for each association, when its thread is over.  tls: where
    it is given, only TLS is spoken.  given: a socket that listens already, in place of `address`; it is not shut down,
    so that whoever holds it too keeps callers waiting until the next node takes them.
    """

    def __init__(
        self,
        entity: AE,
        address: tuple[str, int],
        limits: Limits,
        connections: tuple[int, int],
        begin: Begin,
        handlers: list[Any],
        on_requested: Callable[[evt.Event, frozenset[str] | None], None],
        on_ended: Callable[[Association], None],
        tls: Identity | None = None,
        given: socket.socket | None = None,
    ) -> None:
        self._server = _Server(
            entity,
            address,
            entity.ae_title,
            entity.supported_contexts,
            evt_handlers=[*handlers, (evt.EVT_CONN_CLOSE, _end_before_request)],
            given=given,
        )
        self._server.limits = limits
        self._server.connections = connections
        self._server.begin = begin
        self._server.on_requested = on_requested
        self._server.on_ended = on_ended
        self._server.tls = tls
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="listen", daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        """The address that is listened on."""
        return str(self._server.server_address[0])

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    @property
    def accepting_at(self) -> float:
        """When callers were last looked for, by the monotonic clock."""
        return self._server.accepting_at

    def stop(self, drain_timeout: float) -> None:
        """Listen no more; after `drain_timeout` seconds abort what is still open, however slowly its peer reads."""
        # Past pynetdicom's own shutdown(), which expects the server in a list of the AE's.
        socketserver.BaseServer.shutdown(self._server)
        self._server.server_close()
        self._thread.join()
        deadline = time.monotonic() + drain_timeout
        while self._server.active_associations and time.monotonic() < deadline:
            time.sleep(0.02)
        open_still = self._server.active_associations
        aborting = [threading.Thread(target=association.abort, daemon=True) for association in open_still]
        for thread in aborting:
            thread.start()
        deadline = time.monotonic() + ABORTED_WITHIN
        for thread in aborting:
            thread.join(max(0.0, deadline - time.monotonic()))
        for association in open_still:
            if isinstance(guard := association.dul.socket, GuardedSocket):
                guard.cut()
        for thread in aborting:
            thread.join()


def _end_before_request(event: evt.Event) -> None:
    """Wake the thread that still waits for an association request on a connection that is gone (a port probe)."""
    if event.assoc.requestor.primitive is None:
        waiting: Any = event.assoc.dul.to_user_queue
        waiting.put(None)  # what the thread gets when its own time is over


class _Handler(RequestHandler):
    """Runs one association to its end on a thread of its own, so that its end cannot be missed."""

    server: _Server

    def handle(self) -> None:
        names = None
        if self.server.tls is not None:
            try:
                names = self._shake_hands(self.server.tls)
            except OSError as error:  # SSLError and TimeoutError are OSErrors
                log.warning("tls_failed", host=self.client_address[0], error=str(error))
                self.request.close()
                return
        association = self._create_association()
        guard = install_guard(association, self.server.limits, self.server.begin)
        association.bind(evt.EVT_REQUESTED, lambda event: self.server.on_requested(event, names))
        evt.trigger(association, evt.EVT_CONN_OPEN, {"address": self.client_address})
        association.start()
        association.join()
        association.dul.join()
        guard.done()
        self.server.on_ended(association)

    def _shake_hands(self, tls: Identity) -> frozenset[str]:
        """The names in the certificate of the caller.  The time-out is for all of the hand-shake."""
        self.request.settimeout(self.server.limits.pdu_timeout)
        self.request = tls.server().wrap_socket(self.request, server_side=True)
        return names_in(self.request.getpeercert())


class _Server(ThreadedAssociationServer):
    daemon_threads = True
    request_queue_size = 128  # all scanners of a hospital may call in the same second
    limits: Limits
    connections: tuple[int, int]
    begin: Begin
    on_requested: Callable[[evt.Event, frozenset[str] | None], None]
    on_ended: Callable[[Association], None]
    tls: Identity | None

    def __init__(self, *arguments: Any, given: socket.socket | None = None, **keywords: Any) -> None:
        self._open: Counter[str] = Counter()
        self._open_lock = threading.Lock()
        self._given = given
        self.accepting_at = time.monotonic()
        super().__init__(*arguments, **{**keywords, "request_handler": _Handler})

    def server_bind(self) -> None:
        if self._given is None:
            return super().server_bind()
        assert self.socket is not None, "the base constructor makes one"
        self.socket.close()
        self.socket = self._given
        self.socket.settimeout(self.ae.network_timeout)
        self.server_address = self.socket.getsockname()
        return None

    def server_activate(self) -> None:
        if self._given is None:
            super().server_activate()  # a given socket listens, with a queue of its opener's choice

    def server_close(self) -> None:
        if self._given is None:
            super().server_close()
        elif self.socket is not None:
            self.socket.close()

    def service_actions(self) -> None:
        """Between two looks at the listening socket."""
        super().service_actions()
        self.accepting_at = time.monotonic()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Before anything is read: whether there is room for another connection."""
        host = client_address[0]
        in_all, from_one = self.connections
        with self._open_lock:
            free = self._open[host] < from_one and self._open.total() < in_all
            self._open[host] += free
        if not free:
            log.warning("connection_refused", host=host, reason="too many connections are open")
        return free

    def process_request(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._forget(client_address)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(client_address)

    def _forget(self, client_address: Any) -> None:
        with self._open_lock:
            self._open -= Counter([client_address[0]])  # in place it drops what is zero
