"""How things stand, for those who watch: counts and short lists out of the store, however many jobs there have been.

Nothing here names a patient but what a peer may have said in its own words (an Error Comment, PS3.7 C): `told` leaves
that out, for whatever leaves the machine.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from dicom_node.states import State
from dicom_node.store import Store

_ANSWER = re.compile(r"answered \S+")
"""With what `deliver` begins a row's comment where the peer did answer; its words follow."""


class Section(StrEnum):
    """Where people look for a job."""

    ATTENTION = "attention"
    """Somebody has to do something."""
    ACTIVE = "active"
    """The node has to do something, or waits for images."""
    DONE = "done"


SECTIONS: dict[Section, tuple[State, ...]] = {
    Section.ATTENTION: (State.FAILED, State.REFUSED, State.REVIEW, State.INCOMPLETE),
    Section.ACTIVE: (State.WAITING, State.READY, State.RECONSTRUCTING, State.RECONSTRUCTED, State.SENDING),
    Section.DONE: (State.SENT, State.ARCHIVED, State.CANCELLED),
}


@dataclass(frozen=True)
class Delivery:
    """What one job has at one destination.  awaited: stored, and yet to be committed to.

    next_at: when it is tried again, None if nothing is pending.  trouble: the last, in the peer's words; "" for none.
    """

    destination: str
    pending: int
    stored: int
    refused: int
    awaited: int
    committed: int
    attempts: int
    next_at: float | None
    trouble: str = ""


@dataclass(frozen=True)
class Line:
    """A job.  place: in the queue, from 1; 0 for none.  stage: the last that its worker began, "" for none.

    stage_at: when that was.  Times in seconds since the epoch.
    """

    id: int
    state: State
    reason: str
    images: int
    revision: int
    attempts: int
    study_instance_uid: str
    group: str
    created_at: float
    changed_at: float
    place: int = 0
    stage: str = ""
    stage_at: float = 0.0
    deliveries: tuple[Delivery, ...] = field(default=())

    @property
    def section(self) -> Section:
        return next((section for section, states in SECTIONS.items() if self.state in states), Section.ACTIVE)


@dataclass(frozen=True)
class Target:
    """A destination.  waits_since: when the oldest job that it keeps waiting began to be sent, after a first attempt
    failed; None if none does.  stored_at: when it last stored something.  calls_at: when it is called again, None if
    nothing waits.  awaits_since: when the first job was sent that it has yet to commit itself to; None if there is no
    such job."""

    name: str
    pending: int
    jobs: int
    awaited: int
    waits_since: float | None
    stored_at: float | None
    calls_at: float | None = None
    awaits_since: float | None = None
    trouble: str = ""

    def is_silent_for(self, now: float) -> float:
        """Seconds since when it has taken nothing, although something waits."""
        if self.waits_since is None:
            return 0.0
        return now - max(self.waits_since, self.stored_at or 0.0)


@dataclass(frozen=True)
class Disk:
    """Bytes."""

    free: int
    size: int

    @property
    def used_fraction(self) -> float:
        return 1 - self.free / self.size


def disk(state_folder: Path) -> Disk:
    usage = shutil.disk_usage(state_folder)
    return Disk(usage.free, usage.total)


def counts(store: Store) -> dict[State, int]:
    """How many jobs are in each state."""
    found = {row["state"]: row["n"] for row in store.rows("SELECT state, COUNT(*) AS n FROM jobs GROUP BY state")}
    return {state: found.get(state, 0) for state in State}


def oldest_waiting(store: Store) -> float | None:
    """Since when the job that has been ready longest is ready."""
    [row] = store.rows("SELECT MIN(changed_at) AS at FROM jobs WHERE state = 'ready'")
    return None if row["at"] is None else float(row["at"])


@dataclass(frozen=True)
class Standstill:
    """jobs: how many are ready.  since: when the last was begun or ended, or the first came.  reason: of the first."""

    jobs: int
    since: float
    reason: str


