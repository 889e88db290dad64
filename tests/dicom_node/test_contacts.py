"""Who called is written down, whoever it was, and nobody who calls can fill the disk with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dicom_node import contacts
from dicom_node.contacts import Contact, Contacts, Event, callers
from dicom_node.peers import Peer, Peers, Right
from dicom_node.store import Store
from tests.e2e.phantom import simple_head
from tests.peers import running_node, wait_until
from tests.simulation.siemens import write_siemens


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "node.db")


def test_an_association_counts_once_with_what_it_brought(store: Store) -> None:
    kept = Contacts(store)
    for start in (10.0, 20.0):
        kept.take(Contact(Event.OPENED, "mr1", "MR1", "10.1.2.3", start))
        kept.take(Contact(Event.CLOSED, "mr1", "MR1", "10.1.2.3", start + 5, stored=3, refused=1))
        kept()
    kept.take(Contact(Event.REJECTED, "", "STRANGER", "10.9.9.9", 30.0, "no peer has this AE title"))
    kept()
    kept()
    stranger, scanner = callers(store)
    assert (scanner.times, scanner.stored, scanner.refused) == (2, 6, 2)
    assert (scanner.first_at, scanner.last_at, scanner.accepted) == (10.0, 25.0, True)
    assert (stranger.ae_title, stranger.accepted, stranger.reason) == ("STRANGER", False, "no peer has this AE title")


def test_what_was_asked_without_the_right_to_is_remembered(store: Store) -> None:
    """Also when the next association is in order: a scanner that tells its steps, and may not store, calls for both."""
    kept = Contacts(store)
    kept.take(Contact(Event.CLOSED, "mr1", "MR1", "10.1.2.3", 10.0, "it has no right to store", denied=3))
    kept.take(Contact(Event.OPENED, "mr1", "MR1", "10.1.2.3", 20.0))
    kept.take(Contact(Event.CLOSED, "mr1", "MR1", "10.1.2.3", 25.0))
    kept()
    [scanner] = callers(store)
    assert (scanner.denied, scanner.denied_at, scanner.reason) == (3, 10.0, "it has no right to store")
    kept.take(Contact(Event.CLOSED, "mr1", "MR1", "10.1.2.3", 30.0, "it has no right to query", denied=1))
    kept()
    [scanner] = callers(store)
    assert (scanner.denied, scanner.denied_at, scanner.reason) == (4, 30.0, "it has no right to query")


def test_those_who_are_let_in_are_not_remembered_without_bound(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contacts, "MOST_KNOWN", 3)
    kept = Contacts(store)
    for number in range(10):
        kept.take(Contact(Event.OPENED, "anybody", f"S{number}", "10.9.9.9", float(number)))
    kept.take(Contact(Event.REJECTED, "", "STRANGER", "10.9.9.9", 0.0))
    kept()
    assert [caller.ae_title for caller in callers(store)] == ["S9", "S8", "S7", "STRANGER"]


def test_strangers_push_out_strangers_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contacts, "MOST_STRANGERS", 3)
    kept = Contacts(store)
    kept.take(Contact(Event.OPENED, "mr1", "MR1", "10.1.2.3", 1.0))
    for number in range(10):
        kept.take(Contact(Event.REJECTED, "", f"S{number}", "10.9.9.9", 2.0 + number))
    kept()
    assert [caller.ae_title for caller in callers(store)] == ["S9", "S8", "S7", "MR1"]


def test_a_database_that_takes_nothing_loses_nothing_until_there_is_too_much(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contacts, "MOST_WAITING", 2)
    kept = Contacts(store)
    for number in range(3):
        kept.take(Contact(Event.OPENED, "", f"MR{number}", "10.1.2.3", float(number)))
    store.database.execute("ALTER TABLE callers RENAME TO elsewhere")
    with capture_logs() as told, pytest.raises(Exception, match="callers"):
        kept()
    store.database.execute("ALTER TABLE elsewhere RENAME TO callers")
    with capture_logs() as later:
        kept()
    assert not later
    assert {caller.ae_title for caller in callers(store)} == {"MR0", "MR1"}
    assert kept.lost == 1
    assert [entry["contacts"] for entry in told if entry["event"] == "contacts_not_written"] == [1]


def test_the_receiver_tells_of_everybody_who_calls(tmp_path: Path) -> None:
    from demo.scanner import push

    told: list[Contact] = []
    peers = Peers([Peer("mr1", "MR1", "127.0.0.1", frozenset({Right.STORE}))])
    file = write_siemens(simple_head(1, shape=(8, 8, 4)), tmp_path / "study")[0]
    with running_node(tmp_path / "spool", peers=peers, on_contact=told.append) as node:
        list(push([file], "127.0.0.1", node.receiver.port, "QSMNODE", calling_ae_title="MR1"))
        wait_until(lambda: len(told) == 2, "the association is over")
        with pytest.raises(Exception, match="reject"):
            list(push([file], "127.0.0.1", node.receiver.port, "QSMNODE", calling_ae_title="MR2"))
        wait_until(lambda: len(told) == 3, "the stranger was rejected")
    assert [(one.event, one.peer, one.calling_ae_title, one.host) for one in told] == [
        (Event.OPENED, "mr1", "MR1", "127.0.0.1"),
        (Event.CLOSED, "mr1", "MR1", "127.0.0.1"),
        (Event.REJECTED, "", "MR2", "127.0.0.1"),
    ]
    [transfer] = told[1].transfers.values()
    assert transfer.sop_classes.total() == told[1].stored == 1
    assert transfer.path.is_file()
