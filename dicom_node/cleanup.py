"""Removes what has had its time: folders of finished jobs.  Nothing that is still to be sent goes."""

from __future__ import annotations

import shutil
from pathlib import Path

import structlog

from dicom_node.config import Retention
from dicom_node.states import State
from dicom_node.store import Store

SECONDS_OF_A_DAY = 86400.0

log = structlog.get_logger(__name__)


def clean_up(store: Store, jobs_folder: Path, retention: Retention, now: float) -> None:
    """Removes the folders of jobs that were sent, or failed, longer ago than the retention says.

    A job that was refused by a destination keeps its folder: somebody may ask for it to be sent again.
    """
    if not retention.jobs:
        return
    for job in store.jobs(State.SENT, State.FAILED):
        folder = jobs_folder / str(job.id)
        if now - job.changed_at > retention.jobs * SECONDS_OF_A_DAY and folder.is_dir():
            shutil.rmtree(folder)
            log.info("cleaned_up", job=job.id)
