"""The receiver over real associations: what it acknowledges, what it refuses, whom it hears, and that it lives."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import build_context

from dicom_node.call import SendSettings
from dicom_node.checkpoint import install_checkpoint
from dicom_node.guard import QUEUED
from dicom_node.identity import VERIFICATION
from dicom_node.receive import Receiver, ReceiveSettings, Stored
from dicom_node.send import send
from dicom_node.spool import Spool
from tests.objects import encode, enhanced_mr_image, mr_image, part_10, with_meta, write
from tests.peers import Node, running_node, wait_until


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "spool") as running:
        yield running


@contextmanager
def associated(port: int, *, sop_class: str = MRImageStorage, calling: str = "SCANNER") -> Iterator[Association]:
    """A sender of ours; raw bytes of files go out as they are."""
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    contexts = [build_context(sop_class, ExplicitVRLittleEndian), build_context(VERIFICATION)]
    association = entity.associate(
        "127.0.0.1", port, contexts=contexts, ae_title="QSMNODE", evt_handlers=[(evt.EVT_CONN_OPEN, install_checkpoint)]
    )
    assert association.is_established
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def _send_bytes(association: Association, folder: Path, image: Dataset, data_set: bytes) -> Dataset:
    file = folder / "raw.dcm"
    file.write_bytes(part_10(image, data_set))
    return association.send_c_store(file)


def test_echo_and_store(node: Node, tmp_path: Path) -> None:
    image = mr_image()
    (file,) = write(tmp_path, image)
    with associated(node.receiver.port) as association:
        assert association.send_c_echo().Status == 0x0000
        assert association.send_c_store(file).Status == 0x0000
        (stored,) = node.stored
        assert dcmread(stored.path).PixelData == image.PixelData
        assert stored.path.read_bytes().endswith(encode(image))
        assert not stored.repeated
        assert {stored.association} == node.receiver.open_associations
    wait_until(lambda: node.released == [stored.association], "the end of the association was told")
    assert node.receiver.open_associations == frozenset()
    assert node.refused == []


def test_an_enhanced_image_is_stored(node: Node, tmp_path: Path) -> None:
    image = enhanced_mr_image()
    (file,) = write(tmp_path, image)
    with associated(node.receiver.port, sop_class=image.SOPClassUID) as association:
        assert association.send_c_store(file).Status == 0x0000
    assert dcmread(node.stored[0].path).NumberOfFrames == 3


def test_the_same_again_is_success_and_nothing_else(node: Node, tmp_path: Path) -> None:
    (file,) = write(tmp_path, mr_image())
    with associated(node.receiver.port) as association:
        assert [association.send_c_store(file).Status for _ in range(3)] == [0, 0, 0]
    assert [stored.repeated for stored in node.stored] == [False, True, True]
    assert len({stored.path for stored in node.stored}) == len(list(node.spool.images())) == 1
    assert node.refused == []
    assert list(node.spool.conflicts.iterdir()) == []


def test_other_content_under_a_known_uid_is_kept_aside_and_reported(node: Node, tmp_path: Path) -> None:
    files = write(tmp_path, mr_image(), mr_image(pixel=9))
    with associated(node.receiver.port) as association:
        assert [association.send_c_store(file).Status for file in files] == [0, 0]
    assert dcmread(node.stored[0].path).PixelData == mr_image().PixelData
    (conflict,) = node.refused
    assert conflict.status == 0x0000
    assert conflict.path is not None
    assert dcmread(conflict.path).PixelData == mr_image(pixel=9).PixelData
    assert len(node.stored) == 1


def test_two_senders_at_once(node: Node, tmp_path: Path) -> None:
    """Interleaved image by image, partly the same images: each is there once, each association is told apart."""
    images = [mr_image(number) for number in range(12)]
    files = write(tmp_path, *images)
    with associated(node.receiver.port) as first, associated(node.receiver.port) as second:
        for one, other in zip(files[:8], files[4:], strict=True):
            assert first.send_c_store(one).Status == 0x0000
            assert second.send_c_store(other).Status == 0x0000
        assert len(node.receiver.open_associations) == 2
        first.release()
        wait_until(lambda: len(node.receiver.open_associations) == 1, "one sender has gone")
    assert {dcmread(path).SOPInstanceUID for path in node.spool.images()} == {image.SOPInstanceUID for image in images}
    assert len({stored.association for stored in node.stored}) == 2
    assert sum(stored.repeated for stored in node.stored) == 4


@pytest.mark.parametrize("end", ["release", "abort", "close"])
def test_the_end_of_an_association_is_told_however_it_ends(node: Node, tmp_path: Path, end: str) -> None:
    (file,) = write(tmp_path, mr_image())
    with associated(node.receiver.port) as association:
        association.send_c_store(file)
        if end == "close":
            assert association.dul.socket is not None
            assert association.dul.socket.socket is not None
            association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        else:
            getattr(association, end)()
        wait_until(lambda: node.released, "the end was told")
    assert node.released == [node.stored[0].association]
    assert node.receiver.open_associations == frozenset()


def test_a_silent_sender_is_let_go(tmp_path: Path) -> None:
    settings_ = ReceiveSettings(port=0, idle_timeout=0.5, drain_timeout=1.0)
    with running_node(tmp_path, settings_) as node, associated(node.receiver.port):
        wait_until(lambda: node.released, "the silent association was ended")


@pytest.mark.parametrize(
    ("data_set", "status"),
    [
        (b"", 0xA900),
        (b"this is no data set", 0xC000),
        (encode(mr_image())[:-10], 0xC000),
        (encode(mr_image(2)), 0xA900),
        (encode(enhanced_mr_image()), 0xA900),
    ],
    ids=["empty", "garbage", "truncated", "other UID", "other class"],
)
def test_the_bad_is_refused_and_quarantined_with_its_reason(
    node: Node, tmp_path: Path, data_set: bytes, status: int
) -> None:
    with associated(node.receiver.port) as association:
        answer = _send_bytes(association, tmp_path, mr_image(), data_set)
        assert answer.Status == status
        (refused,) = node.refused
        assert (refused.status, refused.calling_ae_title) == (status, "SCANNER")
        assert refused.reason.startswith(answer.ErrorComment[:40])
        assert refused.path is not None
        assert refused.reason in refused.path.read_text()
        assert refused.path.with_suffix(".dataset").read_bytes() == data_set
        assert association.send_c_echo().Status == 0x0000
    assert node.stored == []
    assert list(node.spool.images()) == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("uid", ["../../../../tmp/evil", "/etc/passwd", "1.2.3/../../4"])
def test_a_uid_never_becomes_a_path(node: Node, tmp_path: Path, uid: str) -> None:
    image = mr_image()
    image.add_new("SOPInstanceUID", "UI", uid)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    with associated(node.receiver.port) as association:
        assert _send_bytes(association, tmp_path, image, encode(image)).Status == 0xA900
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before - {tmp_path / "raw.dcm"}
    assert new
    assert all(path.is_relative_to(node.spool.quarantine_folder) for path in new)


def test_a_command_for_another_class_than_its_context_is_refused(node: Node, tmp_path: Path) -> None:
    """A CT image pushed through a context that was agreed for MR."""
    image = mr_image()
    image.SOPClassUID = CTImageStorage
    with associated(node.receiver.port) as association:
        (context,) = [context for context in association.accepted_contexts if context.abstract_syntax == MRImageStorage]
        context.abstract_syntax = CTImageStorage  # the sender lies to itself, and so to us
        assert _send_bytes(association, tmp_path, image, encode(image)).Status == 0x0122
    assert node.refused[0].status == 0x0122


def test_a_command_without_a_data_set_is_refused_and_the_association_goes_on(node: Node, tmp_path: Path) -> None:
    command = C_STORE()
    command.MessageID, command.Priority = 1, 2
    command.AffectedSOPClassUID, command.AffectedSOPInstanceUID = MRImageStorage, "1.2.3"
    with associated(node.receiver.port) as association:
        (context,) = [context for context in association.accepted_contexts if context.abstract_syntax == MRImageStorage]
        assert context.context_id is not None
        association.dimse.send_msg(command, context.context_id)
        wait_until(lambda: node.refused, "the command was refused")
        assert node.receiver.open_associations == {node.refused[0].association}
    assert node.refused[0].status == 0xA900
    assert "SOPInstanceUID" in node.refused[0].reason


def test_a_system_without_quick_acknowledgements_is_slower_and_no_worse(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "TCP_QUICKACK")
    (file,) = write(tmp_path, mr_image())
    with associated(node.receiver.port) as association:
        assert association.send_c_store(file).Status == 0x0000


def test_contexts_for_other_classes_are_rejected_without_harm(node: Node, tmp_path: Path) -> None:
    (file,) = write(tmp_path, mr_image())
    entity = AE("SCANNER")
    contexts = [build_context(CTImageStorage), build_context(MRImageStorage, ExplicitVRLittleEndian)]
    association = entity.associate(
        "127.0.0.1",
        node.receiver.port,
        contexts=contexts,
        ae_title="QSMNODE",
        evt_handlers=[(evt.EVT_CONN_OPEN, install_checkpoint)],
    )
    assert [context.abstract_syntax for context in association.rejected_contexts] == [CTImageStorage]
    assert association.send_c_store(file).Status == 0x0000
    association.release()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_answers_out_of_resources_and_loses_nothing(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    first, second = write(tmp_path, mr_image(1), mr_image(2))
    with associated(node.receiver.port) as association:
        assert association.send_c_store(first).Status == 0x0000
        with monkeypatch.context() as disk:
            disk.setattr("dicom_node.spool.os.write", full)
            assert association.send_c_store(second).Status == 0xA700
            assert association.send_c_store(first).Status == 0x0000
        assert [dcmread(path).InstanceNumber for path in node.spool.images()] == [1]
        assert list(node.spool.receiving.iterdir()) == []
        assert association.send_c_store(second).Status == 0x0000
    assert len(list(node.spool.images())) == 2


def test_an_index_that_fails_makes_the_sender_come_again(tmp_path: Path) -> None:
    calls: list[Stored] = []

    def fail_once(stored: Stored) -> None:
        calls.append(stored)
        if len(calls) == 1:
            raise RuntimeError("no database")

    (file,) = write(tmp_path, mr_image())
    receiver = Receiver(ReceiveSettings(port=0, drain_timeout=1.0), Spool(tmp_path / "spool"), fail_once, calls.append)  # type: ignore[arg-type]  # nothing is refused here
    receiver.start()
    try:
        with associated(receiver.port) as association:
            assert association.send_c_store(file).Status == 0xA700
            assert association.send_c_store(file).Status == 0x0000
    finally:
        receiver.stop()
    assert [call.repeated for call in calls] == [False, True]


def test_what_is_asked_of_a_receiver_that_has_stopped_has_an_answer(tmp_path: Path) -> None:
    with running_node(tmp_path / "spool") as node:
        assert node.receiver.port
        before = time.monotonic()
    assert (node.receiver.port, node.receiver.secure_port) == (0, 0)
    assert node.receiver.accepting_at > before


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
            answer = _send_bytes(association, folder, mr_image(), data_set)
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
        answers = [_send_bytes(association, tmp_path, mr_image(), _SOUND[:cut]).Status for cut in cuts]
        assert _send_bytes(association, tmp_path, mr_image(), _SOUND).Status == 0x0000
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
            assert "Status" not in _send_bytes(association, tmp_path, large, encode(large))
        with associated(node.receiver.port) as association:
            assert _send_bytes(association, tmp_path, mr_image(), encode(mr_image())).Status == 0x0000


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


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda syntax: syntax.name)
def test_a_compressed_image_is_stored_as_sent_and_can_be_read(node: Node, tmp_path: Path, syntax: UID) -> None:
    image = with_meta(mr_image(rows=64, columns=48), ExplicitVRLittleEndian)
    image.save_as(tmp_path / "plain.dcm", enforce_file_format=True)
    image.compress(syntax, generate_instance_uid=False)
    image.save_as(tmp_path / "compressed.dcm", enforce_file_format=True)
    (delivery,) = send([tmp_path / "compressed.dcm"], node.destination, SendSettings())
    assert delivery.outcome == "stored", delivery.comment
    arrived = dcmread(node.stored[0].path)
    assert arrived.file_meta.TransferSyntaxUID == syntax
    assert (arrived.pixel_array == dcmread(tmp_path / "plain.dcm").pixel_array).all()


def test_an_implicit_sender_is_stored_as_it_sent(node: Node, tmp_path: Path) -> None:
    image = mr_image()
    entity = AE("SCANNER")
    association = entity.associate(
        "127.0.0.1",
        node.receiver.port,
        contexts=[build_context(MRImageStorage, ImplicitVRLittleEndian)],
        ae_title="QSMNODE",
        evt_handlers=[(evt.EVT_CONN_OPEN, install_checkpoint)],
    )
    image.file_meta = dcmread(write(tmp_path, image)[0]).file_meta
    assert association.send_c_store(image).Status == 0x0000
    association.release()
    path = node.stored[0].path
    assert dcmread(path).file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert path.read_bytes().endswith(encode(image, ImplicitVRLittleEndian))


_RECEIVER = """
import sys, time
from pathlib import Path
from typing import Any
from dicom_node.receive import Receiver, ReceiveSettings
from dicom_node.spool import Spool
receiver = Receiver(ReceiveSettings(port=0), Spool(Path(sys.argv[1])), lambda stored: None, lambda refused: None)
receiver.start()
print("port", receiver.port, flush=True)
time.sleep(600)
"""


def _large_image(number: int = 1) -> Dataset:
    """3 MB: more than is held in memory."""
    return mr_image(number, rows=1500, columns=1000)


def test_a_large_object_is_stored_once_and_told_from_another(node: Node, tmp_path: Path) -> None:
    first, other = write(tmp_path, _large_image(), mr_image(1, rows=1500, columns=1000, pixel=9))
    with associated(node.receiver.port) as association:
        assert [association.send_c_store(file).Status for file in (first, first, other)] == [0, 0, 0]
    assert [stored.repeated for stored in node.stored] == [False, True]
    assert dcmread(node.stored[0].path).PixelData == _large_image().PixelData
    (conflict,) = node.refused
    assert conflict.path is not None
    assert dcmread(conflict.path).PixelData == mr_image(1, rows=1500, columns=1000, pixel=9).PixelData
    assert list(node.spool.receiving.iterdir()) == []


def test_a_large_object_that_is_refused_is_quarantined_whole(node: Node, tmp_path: Path) -> None:
    data_set = encode(_large_image())[:-10]
    with associated(node.receiver.port) as association:
        assert _send_bytes(association, tmp_path, _large_image(), data_set).Status == 0xC000
    assert node.refused[0].path is not None
    assert node.refused[0].path.with_suffix(".dataset").read_bytes() == data_set
    assert list(node.spool.receiving.iterdir()) == []


@pytest.mark.parametrize("end", ["abort", "close"])
def test_a_large_object_that_is_broken_off_leaves_nothing(node: Node, end: str) -> None:
    with associated(node.receiver.port) as association:
        (context,) = [context for context in association.accepted_contexts if context.abstract_syntax == MRImageStorage]
        assert context.context_id is not None
        message = _store_message(_large_image())
        fragments = list(message.encode_msg(context.context_id, 2**16))
        for fragment in fragments[:-2]:
            association.dul.send_pdu(fragment)
        wait_until(lambda: list(node.spool.receiving.iterdir()), "it is on its way")
        if end == "close":
            assert association.dul.socket is not None
            assert association.dul.socket.socket is not None
            association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        else:
            association.abort()
        wait_until(lambda: not list(node.spool.receiving.iterdir()), "nothing of it is left")
    assert node.stored == []
    assert node.refused == []


def test_a_disk_that_fills_up_within_a_large_object_makes_the_sender_come_again(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (file,) = write(tmp_path, _large_image())
    with associated(node.receiver.port) as association:
        with monkeypatch.context() as disk:
            disk.setattr("dicom_node.part.os.write", full)
            assert association.send_c_store(file).Status == 0xA700
        assert list(node.spool.receiving.iterdir()) == []
        assert association.send_c_store(file).Status == 0x0000


def _store_message(image: Dataset) -> C_STORE_RQ:
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    request.DataSet = BytesIO(encode(image))
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    return message


def test_an_object_that_comes_before_its_association_was_told_of_is_taken(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer may be faster than the thread that pynetdicom tells of it with."""
    established = node.receiver._established

    def late(event: evt.Event) -> None:
        time.sleep(0.3)
        established(event)

    monkeypatch.setattr(node.receiver, "_established", late)
    node.receiver.stop()
    node.receiver.start()
    (file,) = write(tmp_path, mr_image())
    with associated(node.receiver.port) as association:
        assert association.send_c_store(file).Status == 0x0000


def _resident(process: int) -> dict[str, int]:
    """Bytes of memory that a process has (VmRSS) and had at most (VmHWM)."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return {key: 1024 * int(status[key].split()[0]) for key in ("VmHWM", "VmRSS")}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_the_memory_for_an_object_does_not_grow_with_it(tmp_path: Path) -> None:
    """Of 40 MB; stock pynetdicom holds it twice."""
    image = mr_image(rows=4000, columns=5000)
    (file,) = write(tmp_path, image)
    del image
    with _running_receiver(tmp_path / "spool") as (process, port):
        with associated(port) as association:
            assert association.send_c_echo().Status == 0x0000
            before = _resident(process.pid)
            assert association.send_c_store(file).Status == 0x0000
        assert _resident(process.pid)["VmHWM"] - before["VmRSS"] < 20_000_000


@contextmanager
def _running_receiver(spool: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """In a process of its own, and its port."""
    process = subprocess.Popen(
        [sys.executable, "-c", _RECEIVER, str(spool)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        assert process.stdout is not None
        yield process, next(int(line.split()[1]) for line in process.stdout if line.startswith("port"))
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("acknowledged_before_the_kill", [2, 23])
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, acknowledged_before_the_kill: int) -> None:
    """Conservation: kill -9 in mid-stream; every image that was answered 0x0000 is there, whole, and none is half."""
    images = {number: mr_image(number, rows=64, columns=64) for number in range(60)}
    files = write(tmp_path / "scan", *images.values())
    with _running_receiver(tmp_path / "spool") as (process, port):
        acknowledged: list[int] = []

        def scan() -> None:
            with associated(port) as association:
                for number, file in enumerate(files):
                    answer = association.send_c_store(file)
                    if answer.get("Status") != 0x0000:
                        return
                    acknowledged.append(number)

        scanner = threading.Thread(target=scan)
        scanner.start()
        wait_until(lambda: len(acknowledged) >= acknowledged_before_the_kill, "images were acknowledged")
        process.send_signal(signal.SIGKILL)
        scanner.join(60)
        assert not scanner.is_alive()
    assert len(acknowledged) < len(files), "the kill came too late to prove anything"
    spool = Spool(tmp_path / "spool")
    assert list(spool.receiving.iterdir()) == []
    found = {int(image.InstanceNumber): image for image in map(dcmread, spool.images())}
    assert set(acknowledged) <= set(found)
    assert len(found) <= len(acknowledged) + 1
    for number, image in found.items():
        assert image.PixelData == images[number].PixelData
    with running_node(tmp_path / "spool") as node, associated(node.receiver.port) as association:
        assert all(association.send_c_store(file).Status == 0x0000 for file in files)
        assert len(list(node.spool.images())) == len(files)
        assert node.refused == []