def standstill(store: Store) -> Standstill | None:
    """None where a job is being reconstructed, or none waits for it."""
    [ready] = store.rows("SELECT COUNT(*) AS jobs, MIN(changed_at) AS since FROM jobs WHERE state = 'ready'")
    if not ready["jobs"] or store.rows("SELECT 1 FROM jobs WHERE state = 'reconstructing' LIMIT 1"):
        return None
    moved = store.rows("SELECT at FROM journal WHERE 'reconstructing' IN (source, target) ORDER BY id DESC LIMIT 1")
    [first] = store.rows("SELECT reason FROM jobs WHERE state = 'ready' ORDER BY priority, due_at, id LIMIT 1")
    return Standstill(ready["jobs"], max(row["at"] for row in [{"at": ready["since"]}, *moved]), first["reason"])


def lines(
    store: Store,
    jobs_folder: Path,
    states: Sequence[State],
    most: int | None = None,
    *,
    before: int | None = None,
    job: int | None = None,
) -> list[Line]:
    """Jobs in these states, newest first, at most so many, of those with a smaller number than `before`."""
    found = store.rows(
        """SELECT id, state, reason, json_array_length(images) AS images, revision, attempts, study_instance_uid,
            group_key AS "group", created_at, changed_at FROM jobs
        WHERE id IN (SELECT id FROM jobs WHERE state IN (SELECT value FROM json_each(:states))
            AND (:before IS NULL OR id < :before) AND (:job IS NULL OR id = :job) ORDER BY id DESC LIMIT :most)
        ORDER BY id DESC""",
        {"states": json.dumps(states), "before": before, "job": job, "most": -1 if most is None else most},
    )
    places = _places(store)
    deliveries = _deliveries(store, [row["id"] for row in found])
    made = []
    for row in found:
        number, state = row["id"], State(row["state"])
        stage, at = last_stage(jobs_folder / str(number)) if state is State.RECONSTRUCTING else ("", 0.0)
        more = {"place": places.get(number, 0), "stage": stage, "stage_at": at}
        made.append(Line(**(row | {"state": state} | more), deliveries=tuple(deliveries.get(number, ()))))
    return made


def line(store: Store, jobs_folder: Path, job: int) -> Line | None:
    """One job, None if there is none of that number."""
    found = lines(store, jobs_folder, list(State), job=job)
    return found[0] if found else None


def last_stage(job_folder: Path) -> tuple[str, float]:
    """The stage that a worker began last, and when; ("", 0) before the first."""
    try:
        written = (job_folder / "progress.jsonl").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return "", 0.0
    whole = written[: written.rfind(b"\n") + 1].splitlines()
    if not whole:
        return "", 0.0
    last = json.loads(whole[-1])
    return str(last["stage"]), float(last["at"])


def targets(store: Store, names: Sequence[str]) -> list[Target]:
    """The destinations of these names, and any that something still waits for."""
    waiting = {
        row["destination"]: row
        for row in store.rows(
            """SELECT d.destination, COUNT(*) AS pending, COUNT(DISTINCT d.job) AS jobs,
                MIN(j.changed_at) FILTER (WHERE d.attempts > 0) AS waits_since,
                MAX(MIN(d.due_at), COALESCE((SELECT due_at FROM pauses p WHERE p.destination = d.destination), 0))
                    AS calls_at
            FROM jobs j JOIN deliveries d ON d.job = j.id
            WHERE j.state = 'sending' AND +d.outcome = 'pending' GROUP BY d.destination"""
        )
    }
    troubles = {
        row["destination"]: told(row["comment"])
        for row in store.rows(
            """SELECT d.destination, d.comment, MAX(d.changed_at) FROM jobs j JOIN deliveries d ON d.job = j.id
            WHERE j.state = 'sending' AND +d.outcome = 'pending' AND d.comment <> '' GROUP BY d.destination"""
        )
    }
    awaited = {
        row["destination"]: row
        for row in store.rows(
            """SELECT d.destination, COUNT(*) AS awaited,
                MIN(j.changed_at) FILTER (WHERE j.state IN ('sent', 'refused')) AS awaits_since
            FROM deliveries d JOIN jobs j ON j.id = d.job
            WHERE d.commitment IN ('due', 'asked') AND d.outcome = 'stored' GROUP BY d.destination"""
        )
    }
    nothing = {"pending": 0, "jobs": 0, "waits_since": None, "calls_at": None}
    all_kept = {"awaited": 0, "awaits_since": None}
    return [
        Target(
            name=name,
            **{key: waiting.get(name, nothing)[key] for key in nothing},
            **{key: awaited.get(name, all_kept)[key] for key in all_kept},
            stored_at=_stored_at(store, name),
            trouble=troubles.get(name, ""),
        )
        for name in dict.fromkeys([*names, *sorted(waiting)])
    ]


