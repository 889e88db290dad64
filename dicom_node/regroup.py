"""Groups become jobs: what the images of a study amount to now, held against the jobs that there are.

As long as nothing was made of a job's images, late ones join it.  Later ones make a numbered revision, which is a job
of its own: the first goes on to the archive undisturbed.  A second export of the same scan makes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

import structlog

from dicom_node.model import Completeness, Group, Instance
from dicom_node.states import GROWING, State
from dicom_node.store import Job, Objection, Store

GroupFunction = Callable[[Sequence[Instance], float, float, frozenset[str]], list[Group]]

STATE_OF = {
    Completeness.COMPLETE: State.READY,
    Completeness.WAITING: State.WAITING,
    Completeness.INCOMPLETE: State.INCOMPLETE,
    Completeness.FOREIGN: State.FOREIGN,
}

log = structlog.get_logger(__name__)


def regroup(
    store: Store, group: GroupFunction, now: float, quiet_time: float, open_associations: frozenset[str]
) -> None:
    """Looks at every study that something came to, until nothing of it is waited for any more.

    open_associations: those from which images may still come, and those whose images are not all in the store.
    """
    for study, arrivals in store.open_studies():
        try:
            groups = group(store.instances(study), now, quiet_time, open_associations)
            for found in groups:
                place(store, found, now)
            _retire(store, study, {found.key for found in groups}, now)
        except sqlite3.Error as error:
            # locked or full: the study stays open and is looked at again
            log.error("not_grouped_yet", study=study, error=str(error))
            continue
        except Exception as error:
            # one study that cannot be grouped must not hold up the others; status shows it until something new comes
            log.exception("not_grouped", study=study)
            reason = f"study {study} cannot be grouped: {type(error).__name__}: {error}"
            store.object_to(Objection(now, None, "", reason))
            groups = []
        if all(found.completeness is not Completeness.WAITING for found in groups):
            store.settle_study(study, arrivals)


def place(store: Store, group: Group, now: float) -> None:
    """Finds or makes the job of a group, gives it the group's images and moves it to where it stands now.

    In one transaction: a worker gets the job as it was before or with all of these images, never between.
    """
    images = _uids(group.used)
    with store.transaction():
        job = store.latest(group.key)
        if job is None:
            job = store.open_job(group.key, 1, group.study_instance_uid, sorted(images), now)
        elif job.state not in GROWING:
            if images == set(job.images) or _is_second_export(job, group):
                return
            job = store.open_job(group.key, job.revision + 1, group.study_instance_uid, sorted(images), now)
        elif images != set(job.images):
            job = _reopen(store, job, now, f"{len(images - set(job.images))} new images came")
            store.set_images(job, sorted(images))
        target = STATE_OF[group.completeness]
        if target is State.WAITING or job.state in (target, State.READY, State.FAILED, State.REVIEW):
            return
        job = _reopen(store, job, now, "it was looked at anew")
        store.advance(job.id, State.WAITING, target, now, group.reason)


def _is_second_export(job: Job, group: Group) -> bool:
    """The grouping prefers another export now, but the one that the job was made from is still there, as a whole."""
    used = set(job.images) - (_uids([group.mask]) if group.mask else set())
    return used.isdisjoint(_uids(group.instances)) and used <= _uids(group.set_aside)


def _retire(store: Store, study: str, keys: set[str], now: float) -> None:
    """Jobs whose images have become part of another acquisition, before anything was made of them."""
    with store.transaction():
        for job in store.jobs(*GROWING - {State.FOREIGN}, study=study):
            if job.group_key not in keys:
                job = _reopen(store, job, now, "")
                store.advance(job.id, State.WAITING, State.FOREIGN, now, "its images belong to another acquisition now")


def _reopen(store: Store, job: Job, now: float, reason: str) -> Job:
    """The job, waiting.  To be called in the transaction in which the job was read: nobody was quicker."""
    if job.state is not State.WAITING:
        store.advance(job.id, job.state, State.WAITING, now, reason)
    found = store.job(job.id)
    assert found is not None
    return found


def _uids(instances: Sequence[Instance]) -> set[str]:
    return {instance.sop_instance_uid for instance in instances}
