"""Folders of jobs that go: those that have had their time, and those that are no longer whole.

A folder is removed in the transaction that holds its job where it is, so that nobody who gets the job loses a folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import structlog

from dicom_node.settings import Retention
from dicom_node.states import State
from dicom_node.store import Store

SECONDS_OF_A_DAY = 86400.0
FINISHED = (State.SENT, State.ARCHIVED, State.FAILED, State.REVIEW)
"""Nothing of these is still to be sent, and what `retry` needs is made anew.  What a destination has yet to commit
itself to is kept: it may have to be sent again.

Not refused: somebody may ask for it to be sent again.  Not reconstructed: without a destination, its folder is the only
place where the result is.
"""

log = structlog.get_logger(__name__)


def clean_up(store: Store, jobs_folder: Path, retention: Retention, now: float) -> None:
    """Removes the folders of jobs that are finished since longer than the retention says."""
    if not retention.jobs:
        return
    for job in store.jobs(*FINISHED):
        folder = jobs_folder / str(job.id)
        if now - job.changed_at <= retention.jobs * SECONDS_OF_A_DAY or not folder.is_dir():
            continue
        with store.transaction():
            if store.job(job.id) != job or _awaits_commitment(store, job.id):
                continue  # somebody has asked for it meanwhile, or may have to
            try:
                shutil.rmtree(folder)
            except OSError as error:
                log.error("not_cleaned_up", job=job.id, error=str(error))
                continue
        log.info("cleaned_up", job=job.id)


def _awaits_commitment(store: Store, job: int) -> bool:
    return bool(
        store.rows("SELECT 1 FROM deliveries WHERE job = :job AND commitment IN ('due', 'asked') LIMIT 1", {"job": job})
    )


def make_anew(store: Store, jobs_folder: Path, job: int, source: State, now: float, reason: str) -> None:
    """A result on disk is no longer whole: the job is done again, to the same UIDs.

    If the job has left `source`, the folder belongs to somebody else and stays; if the folder cannot be removed, the
    job stays where it is.
    """
    folder = jobs_folder / str(job)
    try:
        with store.transaction():
            moved = store.advance(job, source, State.READY, now, reason)
            if moved and folder.exists():
                shutil.rmtree(folder)
    except OSError as error:
        log.error("not_made_anew", job=job, reason=reason, error=str(error))
    else:
        if moved:
            log.warning("made_anew", job=job, reason=reason)
