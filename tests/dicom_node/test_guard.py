"""The guard: what it leans on in pynetdicom is there, and stalling senders are acknowledged at once."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.fsm import TRANSITION_TABLE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import build_context
from pynetdicom.transport import AssociationSocket

from dicom_node.call import SendSettings, associate
from dicom_node.errors import Unreachable
from dicom_node.guard import QUEUED, GuardedSocket, Limits, install_guard
from dicom_node.identity import VERIFICATION
from dicom_node.tls import Identity
from tests.certificates import Authority
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


def test_a_peer_that_takes_by_drops_loses_its_connection(
    guarded: tuple[GuardedSocket, socket.socket],
) -> None:
    """However often it takes a little: a time-out for each byte would keep its place for hours."""
    guard, theirs = guarded
    guard._pdu_timeout = 0.3
    assert guard.socket is not None
    guard.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
    over = threading.Event()

    def sip() -> None:
        while not over.wait(0.02):
            theirs.recv(4096)

    threading.Thread(target=sip, daemon=True).start()
    began = time.monotonic()
    guard.send(bytes(64 * 2**20))
    over.set()
    assert guard.event_queue.get_nowait() == "Evt17"
    assert time.monotonic() - began < 10.0


def test_whoever_sends_much_waits_until_the_peer_has_taken_it(guarded: tuple[GuardedSocket, socket.socket]) -> None:
    """Or an object of 300 MB would lie in the queue of pynetdicom as well; but an answer of ours waits for nothing."""
    guard, _ = guarded
    dul = guard.assoc.dul
    dul.is_alive = lambda: True  # type: ignore[method-assign]  # the test is its thread
    put = 0

    def send() -> None:
        nonlocal put
        for _ in range(QUEUED + 20):
            dul.send_pdu(P_DATA())
            put += 1

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    wait_until(lambda: put > QUEUED, "the queue is full")
    time.sleep(0.1)
    assert put == QUEUED + 1
    dul.to_provider_queue.get()
    wait_until(lambda: put == QUEUED + 2, "one has gone, and the next comes")
    guard.messages.answering = True
    sender.join(5.0)
    assert put == QUEUED + 20, "whoever is waited for by the thread that sends waits for it"


def test_a_message_of_ours_is_no_silence(guarded: tuple[GuardedSocket, socket.socket]) -> None:
    """A retrieve may last longer than the idle time-out, and its last answer comes while the clock is looked at."""
    guard, _ = guarded
    timer: Any = guard.assoc.dul._idle_timer
    fragment = P_DATA()
    for speak in (lambda: guard.assoc.dul.send_pdu(fragment), lambda: guard.send(b"x")):
        timer.timeout = 0.01
        timer.restart()
        wait_until(lambda: timer.expired, "nobody has said anything")
        timer.timeout = 60.0
        was = timer._start_time
        speak()
        assert timer._start_time > was


def test_what_comes_after_we_asked_for_the_release_is_dropped(guarded: tuple[GuardedSocket, socket.socket]) -> None:
    guard, theirs = guarded
    guard.assoc.dul.state_machine.current_state = "Sta7"
    theirs.sendall(struct.pack(">BBL", 4, 0, 1000) + bytes(1000) + struct.pack(">BBL", 6, 0, 4) + bytes(4))
    wait_until(lambda: guard.ready, "the release is answered")
    assert guard.recv(10) == struct.pack(">BBL", 6, 0, 4) + bytes(4)
    assert not guard.messages.in_progress


def test_a_tls_record_without_data_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Session tickets make the socket readable; a read would wait for what the peer says next, until its time-out."""
    authority = Authority.make(tmp_path / "hospital")
    node, scanner = Identity(authority.sign("node")), Identity(authority.sign("scanner"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        plain = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    theirs: list[ssl.SSLSocket] = []
    shaking = threading.Thread(
        target=lambda: theirs.append(node.server().wrap_socket(accepted, server_side=True)), daemon=True
    )
    shaking.start()
    ours = scanner.client().wrap_socket(plain, server_hostname="node")
    shaking.join(5.0)
    association = Association(AE("US"), "acceptor")
    association.set_socket(AssociationSocket(association, client_socket=ours))
    guard = install_guard(association, LIMITS)
    association.dul.state_machine.do_action(association.dul.event_queue.get())
    assert select.select([ours], [], [], 5.0)[0], "the tickets are there"
    began = time.monotonic()
    assert not guard.ready
    assert time.monotonic() - began < LIMITS.pdu_timeout / 2
    theirs[0].sendall(struct.pack(">BBL", 6, 0, 4) + bytes(4))
    wait_until(lambda: guard.ready, "what it says is heard")
    assert guard.recv(10) == struct.pack(">BBL", 6, 0, 4) + bytes(4)
    guard.done()
    ours.close()
    theirs[0].close()


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
