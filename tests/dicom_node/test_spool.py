"""The spool's laws: what is kept survives, nothing is overwritten, half there, or grows for ever."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from dicom_node.spool import Kept, ReceivedObject, Spool, SpoolFull, data_set_digest, write_durably
from dicom_node.structure import Encoded
from tests.objects import encode, mr_image, received


def _everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_kept_object_is_a_dicom_file_with_the_bytes_that_came(tmp_path: Path) -> None:
    image = mr_image()
    kept, path = Spool(tmp_path).keep(received(image))
    assert kept is Kept.NEW
    file = dcmread(path)
    assert file.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert file.file_meta.MediaStorageSOPClassUID == MRImageStorage
    assert file.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
    assert file.file_meta.SourceApplicationEntityTitle == "TEST"
    assert path.read_bytes().endswith(encode(image))
    assert data_set_digest(path) == hashlib.sha256(encode(image)).hexdigest()


def test_a_folder_that_is_swept_just_before_its_first_file_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    make = spool._make_durable_folder

    def and_sweep(folder: Path) -> None:
        make(folder)
        monkeypatch.setattr(spool, "_make_durable_folder", make)
        spool.sweep_empty_folders(float("inf"))
        assert not folder.exists()

    monkeypatch.setattr(spool, "_make_durable_folder", and_sweep)
    kept, path = spool.keep(received(mr_image()))
    assert (kept, path.is_file()) == (Kept.NEW, True)


def test_nobody_is_told_that_an_image_is_kept_before_the_disk_knows_its_folder_that_was_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody deletes the folder by hand while two images for it are on their way."""
    spool = Spool(tmp_path)
    _, path = spool.keep(received(mr_image(1)))
    shutil.rmtree(path.parent)
    about_to_write, made, known = (threading.Event() for _ in range(3))

    def sync_slowly(folder: Path) -> None:
        if folder == spool.images_folder:
            made.set()
            known.wait(20)

    def write_late(part: Path, *chunks: Encoded) -> None:
        if threading.current_thread().name.endswith("_0"):
            about_to_write.set()
            made.wait(20)
        write_durably(part, *chunks)

    monkeypatch.setattr("dicom_node.spool.sync", sync_slowly)
    monkeypatch.setattr("dicom_node.spool.write_durably", write_late)
    with ThreadPoolExecutor(2) as senders:
        first = senders.submit(spool.keep, received(mr_image(2)))
        assert about_to_write.wait(20)
        second = senders.submit(spool.keep, received(mr_image(3)))
        assert made.wait(20)
        assert not wait([first, second], 0.2).done
        known.set()
    assert {first.result()[0], second.result()[0]} == {Kept.NEW}


