"""A socket that reads for an association, with the limits that stock pynetdicom 3.0.4 lacks.

pynetdicom looks a thousand times a second whether there is something to do, and takes a message through three objects
for each fragment.  Here the thread sleeps until a byte comes or something is to be sent, reads as much as there is
into one buffer, and hands the fragments of messages to `dicom_node.messages` from there.  This leans on private parts
of pynetdicom (`dul.socket`, `dul._run_loop_delay`, `dul._idle_timer`, the queues of its threads), which is why its
version is pinned and tests hold on to the behaviour.
"""

from __future__ import annotations

import queue
import select
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

from dicom_node.messages import MOST_WAITING, P_DATA_TF, Begin, Messages

_LARGEST_ASSOCIATE_REQUEST = 2**17  # 128 contexts of 20 transfer syntaxes need about 90 kB
_PDU_SLACK = 1024  # some toolkits count the maximum length without their own headers
_HEADER = struct.Struct(">BBL")  # PS3.8 9.3: type, reserved, length
_IDLE, _DATA_TRANSFER, _AWAITING_RELEASE, _AWAITING_CLOSE = "Sta1", "Sta6", "Sta7", "Sta13"  # PS3.8 9.2.2
QUEUED = 32
"""PDUs of data that wait to be sent; whoever makes the next waits until there are fewer."""
_LOOK_AROUND = 0.1
"""Seconds between two looks whether pynetdicom wants to end; whatever else it wants wakes the thread."""
_SHORTEST_STALL, _LONGEST_STALL = 0.025, 0.25
"""Seconds: how long a peer is silent in the middle of a message while it waits for an acknowledgement that we delay
(RFC 1122 4.2.3.2: less than 0.5; Linux: 0.04 to 0.2).  One that is silent for longer has other reasons."""
_STALLS = 2
"""So often a sender must be seen to stall until every packet of its is acknowledged at once.  For one that does not
wait, that would only be more packets."""
_QUICK_ACKNOWLEDGEMENT = getattr(socket, "TCP_QUICKACK", None)  # Linux


@dataclass(frozen=True)
class Limits:
    """Largest data PDU and largest data set in bytes; seconds from the first byte of a PDU to its last, in either
    direction, and for a TLS hand-shake.
    """

    pdu: int
    object: int
    pdu_timeout: float


def install_guard(association: Association, limits: Limits, begin: Begin | None = None) -> GuardedSocket:
    """Puts the guard into an association whose socket is open and that has heard nothing yet.

    begin: takes objects that come by C-STORE; without it none are taken.
    """
    dul = association.dul
    stock = dul.socket
    assert stock is not None
    guard = GuardedSocket(stock, limits, Messages(association, limits.object, begin))
    dul.to_provider_queue = _Waking(dul.to_provider_queue, guard)
    dul.socket = guard
    dul._run_loop_delay = 0.0  # the guard waits instead
    association.bind(evt.EVT_CONN_CLOSE, lambda event: guard.done())
    return guard


class _Waking(queue.Queue[Any]):
    """What is to be sent; its reader is woken, wherever it sleeps.

    Who sends faster than the peer takes waits here, so that an object on its way out costs no memory a second time.
    """

    def __init__(self, waiting: queue.Queue[Any], guard: GuardedSocket) -> None:
        super().__init__()
        self._guard = guard
        while not waiting.empty():
            self.put(waiting.get())

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        dul = self._guard.assoc.dul
        is_reader = threading.current_thread() is dul
        if isinstance(item, P_DATA) and not is_reader:
            with self.not_full:  # which `get` tells of
                while len(self.queue) > QUEUED and dul.is_alive() and self._guard.may_wait:
                    self.not_full.wait(_LOOK_AROUND)
        super().put(item, block, timeout)
        if not is_reader:
            dul._idle_timer.restart()  # what is about to be said is no silence
            self._guard.wake()


