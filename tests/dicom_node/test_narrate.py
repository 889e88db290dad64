"""The log tells every move and every stage once, in the order in which they happened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import structlog

from dicom_node.narrate import Narrator
from dicom_node.states import State
from dicom_node.store import Move, Store
from tests.dicom_node.making import a_ready_job

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
