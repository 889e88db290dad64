"""Notify: tells people who do not look of what needs them: few messages, each with all that came up since the last.

What was told is remembered in the store for each way of telling (mail, webhook), so that nothing is told twice and
nothing is missed over a restart or while the mail server is down.  A message names no patient: it holds what the log
holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from dicom_node import survey
from dicom_node.errors import NodeError
from dicom_node.states import State
from dicom_node.status import age
from dicom_node.store import Store
from dicom_node.surprise import words

TOLD = (State.FAILED, State.REFUSED, State.REVIEW, State.INCOMPLETE)
"""What a job may become that somebody has to know of."""
GATHER = 30.0
"""Seconds between the first that is to be told and the message: troubles come in flocks."""
COUNT_EVERY = 30.0
"""Seconds between two counts of all that waits for workers and destinations."""
LEFT_WAITING = 86400.0
"""Seconds that a destination may leave a job waiting although it takes others, or a result without commitment: some
archives are asked for as much once a night."""
TRY_AGAIN = 300.0
"""Seconds until a message that could not be given is tried again."""
MOST_NAMED = 20
"""Jobs of one state in one message; of more the number is told."""

WARN_AT = 2.0
"""So many times the free space at which senders are turned away: there is still time to make room."""

log = structlog.get_logger(__name__)


class NotTold(NodeError):
    """A message could not be given, with the reason."""


@dataclass(frozen=True)
class Finding:
    """Jobs that became the same, or objects that were not taken.  named: job (or sender) and reason, the first few."""

    what: str
    count: int
    named: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Message:
    """node: its AE title.  findings, conditions: what has come up since the last message, and what holds since then.

    over: what no longer does.  page: where more is to be seen, "" for nowhere.
    """

    node: str
    at: float
    findings: tuple[Finding, ...]
    conditions: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    page: str = ""

    @property
    def subject(self) -> str:
        parts = [f"{finding.count} {finding.what}" for finding in self.findings]
        parts += [*self.conditions, *(f"over: {condition}" for condition in self.over)]
        return " ".join(f"{self.node}: {'; '.join(parts)}".split())[:200]  # a header is one line (RFC 5322 2.2)

    @property
    def text(self) -> str:
        lines = []
        for finding in self.findings:
            lines.append(f"{finding.count} {finding.what}")
            lines += [f"  {who}: {reason}" for who, reason in finding.named]
            if more := finding.count - len(finding.named):
                lines.append(f"  and {more} more")
            lines.append("")
        lines += [f"{condition}\n" for condition in self.conditions]
        lines += [f"Over: {condition}\n" for condition in self.over]
        if self.page:
            lines.append(self.page)
        return "\n".join([*lines, "qsm-node status tells more, and what to do stands in docs/operations.md."])

    def as_data(self) -> dict[str, Any]:
        """For JSON.  "text": what chat services show."""
        return {
            "node": self.node,
            "at": self.at,
            "text": f"{self.subject}\n\n{self.text}",
            "findings": [
                {"what": one.what, "count": one.count, "named": [{"who": who, "reason": why} for who, why in one.named]}
                for one in self.findings
            ],
            "conditions": list(self.conditions),
            "over": list(self.over),
            "page": self.page,
        }


@dataclass
class Notifier:
    """One way of telling; called, it is a round.

    tell: gives the message to whoever carries it; raises NotTold.  every: s between two messages at least.
    silent_after: s that a destination may take nothing, or no job be begun, although something waits.  enough: bytes,
    below which senders are turned away.
    """

    way: str
    tell: Callable[[Message], None]
    store: Store
    state_folder: Path
    node: str
    clock: Callable[[], float]
    every: float
    silent_after: float
    enough: int
    page: str = ""
    _since: float | None = field(default=None, init=False)
    _last: float = field(default=-float("inf"), init=False)
    _counted_at: float = field(default=-float("inf"), init=False)
    _waiting: dict[str, str] = field(default_factory=dict, init=False)
    """What waits for too long, as of then."""
    _holding: frozenset[str] = field(default=frozenset(), init=False)
    """The conditions that were told, by what they are about."""

    def __call__(self) -> None:
        now = self.clock()
        moves, objections = self._bookmark("moves", "journal"), self._bookmark("objections", "objections")
        last_move, findings = self._moved(moves)
        last_objection, objected = self._objected(objections)
        conditions = self._conditions(now)
        over = tuple(sorted(self._holding - conditions.keys()))
        fresh = tuple(words for about, words in conditions.items() if about not in self._holding)
        message = Message(self.node, now, (*findings, *objected), fresh, over, self.page)
        if not (message.findings or fresh or over):
            self._since = None
            self._turn("moves", last_move)
            self._turn("objections", last_objection)
            return
        self._since = now if self._since is None else min(self._since, now)
        if now < max(self._since + GATHER, self._last + self.every):
            return
        try:
            self.tell(message)
        except Exception as error:  # noqa: BLE001 - a message that cannot be made must not end all telling
            why = str(error) if isinstance(error, NotTold) else words(error)
            log.error("not_notified", way=self.way, error=why, again_in=TRY_AGAIN)
            self._last = now + TRY_AGAIN - self.every
            return
        log.info("notified", way=self.way, findings=len(message.findings), conditions=len(fresh), over=len(over))
        self._last, self._since, self._holding = now, None, frozenset(conditions)
        self._turn("moves", last_move)
        self._turn("objections", last_objection)

    def _moved(self, after: int) -> tuple[int, list[Finding]]:
        """The last move there is, and the jobs that have come to a state that is told, and are still in it."""
        last = self.store.last_move()
        found = []
        for state in TOLD:
            values = {"after": after, "last": last, "state": state, "most": MOST_NAMED}
            jobs = """FROM jobs j WHERE j.state = :state AND EXISTS (SELECT 1 FROM journal m WHERE m.job = j.id
                AND m.target = :state AND m.id > :after AND m.id <= :last)"""
            [row] = self.store.rows(f"SELECT COUNT(*) AS n {jobs}", values)
            if row["n"]:
                named = self.store.rows(f"SELECT j.id, j.reason {jobs} ORDER BY j.id DESC LIMIT :most", values)
                words = f"{'job' if row['n'] == 1 else 'jobs'} {_WORDS[state]}"
                found.append(Finding(words, row["n"], tuple((f"job {one['id']}", one["reason"]) for one in named)))
        return last, found

    def _objected(self, after: int) -> tuple[int, list[Finding]]:
        found = self.store.rows(
            """SELECT peer, reason, COUNT(*) AS n, MAX(id) AS last FROM objections WHERE id > :after
            GROUP BY peer, reason ORDER BY n DESC""",
            {"after": after},
        )
        if not found:  # numbers of the last are given again when it goes
            [row] = self.store.rows("SELECT COALESCE(MAX(id), 0) AS last FROM objections")
            return min(after, int(row["last"])), []
        count = sum(row["n"] for row in found)
        named = tuple((row["peer"] or "the spool", f"{row['n']} × {row['reason']}") for row in found[:MOST_NAMED])
        words = f"{'object was' if count == 1 else 'objects were'} not taken"
        return max(row["last"] for row in found), [Finding(words, count, named)]

    def _conditions(self, now: float) -> dict[str, str]:
        """What holds now that should not, by what it is about."""
        if not 0 <= now - self._counted_at < COUNT_EVERY:
            self._counted_at, self._waiting = now, dict(self._waits(now))
        found = dict(self._waiting)
        if (free := survey.disk(self.state_folder).free) < WARN_AT * self.enough:
            found["the disk is nearly full"] = (
                f"the disk is nearly full: {free / 2**30:.1f} GiB are free, and below {self.enough / 2**30:.1f} GiB "
                "senders are turned away"
            )
        return found

    def _waits(self, now: float) -> Iterator[tuple[str, str]]:
        """Backlogs that stand still."""
        queue = survey.standstill(self.store)
        if queue and (standing := now - queue.since) > self.silent_after:
            jobs = "1 job is" if queue.jobs == 1 else f"{queue.jobs} jobs are"
            words = f"the queue stands still: {jobs} ready, and none was begun for {age(standing)}: {queue.reason}"
            yield "the queue stands still", words
        for target in survey.targets(self.store, survey.destinations(self.store)):
            name, jobs = f"destination {target.name}", "1 job waits" if target.jobs == 1 else f"{target.jobs} jobs wait"
            if (silent := target.is_silent_for(now)) > self.silent_after:
                words = f"{name} has taken nothing for {age(silent)}, and {jobs}: {target.trouble}"
                yield f"{name} takes nothing", words
            elif target.waits_since and (waits := now - target.waits_since) > LEFT_WAITING:
                words = f"{name} takes others, and {jobs}, the first for {age(waits)}: {target.trouble}"
                yield f"{name} leaves jobs waiting", words
            if target.awaits_since and (awaits := now - target.awaits_since) > LEFT_WAITING:
                words = f"{name} has not committed itself to {target.awaited} results, to the first for {age(awaits)}"
                yield f"{name} does not commit itself", words

    def _bookmark(self, what: str, table: str) -> int:
        """How far was told; from now on, where nothing was ever told."""
        reader = f"{self.way} {what}"
        self.store.database.execute(
            f"""INSERT INTO bookmarks (reader, journal) SELECT ?, COALESCE(MAX(id), 0) FROM {table} WHERE true
            ON CONFLICT (reader) DO NOTHING""",
            [reader],
        )
        [row] = self.store.rows("SELECT journal FROM bookmarks WHERE reader = :reader", {"reader": reader})
        return int(row["journal"])

    def _turn(self, what: str, to: int) -> None:
        self.store.database.execute(
            "UPDATE bookmarks SET journal = ? WHERE reader = ? AND journal <> ?", [to, f"{self.way} {what}", to]
        )


_WORDS = {
    State.FAILED: "failed",
    State.REFUSED: "refused by a destination",
    State.REVIEW: "to review",
    State.INCOMPLETE: "incomplete",
}
