"""Retention: images, results and refused objects go when they have had their time, or when the disk fills.

An image may go for one of three reasons, and never while it may still be needed:

    left alone  every job that it belongs to is foreign: no map can come of it, and it was never ours to keep
    delivered   every job that it belongs to is sent or archived, but for foreign ones: each destination has stored each
                result, and has committed itself where it is asked to
    unused      nothing is made of it, or nothing more than is delivered: its acquisition is incomplete, no map could be
                made of it, nobody has decided on it, or it belongs to no job.  It is announced among what was not taken
                before it goes, and a disk that fills is no reason

Nor does one go that a scanner has asked about and was not answered yet (storage commitment); and one of which it was
told that it is kept has its whole time, however full the disk is.

The row goes first and the file after it.  Killed in between, the node finds the file at its next start, takes it in
again and removes it in a later round; a row without a file is a loss that nobody wanted, and is told as one.

What is removed and comes again is taken like any image.  As long as there is nothing among it that a job was not made
from, no job is made of it (`regroup`); `retry` makes the old one again.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from dicom_node import cleanup
from dicom_node.commit import prune
from dicom_node.holdings import Holdings, Image, Removal, Stand
from dicom_node.room import free_bytes, more_room
from dicom_node.settings import Retention
from dicom_node.spool import Spool
from dicom_node.states import State
from dicom_node.store import Job, Objection, Store

DAY = cleanup.SECONDS_OF_A_DAY
NOTICE = 14 * DAY
"""Seconds that unused images are announced before they go; half of their time where that is less."""
EARLIEST = 3600.0
"""Seconds that a delivered source is kept even where the disk fills: a late image makes a revision of all of them."""
STRAY = DAY
"""Seconds that nothing must have come to a study until what is left alone goes for want of room: its phase, or its
other echoes, may be sent by hand the next morning."""
NOT_USED = frozenset({State.WAITING, State.INCOMPLETE, State.FAILED, State.REVIEW, State.CANCELLED})
ANNOUNCEMENT = "not used:"
PLEDGES = 7 * DAY
"""Seconds that a scanner's request for commitment is remembered at least, once it is answered."""

