"""Folders of jobs go when nobody needs them any more, and never half."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dicom_node import cleanup
from dicom_node.cleanup import clean_up, make_anew, make_room
from dicom_node.holdings import Holdings
from dicom_node.settings import Retention
from dicom_node.states import State
from dicom_node.store import Job, Store
from tests.dicom_node.making import a_ready_job, the_job
from tests.dicom_node.test_narrate import stage

DAY = 86400.0
TO_SENT = (State.RECONSTRUCTED, State.SENDING, State.SENT)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "node.db")


def a_job(store: Store, folder: Path, *states: State, at: float = 3.0, key: str = "g") -> int:
    job = a_ready_job(store, key)
    store.claim(2.0, lease=1, ceiling=3)
    for source, target in zip((State.RECONSTRUCTING, *states), states, strict=False):
        assert store.advance(job, source, target, at)
    stage(folder, job, "unwrap")
    return job


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
    clean_up(store, tmp_path, Retention(results=2.0), now=2 * DAY)
    clean_up(store, tmp_path, Retention(results=0.0), now=1000 * DAY)
    assert all((tmp_path / str(job)).is_dir() for job in ends)
    clean_up(store, tmp_path, Retention(results=2.0), now=2 * DAY + 4)
    gone = {the_job(store, job).state for job in ends if not (tmp_path / str(job)).exists()}
    assert gone == {State.SENT, State.ARCHIVED, State.FAILED, State.REVIEW}


def test_a_job_that_is_asked_for_while_it_is_cleaned_up_keeps_its_folder(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_ready_job(store)
    store.claim(2.0, lease=1, ceiling=3)
    store.advance(job, State.RECONSTRUCTING, State.FAILED, 3.0)
    stage(tmp_path, job, "unwrap")
    look = store.job
    looked: list[int] = []

    def and_then_asked_for(number: int) -> Job | None:
        found = look(number)
        if not looked and found:
            looked.append(number)
            store.run_again(found, 4.0)
            store.claim(4.0, lease=1, ceiling=3)
        return found

    monkeypatch.setattr(store, "job", and_then_asked_for)
    clean_up(store, tmp_path, Retention(results=2.0), now=3 * DAY)
    assert (tmp_path / str(job)).is_dir()


def test_what_goes_is_written_down(tmp_path: Path, store: Store) -> None:
    job = a_job(store, tmp_path, *TO_SENT)
    size = (tmp_path / str(job) / "progress.jsonl").stat().st_size
    clean_up(store, tmp_path, Retention(results=2.0), now=3 * DAY)
    [removal] = Holdings(store).removals()
    assert (removal.kind, removal.job, removal.files, removal.bytes) == ("result", job, 1, size)


def test_the_oldest_that_are_delivered_go_until_there_is_room(tmp_path: Path, store: Store) -> None:
    late = a_job(store, tmp_path, *TO_SENT, at=9.0, key="late")
    failed = a_job(store, tmp_path, State.FAILED, at=1.0, key="failed")
    early = a_job(store, tmp_path, *TO_SENT, at=5.0, key="early")
    make_room(store, tmp_path, 10.0, lambda: not (tmp_path / str(early)).exists())
    assert sorted(int(path.name) for path in tmp_path.iterdir() if path.is_dir()) == sorted([late, failed])


@pytest.mark.parametrize("removing", ["clean up", "make anew"])
def test_killed_while_it_is_removed_it_is_gone_as_a_whole(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, removing: str
) -> None:
    job = a_job(store, tmp_path, *TO_SENT[: 3 if removing == "clean up" else 2])

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    def remove() -> None:
        if removing == "clean up":
            clean_up(store, tmp_path, Retention(results=2.0), now=3 * DAY)
        else:
            make_anew(store, tmp_path, job, State.SENDING, 3 * DAY, "a file is gone")

    with monkeypatch.context() as patch:
        patch.setattr(cleanup.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove()
    assert not (tmp_path / str(job)).exists()
    assert list(tmp_path.glob("*.removed"))
    clean_up(store, tmp_path, Retention(results=2.0), now=4 * DAY)
    assert not list(tmp_path.glob("*.removed"))


def test_a_folder_that_cannot_be_removed_holds_up_no_other(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = a_job(store, tmp_path, *TO_SENT, key="stuck")
    other = a_job(store, tmp_path, *TO_SENT, key="other")
    remove = shutil.rmtree

    def sometimes(folder: Path) -> None:
        if folder.name.startswith(f"{stuck}."):
            raise PermissionError(13, "Permission denied")
        remove(folder)

    monkeypatch.setattr(cleanup.shutil, "rmtree", sometimes)
    clean_up(store, tmp_path, Retention(results=2.0), now=3 * DAY)
    assert not (tmp_path / str(other)).exists()
