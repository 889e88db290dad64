"""From spool to store: everything that is acknowledged is indexed, whatever dies in between."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dicom_node.errors import UnreadableObject
from dicom_node.index import READING, Describe, Index, Reading
from dicom_node.model import Instance
from dicom_node.receive import Refused, Stored
from dicom_node.spool import ReceivedObject, Spool
from dicom_node.store import Objection, Store
from tests.dicom_node.making import an_instance
from tests.peers import wait_until


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "node.db")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def describe(path: Path, received_at: float, association: str) -> Instance:
    """Understands what `keep` below wrote: the number of the instance stands in the data set."""
    number = path.read_bytes().rpartition(b"#")[2].decode()
    if number == "bad":
        raise UnreadableObject("the object has no StudyInstanceUID")
    found = an_instance(int(number))
    return Instance(**{**vars(found), "path": path, "received_at": received_at, "association": association})


def keep(spool: Spool, number: int, content: str | None = None) -> Path:
    uid = an_instance(number).sop_instance_uid
    encoded = f"#{content or number}".encode()
    return spool.keep(ReceivedObject("1.2.3", "1.2.840.10008.5.1.4.1.1.4", uid, "1.2.840.10008.1.2.1", "MR", encoded))[
        1
    ]


def indexed(store: Store) -> set[str]:
    return {instance.sop_instance_uid for instance in store.instances("1.2.3")}


def uids(*numbers: int) -> set[str]:
    return {an_instance(n).sop_instance_uid for n in numbers}


def test_what_is_taken_is_indexed_before_stop_returns(store: Store, spool: Spool) -> None:
    index = Index(store, spool, describe)
    for number in range(1, 500):
        index.take(Stored(keep(spool, number), "a1", 5.0))
    assert index.pending == {"a1"}
    index.start()
    index.stop()
    assert indexed(store) == uids(*range(1, 500))
    assert index.pending == frozenset()
    assert {(i.association, i.received_at) for i in store.instances("1.2.3")} == {("a1", 5.0)}


def test_an_image_that_no_row_can_be_made_of_stops_nobody(store: Store, spool: Spool) -> None:
    def describe_one_oddly(path: Path, received_at: float, association: str) -> Instance:
        found = describe(path, received_at, association)
        odd = found.sop_instance_uid == an_instance(2).sop_instance_uid
        return Instance(**{**vars(found), "series_instance_uid": "1.2\ud800"}) if odd else found

    index = Index(store, spool, describe_one_oddly)
    paths = [keep(spool, number) for number in (1, 2, 3)]
    for path in paths:
        index.take(Stored(path, "a1", 5.0))
    index.start()
    index.stop()
    assert indexed(store) == uids(1, 3)
    [objection] = store.objections()
    assert (objection.path, "cannot be written down" in objection.reason) == (str(paths[1]), True)
    assert index.pending == frozenset()


def test_an_image_that_a_constraint_refuses_keeps_no_other_of_the_backlog_out(
    store: Store, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, odd = store.add_instance, an_instance(2).sop_instance_uid

    def add_all_but_one(instance: Instance) -> bool:
        if instance.sop_instance_uid == odd:
            raise sqlite3.IntegrityError("NOT NULL constraint failed")
        return add(instance)

    monkeypatch.setattr(store, "add_instance", add_all_but_one)
    paths = [keep(spool, number) for number in (1, 2, 3)]
    index = Index(store, spool, describe)
    index.reconcile()
    assert (indexed(store), index.backlog) == (uids(1, 3), 0)
    assert [objection.path for objection in store.objections()] == [str(paths[1])]


def test_what_cannot_be_read_is_set_aside_and_stops_nobody(store: Store, spool: Spool) -> None:
    index = Index(store, spool, describe)
    bad = keep(spool, 1, "bad")
    content = bad.read_bytes()
    index.take(Stored(bad, "a1", 5.0))
    index.take(Stored(keep(spool, 2), "a1", 5.0))
    index.start()
    index.stop()
    assert indexed(store) == uids(2)
    assert not bad.exists()
    [objection] = store.objections()
    assert "no StudyInstanceUID" in objection.reason
    assert objection.path is not None
    aside = Path(objection.path)
    assert (aside.parent, aside.read_bytes()) == (spool.unreadable, content)
    assert "no StudyInstanceUID" in aside.with_suffix(".json").read_text()
    Index(store, spool, describe).reconcile()
    assert len(store.objections()) == 1


def test_what_was_acknowledged_is_never_deleted_however_much_of_it_cannot_be_read(store: Store, tmp_path: Path) -> None:
    spool = Spool(tmp_path, quarantine_files=2)
    for number in range(5):
        keep(spool, number, "bad")
    Index(store, spool, describe).reconcile()
    assert len(list(spool.unreadable.glob("*.dcm"))) == 5
    again = Index(store, Spool(tmp_path), describe)
    keep(spool, 1, "bad")
    again.reconcile()
    assert len(list(spool.unreadable.glob("*.dcm"))) == 5, "the same object lies there twice"


def broken_disk(path: Path, received_at: float, association: str) -> Instance:
    raise OSError(errno.EIO, "Input/output error")


def broken_disk_as_describe_tells_it(path: Path, received_at: float, association: str) -> Instance:
    raise UnreadableObject("cannot be read") from OSError(errno.EIO, "Input/output error")


def no_memory(path: Path, received_at: float, association: str) -> Instance:
    raise UnreadableObject("cannot be read") from MemoryError()


def fault_of_ours(path: Path, received_at: float, association: str) -> Instance:
    raise KeyError("a name that we misspelt")


@pytest.mark.parametrize("failure", [broken_disk, broken_disk_as_describe_tells_it, no_memory, fault_of_ours])
def test_what_could_not_be_described_stays_and_is_tried_again_at_the_next_start(
    store: Store, spool: Spool, failure: Describe
) -> None:
    index = Index(store, spool, failure)
    path = keep(spool, 1)
    index.take(Stored(path, "a1", 5.0))
    index.start()
    index.stop()
    assert [objection.path for objection in store.objections()] == [str(path)]
    Index(store, spool, failure).reconcile()
    assert (path.exists(), len(store.objections())) == (True, 1)
    Index(store, spool, describe).reconcile()
    assert indexed(store) == uids(1)
    assert store.objections() == [], "it was taken in the end"


def test_a_file_that_makes_pydicom_raise_an_oserror_is_at_fault_itself(store: Store, spool: Spool) -> None:
    def cut_off(path: Path, received_at: float, association: str) -> Instance:
        raise UnreadableObject("cannot be read") from OSError("Expected item tag in file")

    path = keep(spool, 1)
    Index(store, spool, cut_off).reconcile()
    assert not path.exists()
    assert len(list(spool.unreadable.glob("*.dcm"))) == 1


def test_a_crash_right_after_an_object_was_set_aside_hides_it_from_nobody(store: Store, spool: Spool) -> None:
    aside = spool.set_aside(keep(spool, 1, "bad"), "no StudyInstanceUID", 5.0)
    for _ in range(2):
        Index(store, spool, describe).reconcile()
        assert store.objections() == [Objection(5.0, str(aside), "", "no StudyInstanceUID")]


def test_a_database_that_cannot_write_delays_and_loses_nothing(
    store: Store, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.index.RETRY_PAUSE", 0.01)
    failures = iter([sqlite3.OperationalError("database or disk is full")] * 3)
    add = store.add_instance

    def add_when_there_is_room(instance: Instance) -> bool:
        for failure in failures:
            raise failure
        return add(instance)

    monkeypatch.setattr(store, "add_instance", add_when_there_is_room)
    index = Index(store, spool, describe)
    index.take(Stored(keep(spool, 1), "a1", 5.0))
    index.start()
    deadline = time.monotonic() + 20
    while index.pending and time.monotonic() < deadline:
        time.sleep(0.01)
    index.stop()
    assert indexed(store) == uids(1)


def test_a_database_that_is_found_damaged_ends_the_thread_and_the_file_stays(
    store: Store, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def corrupt(instance: Instance) -> bool:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr(store, "add_instance", corrupt)
    index = Index(store, spool, describe)
    index.start()
    index.take(Stored(path := keep(spool, 1), "a", 1.0))
    wait_until(lambda: not index.is_alive, "it has given up", 10)
    assert "malformed" in str(index.damage)
    assert path.is_file()
    index.stop()


@pytest.mark.parametrize("queued", [True, False], ids=["what came", "what was there"])
@pytest.mark.parametrize(("code", "stuck"), [(sqlite3.SQLITE_IOERR, True), (sqlite3.SQLITE_FULL, False)])
def test_what_the_database_does_not_take_is_told_to_be_stuck_unless_a_start_would_not_help(
    store: Store, spool: Spool, monkeypatch: pytest.MonkeyPatch, code: int, stuck: bool, queued: bool
) -> None:
    tried: list[float] = []
    read: list[Path] = []

    def describe_and_count(path: Path, received_at: float, association: str) -> Instance:
        read.append(path)
        return describe(path, received_at, association)

    def refuse(instance: Instance) -> bool:
        tried.append(time.monotonic())
        error = sqlite3.OperationalError("no")
        error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr(store, "add_instance", refuse)
    monkeypatch.setattr("dicom_node.index.RETRY_PAUSE", 0.02)
    monkeypatch.setattr("dicom_node.index.SILENT_AFTER", 0.1)
    index = Index(store, spool, describe_and_count)
    assert index.stuck_for == 0
    path = keep(spool, 1)
    if queued:
        index.take(Stored(path, "a", 1.0))
    else:
        index.compare()
    index.start()
    wait_until(lambda: len(tried) > 2 and tried[-1] - tried[0] > 0.2, "it has tried for a while", 10)
    assert (index.stuck_for >= 0.2) == stuck
    assert read == [path], "it is not read anew for each try"
    assert index.knows_all == queued
    assert bool(index.reading.trouble) == (not queued), "it is told why it stands still, whatever the cause"
    index.stop()


def test_a_database_that_is_locked_stops_no_repeated_object_nor_the_thread(
    store: Store, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.index.RETRY_PAUSE", 0.01)
    failures = iter([sqlite3.OperationalError("database is locked")] * 3)

    def when_it_is_free(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            for failure in failures:
                raise failure
            return call(*arguments)

        return called

    for method in ("rows", "transaction"):
        monkeypatch.setattr(store, method, when_it_is_free(getattr(store, method)))
    index = Index(store, spool, describe)
    index.take(Stored(keep(spool, 1), "a1", 5.0, repeated=True))
    index.start()
    deadline = time.monotonic() + 20
    while index.pending and time.monotonic() < deadline:
        time.sleep(0.01)
    index.stop()
    assert index.pending == frozenset(), "the thread has died"
    assert indexed(store) == uids(1)


def test_reconcile_finds_what_a_crash_left_and_forgets_what_is_gone(store: Store, spool: Spool) -> None:
    index = Index(store, spool, describe)
    kept = [keep(spool, number) for number in (1, 2, 3)]
    index.reconcile()
    assert indexed(store) == uids(1, 2, 3)
    before = store.open_studies()
    index.reconcile()
    assert store.open_studies() == before, "a second time there was nothing to do"
    kept[0].unlink()
    keep(spool, 4)
    Index(store, spool, describe).reconcile()
    assert indexed(store) == uids(2, 3, 4)


def test_reconcile_describes_anew_what_another_software_described(store: Store, spool: Spool) -> None:
    index = Index(store, spool, describe)
    index.take(Stored(keep(spool, 1), "a1", 5.0))
    index.start()
    index.stop()
    store.database.execute("UPDATE instances SET software = 'older', description = '{}'")
    Index(store, spool, describe).reconcile()
    [instance] = store.instances("1.2.3")
    assert instance.received_at == 5.0, "when it was received is not found out anew"


def test_an_association_that_is_over_leaves_nothing_behind(store: Store, spool: Spool) -> None:
    index = Index(store, spool, describe)
    for number in (1, 2, 3):
        index.take(Stored(keep(spool, number), f"a{number}", 5.0))
    index.start()
    index.stop()
    assert len(index._pending) == 0


def test_a_repeated_object_and_a_file_that_vanished_are_no_trouble(store: Store, spool: Spool) -> None:
    index = Index(store, spool, describe)
    path = keep(spool, 1)
    index.take(Stored(path, "a1", 5.0))
    index.take(Stored(path, "a2", 6.0, repeated=True))
    index.take(Stored(path.with_name("vanished.dcm"), "a2", 6.0))
    index.start()
    index.stop()
    assert [i.association for i in store.instances("1.2.3")] == ["a1"]
    assert ["cannot be read" in o.reason for o in store.objections()] == [True]


def test_what_the_receiver_refused_is_remembered_with_the_answer(store: Store, spool: Spool) -> None:
    Index(store, spool, describe).object_to(Refused("0 bytes", 0xC000, "a1", 5.0, "1.2.3.4", "SCANNER", None))
    [objection] = store.objections()
    assert (objection.peer, objection.path, objection.reason) == ("SCANNER", None, "0 bytes (answered 0xC000)")


def test_what_was_there_at_the_start_is_read_latest_first_while_images_come(store: Store, spool: Spool) -> None:
    for number in (1, 2, 3):
        os.utime(keep(spool, number), (number, number))
    read: list[int] = []
    going_on = threading.Event()

    def slowly(path: Path, received_at: float, association: str) -> Instance:
        read.append(int(received_at))
        if not association:
            going_on.wait(10)
        return describe(path, received_at, association)

    index = Index(store, spool, slowly)
    index.compare()
    assert (index.backlog, index.pending) == (3, {""})
    index.start()
    index.take(Stored(keep(spool, 4), "a4", 40.0))
    assert index.pending == {"", "a4"}
    going_on.set()
    wait_until(lambda: not index.pending, "all is read")
    assert (read, index.backlog) == ([3, 2, 1, 40], 0)
    assert indexed(store) == uids(1, 2, 3, 4)
    index.stop()


@pytest.mark.parametrize("queued", [True, False], ids=["what came", "what was there"])
def test_however_much_there_is_to_read_the_end_is_soon_and_the_next_start_goes_on(
    store: Store, spool: Spool, monkeypatch: pytest.MonkeyPatch, queued: bool
) -> None:
    monkeypatch.setattr("dicom_node.index.FAREWELL", 0.0)
    index: Index
    calls = []

    def ends_meanwhile(path: Path, received_at: float, association: str) -> Instance:
        calls.append(path)
        if len(calls) == 2:
            index._until = 0.0  # as `stop` says it, without waiting for the thread that this is
            index._stopping.set()
        return describe(path, received_at, association)

    index = Index(store, spool, ends_meanwhile)
    for number in range(1, 6):
        path = keep(spool, number)
        if queued:
            index.take(Stored(path, "a1", 5.0))
    if not queued:
        index.compare()
    index.start()
    index._thread.join(20)
    assert not index.is_alive
    assert (len(calls), len(indexed(store))) == (2, 2)
    assert index.pending == {"a1" if queued else ""}, "nobody takes it for all there is"
    Index(store, spool, describe).reconcile()
    assert indexed(store) == uids(1, 2, 3, 4, 5)


@pytest.mark.parametrize("has_rows", [False, True], ids=["new", "described by another version"])
def test_however_long_each_takes_to_be_read_what_was_read_is_written_soon_and_nobody_is_called_stuck(
    store: Store, spool: Spool, monkeypatch: pytest.MonkeyPatch, has_rows: bool
) -> None:
    paths = [keep(spool, number) for number in range(1, 7)]
    index = Index(store, spool, describe)
    if has_rows:
        index.reconcile()
        store.database.execute("UPDATE instances SET software = 'older'")
    now = 1000.0
    monkeypatch.setattr("dicom_node.index.time", SimpleNamespace(monotonic=lambda: now, time=time.time))
    written, stuck, known = [], [], []

    def slowly(path: Path, received_at: float, association: str) -> Instance:
        nonlocal now
        now += READING / 2
        written.append(sum(current for _, _, current in store.indexed().values()))
        stuck.append(index.stuck_for)
        known.append(index.knows_all)
        return describe(path, received_at, association)

    index = Index(store, spool, slowly)
    index.reconcile()
    assert written == [0, 0, 2, 2, 4, 4]
    assert stuck == [READING / 2] * len(paths), "each is a sign of life"
    assert (known, index.knows_all) == ([has_rows] * len(paths), True)
    assert index.reading == Reading(0)
