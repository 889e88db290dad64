"""Fetch: brings series from an archive to the node (C-MOVE to ourselves, or C-GET), study by study.

What was found is a row until it is fetched, so an interruption loses nothing and the next start goes on.  What arrives
goes the way of everything that scanners send.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import build_role
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from sqlite_utils import Database

from dicom_node.admission import ADMITTED_SOP_CLASSES, ADMITTED_TRANSFER_SYNTAXES
from dicom_node.call import Destination, SendSettings, associate, given_up_when
from dicom_node.errors import PeerFailure, Unreachable
from dicom_node.messages import Begin, StoreRequest, Taking
from dicom_node.seek import Candidate
from dicom_node.settings import Send
from dicom_node.states import State
from dicom_node.store import Store

MOVE, GET = "1.2.840.10008.5.1.4.1.2.2.2", "1.2.840.10008.5.1.4.1.2.2.3"
ATTEMPTS = 10
"""How often a series is asked for that does not come whole."""
_PENDING = (0xFF00, 0xFF01)
_MADE = (State.RECONSTRUCTED, State.SENDING, State.SENT, State.ARCHIVED)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Fetch:
    """A series on its way.  state: found, fetched or refused; `done` and other ends are the job's, see `listed`."""

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

    def add(self, peer: str, candidates: Iterable[Candidate], now: float) -> int:
        """Writes down what was found; how much of it is new and to be fetched.

        What was refused before and is wanted now is found anew; what was fetched stays so, unless it has grown.
        Each study is written down before the next is looked at: if the archive breaks off, those before it stay.
        """
        new = 0
        for _, of_study in groupby(candidates, key=lambda one: one.study_instance_uid):
            # All of it before the lock is taken: the candidates come from an archive, one answer after another.
            found = list(of_study)
            with self._store.transaction() as database:
                new += sum(_add(database, peer, one, now) for one in found)
        return new

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

    def fetched(self, fetch: Fetch, now: float) -> None:
        self._change(fetch, "fetched", "", now, now)

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
        """All of them.  What was fetched is `done` when a map was made of its study, or says what stopped its job."""
        jobs: dict[str, list[Any]] = {}
        for job in self._store.jobs():
            jobs.setdefault(job.study_instance_uid, []).append(job)
        return [_with_end(fetch, jobs.get(fetch.study_instance_uid, [])) for fetch in self._rows("1 ORDER BY rowid")]

    def _change(self, fetch: Fetch, state: str, reason: str, now: float, due_at: float) -> None:
        self._store.database.execute(
            """UPDATE fetches SET state = ?, reason = ?, attempts = attempts + 1, changed_at = ?, due_at = ?
            WHERE peer = ? AND series_instance_uid = ?""",
            [state, reason, now, due_at, fetch.peer, fetch.series_instance_uid],
        )

    def _rows(self, where: str, **values: Any) -> list[Fetch]:
        return [Fetch(**row) for row in self._store.rows(f"SELECT * FROM fetches WHERE {where}", values)]


def _add(database: Database, peer: str, one: Candidate, now: float) -> int:
    """1 if it is new and to be fetched."""
    state = "refused" if one.against else "found"
    changed = database.execute(
        """INSERT INTO fetches (peer, study_instance_uid, series_instance_uid, images, state, reason,
            due_at, changed_at) VALUES (:peer, :study, :series, :images, :state, :reason, :now, :now)
        ON CONFLICT (peer, series_instance_uid) DO UPDATE SET images = :images, state = :state,
            reason = :reason, attempts = 0, due_at = :now, changed_at = :now
        WHERE state = 'refused' OR images < :images""",
        {
            **{"peer": peer, "study": one.study_instance_uid, "series": one.series_instance_uid},
            **{"images": one.images, "state": state, "reason": one.against, "now": now},
        },
    ).rowcount
    return int(changed) if state == "found" else 0


def _with_end(fetch: Fetch, jobs: list[Any]) -> Fetch:
    if fetch.state != "fetched" or not jobs:
        return fetch
    if any(job.state in _MADE for job in jobs):
        return Fetch(**{**vars(fetch), "state": "done"})
    return Fetch(**{**vars(fetch), "reason": f"job {jobs[-1].id} is {jobs[-1].state}: {jobs[-1].reason}"})


@dataclass(frozen=True)
class Arrivals:
    """How what a C-GET returns is taken: the receiver's ways, and its register of open associations."""

    begin: Begin
    hears: Callable[[Association, str], AbstractContextManager[None]]


RETRIEVE_TIMEOUT = 1800.0
"""Seconds without a word from the archive: it need not tell how far it is (PS3.4 C.4.2.3)."""

Retrieve = Callable[[Fetch, Destination, SendSettings], None]


