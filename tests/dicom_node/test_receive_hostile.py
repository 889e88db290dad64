"""The receiver among those who send anything, or nothing, or never end: it answers, and serves the next."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import UID, MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import build_context

from dicom_node.guard import QUEUED
from dicom_node.identity import VERIFICATION
from dicom_node.receive import Receiver, ReceiveSettings
from tests.objects import encode, mr_image
from tests.peers import Node, associated, running_node, send_bytes, wait_until


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "spool") as running:
        yield running


@pytest.fixture(scope="module")
def hostile_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("hostile")) as running:
        yield running


_SOUND = encode(mr_image())


@given(
    st.one_of(
        st.binary(max_size=200),
        st.integers(0, len(_SOUND) - 1).map(lambda length: _SOUND[:length]),
        st.tuples(st.integers(0, len(_SOUND) - 1), st.binary(min_size=1, max_size=8)).map(
            lambda change: _SOUND[: change[0]] + change[1] + _SOUND[change[0] + len(change[1]) :]
        ),
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_whatever_comes_is_answered_and_the_next_sender_is_served(
    hostile_node: Node, tmp_path_factory: pytest.TempPathFactory, data_set: bytes
) -> None:
    folder = hostile_node.spool.root
    before = len(hostile_node.stored), len(hostile_node.refused)
    with associated(hostile_node.receiver.port) as association:
        try:
            answer = send_bytes(association, folder, mr_image(), data_set)
        except struct.error:  # pydicom cannot even read it to send it
            return
        told = len(hostile_node.stored) - before[0], len(hostile_node.refused) - before[1]
        if answer.Status == 0x0000:
            assert sum(told) == 1
        else:
            assert answer.Status in (0xA900, 0xC000, 0xA700)
            assert told == (0, 1)
        assert association.send_c_echo().Status == 0x0000


def test_cut_off_at_every_tenth_byte_each_is_refused(node: Node, tmp_path: Path) -> None:
    cuts = range(0, len(_SOUND), 10)
    with associated(node.receiver.port) as association:
        answers = [send_bytes(association, tmp_path, mr_image(), _SOUND[:cut]).Status for cut in cuts]
        assert send_bytes(association, tmp_path, mr_image(), _SOUND).Status == 0x0000
    assert set(answers) <= {0xA900, 0xC000}
    assert len(node.refused) == len(answers)


@pytest.fixture(scope="module")
def brisk_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    brisk = ReceiveSettings(port=0, association_timeout=0.3, pdu_timeout=0.3, idle_timeout=0.3, drain_timeout=1.0)
    with running_node(tmp_path_factory.mktemp("brisk"), brisk) as running:
        yield running


@pytest.fixture(scope="module")
def honest_session(brisk_node: Node) -> bytes:
    """What an honest sender says: association request, C-ECHO, release."""
    said: list[bytes] = []
    association = AE("SCANNER").associate(
        "127.0.0.1",
        brisk_node.receiver.port,
        contexts=[build_context(VERIFICATION), build_context(MRImageStorage)],
        ae_title="QSMNODE",
        evt_handlers=[(evt.EVT_DATA_SENT, lambda event: said.append(event.data))],
    )
    association.send_c_echo()
    association.release()
    return b"".join(said)


@given(
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=5),
    cut=st.floats(0, 1),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_broken_conversation_ends_and_harms_nobody(
    brisk_node: Node, honest_session: bytes, changes: list[tuple[float, int]], cut: float
) -> None:
    """Bytes of an honest session, some changed, the end cut off: we close it in time, and the next is served."""
    session = bytearray(honest_session)
    for place, value in changes:
        session[int(place * len(session))] = value
    with _connect(brisk_node.receiver.port) as connection:
        connection.sendall(session[: int(cut * len(session)) + 1])
        assert _is_closed(connection)
    with associated(brisk_node.receiver.port) as association:
        assert association.send_c_echo().Status == 0x0000


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def _is_closed(connection: socket.socket) -> bool:
    """Read to the end; an A-ABORT may come first."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def _is_served(port: int) -> bool:
    association = AE("SCANNER").associate("127.0.0.1", port, contexts=[build_context(VERIFICATION)], ae_title="QSMNODE")
    established = bool(association.is_established)
    association.release()
    return established


def test_a_pdu_of_absurd_length_is_not_read(node: Node) -> None:
    with _connect(node.receiver.port) as connection:
        connection.sendall(struct.pack(">BBL", 1, 0, 400_000_000) + bytes(1000))
        assert _is_closed(connection)


