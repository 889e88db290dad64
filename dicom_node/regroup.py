"""Groups become jobs: what the images of a study amount to now, held against the jobs that there are.

As long as nothing was made of a job's images, late ones join it.  Later ones make a numbered revision, which is a job
of its own: the first goes on to the archive undisturbed.  A second export of the same scan makes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import structlog

from dicom_node.model import Completeness, Group, Instance
from dicom_node.mpps import heed, steps_with
from dicom_node.outbox import Outbox
from dicom_node.rebuild import is_damage
from dicom_node.states import GROWING, Priority, State
from dicom_node.store import Job, Objection, Store
from dicom_node.surprise import words

GroupFunction = Callable[[Sequence[Instance], float, float, frozenset[str]], list[Group]]

STATE_OF = {
    Completeness.COMPLETE: State.READY,
    Completeness.WAITING: State.WAITING,
    Completeness.INCOMPLETE: State.INCOMPLETE,
    Completeness.FOREIGN: State.FOREIGN,
}

JUST_SCANNED = timedelta(days=2)
"""An image that comes later after its acquisition was sent from an archive, or by hand: nobody waits for it."""

log = structlog.get_logger(__name__)


def regroup(
    store: Store,
    group: GroupFunction,
    now: float,
    quiet_time: float,
    open_associations: frozenset[str],
    *,
    after: str = "",
    enough: Callable[[], bool] = lambda: False,
) -> str:
    """Looks at every study that something came to, until nothing of it is waited for any more.

    open_associations: those from which images may still come, and those whose images are not all in the store.
    enough: whether the rest is for the next round; there is no round without a study.  Returns the study that was the
    last then, for the next round to go on `after` it, "" when all were looked at.  Raises sqlite3.DatabaseError for a
    damaged database.
    """
    for study, arrivals in sorted(store.open_studies(), key=lambda found: (found[0] <= after, found[0])):
        try:
            _look_at(study, arrivals, store, group, now, quiet_time, open_associations)
        except sqlite3.Error as error:
            if is_damage(error):
                raise
            # locked or full: the study stays open and is looked at again
            log.error("not_grouped_yet", study=study, error=str(error))
        if enough():
            return study
    return ""


def _look_at(
    study: str,
    arrivals: int,
    store: Store,
    group: GroupFunction,
    now: float,
    quiet_time: float,
    open_associations: frozenset[str],
) -> None:
    try:
        instances = store.instances(study)
        groups = group(instances, now, quiet_time, open_associations)
        if steps := steps_with(store, {instance.series_instance_uid for instance in instances}):
            groups = heed(groups, steps, instances, now, quiet_time)
        keys = frozenset(found.key for found in groups)
        _retire(store, study, {place(store, found, now, keys) for found in groups}, now)
    except sqlite3.Error:
        raise
    except Exception as error:
        # one study that cannot be grouped must not hold up the others; status shows it until something new comes
        log.exception("not_grouped", study=study)
        reason = f"study {study} cannot be grouped: {words(error)}"
        store.object_to(Objection(now, None, "", reason))
        groups = []
    if all(found.completeness is not Completeness.WAITING for found in groups):
        store.settle_study(study, arrivals)


def place(store: Store, group: Group, now: float, keys: frozenset[str] = frozenset()) -> str:
    """Finds or makes the job of a group, gives it the group's images and moves it to where it stands now.

    keys: of all groups of the study.  Returns the key of the job.  In one transaction: a worker gets the job as it was
    before or with all of these images, never between.
    """
    images = _uids(group.used)
    with store.transaction():
        job = store.latest(group.key) or _returned(store, group, images, keys | {group.key})
        is_delivered = job is not None and _is_delivered(store, job)
        if job is None:
            job = _open(store, group, group.key, 1, now)
        elif job.state is State.CANCELLED:
            if not is_delivered and not images <= set(job.images):
                store.set_images(job, sorted(images))
            return job.group_key
        elif is_delivered or job.state not in GROWING:
            if job.state is State.WAITING:  # it was cancelled half-way and is taken up again
                store.advance(job.id, State.WAITING, State.READY, now)
            if images <= set(job.images) or _is_second_export(job, group):
                return job.group_key
            job = _open(store, group, job.group_key, job.revision + 1, now)
        elif images != set(job.images):
            job = _reopen(store, job, now, f"{len(images - set(job.images))} new images came")
            store.set_images(job, sorted(images))
        target = STATE_OF[group.completeness]
        if target is State.WAITING or job.state in (target, State.READY, State.FAILED, State.REVIEW):
            return job.group_key
        job = _reopen(store, job, now, "it was looked at anew")
        store.advance(job.id, State.WAITING, target, now, group.reason)
        return job.group_key


def _returned(store: Store, group: Group, images: set[str], keys: frozenset[str]) -> Job | None:
    """The job that was made of these images before they were removed, or before the database was made anew.

    They have come in another order now, and the key of a group is that of its first image.
    """
    same = [
        job
        for job in store.jobs(study=group.study_instance_uid)
        if (job.state not in GROWING or _is_delivered(store, job))
        and job.group_key not in keys
        and not job.recipe
        and images.intersection(job.images)
    ]
    best = max(same, key=lambda job: (len(images.intersection(job.images)), job.id), default=None)
    return store.latest(best.group_key) if best else None


def priority(group: Group, fetched: bool) -> Priority:
    """fetched: whether the node brought a series of it from an archive."""
    acquired = [_day(frame.acquired_at) for instance in group.instances for frame in instance.frames[:1]]
    days = [day for day in acquired if day]
    received = datetime.fromtimestamp(min((i.received_at for i in group.instances), default=0.0), UTC)
    is_old = bool(days) and received.replace(tzinfo=None) - max(days) > JUST_SCANNED
    return Priority.COHORT if fetched or is_old else Priority.TODAY


def _day(acquired_at: str) -> datetime | None:
    """The day of a DICOM DT; None for a TM, or for what is no day."""
    try:
        return datetime.strptime(acquired_at[:8], "%Y%m%d") if len(acquired_at) >= 14 else None
    except ValueError:
        return None


def _open(store: Store, group: Group, key: str, revision: int, now: float) -> Job:
    series = {instance.series_instance_uid for instance in group.instances}
    return store.open_job(
        key,
        revision,
        group.study_instance_uid,
        sorted(_uids(group.used)),
        now,
        priority=priority(group, store.were_fetched(series)),
    )


def _is_delivered(store: Store, job: Job) -> bool:
    """In part at least: though it is being made anew, or could not be, others hold what was made of these images."""
    return Outbox(store).has_delivered(job.id)


def _is_second_export(job: Job, group: Group) -> bool:
    """The grouping prefers another export now, but the one that the job was made from is still there, as a whole."""
    used = set(job.images) - (_uids([group.mask]) if group.mask else set())
    return used.isdisjoint(_uids(group.instances)) and used <= _uids(group.set_aside)


def _retire(store: Store, study: str, keys: set[str], now: float) -> None:
    """Jobs whose images have become part of another acquisition, before anything was made of them."""
    with store.transaction():
        for job in store.jobs(*GROWING - {State.FOREIGN}, study=study):
            if job.state is not State.WAITING and _is_delivered(store, job):
                continue
            if job.group_key not in keys and not job.recipe:
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
