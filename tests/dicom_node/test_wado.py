"""Series by WADO-RS: every object comes through the door, as it is held, or nothing is said to have come."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless
from requests import Response

from dicom_node.call import SendSettings
from dicom_node.errors import NotTaken, PeerFailure, Unreachable
from dicom_node.spool import data_set_digest
from dicom_node.wado import Landing, _Arrivals, _take_apart, retrieve, retrieve_rest
from dicom_node.web import WebService
from tests.objects import mr_image, with_meta, write
from tests.peers import Node, running_node
from tests.web import Answer, Asked, serving

SETTINGS = SendSettings(connection_timeout=5, response_timeout=5)
BOUNDARY = "one--two"
META = bytes(128) + b"DICM\x02\0\0\0UL\x04\0"
"""As far as its length, exclusive."""
PATH = "/dicom-web/studies/1.2/series/1.2.3"


def multipart(parts: Sequence[bytes], *, end: bool = True) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom;transfer-syntax=*\r\nContent-Length: 7\r\n\r\n".encode()
    body = b"".join(head + part + b"\r\n" for part in parts)
    return b"\r\n" + body + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


def an_answer(parts: Sequence[bytes], **how: Any) -> Answer:
    kind = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'
    return Answer(200, multipart(parts, **how), {"Content-Type": kind})


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "node") as running:
        yield running


def fetched(
    node: Node,
    answer: Answer | Callable[[Asked], Answer],
    *,
    stopping: Callable[[], bool] = lambda: False,
    maximum_bytes: int = 2**31,
    over: Callable[[], None] = lambda: None,
) -> tuple[int, list[Asked]]:
    landing = Landing(node.receiver.brings, maximum_bytes, list)
    with serving(answer if callable(answer) else lambda asked: answer) as served:
        service = WebService("web", f"{served.url}/dicom-web")
        try:
            came = retrieve("1.2", "1.2.3", service, SETTINGS, landing, stopping)
        finally:
            over()
        return came, served.asked


def parts_left(node: Node) -> list[Path]:
    return list(node.spool.receiving.iterdir())


def test_objects_are_kept_to_the_byte_in_the_syntax_they_are_held_in(node: Node, tmp_path: Path) -> None:
    files = write(tmp_path / "files", mr_image(1), mr_image(3, rows=1024, columns=1024))
    compressed = with_meta(mr_image(2, rows=64, columns=64), ExplicitVRLittleEndian)
    compressed.compress(RLELossless)
    files.append(tmp_path / "compressed")
    compressed.save_as(files[-1], enforce_file_format=True)
    came, asked = fetched(node, an_answer([file.read_bytes() for file in files]))
    assert came == 3
    assert [one.path for one in asked] == [PATH]
    assert "transfer-syntax=*" in asked[0].headers["accept"]
    kept = {dcmread(path).SOPInstanceUID: path for path in node.spool.images()}
    for file in files:
        path = kept[dcmread(file).SOPInstanceUID]
        assert data_set_digest(path) == data_set_digest(file)
        assert dcmread(path).file_meta.TransferSyntaxUID == dcmread(file).file_meta.TransferSyntaxUID
        assert dcmread(path).file_meta.SourceApplicationEntityTitle == "web"
    assert len(node.stored) == 3
    assert len({stored.association for stored in node.stored}) == 1
    assert node.released == [node.stored[0].association]
    assert parts_left(node) == []


def test_until_all_has_come_more_may_come(node: Node, tmp_path: Path) -> None:
    """So that a series is not taken for whole in the middle."""
    [file] = write(tmp_path / "files", mr_image(1))
    seen = []

    def stopping() -> bool:
        seen.append(len(node.receiver.open_associations))
        return False

    fetched(node, an_answer([file.read_bytes()]), stopping=stopping)
    assert set(seen) == {1}
    assert node.receiver.open_associations == frozenset()


def test_what_came_before_an_interruption_stays_and_comes_again_as_the_same(node: Node, tmp_path: Path) -> None:
    images = [mr_image(number, rows=256, columns=256) for number in (1, 2)]
    one, two = (file.read_bytes() for file in write(tmp_path / "files", *images))
    whole = an_answer([one, two])
    for cut in (replace(whole, body=whole.body[:-1000], short=1000), an_answer([one], end=False)):
        with pytest.raises(PeerFailure, match="broke off"):
            fetched(node, cut)
        assert len(list(node.spool.images())) == 1
        assert parts_left(node) == []
    came, _ = fetched(node, whole)
    assert came == 2
    assert [stored.repeated for stored in node.stored] == [False, True, False]


@pytest.mark.parametrize("what", ["a class", "a syntax", "a hole", "a size"])
def test_what_is_not_taken_is_told_and_the_others_stay(node: Node, tmp_path: Path, what: str) -> None:
    odd = mr_image(2)
    if what == "a class":
        odd.SOPClassUID = CTImageStorage
    if what == "a hole":
        del odd.Rows
    files = write(tmp_path / "files", mr_image(1), odd)
    parts = [file.read_bytes() for file in files]
    if what == "a syntax":
        # As long as Explicit VR Little Endian with its padding.
        parts[1] = parts[1].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0", 1)
    most = len(parts[0]) // 2 if what == "a size" else 2**31
    with pytest.raises(NotTaken):
        fetched(node, an_answer(parts), maximum_bytes=most)
    assert len(node.stored) == (0 if what == "a size" else 1)
    assert parts_left(node) == []


@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        (an_answer([b"no DICOM" * 100]), PeerFailure, "no DICOM file"),
        (
            an_answer([bytes(128) + b"DICM\x02\0\0\0UL\x04\0\xff\xff\xff\xff" + bytes(500)]),
            PeerFailure,
            "no DICOM file",
        ),
        (an_answer([bytes(128) + b"DICM\x02\0\0\0UL\x04\0\x10\0\0\0" + bytes(500)]), PeerFailure, "File Meta"),
        (an_answer([b""]), PeerFailure, "ends within"),
        (Answer(200, b"{}", {"Content-Type": "application/json"}), PeerFailure, "expected multipart/related"),
        (Answer(200, b"--", {"Content-Type": "multipart/related; boundary=b"}), PeerFailure, "broke off"),
        (Answer(200, b"x" * 99, {"Content-Type": "multipart/related; boundary=b"}), PeerFailure, "no multipart"),
        (Answer(404), PeerFailure, "does not have the series"),
        (Answer(500), PeerFailure, "HTTP 500"),
        (Answer(401), Unreachable, "credentials"),
        (Answer(503), Unreachable, "again later"),
    ],
)
def test_what_goes_wrong_is_told(node: Node, answer: Answer, kind: type[PeerFailure], why: str) -> None:
    with pytest.raises(PeerFailure, match=why) as told:
        fetched(node, answer)
    assert type(told.value) is kind
    assert node.stored == []
    assert parts_left(node) == []


def test_a_service_that_knows_no_wild_card_is_asked_without(node: Node, tmp_path: Path) -> None:
    [file] = write(tmp_path / "files", mr_image(1))

    def answer(asked: Asked) -> Answer:
        return Answer(406) if "transfer-syntax" in asked.headers["accept"] else an_answer([file.read_bytes()])

    came, asked = fetched(node, answer)
    assert (came, len(asked)) == (1, 2)


def test_a_full_disk_is_no_fault_of_the_series(tmp_path: Path) -> None:
    [file] = write(tmp_path / "files", mr_image(1))
    with running_node(tmp_path / "node", reserve=2**62) as node, pytest.raises(Unreachable, match="no room"):
        fetched(node, an_answer([file.read_bytes()]))


def test_a_node_that_stops_hears_no_more(node: Node, tmp_path: Path) -> None:
    files = write(tmp_path / "files", *(mr_image(number, rows=256, columns=256) for number in range(4)))
    looks = iter([False, True])
    with pytest.raises(PeerFailure, match="the node stops"):
        fetched(node, an_answer([file.read_bytes() for file in files]), stopping=lambda: next(looks))
    assert len(node.stored) < 4
    assert parts_left(node) == []


def test_a_series_that_breaks_off_each_time_comes_object_by_object(node: Node, tmp_path: Path) -> None:
    images = [mr_image(number, rows=256, columns=256) for number in range(4)]
    files = dict(zip([str(image.SOPInstanceUID) for image in images], write(tmp_path / "files", *images), strict=True))
    uids = list(files)

    def answer(asked: Asked) -> Answer:
        if asked.path.endswith("/instances"):
            page = (
                [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in uids] if asked.query["offset"] == ["0"] else []
            )
            return Answer(200, page)
        if asked.path == PATH:
            cut = an_answer([file.read_bytes() for file in files.values()])
            return replace(cut, body=cut.body[: len(cut.body) // 2], short=10)
        return an_answer([files[asked.path.rpartition("/")[2]].read_bytes()])

    with pytest.raises(PeerFailure, match="broke off"):
        fetched(node, answer)
    here = [str(dcmread(path).SOPInstanceUID) for path in node.spool.images()]
    assert 0 < len(here) < 4
    landing = Landing(node.receiver.brings, 2**31, lambda asked: [uid for uid in asked if uid not in here])
    with serving(answer) as served:
        service = WebService("web", f"{served.url}/dicom-web")
        assert retrieve_rest("1.2", "1.2.3", 4, service, SETTINGS, landing, lambda: False) == 4
        asked = [one.path.rpartition("/")[2] for one in served.asked]
    assert asked == ["instances", *(uid for uid in uids if uid not in here)]
    assert len(list(node.spool.images())) == 4


@pytest.mark.parametrize(("listed", "images"), [(0, 0), (0, 3), (2, 3)])
def test_of_an_archive_that_does_not_list_it_a_series_is_asked_for_as_a_whole_again(
    node: Node, tmp_path: Path, listed: int, images: int
) -> None:
    held = [mr_image(number) for number in range(3)]
    parts = [file.read_bytes() for file in write(tmp_path / "files", *held)]

    def answer(asked: Asked) -> Answer:
        if asked.path == PATH:
            return an_answer(parts)
        page = [{"00080018": {"vr": "UI", "Value": [str(image.SOPInstanceUID)]}} for image in held[:listed]]
        return Answer(200, page if asked.query["offset"] == ["0"] else [])

    with serving(answer) as served:
        service = WebService("web", f"{served.url}/dicom-web")
        landing = Landing(node.receiver.brings, 2**31, lambda uids: [])
        assert retrieve_rest("1.2", "1.2.3", images, service, SETTINGS, landing, lambda: False) == 3
    assert len(list(node.spool.images())) == 3


def test_a_series_that_was_deleted_says_nothing_against_the_archive(node: Node) -> None:
    landing = Landing(node.receiver.brings, 2**31, list)
    with serving(lambda asked: Answer(404)) as served:
        service = WebService("web", f"{served.url}/dicom-web")
        with pytest.raises(PeerFailure, match="does not have") as caught:
            retrieve_rest("1.2", "1.2.3", 3, service, SETTINGS, landing, lambda: False)
    assert not isinstance(caught.value, Unreachable)


def test_nobody_is_listened_to_for_ever(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, over = threading.Event(), threading.Event()

    def dawdle(request: Asked) -> Answer:
        asked.set()
        over.wait(20)
        return Answer(404)

    monkeypatch.setattr("dicom_node.wado.LONGEST_RETRIEVE", 0.3)
    with pytest.raises(PeerFailure, match="takes too long"):
        fetched(node, dawdle, over=over.set)
    assert asked.is_set()


def test_a_node_that_stops_does_not_wait_for_a_slow_archive(node: Node, tmp_path: Path) -> None:
    asked, over = threading.Event(), threading.Event()

    def dawdle(request: Asked) -> Answer:
        asked.set()
        over.wait(20)
        return Answer(404)

    try:
        with pytest.raises(PeerFailure, match="the node stops"):
            fetched(node, dawdle, stopping=asked.is_set, over=over.set)
    finally:
        over.set()


class Heard:
    """An answer that was heard, in pieces."""

    def __init__(self, body: bytes, piece: int) -> None:
        self.answer = Response()
        self.answer.headers["Content-Type"] = f"multipart/related; boundary={BOUNDARY}"
        self._pieces = [body[start : start + piece] for start in range(0, len(body), piece)]

    def chunks(self) -> Iterator[bytes]:
        return iter(self._pieces)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_whatever_is_sent_is_taken_refused_or_told(node: Node, tmp_path: Path) -> None:
    whole = multipart([file.read_bytes() for file in write(tmp_path / "files", mr_image(1), mr_image(2))])
    service = WebService("web", "https://archive.example")

    @settings(deadline=None, max_examples=100)
    @given(st.integers(0, len(whole)), st.integers(0, 400), st.binary(max_size=40), st.integers(1, len(whole)))
    def try_one(start: int, gone: int, instead: bytes, piece: int) -> None:
        mutated = whole[:start] + instead + whole[start + gone :]
        with node.receiver.brings("web") as bring:
            arrivals = _Arrivals(service, 2**31, bring)
            with contextlib.suppress(PeerFailure):
                _take_apart(Heard(mutated, piece), arrivals, service)  # type: ignore[arg-type]
        assert len(arrivals.taken) + len(arrivals.refused) <= 2 + instead.count(b"--")
        assert parts_left(node) == []

    try_one()
    for path in node.spool.images():
        dcmread(path)
