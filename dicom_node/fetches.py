"""The list of what is fetched, in the store: found, fetched, done, refused.

What was found is a row until it is fetched.  Whatever is here already, or was made before, is not brought again, with
whatever recipe it was made: the list says with which, and `reprocess` makes it with another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlite_utils import Database

from dicom_node.manner import recipe_in_words
from dicom_node.seek import Candidate
from dicom_node.states import State
from dicom_node.store import Job, Store

ATTEMPTS = 10
"""How often a series is asked for that does not come whole."""
WAS_HERE = "was here already"
_MADE = (State.RECONSTRUCTED, State.SENDING, State.SENT, State.ARCHIVED)
_UNDER_WAY = (State.WAITING, State.READY, State.RECONSTRUCTING)


@dataclass(frozen=True)
class Fetch:
    """A series on its way.  state: found, fetched or refused; the other states of FETCHES are the job's, see `listed`.

    attempts: 0 for one that was not fetched because it was here, or done.
    """

    peer: str
    study_instance_uid: str
    series_instance_uid: str
    images: int
    state: str
    reason: str
    attempts: int
    due_at: float
    changed_at: float


class Fetches:
    """The list, in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, peer: str, candidates: Iterable[Candidate], now: float, *, again: bool = False) -> int:
        """Writes down what was found; how many series of it are new and to be fetched.

        What was refused before and is wanted now is found anew; what was fetched stays so, unless it has grown.  What
        is here already, or was made into a map before, needs no fetching; again: only what is here needs none.
        candidates: study by study, as `seek` yields them: when it looks at the next study, all of the one before is
        told.  So if the archive breaks off, what was found stays.
        """
        new = 0
        of_study: list[Candidate] = []
        try:
            for one in candidates:
                if of_study and one.study_instance_uid != of_study[0].study_instance_uid:
                    new += self._add_study(peer, of_study, now, again)
                    of_study = []
                of_study.append(one)
        finally:
            new += self._add_study(peer, of_study, now, again)
        return new

    def _add_study(self, peer: str, found: Sequence[Candidate], now: float, again: bool) -> int:
        # In one go, and not while the candidates come: they come from an archive, one answer after another.
        new = 0
        with self._store.transaction() as database:
            for one in found:
                state, reason = ("refused", one.against) if one.against else self._known(peer, one, again)
                new += _add(database, peer, one, state, reason, now, again)
        return new

    def _known(self, peer: str, one: Candidate, again: bool) -> tuple[str, str]:
        """State and reason of a series that is wanted."""
        if not one.instances:
            return "found", ""
        if len(self._store.paths(sorted(one.instances))) == len(one.instances):
            return "fetched", WAS_HERE
        # Of a series with more than the acquisition (real and imaginary parts besides, say) a job uses some.
        made = [job for job in self._store.jobs(*_MADE, study=one.study_instance_uid) if one.instances & {*job.images}]
        has_grown = bool(
            self._store.rows(
                "SELECT 1 FROM fetches WHERE peer = :peer AND series_instance_uid = :series AND images < :images",
                {"peer": peer, "series": one.series_instance_uid, "images": one.images},
            )
        )
        if made and not again and not has_grown:
            return "fetched", f"was made before, as {_made(made[-1])}"
        return "found", ""

    def absent(self, uids: Sequence[str]) -> list[str]:
        """Those SOP Instance UIDs of which no image is here."""
        return [uid for uid in uids if not self._store.paths([uid])]

    def waiting_jobs(self) -> int:
        """How many jobs wait for a worker."""
        return int(self._store.rows("SELECT COUNT(*) AS jobs FROM jobs WHERE state = 'ready'")[0]["jobs"])

    def due(self, now: float) -> list[Fetch]:
        """The series of one study that are to be fetched now: of the study that waits longest; empty if none is."""
        first = self._rows("state = 'found' AND due_at <= :now ORDER BY due_at, rowid LIMIT 1", now=now)
        if not first:
            return []
        return self._rows(
            """state = 'found' AND due_at <= :now AND peer = :peer AND study_instance_uid = :study
            ORDER BY series_instance_uid""",
            now=now,
            peer=first[0].peer,
            study=first[0].study_instance_uid,
        )

    def is_here(self, fetch: Fetch) -> bool:
        """Whether as many images of it are here as the archive holds: it came otherwise, or was not read yet, when it
        was found.
        """
        of_study = self._store.instances(fetch.study_instance_uid)
        return 0 < fetch.images <= sum(one.series_instance_uid == fetch.series_instance_uid for one in of_study)

    def leave(self, fetch: Fetch, now: float) -> None:
        """It is here, and need not be fetched."""
        self._change(fetch, "fetched", WAS_HERE, now, now, tries=0)

    def fetched(self, fetch: Fetch, now: float) -> None:
        self._change(fetch, "fetched", "", now, now)

    def refuse(self, fetch: Fetch, reason: str, now: float) -> None:
        """It is not asked for again, until somebody wants it anew."""
        self._change(fetch, "refused", reason, now, now)

    def postpone(self, fetch: Fetch, reason: str, now: float, pause: float) -> None:
        """Again later; refused when it was tried often enough."""
        state = "refused" if fetch.attempts + 1 >= ATTEMPTS else "found"
        self._change(fetch, state, reason, now, now + pause)

    def put_off(self, peer: str, reason: str, now: float, pause: float) -> None:
        """All of an archive again later: it cannot be reached, which is no fault of any series."""
        self._store.database.execute(
            """UPDATE fetches SET reason = :reason, changed_at = :now, due_at = MAX(due_at, :now + :pause)
            WHERE peer = :peer AND state = 'found'""",
            {"peer": peer, "reason": reason, "now": now, "pause": pause},
        )

    def listed(self) -> list[Fetch]:
        """All of them, in the states of FETCHES, those of jobs with what these say."""
        jobs: dict[str, list[Job]] = {}
        for job in self._store.jobs():
            jobs.setdefault(job.study_instance_uid, []).append(job)
        return [
            self._with_end(fetch, jobs.get(fetch.study_instance_uid, [])) for fetch in self._rows("1 ORDER BY rowid")
        ]

    def _with_end(self, fetch: Fetch, jobs: Sequence[Job]) -> Fetch:
        if fetch.state != "fetched" or not jobs:
            return fetch
        if len(jobs) > 1:
            images = self._store.instances(fetch.study_instance_uid)
            own = {one.sop_instance_uid for one in images if one.series_instance_uid == fetch.series_instance_uid}
            jobs = [job for job in jobs if own & {*job.images}] or jobs
        if made := [_made(job) for job in jobs if job.state in _MADE]:
            return replace(fetch, state="done", reason=", ".join(made))
        last = jobs[-1]
        state = "fetched" if last.state in _UNDER_WAY else "stopped"
        return replace(fetch, state=state, reason=f"job {last.id} is {last.state}: {last.reason}")

    def _change(self, fetch: Fetch, state: str, reason: str, now: float, due_at: float, *, tries: int = 1) -> None:
        self._store.database.execute(
            """UPDATE fetches SET state = ?, reason = ?, attempts = attempts + ?, changed_at = ?, due_at = ?
            WHERE peer = ? AND series_instance_uid = ?""",
            [state, reason, tries, now, due_at, fetch.peer, fetch.series_instance_uid],
        )

    def _rows(self, where: str, **values: Any) -> list[Fetch]:
        return [Fetch(**row) for row in self._store.rows(f"SELECT * FROM fetches WHERE {where}", values)]


def _made(job: Job) -> str:
    recipe = recipe_in_words(job.made_with)
    return f"job {job.id} with recipe {recipe}" if recipe else f"job {job.id}"


def _add(database: Database, peer: str, one: Candidate, state: str, reason: str, now: float, again: bool) -> int:
    """1 if it is new and to be fetched."""
    changed = database.execute(
        """INSERT INTO fetches (peer, study_instance_uid, series_instance_uid, images, state, reason,
            due_at, changed_at) VALUES (:peer, :study, :series, :images, :state, :reason, :now, :now)
        ON CONFLICT (peer, series_instance_uid) DO UPDATE SET images = :images, state = :state,
            reason = :reason, attempts = 0, due_at = :now, changed_at = :now
        WHERE state = 'refused' OR images < :images OR (:again AND state = 'fetched' AND :state = 'found')""",
        {
            **{"peer": peer, "study": one.study_instance_uid, "series": one.series_instance_uid, "again": again},
            **{"images": one.images, "state": state, "reason": reason, "now": now},
        },
    ).rowcount
    return int(changed) if state == "found" else 0