Fate = Literal["needed", "left alone", "delivered", "unused"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Judged:
    """since: when it came to be so, s since the epoch."""

    image: Image
    fate: Fate
    since: float


def judge(images: Iterable[Image], jobs: Sequence[Job], awaiting: frozenset[int]) -> list[Judged]:
    """What may become of the images of one study.  awaiting: jobs that a destination has yet to commit itself to."""
    of_image: dict[str, list[Job]] = {}
    for job in jobs:
        for uid in job.images:
            of_image.setdefault(uid, []).append(job)
    images = list(images)
    last_touched = max([*(image.received_at for image in images), *(job.changed_at for job in jobs)], default=0.0)
    found = []
    for image in images:
        own = of_image.get(image.sop_instance_uid, [])
        claims = {job.state for job in own} - {State.FOREIGN}
        since = max([image.received_at, *(job.changed_at for job in own)])
        fate: Fate = "needed"
        if awaiting.intersection(job.id for job in own):
            pass
        elif own and not claims:
            fate, since = "left alone", last_touched  # what comes to the study may make an acquisition of it
        elif own and claims <= set(cleanup.DELIVERED):
            fate = "delivered"
        elif claims <= NOT_USED.union(cleanup.DELIVERED):
            fate = "unused"
        found.append(Judged(image, fate, since))
    return found


class Sweeper:
    """One round is a call.  restore: is told of an image that came again while it was being removed.

    free: bytes, of a folder.
    """

    def __init__(
        self,
        store: Store,
        spool: Spool,
        jobs_folder: Path,
        retention: Retention,
        clock: Callable[[], float],
        restore: Callable[[Path], None],
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._store = store
        self._holdings = Holdings(store)
        self._spool = spool
        self._jobs_folder = jobs_folder
        self._retention = retention
        self._clock = clock
        self._restore = restore
        self._free = free
        self._looked_at: dict[tuple[str, Fate], tuple[Stand, float]] = {}
        """How a study stood when it was judged, and since when the first of its images are so."""

    def __call__(self) -> None:
        """Raises what one of its parts has raised, after all of them have had their turn: room is made in any case."""
        now = self._clock()
        troubles: list[Exception] = []
        for part in (self._make_room, self._remove_old, self._forget_old):
            try:
                part(now)
            except (OSError, sqlite3.OperationalError) as error:  # full or locked
                troubles.append(error)
        for trouble in troubles:
            raise trouble

    def _remove_old(self, now: float) -> None:
        keep = self._retention
        cleanup.clean_up(self._store, self._jobs_folder, keep, now)
        for fate, age, _ in self._going():
            for study in self._studies(fate, now - age):
                self._remove(study, fate, now, age, f"{fate} for over {age / DAY:g} days")
        if keep.unused:
            self._unused(now, keep.unused * DAY)
        self._spool.sweep_empty_folders(now - DAY)

    def _going(self) -> list[tuple[Fate, float, float]]:
        """What goes by itself: after so many seconds, or for want of room after so many."""
        alone, sources = self._retention.left_alone * DAY, self._retention.sources * DAY
        found: list[tuple[Fate, float, float]] = [
            ("left alone", alone, min(STRAY, alone)),
            ("delivered", sources, min(EARLIEST, sources)),
        ]
        return [one for one in found if one[1]]

    def _forget_old(self, now: float) -> None:
        """What was refused, and what is known of results and of images that have had their time."""
        keep = self._retention
        if keep.quarantine:
            before = now - keep.quarantine * DAY
            if count := self._spool.sweep_quarantine(before):
                log.info("quarantine_swept", objects=count)
            self._holdings.withdraw_below(str(self._spool.quarantine_folder), before)
            self._holdings.withdraw_pathless(before)
        if keep.results:
            prune(self._store, now - keep.results * DAY)
        self._holdings.forget_pledges(now - max([PLEDGES, *(age for _, age, _ in self._going())]))

    def _has_room(self) -> bool:
        return self._free(self._spool.root) >= self._retention.free_bytes

    def _make_room(self, now: float) -> None:
        """Of what is not kept for ever."""
        if self._has_room():
            return
        if self._retention.results:
            cleanup.make_room(self._store, self._jobs_folder, now, self._has_room)
        for fate, age, at_least in self._going():
            vouched = self._holdings.pledged(now - age)
            for study in self._studies(fate, now - at_least):
                if self._has_room():
                    return
                self._remove(study, fate, now, at_least, f"{fate}, and the disk is filling", vouched)
        if not self._has_room():
            log.warning("no_more_room_to_make", free_bytes=self._free(self._spool.root), do=more_room(self._retention))

    def _unused(self, now: float, age: float) -> None:
        """Announces what will go, and removes what was announced long enough ago."""
        notice = min(NOTICE, age / 2)
        announced = self._holdings.objections_about(ANNOUNCEMENT)
        for study in self._studies("unused", now - age + notice):
            folders = {str(one.image.path.parent) for one in self._due(study, "unused", now - age + notice)}
            for folder in folders:
                if folder not in announced:
                    self._announce(study, folder, now, age, notice)
                elif announced.pop(folder).at <= now - notice:
                    days = age / DAY
                    self._remove(study, "unused", now, age, f"not used for over {days:g} days, and announced")
                    self._holdings.withdraw(folder, ANNOUNCEMENT)
        for folder in announced:  # it has been used meanwhile, or is gone
            self._holdings.withdraw(folder, ANNOUNCEMENT)

    def _announce(self, study: str, folder: str, now: float, age: float, notice: float) -> None:
        reason = (
            f"{ANNOUNCEMENT} nothing (more) is made of images of study {study}; they are removed in {notice / DAY:g} "
            f"days, after {age / DAY:g} in all: retry the job, send what is missing, or copy them ([retention] unused)"
        )
        self._store.object_to(Objection(now, folder, "", reason))
        log.warning("unused_images_announced", study=study, days=notice / DAY)

    def _studies(self, fate: Fate, before: float) -> Iterator[str]:
        """Those with images that have been so since before then; one that has not changed is not judged again."""
        for study, stand in self._holdings.studies(before).items():
            known, first = self._looked_at.get((study, fate), (None, math.inf))
            if known != stand:
                first = min((one.since for one in self._due(study, fate, math.inf)), default=math.inf)
                self._looked_at[study, fate] = stand, first
            if first <= before:
                yield study

    def _due(self, study: str, fate: Fate, since: float) -> list[Judged]:
        jobs = self._holdings.jobs(study)
        awaiting = frozenset(job.id for job in jobs if self._holdings.awaits_commitment(job.id))
        return [
            one
            for one in judge(self._holdings.images(study), jobs, awaiting)
            if one.fate == fate and one.since <= since
        ]

    def _remove(
        self, study: str, fate: Fate, now: float, age: float, reason: str, vouched: frozenset[str] = frozenset()
    ) -> None:
        with self._store.transaction():
            due = self._due(study, fate, now - age)  # judged and removed in one: nobody takes up a job in between
            stats = {one.image.path: one.image.path.stat() for one in due if one.image.path.exists()}
            again = {path for path, stat in stats.items() if stat.st_mtime > now - age}  # each repeat touches its file
            vouched |= self._holdings.pledged()
            due = [one for one in due if one.image.path not in again and one.image.sop_instance_uid not in vouched]
            stats = {one.image.path: stats[one.image.path] for one in due if one.image.path in stats}
            if not due:
                return
            size = sum(stat.st_size for stat in stats.values())
            self._holdings.forget_images([one.image.sop_instance_uid for one in due])
            if fate == "unused":
                self._close(study, {one.image.sop_instance_uid for one in due}, now, reason)
            self._holdings.write_down(Removal(now, fate, study, None, len(stats), size, reason))
        for path, stat in stats.items():
            try:
                if not self._spool.remove(path, stat.st_mtime_ns):
                    self._restore(path)
            except OSError as error:
                log.error("not_removed", path=str(path), error=str(error))
        log.info("images_removed", study=study, images=len(stats), bytes=size, reason=reason)

    def _close(self, study: str, gone: set[str], now: float, reason: str) -> None:
        """Jobs that wait for others of these images wait no more."""
        for job in self._store.jobs(State.WAITING, State.INCOMPLETE, study=study):
            if gone.issuperset(job.images):
                if job.state is State.INCOMPLETE:
                    self._store.advance(job.id, State.INCOMPLETE, State.WAITING, now, reason)
                self._store.advance(job.id, State.WAITING, State.FOREIGN, now, f"its images were {reason}")
