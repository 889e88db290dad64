"""Objects that do not fit into memory, and what was acknowledged before a kill."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage
from pynetdicom import evt
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE

from dicom_node.spool import Spool
from tests.objects import encode, mr_image, write
from tests.peers import Node, associated, running_node, send_bytes, wait_until


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with running_node(tmp_path / "spool") as running:
        yield running


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
        assert send_bytes(association, tmp_path, _large_image(), data_set).Status == 0xC000
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
