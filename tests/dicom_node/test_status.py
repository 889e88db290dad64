"""What people read when something is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dicom_node.commands import main
from dicom_node.commands import status as command
from dicom_node.contacts import Contact, Contacts, Event
from dicom_node.holdings import Holdings, Removal
from dicom_node.outbox import Outbox, Result
from dicom_node.states import State
from dicom_node.status import LOW_SPACE, NEWEST_DONE, in_words, status
from dicom_node.store import Objection, Store
from tests.dicom_node.making import a_ready_job, the_job


@pytest.fixture
def state_folder(tmp_path: Path) -> Path:
    Store(tmp_path / "node.db").close()
    return tmp_path


def test_a_node_that_did_nothing(state_folder: Path) -> None:
    found = status(state_folder, now=0)
    assert found["jobs"] == found["foreign"] == found["quarantine"] == []
    assert "not running" in in_words(found, 0)
    assert "no jobs" in in_words(found, 0)


def test_a_disk_that_is_nearly_full_is_told(state_folder: Path) -> None:
    found = status(state_folder, now=0)
    assert found["node"]["free_bytes"] > 0
    for free, warned in ((LOW_SPACE - 1, True), (LOW_SPACE, False)):
        found["node"]["free_bytes"] = free
        assert ("make room" in in_words(found, 0)) == warned


def test_what_only_the_running_node_knows_is_told(state_folder: Path) -> None:
    found = status(state_folder, now=0)
    for key, value, words in (
        ("reads_anew", True, "the images of the spool are being read"),
        ("audit", "the audit repository has taken nothing since noon", "audit trail: the audit repository has taken"),
    ):
        assert words not in in_words(found, 0, 200)
        found["node"][key] = value
        assert words in in_words(found, 0, 200)


def test_what_was_removed_is_told_in_sum(state_folder: Path) -> None:
    kept = Holdings(Store(state_folder / "node.db"))
    kept.write_down(Removal(10.0, "result", "1.2", 1, 3, 2**30, "finished for more than 14 days"))
    kept.write_down(Removal(40.0, "delivered", "1.2", None, 4, 2**31, "delivered for over 30 days"))
    found = status(state_folder, 100.0)
    assert [entry["files"] for entry in found["removed"]] == [3, 4]
    said = " ".join(in_words(found, 100.0).split())
    assert "removed so far: 7 files, 3.0 GiB; 60 s ago the last: delivered for over 30 days" in said


def test_what_was_not_taken_is_told_with_its_reason(state_folder: Path) -> None:
    Store(state_folder / "node.db").object_to(Objection(10.0, "quarantine/1", "SCANNER", "truncated"))
    said = in_words(status(state_folder, now=70), 70)
    assert "not taken: 1 objects" in said
    assert "60 s ago from SCANNER: truncated: quarantine/1" in said


def a_busy_node(state_folder: Path) -> None:
    """At 100 s: done, sending with trouble, reconstructing, and two in the queue; a scanner and a stranger called."""
    store = Store(state_folder / "node.db")
    outbox = Outbox(store)
    for number in range(4):
        a_ready_job(store, f"g{number}", now=10.0 + number)
    for number, end in ((1, State.SENT), (2, State.SENDING)):
        store.claim(20.0, lease=1, ceiling=3)
        store.advance(number, State.RECONSTRUCTING, State.RECONSTRUCTED, 30.0)
        outbox.register(the_job(store, number), [Result(f"1.{number}", Path("/x"))], ["pacs"], 40.0)
        [row] = outbox.of(number)
        if end is State.SENT:
            outbox.answered(row, "stored", 50.0, status=0, comment="answered 0x0000", due_at=50.0)
            outbox.settle(50.0)
        else:
            outbox.postpone([row], 60.0, comment="pacs took no TCP connection: is it running?", due_at=200.0)
    store.claim(70.0, lease=100, ceiling=3)
    progress = state_folder / "jobs" / "3" / "progress.jsonl"
    progress.parent.mkdir(parents=True)
    progress.write_text('{"at": 80.0, "stage": "inversion"}\n')
    a_ready_job(store, "g4", now=15.0)
    contacts = Contacts(store)
    contacts.take(Contact(Event.CLOSED, "mr1", "MR1", "10.1.2.3", 90.0, stored=12))
    contacts.take(Contact(Event.REJECTED, "", "STRANGER", "10.9.9.9", 95.0, "no peer has this AE title"))
    contacts.take(Contact(Event.CLOSED, "ws", "WS", "10.1.2.4", 97.0, "it has no right to store", denied=12))
    contacts()


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_and_tells_stage_queue_deliveries_and_callers(state_folder: Path, width: int) -> None:
    a_busy_node(state_folder)
    said = in_words(status(state_folder, now=100.0), 100.0, width)
    assert max(map(len, said.splitlines())) <= max(width, len(f"state: {state_folder}"))
    flat = " ".join(said.split())
    for expected in (
        "queue: 2 ready",
        "3 reconstructing 30 s 1 inversion for 20 s",
        "4 ready 87 s 1 1. in the queue",
        "5 ready 85 s 1 2. in the queue",
        "pacs: 0 stored, 1 pending, 0 refused",
        "took no TCP connection",
        "pacs 50 s ago 1 silent for 50 s",
        "called again in 100 s",
        "MR1 10.1.2.3 10 s ago 12",
        "STRANGER 10.9.9.9 5 s ago rejected 1 ×: no peer has this AE title",
        "WS 10.1.2.4 3 s ago 12 requests not authorised, last 3 s ago: it has no right to store",
    ):
        assert expected in flat


def test_of_many_that_are_done_the_latest_are_shown_and_the_rest_is_counted(state_folder: Path) -> None:
    store = Store(state_folder / "node.db")
    for number in range(NEWEST_DONE + 3):
        job = a_ready_job(store, f"g{number}")
        for source, target in (
            (State.READY, State.RECONSTRUCTING),
            (State.RECONSTRUCTING, State.RECONSTRUCTED),
            (State.RECONSTRUCTED, State.SENDING),
            (State.SENDING, State.SENT),
        ):
            store.advance(job, source, target, 1.0)
    said = in_words(status(state_folder, 2.0), 2.0)
    assert said.count(" sent ") == NEWEST_DONE
    assert "and 3 older ones" in said


def test_watching_looks_again_until_it_is_interrupted(
    state_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = state_folder / "node.toml"
    config.write_text(f'[node]\nstate_folder = "{state_folder}"\n')
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(command.time, "sleep", pause)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    main(["status", "--watch", "--config", str(config)])
    assert capsys.readouterr().out.count("no jobs") == 3


def test_what_is_written_over_is_no_longer_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "6")
    said = command._over("\n".join(f"line {number}" for number in range(20)))
    assert said.count("\n") == 5
    assert "… 16 more lines" in said