def test_half_a_pdu_locks_nobody_out_for_longer_than_the_deadline(tmp_path: Path) -> None:
    strict = ReceiveSettings(
        port=0, maximum_associations=5, pdu_timeout=0.5, association_timeout=0.5, drain_timeout=1.0
    )
    with running_node(tmp_path, strict) as node:
        lingering = [_connect(node.receiver.port) for _ in range(8)]
        for connection in lingering:
            connection.sendall(b"\x01\x00\x00\x00\x10\x00\x00")
        assert all(_is_closed(connection) for connection in lingering)
        for connection in lingering:
            connection.close()

        wait_until(lambda: _is_served(node.receiver.port), "an honest sender is served again")


@pytest.mark.parametrize(
    "noise",
    [b"GET / HTTP/1.1\r\n\r\n", bytes(64), b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"],
    ids=["http", "zeros", "release first"],
)
def test_noise_on_the_port_harms_nobody(node: Node, noise: bytes) -> None:
    with _connect(node.receiver.port) as connection:
        connection.sendall(noise)
        connection.shutdown(socket.SHUT_WR)
        assert _is_closed(connection)
    with associated(node.receiver.port) as association:
        assert association.send_c_echo().Status == 0x0000


def test_an_object_larger_than_allowed_ends_the_association_only(tmp_path: Path) -> None:
    small = ReceiveSettings(port=0, maximum_object_bytes=200_000, drain_timeout=1.0)
    with running_node(tmp_path / "spool", small) as node:
        with associated(node.receiver.port) as association:
            large = mr_image(rows=1000, columns=1000)
            assert "Status" not in send_bytes(association, tmp_path, large, encode(large))
        with associated(node.receiver.port) as association:
            assert send_bytes(association, tmp_path, mr_image(), encode(mr_image())).Status == 0x0000


def test_stop_waits_for_a_sender_then_aborts_it_and_frees_the_port(tmp_path: Path) -> None:
    with running_node(tmp_path / "spool", ReceiveSettings(port=0, drain_timeout=0.3)) as node:
        port = node.receiver.port
        with associated(port) as association:
            node.receiver.stop()
            wait_until(lambda: not association.is_established, "the sender was aborted")
        again = Receiver(ReceiveSettings(port=port), node.spool, node.stored.append, node.refused.append)
        again.start()
        again.stop()


def test_stop_waits_for_nobody_who_does_not_read(tmp_path: Path) -> None:
    """What waits for a workstation that has fallen asleep in a retrieve must not keep the node from its end."""
    patient = ReceiveSettings(port=0, drain_timeout=0.1, pdu_timeout=120.0)
    with running_node(tmp_path, patient) as node, associated(node.receiver.port) as association:
        [ours] = node.receiver._listeners[False]._server.active_associations
        fragment = P_DATA()
        fragment.presentation_data_value_list.append((1, b"\2" + bytes(10**6)))

        def serve(message: object, context_id: int) -> None:
            while ours.dul.is_alive():
                ours.dul.send_pdu(fragment)

        ours._serve_request = serve  # type: ignore[method-assign,assignment]  # a retrieve, on the association's thread
        asleep: Any = association.dul
        asleep._is_transport_event = lambda: False
        echo = C_ECHO()
        echo.MessageID, echo.AffectedSOPClassUID = 1, UID(VERIFICATION)
        association.dimse.send_msg(echo, association.accepted_contexts[1].context_id or 0)
        wait_until(lambda: ours.dul.to_provider_queue.qsize() > QUEUED, "nothing goes any more")
        stopping = threading.Thread(target=node.receiver.stop, daemon=True)
        stopping.start()
        wait_until(lambda: not stopping.is_alive(), "it has stopped")
        del asleep._is_transport_event


def test_port_probes_lock_nobody_out(tmp_path: Path) -> None:
    """A monitor connects and closes; pynetdicom alone keeps a place for each until the association timeout."""
    patient = ReceiveSettings(port=0, maximum_associations=3, association_timeout=300.0, drain_timeout=1.0)
    with running_node(tmp_path, patient) as node:
        for _ in range(20):
            _connect(node.receiver.port).close()
        wait_until(lambda: _is_served(node.receiver.port), "an honest sender is served")


def test_threads_do_not_pile_up(node: Node) -> None:
    """Health checks come every minute for years."""
    for _ in range(3):
        with associated(node.receiver.port):
            pass
    wait_until(lambda: len(node.released) == 3, "the first checks ended")
    settled = threading.active_count()
    for _ in range(15):
        with associated(node.receiver.port):
            pass
    wait_until(lambda: len(node.released) == 18, "all checks ended")
    wait_until(lambda: threading.active_count() <= settled, f"no more than {settled} threads")
