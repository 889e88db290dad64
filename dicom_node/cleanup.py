"""Folders of jobs that go: those that have had their time, and those that are no longer whole.

A folder is renamed in the transaction that holds its job where it is, so that nobody who gets the job loses a folder,
and then removed: a crash in between leaves a folder of no job and never half a result.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from dicom_node.holdings import Holdings, Removal
from dicom_node.settings import Retention
from dicom_node.states import State
from dicom_node.store import Job, Store

SECONDS_OF_A_DAY = 86400.0
DELIVERED = (State.SENT, State.ARCHIVED)
"""Every destination has stored every result.  What one has yet to commit itself to is still to be delivered."""
FINISHED = (*DELIVERED, State.FAILED, State.REVIEW, State.CANCELLED)
"""Nothing of these is still to be sent, and what `retry` needs is made anew.

Not refused: somebody may ask for it to be sent again.  Not reconstructed: without a destination, its folder is the only
place where the result is.
"""
_REMOVED = ".removed"

log = structlog.get_logger(__name__)


def clean_up(store: Store, jobs_folder: Path, retention: Retention, now: float) -> None:
    """Removes the folders of jobs that are finished since longer than the retention says."""
    sweep(jobs_folder)
    if not retention.results:
        return
    for job in _with_folders(store, jobs_folder, FINISHED):
        if now - job.changed_at > retention.results * SECONDS_OF_A_DAY:
            remove_result(store, jobs_folder, job, now, f"finished for more than {retention.results:g} days")


def make_room(store: Store, jobs_folder: Path, now: float, is_enough: Callable[[], bool]) -> None:
    """Removes the folders of jobs whose results are delivered, those that are so for longest first."""
    for job in sorted(_with_folders(store, jobs_folder, DELIVERED), key=lambda job: job.changed_at):
        if is_enough():
            return
        remove_result(store, jobs_folder, job, now, "delivered, and the disk is filling")


def remove_result(store: Store, jobs_folder: Path, job: Job, now: float, reason: str) -> None:
    """Removes the folder of a finished job, unless somebody asks for it meanwhile or its commitment is awaited."""
    folder, holdings = jobs_folder / str(job.id), Holdings(store)
    try:
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        with store.transaction():
            if store.job(job.id) != job or holdings.awaits_commitment(job.id):
                return
            holdings.write_down(Removal(now, "result", job.study_instance_uid, job.id, len(sizes), sum(sizes), reason))
            aside = _put_aside(folder)
        shutil.rmtree(aside)
    except (OSError, sqlite3.OperationalError) as error:  # the next one may go
        log.error("not_cleaned_up", job=job.id, error=str(error))
    else:
        log.info("cleaned_up", job=job.id, bytes=sum(sizes), reason=reason)


def make_anew(store: Store, jobs_folder: Path, job: int, source: State, now: float, reason: str) -> None:
    """A result on disk is no longer whole: the job is done again, to the same UIDs.

    If the job has left `source`, the folder belongs to somebody else and stays; if the folder cannot be removed, the
    job stays where it is.
    """
    folder = jobs_folder / str(job)
    try:
        with store.transaction():
            moved = store.advance(job, source, State.READY, now, reason)
            aside = _put_aside(folder) if moved and folder.exists() else None
        if aside:
            shutil.rmtree(aside)
    except OSError as error:
        log.error("not_made_anew", job=job, reason=reason, error=str(error))
    else:
        if moved:
            log.warning("made_anew", job=job, reason=reason)


def sweep(jobs_folder: Path) -> None:
    """Removes what a crash left of folders that were being removed."""
    for aside in jobs_folder.glob(f"*{_REMOVED}"):
        try:
            shutil.rmtree(aside)
        except OSError as error:
            log.error("not_cleaned_up", folder=str(aside), error=str(error))


def _put_aside(folder: Path) -> Path:
    aside = folder.with_name(folder.name + _REMOVED)
    if aside.exists():
        shutil.rmtree(aside)
    return folder.rename(aside)


def _with_folders(store: Store, jobs_folder: Path, states: tuple[State, ...]) -> Iterator[Job]:
    """Of all jobs only those that have folders: the database remembers many more."""
    if not jobs_folder.is_dir():
        return
    for number in sorted(int(folder.name) for folder in jobs_folder.iterdir() if folder.name.isdecimal()):
        job = store.job(number)
        if job is not None and job.state in states:
            yield job
