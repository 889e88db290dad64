"""The guard: what it leans on in pynetdicom is there, and stalling senders are acknowledged at once."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.fsm import TRANSITION_TABLE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import build_context
from pynetdicom.transport import AssociationSocket

from dicom_node.call import SendSettings, associate
from dicom_node.errors import Unreachable
from dicom_node.guard import GuardedSocket, Limits, install_guard
from dicom_node.identity import VERIFICATION
from tests.peers import rude_peer, wait_until

LIMITS = Limits(2**17, 2**20, 5.0)


@pytest.fixture
def guarded() -> Iterator[tuple[GuardedSocket, socket.socket]]:
    """A guard on one end of a connection, and the other end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    association = Association(AE("US"), "acceptor")
    association.set_socket(AssociationSocket(association, client_socket=ours))
    guard = install_guard(association, LIMITS)
    association.dul.state_machine.do_action(association.dul.event_queue.get())  # the connection is open
    yield guard, theirs
    guard.done()
    ours.close()
    theirs.close()


def test_what_is_leant_on_is_there() -> None:
    association = Association(AE("US"), "acceptor")
    dul = association.dul
    assert dul._run_loop_delay > 0
    dul._idle_timer.restart()
    assert dul.state_machine.current_state == "Sta1"
    assert association._accepted_cx == {}
    assert association.dimse.msg_queue.qsize() == 0
    # A PDU of data is taken without the state machine in one state only: there, what it does is to pass it on.
    assert TRANSITION_TABLE[("Evt10", "Sta6")] == "DT-2"
    assert ("Evt10", "Sta7") in TRANSITION_TABLE


def test_a_pdu_is_read_in_whatever_pieces(guarded: tuple[GuardedSocket, socket.socket]) -> None:
    guard, peer = guarded
    pdu = struct.pack(">BBL", 1, 0, 1000) + bytes(range(250)) * 4
    peer.sendall(pdu[:3])
    assert guard.ready
    threading.Timer(0.05, lambda: peer.sendall(pdu[3:] + pdu)).start()
    assert guard.recv(6) == pdu[:6]
    assert guard.recv(1000) == pdu[6:]
    assert guard.recv(6) == pdu[:6]
    assert guard.recv(1000) == pdu[6:]
    peer.close()
    assert guard.ready
    assert guard.recv(6) == b""


def test_who_waits_is_woken_by_what_is_to_be_sent(guarded: tuple[GuardedSocket, socket.socket]) -> None:
    guard, _ = guarded
    dul = guard.assoc.dul
    guard._waiting.poll(0)
    dul.to_provider_queue.put(P_DATA())
    assert guard._waiting.poll(10_000)
    assert not guard.ready
    assert guard._waiting.poll(0) == []


def test_a_sender_that_stalls_is_acknowledged_at_once_and_another_is_not(
    guarded: tuple[GuardedSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, _ = guarded
    acknowledged: list[tuple[int, ...]] = []

    class Stream:
        def setsockopt(self, *option: int) -> None:
            acknowledged.append(option)

    monkeypatch.setattr(guard, "socket", Stream())
    for seconds in (0.0001, 0.001, 3.0, 0.04, 0.001):
        guard._note_stall(seconds)
    assert acknowledged == []
    guard._note_stall(0.2)
    guard._note_stall(0.0001)
    assert acknowledged == [(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)] * 2


def test_whom_we_call_cannot_make_us_read_without_end() -> None:
    """An answer of 400 MB to our association request; stock pynetdicom reads on."""
    closed = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.settimeout(20)

        def flood() -> None:
            try:
                connection.sendall(struct.pack(">BBL", 2, 0, 400_000_000))
                for _ in range(400):
                    connection.sendall(bytes(1_000_000))
            except OSError:
                closed.set()

        threading.Thread(target=flood, daemon=True).start()

    settings = SendSettings(association_timeout=10.0)
    with rude_peer(talk) as peer:
        with pytest.raises(Unreachable), associate([build_context(VERIFICATION)], peer, settings):
            pass
        wait_until(closed.is_set, "the connection was closed before all was read")


def test_stock_pynetdicom_reads_a_pdu_of_any_length() -> None:
    """The hole that `test_a_pdu_of_absurd_length_is_not_read` holds closed."""
    entity = AE("STOCK")
    entity.add_supported_context(VERIFICATION)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    read: list[int] = []
    try:
        with socket.create_connection(server.server_address[:2], timeout=0.3) as connection:
            connection.sendall(struct.pack(">BBL", 1, 0, 400_000_000))
            for _ in range(20):
                connection.sendall(bytes(1_000_000))
                read.append(1)
            with pytest.raises(TimeoutError):  # it neither closes nor answers
                connection.recv(1)
    finally:
        server.shutdown()
    assert len(read) == 20


def test_stock_pynetdicom_is_locked_by_half_pdus() -> None:
    """The hole that `test_half_a_pdu_locks_nobody_out_for_longer_than_the_deadline` holds closed."""
    entity = AE("STOCK")
    entity.maximum_associations = 2
    entity.acse_timeout = entity.network_timeout = 0.2
    entity.add_supported_context(VERIFICATION)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    assert server is not None
    port = int(server.server_address[1])
    lingering = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
    try:
        for connection in lingering:
            connection.sendall(b"\x01\x00\x00\x00\x10\x00\x00")
        time.sleep(1.0)  # five times as long as any of its time-outs
        association = AE("SCANNER").associate("127.0.0.1", port, contexts=[build_context(VERIFICATION)])
        assert association.is_rejected
    finally:
        for connection in lingering:
            connection.close()
        server.shutdown()