def destinations(store: Store) -> list[str]:
    """All that anything was ever to be sent to.  From one to the next: DISTINCT would look at every delivery."""
    found = store.rows(
        """WITH RECURSIVE names (name) AS (SELECT MIN(destination) FROM deliveries UNION ALL
            SELECT (SELECT MIN(destination) FROM deliveries WHERE destination > name) FROM names WHERE name IS NOT NULL)
        SELECT name FROM names WHERE name IS NOT NULL"""
    )
    return [row["name"] for row in found]


def told(comment: str) -> str:
    """A delivery's comment without what the peer said in its own words."""
    answer = _ANSWER.match(comment)
    return answer.group() if answer else comment


def foreign(store: Store) -> list[tuple[str, int]]:
    """Why things were left alone, and how many for that reason, the most frequent first."""
    found = store.rows("SELECT reason, COUNT(*) AS n FROM jobs WHERE state = 'foreign' GROUP BY reason ORDER BY n DESC")
    return [(row["reason"], row["n"]) for row in found]


def fetches(store: Store) -> dict[str, int]:
    """Series that were found in archives: how many are yet to be fetched, were fetched, were given up."""
    found = {row["state"]: row["n"] for row in store.rows("SELECT state, COUNT(*) AS n FROM fetches GROUP BY state")}
    return {state: found.get(state, 0) for state in ("found", "fetched", "refused")}


@dataclass(frozen=True)
class Objections:
    """Objects of one sender that were not taken for one reason.  at: the last of them."""

    peer: str
    reason: str
    count: int
    at: float


def objections(store: Store, most: int) -> list[Objections]:
    """The latest."""
    found = store.rows(
        """SELECT peer, reason, COUNT(*) AS count, MAX(at) AS at FROM objections GROUP BY peer, reason
        ORDER BY at DESC LIMIT :most""",
        {"most": most},
    )
    return [Objections(**row) for row in found]


def objections_in_all(store: Store) -> int:
    [row] = store.rows("SELECT COUNT(*) AS n FROM objections")
    return int(row["n"])


def _places(store: Store) -> dict[int, int]:
    """In the order in which `Store.claim` takes them."""
    found = store.rows("SELECT id FROM jobs WHERE state = 'ready' ORDER BY priority, due_at, id")
    return {row["id"]: place for place, row in enumerate(found, 1)}


def _stored_at(store: Store, destination: str) -> float | None:
    [row] = store.rows(
        "SELECT MAX(changed_at) AS at FROM deliveries WHERE destination = :name AND outcome = 'stored'",
        {"name": destination},
    )
    return None if row["at"] is None else float(row["at"])


def _deliveries(store: Store, jobs: Sequence[int]) -> dict[int, list[Delivery]]:
    found: dict[int, list[Delivery]] = {}
    values = {"jobs": json.dumps(list(jobs))}
    troubles = {
        (row["job"], row["destination"]): row["comment"]
        for row in store.rows(
            """SELECT job, destination, comment, MAX(changed_at) FROM deliveries
            WHERE job IN (SELECT value FROM json_each(:jobs)) AND comment <> ''
                AND (outcome <> 'stored' OR commitment IN ('due', 'asked')) GROUP BY job, destination""",
            values,
        )
    }
    for row in store.rows(
        """SELECT job, destination, SUM(outcome = 'pending') AS pending, SUM(outcome = 'stored') AS stored,
            SUM(outcome = 'refused') AS refused, SUM(commitment = 'given') AS committed,
            SUM(outcome = 'stored' AND commitment IN ('due', 'asked')) AS awaited, MAX(attempts) AS attempts,
            MAX(MIN(due_at) FILTER (WHERE outcome = 'pending'),
                COALESCE((SELECT due_at FROM pauses p WHERE p.destination = deliveries.destination), 0)) AS next_at
        FROM deliveries WHERE job IN (SELECT value FROM json_each(:jobs)) GROUP BY job, destination""",
        values,
    ):
        job = row.pop("job")
        trouble = troubles.get((job, row["destination"]), "")
        found.setdefault(job, []).append(Delivery(**row, trouble=trouble))
    return found