class Fetcher:
    """Called in rounds by the daemon: at most so many studies in an hour.

    archives: by name.  retrieve: brings one series or raises PeerFailure.
    """

    def __init__(
        self,
        fetches: Fetches,
        archives: dict[str, Destination],
        retrieve: Retrieve,
        settings: SendSettings,
        pauses: Send,
        studies_per_hour: float,
        clock: Callable[[], float],
        stopping: Callable[[], bool],
    ) -> None:
        self._fetches = fetches
        self._archives = archives
        self._retrieve = retrieve
        self._settings = settings
        self._pauses = pauses
        self._spacing = 3600.0 / studies_per_hour
        self._clock = clock
        self._stopping = stopping
        self._next_at = 0.0
        self._unreached: Counter[str] = Counter()

    def __call__(self) -> None:
        """One round: one study, if it is time for one."""
        if self._clock() < self._next_at:
            return
        for fetch in self._fetches.due(self._clock()):
            if self._stopping():
                return
            self._next_at = self._clock() + self._spacing
            archive = self._archives.get(fetch.peer)
            try:
                if archive is None:
                    raise PeerFailure(f"{fetch.peer} is no peer with a port any more; see [[peer]]")
                self._retrieve(fetch, archive, self._settings)
            except Unreachable as error:
                if not self._stopping():
                    self._put_off(fetch.peer, str(error))
                return
            except PeerFailure as error:
                self._unreached[fetch.peer] = 0
                if self._stopping():
                    return
                pause = self._pauses.pause(fetch.attempts + 1)
                log.warning("not_fetched", series=fetch.series_instance_uid, seconds=pause, reason=str(error))
                self._fetches.postpone(fetch, str(error), self._clock(), pause)
            else:
                self._unreached[fetch.peer] = 0
                log.info("fetched", series=fetch.series_instance_uid, images=fetch.images)
                self._fetches.fetched(fetch, self._clock())

    def _put_off(self, peer: str, reason: str) -> None:
        self._unreached[peer] += 1
        pause = self._pauses.pause(self._unreached[peer])
        log.warning("archive_not_reached", peer=peer, seconds=pause, reason=reason)
        self._fetches.put_off(peer, reason, self._clock(), pause)


def retriever(by: Literal["move", "get"], arrivals: Arrivals, stopping: Callable[[], bool]) -> Retrieve:
    """One way of retrieving.  stopping: then no answer is waited for any longer."""

    def move(fetch: Fetch, archive: Destination, settings: SendSettings) -> None:
        with (
            associate([build_context(MOVE)], archive, _patient(settings)) as association,
            given_up_when(stopping, association),
        ):
            _complete(association.send_c_move(_query(fetch), settings.ae_title, MOVE), archive, fetch)

    def get(fetch: Fetch, archive: Destination, settings: SendSettings) -> None:
        syntaxes: list[str | UID] = list(ADMITTED_TRANSFER_SYNTAXES)
        contexts = [build_context(GET), *(build_context(uid, syntaxes) for uid in ADMITTED_SOP_CLASSES)]
        roles = [build_role(uid, scp_role=True) for uid in ADMITTED_SOP_CLASSES]
        arrived = 0

        def begin(association: Association, request: StoreRequest) -> Taking:
            nonlocal arrived
            arrived += 1
            return arrivals.begin(association, request)

        with (
            associate(contexts, archive, _patient(settings), roles=roles, begin=begin) as association,
            arrivals.hears(association, archive.ae_title),
            given_up_when(lambda: stopping() or association.dul.idle_timer_expired(), association),
        ):
            _complete(association.send_c_get(_query(fetch), GET), archive, fetch, lambda: arrived)

    return move if by == "move" else get


def _patient(settings: SendSettings) -> SendSettings:
    return replace(settings, response_timeout=RETRIEVE_TIMEOUT, idle_timeout=RETRIEVE_TIMEOUT)


def _query(fetch: Fetch) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = "SERIES"
    query.StudyInstanceUID = fetch.study_instance_uid
    query.SeriesInstanceUID = fetch.series_instance_uid
    return query


def _complete(
    answers: Iterable[tuple[Dataset, Dataset | None]],
    archive: Destination,
    fetch: Fetch,
    arrived: Callable[[], int | None] = lambda: None,
) -> None:
    """Raises PeerFailure unless everything came.

    arrived: how many images did, where we can tell, for archives that do not count them: none has to (PS3.4 C.4.2.1.6).
    """
    last, told = Dataset(), None
    try:
        for last, _ in answers:
            told = _done(last, told)
            if last.get("Status") not in _PENDING:
                break
    except (RuntimeError, ValueError) as error:  # the association has ended, or has no context
        raise PeerFailure(f"{archive.words} cannot be asked for a series: {error}") from error
    if "Status" not in last:
        raise PeerFailure(f"{archive.words} broke off or did not answer in time")
    failed = int(last.get("NumberOfFailedSuboperations") or 0)
    if last.Status == 0xA801:
        raise PeerFailure(f"{archive.words} does not know where to move to: give it our AE title, host and port")
    if last.Status != 0x0000 or failed:
        raise PeerFailure(f"{archive.words} answered 0x{last.Status:04X}, {failed} images did not come")
    if told is None and (came := arrived()) is not None and came < fetch.images:
        raise PeerFailure(f"{archive.words} sent {came} images, and holds {fetch.images}")
    if told == 0:
        raise PeerFailure(f"{archive.words} sent nothing")


def _done(answer: Dataset, before: int | None) -> int | None:
    """How many sub-operations are done by this answer, or by those before it if it does not tell."""
    counts = [answer.get(f"NumberOf{kind}Suboperations") for kind in ("Completed", "Warning")]
    told = [int(count) for count in counts if count is not None]
    return sum(told) if told else before
