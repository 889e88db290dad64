"""The log tells every move and every stage once, in the order in which they happened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import structlog

from dicom_node.cleanup import clean_up
from dicom_node.narrate import Narrator
from dicom_node.settings import Retention
from dicom_node.states import State
from dicom_node.store import Job, Move, Store
from tests.dicom_node.making import a_ready_job, the_job

DAY = 86400.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "node.db")


def stage(jobs: Path, job: int, *names: str, ending: str = "\n") -> None:
    file = jobs / str(job) / "progress.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as progress:
        for name in names:
            progress.write(json.dumps({"at": 1.0, "stage": name}) + ending)


def test_moves_and_stages_are_told_once_and_in_order(tmp_path: Path, store: Store) -> None:
    a_ready_job(store, "before")
    stage(tmp_path, 1, "told by the process before")
    narrate = Narrator(store, tmp_path)
    with structlog.testing.capture_logs() as told:
        narrate([])
        job = a_ready_job(store)
        store.claim(2.0, lease=1, ceiling=3)
        store.claim(2.0, lease=1, ceiling=3)
        narrate([job])
        stage(tmp_path, job, "unwrap", "combine")
        narrate([job])
        narrate([job])
        stage(tmp_path, job, "inver", ending="")
        narrate([job])
        (tmp_path / str(job) / "progress.jsonl").write_text("")  # the folder is made anew
        stage(tmp_path, job, "again")
        store.advance(job, State.RECONSTRUCTING, State.RECONSTRUCTED, 3.0)
        narrate([])
        narrate([])
    events = [line["event"] for line in told if line["event"].startswith(f"job {job}:")]
    assert events == [
        f"job {job}: {what}"
        for what in ("waiting", "ready", "reconstructing", "unwrap", "combine", "again", "reconstructed")
    ]


def test_what_was_told_before_is_not_even_read(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    a_ready_job(store)
    read: list[int] = []
    journal = store.journal

    def watched(after: int = 0) -> list[Move]:
        moves = journal(after)
        read.extend(move.id for move in moves)
        return moves

    monkeypatch.setattr(store, "journal", watched)
    Narrator(store, tmp_path)([])
    assert read == []


def test_only_finished_jobs_lose_their_folders_and_only_after_their_time(tmp_path: Path, store: Store) -> None:
    ends: dict[int, list[State]] = {}
    for number, states in enumerate(
        (
            [],
            [State.RECONSTRUCTED],
            [State.RECONSTRUCTED, State.SENDING],
            [State.RECONSTRUCTED, State.SENDING, State.REFUSED],
            [State.RECONSTRUCTED, State.SENDING, State.SENT],
            [State.RECONSTRUCTED, State.SENDING, State.SENT, State.ARCHIVED],
            [State.FAILED],
            [State.REVIEW],
        )
    ):
        job = a_ready_job(store, f"g{number}")
        store.claim(2.0, lease=1, ceiling=3)
        here = State.RECONSTRUCTING
        for state in states:
            store.advance(job, here, state, 3.0)
            here = state
        ends[job] = states
        stage(tmp_path, job, "unwrap")
    clean_up(store, tmp_path, Retention(jobs=2.0), now=2 * DAY)
    clean_up(store, tmp_path, Retention(jobs=0.0), now=1000 * DAY)
    assert all((tmp_path / str(job)).is_dir() for job in ends)
    clean_up(store, tmp_path, Retention(jobs=2.0), now=2 * DAY + 4)
    gone = {the_job(store, job).state for job in ends if not (tmp_path / str(job)).exists()}
    assert gone == {State.SENT, State.ARCHIVED, State.FAILED, State.REVIEW}


def test_a_job_that_is_asked_for_while_it_is_cleaned_up_keeps_its_folder(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_ready_job(store)
    store.claim(2.0, lease=1, ceiling=3)
    store.advance(job, State.RECONSTRUCTING, State.FAILED, 3.0)
    stage(tmp_path, job, "unwrap")
    jobs = store.jobs

    def and_then_asked_for(*states: State) -> list[Job]:
        found = jobs(*states)
        store.run_again(found[0], 4.0)
        store.claim(4.0, lease=1, ceiling=3)
        return found

    monkeypatch.setattr(store, "jobs", and_then_asked_for)
    clean_up(store, tmp_path, Retention(jobs=2.0), now=3 * DAY)
    assert (tmp_path / str(job)).is_dir()