def test_what_was_removed_is_not_remembered(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    _, path = spool.keep(received(mr_image()))
    assert spool.remove(path, path.stat().st_mtime_ns)
    assert spool._paths == {}
    assert spool.keep(received(mr_image())) == (Kept.NEW, path)


def test_the_same_again_writes_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    _, path = spool.keep(received(mr_image()))
    before = _everything(tmp_path)
    assert spool.keep(received(mr_image())) == (Kept.REPEATED, path)
    assert Spool(tmp_path).keep(received(mr_image())) == (Kept.REPEATED, path)
    assert _everything(tmp_path) == before


def test_other_content_under_a_known_uid_is_set_aside_and_the_first_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    _, path = spool.keep(received(mr_image()))
    before = path.read_bytes()
    kept, aside = spool.keep(received(mr_image(pixel=7)))
    assert kept is Kept.CONFLICT
    assert aside.is_relative_to(tmp_path / "conflicts")
    assert dcmread(aside).PixelData == mr_image(pixel=7).PixelData
    assert path.read_bytes() == before
    assert list(spool.images()) == [path]
    assert spool.keep(received(mr_image(pixel=7))) == (Kept.CONFLICT, aside)
    assert len(list((tmp_path / "conflicts").rglob("*.dcm"))) == 1


def test_a_uid_is_one_object_whatever_study_it_claims(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.keep(received(mr_image()))
    elsewhere = replace(received(mr_image(pixel=1)), study_instance_uid="1.2.3")
    assert spool.keep(elsewhere)[0] is Kept.CONFLICT
    assert len(list(spool.images())) == 1


def test_a_removed_file_can_come_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    _, path = spool.keep(received(mr_image()))
    path.unlink()
    assert spool.keep(received(mr_image())) == (Kept.NEW, path)
    assert path.exists()


def test_a_removed_study_can_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)
    _, path = spool.keep(received(mr_image(1)))
    shutil.rmtree(path.parent)
    synced: list[Path] = []
    monkeypatch.setattr("dicom_node.spool.sync", synced.append)
    assert spool.keep(received(mr_image(1))) == (Kept.NEW, path)
    assert synced == [spool.images_folder, path.parent]
    assert spool.keep(received(mr_image(2)))[0] is Kept.NEW
    assert synced[2:] == [path.parent]


@pytest.mark.parametrize("uid", ["../../../etc/passwd", "1.2/3", "", "1" * 65, "1.2.a", "1.2.3\n", "/tmp/x", ".\0"])
def test_no_path_is_made_of_a_senders_words(tmp_path: Path, uid: str) -> None:
    spool = Spool(tmp_path / "spool")
    for field in ("study_instance_uid", "sop_instance_uid"):
        with pytest.raises(ValueError, match="is no UID"):
            spool.keep(replace(received(mr_image()), **{field: uid}))
    assert _everything(tmp_path) == {}


def test_even_dots_stay_inside(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    _, path = spool.keep(replace(received(mr_image()), study_instance_uid="..", sop_instance_uid="..."))
    assert path.resolve().is_relative_to((tmp_path / "spool" / "images").resolve())


def test_the_unfinished_is_swept_at_start_up_and_the_rest_found(tmp_path: Path) -> None:
    paths = [Spool(tmp_path).keep(received(mr_image(number)))[1] for number in range(3)]
    (tmp_path / "receiving" / "dead.part").write_bytes(b"half")
    again = Spool(tmp_path)
    assert again.swept == 1
    assert list((tmp_path / "receiving").iterdir()) == []
    assert sorted(again.images()) == sorted(paths)


def _fail_with(code: int) -> Callable[..., NoReturn]:
    def fail(*_: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["write", "fsync", "open"])
def test_a_full_disk_loses_nothing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    spool = Spool(tmp_path)
    spool.keep(received(mr_image(1)))
    before = _everything(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(f"dicom_node.spool.os.{call}", _fail_with(code))
        with pytest.raises(SpoolFull):
            spool.keep(received(mr_image(2)))
        with pytest.raises(SpoolFull):
            spool.keep(received(mr_image(1, pixel=9)))
        assert spool.keep(received(mr_image(1)))[0] is Kept.REPEATED
    assert _everything(tmp_path) == before
    assert spool.keep(received(mr_image(2)))[0] is Kept.NEW


def test_another_failure_of_the_disk_is_not_called_a_full_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)
    monkeypatch.setattr("dicom_node.spool.os.fsync", _fail_with(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        spool.keep(received(mr_image()))
    assert list(spool.images()) == []


def test_a_reserve_is_left_to_the_database(tmp_path: Path) -> None:
    spool = Spool(tmp_path, reserve=2**62)
    with pytest.raises(SpoolFull, match="reserve"):
        spool.keep(received(mr_image()))
    assert spool.quarantine(b"x", {"reason": "r"}, 1.0) is None


def test_nothing_is_named_before_it_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, rename, folder: in this order, the file under its name never without its bytes on the disk."""
    spool = Spool(tmp_path)
    steps: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def watch_fsync(descriptor: int) -> None:
        fsync(descriptor)
        steps.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().suffix or 'folder'}")

    def watch_rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    monkeypatch.setattr("dicom_node.spool.os.fsync", watch_fsync)
    monkeypatch.setattr(Path, "replace", watch_rename)
    spool.keep(received(mr_image()))
    assert steps[-3:] == ["fsync .part", "rename", "fsync folder"]


def test_what_comes_again_after_a_kill_is_durable_before_it_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name may have been given right before the kill, and be lost with the power after it came again."""
    root = tmp_path / "state" / "spool"
    synced: list[Path] = []
    monkeypatch.setattr("dicom_node.spool.sync", synced.append)
    spool = Spool(root)
    assert {tmp_path, tmp_path / "state", root} <= set(synced), "the folders that were made"
    _, first = spool.keep(received(mr_image()))
    _, other = spool.keep(received(mr_image(pixel=9)))
    for image, path in ((mr_image(), first), (mr_image(pixel=9), other)):
        spool = Spool(root)
        synced.clear()
        assert spool.keep(received(image))[1] == path
        assert {path.parent, path.parent.parent} <= set(synced)
        synced.clear()
        spool.keep(received(image))
        assert synced == [], "once is enough"


def test_many_threads_with_the_same_and_with_other_objects(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    objects = [received(mr_image(number, pixel=pixel)) for number in range(10) for pixel in (0, 0, 0, 5)]

    def keep(item: ReceivedObject) -> Kept:
        return spool.keep(item)[0]

    with ThreadPoolExecutor(8) as threads:
        kept = list(threads.map(keep, objects))
    assert kept.count(Kept.NEW) == 10
    assert len(list(spool.images())) == 10
    assert len(list((tmp_path / "conflicts").rglob("*.dcm"))) == 10
    assert list((tmp_path / "receiving").iterdir()) == []


def test_quarantine_keeps_the_bytes_beside_the_reason(tmp_path: Path) -> None:
    note = Spool(tmp_path).quarantine(b"garbage", {"reason": "no data set"}, 1234.5)
    assert note is not None
    assert note.with_suffix(".dataset").read_bytes() == b"garbage"
    assert json.loads(note.read_text()) == {"reason": "no data set", "received_at": 1234.5, "bytes": 7, "kept": True}


def test_quarantine_is_bounded_in_number_and_size_and_drops_the_oldest(tmp_path: Path) -> None:
    few = Spool(tmp_path / "few", quarantine_files=3)
    notes = [few.quarantine(bytes(10), {"reason": str(n)}, float(n)) for n in range(5)]
    assert sorted(few.quarantine_folder.glob("*.json")) == notes[2:]
    small = Spool(tmp_path / "small", quarantine_bytes=25)
    notes = [small.quarantine(bytes(10), {"reason": str(n)}, float(n)) for n in range(5)]
    assert sorted(small.quarantine_folder.glob("*.json")) == notes[3:]
    huge = small.quarantine(bytes(26), {"reason": "huge"}, 9.0)
    assert huge is not None
    assert not json.loads(huge.read_text())["kept"]
    assert sum(path.stat().st_size for path in small.quarantine_folder.glob("*.dataset")) <= 25


def test_quarantine_is_listed_once_and_again_after_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, quarantine_files=3)
    before = [spool.quarantine(bytes(10), {"reason": "before"}, float(n)) for n in range(2)]
    again = Spool(tmp_path, quarantine_files=3)
    listed: list[Path] = []
    glob = Path.glob

    def counting(path: Path, pattern: str) -> Iterator[Path]:
        listed.append(path)
        return glob(path, pattern)

    monkeypatch.setattr(Path, "glob", counting)
    notes = [note for n in range(2, 8) if (note := again.quarantine(bytes(10), {"reason": "now"}, float(n)))]
    assert (len(notes), len(listed)) == (6, 1)
    kept = [path for note in notes[-3:] for path in (note, note.with_suffix(".dataset"))]
    assert sorted(again.quarantine_folder.iterdir()) == sorted(kept)
    assert not any(note.exists() for note in before if note)
    notes[-1].unlink()  # by hand
    again.sweep_quarantine(before=0.0)
    assert again.quarantine(bytes(10), {"reason": "now"}, 9.0)
    assert all(note.exists() for note in notes[-3:-1]), "there was room"