class GuardedSocket(AssociationSocket):
    """pynetdicom's socket with limits on the length of a PDU and on the time it takes; `messages` has its own."""

    def __init__(self, stock: AssociationSocket, limits: Limits, messages: Messages) -> None:
        # Takes over an open socket; the base constructor would announce the connection a second time.
        self.__dict__.update(vars(stock))
        self.messages = messages
        self._longest_pdu = max(limits.pdu + _PDU_SLACK, _LARGEST_ASSOCIATE_REQUEST)
        self._pdu_timeout = limits.pdu_timeout
        self._buffer = bytearray(self._longest_pdu + _HEADER.size)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._stalls = 0
        assert self.socket is not None
        self.socket.settimeout(limits.pdu_timeout)
        # Nagle's algorithm would keep our answers back until the peer acknowledges what came before.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._waiting = select.poll()
        self._waiting.register(self.socket, select.POLLIN)
        self._waiting.register(self._woken, select.POLLIN)

    def wake(self) -> None:
        """From any thread: there is something to send."""
        try:
            self._waker.send(b"\0")
        except (BlockingIOError, OSError):  # it has been woken often enough, or the association is over
            return

    def done(self) -> None:
        """The association is over: what was begun is forgotten."""
        self.messages.abandon()
        self._woken.close()
        self._waker.close()

    @property
    def may_wait(self) -> bool:
        """Whether what is to be sent may wait: not when the connection is over, nor when the reader is waited for."""
        return self.socket is not None and self._is_connected and not self.messages.answering

    def cut(self) -> None:
        """From any thread: nothing more comes or goes, and whoever waits for it is told at once."""
        if (connection := self.socket) is not None:
            with suppress(OSError):  # it is closed already
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # TLS or not: no farewell that could block

    def send(self, bytestream: bytes) -> None:
        """All of it or the end of the connection, in place of pynetdicom's, which waits for each byte anew."""
        try:
            with memoryview(bytestream) as whole:
                for begin in range(0, len(whole), self._longest_pdu):
                    with whole[begin : begin + self._longest_pdu] as part:
                        self._send_in_time(part)
        except (OSError, ValueError) as error:  # ValueError: it was closed by another thread
            self.messages.ended(error)
            self.event_queue.put("Evt17")  # the transport connection is closed
        else:
            evt.trigger(self.assoc, evt.EVT_DATA_SENT, {"data": bytestream})

    def _send_in_time(self, part: memoryview) -> None:
        """Raises OSError when it takes long."""
        deadline = time.monotonic() + self._pdu_timeout
        sent = 0
        while sent < len(part):
            if self.socket is None:
                raise ConnectionAbortedError("the connection is closed")
            with part[sent:] as rest:
                sent += self.socket.send(rest)
            if time.monotonic() > deadline:
                raise TimeoutError(f"the peer took {sent} of {len(part)} bytes in {self._pdu_timeout} s")
        self.assoc.dul._idle_timer.restart()

    @property
    def ready(self) -> bool:
        """Whether pynetdicom is to read a PDU.  Waits for one; takes the fragments of messages itself."""
        if not self.event_queue.empty():
            return False  # first what is known already
        state = self.assoc.dul.state_machine.current_state
        if self.socket is None or not self._is_connected or state == _IDLE:
            time.sleep(0.001)  # pynetdicom is about to end the thread that asks
            return False
        try:
            while True:
                if self._start == self._end and not self._wait(0.0 if state == _AWAITING_CLOSE else _LOOK_AROUND):
                    return False
                takes = state in (_DATA_TRANSFER, _AWAITING_RELEASE)
                if not takes or not self._has(_HEADER.size) or self._buffer[self._start] != P_DATA_TF:
                    return True
                self._take_messages(drop=state == _AWAITING_RELEASE)
                if not (self.messages.in_progress and self.assoc.dul.to_provider_queue.empty()):
                    return False
        except (OSError, ValueError) as error:  # ValueError: it was closed by another thread
            self.messages.ended(error)
            self.event_queue.put("Evt17")  # the transport connection is closed
        return False

    def recv(self, nr_bytes: int) -> bytearray:
        """Read `nr_bytes`, fewer only if the peer closes.  Raises OSError at a limit, which closes the connection."""
        self._require_length(nr_bytes)
        self._has(nr_bytes)
        end = min(self._start + nr_bytes, self._end)
        taken = self._buffer[self._start : end]
        self._start = end
        return taken

    def _wait(self, seconds: float) -> bool:
        """Until the peer sends, at most so long and no longer than until something is to be sent."""
        assert self.socket is not None
        if self.assoc.is_requestor and self.assoc.dimse.msg_queue.qsize() > MOST_WAITING:
            time.sleep(0.001)  # answers come faster than they are looked at: the peer waits
            return False
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        began = time.monotonic()
        found = {descriptor for descriptor, _ in self._waiting.poll(seconds * 1000)}
        if self._woken.fileno() in found:
            while True:
                try:
                    self._woken.recv(4096)
                except BlockingIOError:
                    break
        if self.socket.fileno() not in found:
            return False
        if isinstance(self.socket, ssl.SSLSocket) and not self._has_data(self.socket):
            return False
        if self.messages.in_progress:
            self._note_stall(time.monotonic() - began)
        return True

    def _has_data(self, connection: ssl.SSLSocket) -> bool:
        """Whether what came holds anything for us: session tickets and new keys do not (RFC 8446 4.6)."""
        self._start = self._end = 0
        connection.settimeout(0.0)
        try:
            self._end = connection.recv_into(self._view)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        finally:
            connection.settimeout(self._pdu_timeout)
        return True  # also at the end, which the next read finds again

    def _take_messages(self, *, drop: bool) -> None:
        """All fragments that are there, until something is to be answered.

        drop: we have asked to release the association, and nobody waits for more.
        """
        dul = self.assoc.dul
        while self._start < self._end and self._has(_HEADER.size):
            kind, _, length = _HEADER.unpack_from(self._buffer, self._start)
            if kind != P_DATA_TF:
                break
            self._require_length(length)
            if not self._has(_HEADER.size + length):
                raise ConnectionAbortedError("the peer closed the connection in the middle of a PDU")
            begin = self._start + _HEADER.size
            if not drop:
                with self._view[begin : begin + length] as fragments:
                    self.messages.take(fragments)
            self._start = begin + length
            dul._idle_timer.restart()
            if not dul.to_provider_queue.empty():
                break

    def _require_length(self, length: int) -> None:
        if length > self._longest_pdu:
            raise ConnectionAbortedError(f"a PDU of {length} bytes was announced, {self._longest_pdu} are allowed")

    def _has(self, count: int) -> bool:
        """Reads until `count` bytes are there; False if the peer closes before.  Raises OSError when it takes long."""
        if self._end - self._start >= count:
            return True
        if self._start:
            rest = self._end - self._start
            self._buffer[:rest] = self._buffer[self._start : self._end]
            self._start, self._end = 0, rest
        deadline = time.monotonic() + self._pdu_timeout
        while self._end < count:
            if self.socket is None:
                raise ConnectionAbortedError("the connection is closed")
            began = time.monotonic()
            with self._view[self._end :] as free:
                read = self.socket.recv_into(free)
            if read == 0:
                return False
            now = time.monotonic()
            self._end += read
            self._note_stall(now - began)
            if self._end < count and now > deadline:
                raise TimeoutError(f"a PDU was not complete after {self._pdu_timeout} s")
        return True

    def _note_stall(self, seconds: float) -> None:
        if _QUICK_ACKNOWLEDGEMENT is None:
            return
        if _SHORTEST_STALL <= seconds <= _LONGEST_STALL:
            self._stalls += 1
        if self._stalls >= _STALLS:
            assert self.socket is not None
            # Linux forgets it with the next packet.
            self.socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACKNOWLEDGEMENT, 1)
