"""The receiver over real associations: what it acknowledges, what it refuses, and whom it hears."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
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
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import build_context

from dicom_node.call import SendSettings
from dicom_node.checkpoint import install_checkpoint
from dicom_node.receive import Receiver, ReceiveSettings, Stored
from dicom_node.send import send
from dicom_node.spool import Spool
from tests.objects import encode, enhanced_mr_image, mr_image, with_meta, write
from tests.peers import Node, associated, running_node, send_bytes, wait_until


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "spool") as running:
        yield running


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
        answer = send_bytes(association, tmp_path, mr_image(), data_set)
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
        assert send_bytes(association, tmp_path, image, encode(image)).Status == 0xA900
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
        assert send_bytes(association, tmp_path, image, encode(image)).Status == 0x0122
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
