"""The listening socket and the threads of its associations, with the guards that stock pynetdicom 3.0.4 lacks.

Closed here: a PDU of any announced length was read before the AE title was looked at; a few connections that sent seven
bytes locked every peer out; a connection that closed without a word held its place until the association timeout; the
end of an association could pass without an event; one silent client of a TLS port kept everybody waiting; messages and
commands that never end filled the memory.  This leans on private parts of pynetdicom (`_create_association`,
`dul.socket`), which is why its version is pinned and tests hold on to the behaviour.
"""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from dicom_node.peers import names_in
from dicom_node.tls import Identity

_LARGEST_ASSOCIATE_REQUEST = 2**17  # 128 contexts of 20 transfer syntaxes need about 90 kB
_PDU_SLACK = 1024  # some toolkits count the maximum length without their own headers
_LARGEST_COMMAND = 2**16  # a command set has about 20 elements (PS3.7 E); 300 bytes are many
_LARGEST_DATA_SET = 2**25  # of what is no C-STORE: a request to commit 100,000 instances needs about 20 MB
_MOST_WAITING = (
    4  # messages not looked at yet; without asynchronous operations (PS3.7 D.3.3.3) a peer waits for answers
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Limits:
    """Largest data PDU and largest data set in bytes; seconds from the first byte of a PDU to its last, and for a TLS
    hand-shake; connections at once, in all and from one address, whatever becomes of them.
    """

    pdu: int
    object: int
    pdu_timeout: float
    connections: int
    connections_of_address: int


class Listener:
    """Listens from its construction to `stop`.  Raises OSError when the address cannot be had.

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
        """Listen no more; after `drain_timeout` seconds abort what is still open."""
        # Past pynetdicom's own shutdown(), which expects the server in a list of the AE's.
        socketserver.BaseServer.shutdown(self._server)
        self._server.server_close()
        self._thread.join()
        deadline = time.monotonic() + drain_timeout
        while self._server.active_associations and time.monotonic() < deadline:
            time.sleep(0.02)
        for association in self._server.active_associations:
            association.abort()


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
        association.bind(evt.EVT_REQUESTED, lambda event: self.server.on_requested(event, names))
        evt.trigger(association, evt.EVT_CONN_OPEN, {"address": self.client_address})
        association.start()
        association.join()
        self.server.on_ended(association)

    def _shake_hands(self, tls: Identity) -> frozenset[str]:
        """The names in the certificate of the caller.  The time-out is for all of the hand-shake."""
        self.request.settimeout(self.server.limits.pdu_timeout)
        self.request = tls.server().wrap_socket(self.request, server_side=True)
        return names_in(self.request.getpeercert())

    def _create_association(self) -> Association:
        association = super()._create_association()
        stock = association.dul.socket
        assert stock is not None
        association.dul.socket = GuardedSocket(stock, self.server.limits)
        return association


class _Server(ThreadedAssociationServer):
    daemon_threads = True
    limits: Limits
    on_requested: Callable[[evt.Event, frozenset[str] | None], None]
    on_ended: Callable[[Association], None]
    tls: Identity | None

    def __init__(self, *arguments: Any, given: socket.socket | None = None, **keywords: Any) -> None:
        self._connections: Counter[str] = Counter()
        self._connections_lock = threading.Lock()
        self._given = given
        self.accepting_at = time.monotonic()
        super().__init__(*arguments, **{**keywords, "request_handler": _Handler})

    def server_bind(self) -> None:
        if self._given is None:
            return super().server_bind()
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
        else:
            self.socket.close()

    def service_actions(self) -> None:
        """Between two looks at the listening socket."""
        super().service_actions()
        self.accepting_at = time.monotonic()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Before anything is read: whether there is room for another connection."""
        host = client_address[0]
        with self._connections_lock:
            free = (
                self._connections[host] < self.limits.connections_of_address
                and self._connections.total() < self.limits.connections
            )
            self._connections[host] += free
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
        with self._connections_lock:
            self._connections -= Counter([client_address[0]])  # in place it drops what is zero


class GuardedSocket(AssociationSocket):
    """pynetdicom's socket with limits: on the length of a PDU, on the time it takes, on the size of a message, and on
    how many of them wait.

    may_store: whether the peer may send objects; whoever may not sends no large message either.
    """

    may_store = False

    def __init__(self, stock: AssociationSocket, limits: Limits) -> None:
        # Takes over an accepted socket; the base constructor would announce the connection a second time.
        self.__dict__.update(vars(stock))
        self._longest_pdu = max(limits.pdu + _PDU_SLACK, _LARGEST_ASSOCIATE_REQUEST)
        self._largest_object = limits.object
        self._pdu_timeout = limits.pdu_timeout
        self._served = 0
        self._served_lock = threading.Lock()
        assert self.socket is not None
        self.socket.settimeout(limits.pdu_timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def recv(self, nr_bytes: int) -> bytearray:
        """Read `nr_bytes`, fewer only if the peer closes.  Raises OSError at a limit, which closes the connection."""
        if nr_bytes > self._longest_pdu:
            raise ConnectionAbortedError(f"a PDU of {nr_bytes} bytes was announced, {self._longest_pdu} are allowed")
        self._refuse_more()
        if self.socket is None:
            raise ConnectionAbortedError("the connection is closed")
        buffer = bytearray(nr_bytes)
        view = memoryview(buffer)
        filled, deadline = 0, time.monotonic() + self._pdu_timeout
        while filled < nr_bytes:
            count = self.socket.recv_into(view[filled:])
            if count == 0:
                view.release()
                return buffer[:filled]
            filled += count
            if filled < nr_bytes and time.monotonic() > deadline:
                raise TimeoutError(f"a PDU was not complete after {self._pdu_timeout} s")
        # A sender with Nagle's algorithm waits for this acknowledgement.
        if hasattr(socket, "TCP_QUICKACK"):  # Linux
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return buffer

    @contextmanager
    def serving(self) -> Iterator[None]:
        """While a message of the peer is answered; for N-EVENT-REPORT pynetdicom 3.0.4 starts a thread each."""
        with self._served_lock:
            self._served += 1
        try:
            yield
        finally:
            with self._served_lock:
                self._served -= 1

    def _refuse_more(self) -> None:
        """Raises ConnectionAbortedError when what has come already is more than is taken.

        pynetdicom 3.0.4 collects fragments, and messages that wait for their turn, without end.
        """
        if (waiting := self.assoc.dimse.msg_queue.qsize() + self._served) > _MOST_WAITING:
            raise ConnectionAbortedError(f"{waiting} messages came without waiting for an answer")
        message = self.assoc.dimse.message
        if message is None:
            return
        if (size := message.encoded_command_set.tell()) > _LARGEST_COMMAND:
            raise ConnectionAbortedError(f"a command set of {size} bytes, {_LARGEST_COMMAND} are allowed")
        stores = self.may_store and isinstance(message, C_STORE_RQ)
        allowed = self._largest_object if stores else min(_LARGEST_DATA_SET, self._largest_object)
        if message.data_set is not None and message.data_set.tell() > allowed:
            raise ConnectionAbortedError(f"a data set grows beyond {allowed} bytes")
