"""From spool to store: everything that is acknowledged is indexed, whatever dies in between."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from dicom_node.errors import UnreadableObject
from dicom_node.index import Index
from dicom_node.model import Instance
from dicom_node.receive import Refused, Stored
from dicom_node.spool import ReceivedObject, Spool
from dicom_node.store import Store
from tests.dicom_node.making import an_instance


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
    if number == "odd":
        raise RecursionError("a sequence without an end")
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


@pytest.mark.parametrize(("content", "reason"), [("bad", "no StudyInstanceUID"), ("odd", "RecursionError")])
def test_what_cannot_be_described_goes_to_quarantine_and_stops_nobody(
    store: Store, spool: Spool, content: str, reason: str
) -> None:
    index = Index(store, spool, describe)
    bad = keep(spool, 1, content)
    index.take(Stored(bad, "a1", 5.0))
    index.take(Stored(keep(spool, 2), "a1", 5.0))
    index.start()
    index.stop()
    assert indexed(store) == uids(2)
    assert not bad.exists()
    [objection] = store.objections()
    assert reason in objection.reason
    assert objection.path is not None
    assert Path(objection.path).parent == spool.quarantine_folder
    assert Path(objection.path).with_suffix(".dataset").read_bytes().endswith(f"#{content}".encode())
    Index(store, spool, describe).reconcile()
    assert len(store.objections()) == 1


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
