"""The sender: every instance is answered for, every wait has an end, every failure says what was found."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Self

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
)
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context

from demo.archive import Archive
from dicom_node.call import Destination, SendSettings, echo
from dicom_node.checkpoint import install_checkpoint
from dicom_node.errors import PeerFailure, UnreadableObject
from dicom_node.identity import IMPLEMENTATION_CLASS_UID
from dicom_node.send import MOST_SUSPECTED, classify, send
from tests.objects import encode, enhanced_mr_image, mr_image, with_meta, write
from tests.peers import free_port, rude_peer, running_node

BRISK = SendSettings(connection_timeout=2, association_timeout=1, response_timeout=1, idle_timeout=1)


def _destination(archive: Archive) -> Destination:
    return Destination("archive", archive.host, archive.port, archive.ae_title)


def test_every_file_arrives_as_it_lies_on_the_disk(tmp_path: Path) -> None:
    files = write(tmp_path / "out", *(mr_image(number) for number in range(5)), enhanced_mr_image())
    with Archive(tmp_path / "archive") as archive:
        echo(_destination(archive), BRISK)
        deliveries = list(send(files, _destination(archive), BRISK))
        assert [delivery.path for delivery in deliveries] == files
        assert {(delivery.status, delivery.outcome) for delivery in deliveries} == {(0, "stored")}
        for delivery in deliveries:
            assert archive.paths[delivery.sop_instance_uid].read_bytes().endswith(encode(dcmread(delivery.path)))


def test_a_second_sending_adds_nothing(tmp_path: Path) -> None:
    files = write(tmp_path / "out", mr_image(1), mr_image(2))
    with Archive(tmp_path / "archive") as archive:
        for _ in range(2):
            assert [delivery.outcome for delivery in send(files, _destination(archive), BRISK)] == ["stored", "stored"]
        assert len(archive.paths) == 2
        assert set(archive.sent.values()) == {2}


def test_nothing_to_send_needs_no_peer() -> None:
    assert list(send([], Destination("nobody", "127.0.0.1", 1, "NOBODY"), BRISK)) == []


def test_a_compressed_file_goes_out_compressed(tmp_path: Path) -> None:
    image = with_meta(mr_image(rows=64, columns=64), ExplicitVRLittleEndian)
    pixels = image.PixelData
    image.compress(RLELossless, generate_instance_uid=False)
    image.save_as(tmp_path / "rle.dcm", enforce_file_format=True)
    with Archive(tmp_path / "archive") as archive:
        (delivery,) = send([tmp_path / "rle.dcm"], _destination(archive), BRISK)
        assert delivery.outcome == "stored"
        arrived = dcmread(archive.paths[image.SOPInstanceUID])
        assert arrived.file_meta.TransferSyntaxUID == RLELossless
        assert arrived.pixel_array.astype("<u2").tobytes() == pixels


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        *((status, "stored") for status in (0x0000, 0xB000, 0xB006, 0xB007, 0x0107, 0x0116, 0x0111)),
        *((status, "retry") for status in (0xA700, 0xA701, 0xA7FF, 0x0110, 0x0213)),
        *((status, "refused") for status in (0xA900, 0xC000, 0xCFFF, 0x0122, 0x0124, 0x0106, 0xFE00)),
    ],
)
def test_what_a_status_means(status: int, outcome: str) -> None:
    assert classify(status) == outcome


def test_a_picky_archive_is_reported_instance_by_instance(tmp_path: Path) -> None:
    images = [mr_image(number) for number in range(4)]
    files = write(tmp_path / "out", *images)
    answers = dict(zip((image.SOPInstanceUID for image in images), (0xA700, 0x0000, 0xC123, 0xA901), strict=True))
    with Archive(tmp_path / "archive", answer=lambda uid: answers[uid]) as archive:
        deliveries = list(send(files, _destination(archive), BRISK))
        assert [delivery.outcome for delivery in deliveries] == ["retry", "stored", "refused", "refused"]
        assert [delivery.status for delivery in deliveries] == list(answers.values())
        assert list(archive.paths) == [images[1].SOPInstanceUID]


def test_the_comment_of_a_refusal_is_handed_on(tmp_path: Path) -> None:
    truncated = mr_image()
    truncated.PixelData = truncated.PixelData[:-2]
    (file,) = write(tmp_path / "out", truncated)
    with running_node(tmp_path / "spool") as node:
        (delivery,) = send([file], node.destination, BRISK)
    assert delivery.outcome == "refused"
    assert delivery.comment.startswith("Pixel Data has 46 bytes, 48 are needed")


def _run(contexts: list[tuple[str, list[str]]], **settings: object) -> tuple[AE, Destination, list[Dataset]]:
    """A storage SCP with just these contexts."""
    entity = AE("PEER")
    for abstract, transfers in contexts:
        entity.add_supported_context(abstract, transfers)
    for name, value in settings.items():
        setattr(entity, name, value)
    got: list[Dataset] = []

    def store(event: evt.Event) -> int:
        image = event.dataset
        image.file_meta = event.file_meta
        got.append(image)
        return 0x0000

    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    return entity, Destination("peer", "127.0.0.1", int(server.server_address[1]), "PEER"), got


def test_a_peer_that_knows_only_implicit_vr_gets_it(tmp_path: Path) -> None:
    (file,) = write(tmp_path, mr_image())
    entity, destination, got = _run([(MRImageStorage, [ImplicitVRLittleEndian])])
    try:
        (delivery,) = send([file], destination, BRISK)
        assert delivery.outcome == "stored"
        assert got[0].file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        assert encode(got[0]) == encode(mr_image())
    finally:
        entity.shutdown()


def test_a_class_that_the_peer_does_not_take_is_refused_and_the_rest_is_stored(tmp_path: Path) -> None:
    files = write(tmp_path, mr_image(1), enhanced_mr_image(), mr_image(2))
    entity, destination, _ = _run([(MRImageStorage, [ExplicitVRLittleEndian])])
    try:
        deliveries = list(send(files, destination, BRISK))
    finally:
        entity.shutdown()
    assert [delivery.outcome for delivery in deliveries] == ["stored", "refused", "stored"]
    assert "Enhanced MR Image Storage" in deliveries[1].comment


def test_a_peer_that_takes_nothing_of_ours_says_so(tmp_path: Path) -> None:
    (file,) = write(tmp_path, mr_image())
    entity, destination, _ = _run([(CTImageStorage, [ImplicitVRLittleEndian])])
    try:
        with pytest.raises(PeerFailure, match="none of the 2 presentation contexts"):
            list(send([file], destination, BRISK))
    finally:
        entity.shutdown()


def test_a_rejection_names_the_ae_titles(tmp_path: Path) -> None:
    entity, destination, _ = _run([(MRImageStorage, [ExplicitVRLittleEndian])], require_calling_aet=["FRIEND"])
    (file,) = write(tmp_path, mr_image())
    try:
        with pytest.raises(PeerFailure, match=r"rejected.*[Cc]alling AE title.*QSMNODE.*PEER"):
            list(send([file], destination, BRISK))
    finally:
        entity.shutdown()


def test_nobody_there(tmp_path: Path) -> None:
    (file,) = write(tmp_path, mr_image())
    destination = Destination("gone", "127.0.0.1", free_port(), "GONE")
    with pytest.raises(PeerFailure, match=r"gone \(GONE at 127.0.0.1:\d+\) took no TCP connection"):
        list(send([file], destination, BRISK))
    with pytest.raises(PeerFailure, match="took no TCP connection"):
        echo(destination, BRISK)


@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(lambda connection: None, id="silent"),
        pytest.param(lambda connection: connection.close(), id="closes"),
        pytest.param(lambda connection: connection.sendall(b"220 smtp.example ready\r\n"), id="speaks SMTP"),
        pytest.param(lambda connection: connection.sendall(struct.pack(">BBL", 2, 0, 5000)), id="half an accept"),
        pytest.param(lambda connection: connection.sendall(struct.pack(">BBL4x", 7, 0, 4)), id="aborts"),
    ],
)
def test_a_rude_peer_holds_nobody_up(tmp_path: Path, behaviour: object) -> None:
    """Also half a PDU: stock pynetdicom would wait for the other half for ever."""
    (file,) = write(tmp_path, mr_image())
    assert callable(behaviour)
    with rude_peer(behaviour) as destination:
        with pytest.raises(PeerFailure, match="did not accept the association"):
            list(send([file], destination, BRISK))
        with pytest.raises(PeerFailure):
            echo(destination, BRISK)


class Stumbling:
    """A peer that breaks off at some instances, whenever they come, or at all of them."""

    def __init__(self, at: Callable[[str], bool], how: str = "dies") -> None:
        self._at = at
        self._how = how
        self._entity = AE("PEER")
        self._entity.add_supported_context(MRImageStorage, ExplicitVRLittleEndian)
        self.associations = 0
        self.asked: list[str] = []
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_ESTABLISHED, self._count)]
        server = self._entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        assert server is not None
        self.server = server
        self.destination = Destination("peer", "127.0.0.1", int(server.server_address[1]), "PEER")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._entity.shutdown()

    def _count(self, event: evt.Event) -> None:
        self.associations += 1

    def _store(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.asked.append(uid)
        if self._at(uid):
            stream = event.assoc.dul.socket
            assert stream is not None
            assert stream.socket is not None
            if self._how == "dies":
                stream.socket.shutdown(socket.SHUT_RDWR)
            else:
                event.assoc.dul.send_pdu = lambda primitive: None  # type: ignore[method-assign]  # nothing leaves it now
        return 0x0000


@pytest.mark.parametrize(
    ("how", "bad"),
    [("dies", (0,)), ("is silent", (3,)), ("dies", (5,)), ("dies", (1, 2)), ("dies", (3, 4, 5))],
)
def test_a_peer_that_breaks_off_at_some_instances_gets_all_others(
    tmp_path: Path, how: str, bad: tuple[int, ...]
) -> None:
    images = [mr_image(number) for number in range(6)]
    files = write(tmp_path, *images)
    uids = [str(image.SOPInstanceUID) for image in images]
    with Stumbling(lambda uid: uids.index(uid) in bad, how) as peer:
        deliveries = {delivery.sop_instance_uid: delivery for delivery in send(files, peer.destination, BRISK)}
    assert sorted(deliveries) == sorted(uids)
    for number, uid in enumerate(uids):
        found = deliveries[uid]
        assert (found.outcome, found.broke_off) == (("retry", True) if number in bad else ("stored", False))
        assert (found.status is None) == (number in bad)
    assert sorted(peer.asked) == sorted(uids), "something was sent twice in one go"
    assert f"instance {uids[bad[0]]}" in deliveries[uids[bad[0]]].comment


def test_a_peer_that_breaks_off_at_everything_is_to_blame_itself(tmp_path: Path) -> None:
    files = write(tmp_path, *(mr_image(number) for number in range(9)))
    came: list[str] = []
    with Stumbling(lambda uid: len(peer.asked) > 2) as peer, pytest.raises(PeerFailure, match=r"broke off.*instance"):
        came.extend(map(attrgetter("outcome"), send(files, peer.destination, BRISK)))
    assert came == ["stored", "stored"]
    assert peer.associations == 1 + MOST_SUSPECTED


def test_a_peer_that_breaks_off_and_is_gone_is_to_blame_itself(tmp_path: Path) -> None:
    files = write(tmp_path, mr_image(1), mr_image(2))

    def last(uid: str) -> bool:
        peer.server.server_close()
        return True

    with Stumbling(last) as peer, pytest.raises(PeerFailure, match="took no TCP connection"):
        list(send(files, peer.destination, BRISK))
    assert len(peer.asked) == 1


def test_a_peer_that_ends_the_association_after_each_instance_gets_them_all(tmp_path: Path) -> None:
    files = write(tmp_path, *(mr_image(number) for number in range(3)))
    entity, destination, got = _run([(MRImageStorage, [ExplicitVRLittleEndian])])
    outcomes = []
    try:
        for delivery in send(files, destination, BRISK):
            outcomes.append(delivery.outcome)
            for association in entity.active_associations:
                association.abort()
            time.sleep(0.1)  # until that has arrived
    finally:
        entity.shutdown()
    assert (outcomes, len(got)) == (["stored"] * 3, 3)


def test_who_stops_listening_releases_the_association(tmp_path: Path) -> None:
    files = write(tmp_path / "out", mr_image(1), mr_image(2))
    with running_node(tmp_path / "spool") as node:
        deliveries = send(files, node.destination, BRISK)
        next(deliveries)
        deliveries.close()  # type: ignore[attr-defined]  # an Iterator by contract, a generator in fact
        assert len(node.stored) == 1
        assert node.released in ([], [node.stored[0].association])


@pytest.mark.parametrize("content", [b"", b"no DICOM at all", bytes(128) + b"DICM"])
def test_a_file_that_is_none_is_found_before_anything_is_sent(tmp_path: Path, content: bytes) -> None:
    good, bad = write(tmp_path / "out", mr_image())[0], tmp_path / "bad.dcm"
    bad.write_bytes(content)
    with Archive(tmp_path / "archive") as archive:
        with pytest.raises(UnreadableObject, match=r"bad\.dcm"):
            list(send([good, bad], _destination(archive), BRISK))
        assert archive.paths == {}


def test_we_say_who_we_are(tmp_path: Path) -> None:
    entity = AE("PEER")
    entity.add_supported_context("1.2.840.10008.1.1")
    seen = []

    def note(event: evt.Event) -> None:
        requestor = event.assoc.requestor
        seen.append((requestor.ae_title, requestor.implementation_class_uid))

    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_ESTABLISHED, note)])
    assert server is not None
    try:
        echo(Destination("peer", "127.0.0.1", int(server.server_address[1]), "PEER"), BRISK)
    finally:
        entity.shutdown()
    assert seen == [("QSMNODE", IMPLEMENTATION_CLASS_UID)]


def _find(archive: Archive, level: str, **keys: str) -> list[Dataset]:
    entity = AE("QUERY")
    find = "1.2.840.10008.5.1.4.1.2.2.1"
    association = entity.associate(
        archive.host,
        archive.port,
        contexts=[build_context(find)],
        evt_handlers=[(evt.EVT_CONN_OPEN, install_checkpoint)],
    )
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    try:
        answers = list(association.send_c_find(query, find))
    finally:
        association.release()
    assert answers[-1][0].Status == 0x0000
    return [identifier for status, identifier in answers if status.Status == 0xFF00 and identifier is not None]


def test_the_archive_finds_what_it_was_sent(tmp_path: Path) -> None:
    files = write(tmp_path / "out", *(mr_image(number) for number in range(3)))
    with Archive(tmp_path / "archive") as archive:
        list(send(files, _destination(archive), BRISK))
        (study,) = _find(archive, "STUDY", StudyInstanceUID="", PatientID="TE*")
        assert study.StudyInstanceUID == mr_image().StudyInstanceUID
        assert len(_find(archive, "SERIES", StudyInstanceUID=study.StudyInstanceUID, SeriesInstanceUID="")) == 1
        images = _find(archive, "IMAGE", StudyInstanceUID=study.StudyInstanceUID, SOPInstanceUID="", InstanceNumber="")
        assert {image.SOPInstanceUID for image in images} == set(archive.paths)
        assert _find(archive, "STUDY", StudyInstanceUID="1.2.3") == []
        assert len(_find(archive, "IMAGE", SOPInstanceUID="", InstanceNumber="2")) == 1
