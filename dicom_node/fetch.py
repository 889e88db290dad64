"""Fetch: brings series from an archive to the node (C-MOVE to ourselves, C-GET or WADO-RS), study by study.

What was found is a row of `dicom_node.fetches` until it is fetched, so an interruption loses nothing and the next start
goes on.  What arrives goes the way of everything that scanners send.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import build_role
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicom_node.admission import ADMITTED_SOP_CLASSES, ADMITTED_TRANSFER_SYNTAXES
from dicom_node.call import LONGEST_RETRIEVE, PENDING, Destination, SendSettings, associate, given_up_when, patient
from dicom_node.errors import NotTaken, PeerFailure, Unreachable
from dicom_node.fetches import Fetch, Fetches
from dicom_node.messages import Begin, StoreRequest, Taking
from dicom_node.settings import Send
from dicom_node.surprise import words
from dicom_node.wado import Landing, retrieve, retrieve_rest
from dicom_node.web import WebService

MOVE, GET = "1.2.840.10008.5.1.4.1.2.2.2", "1.2.840.10008.5.1.4.1.2.2.3"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Arrivals:
    """How what is returned is taken.  begin, hears: of a C-GET: the receiver's ways of taking an object, and its
    register of open associations.  landing: of WADO-RS."""

    begin: Begin
    hears: Callable[[Association, str], AbstractContextManager[None]]
    landing: Landing


Archive = Destination | WebService
Retrieve = Callable[[Fetch, Any, SendSettings], None]
"""Brings one series from an archive of its own kind."""


MOST_WAITING = 20
"""Jobs that wait for a worker while nothing more is fetched: their images can not be deleted, and fill the disk."""


class Fetcher:
    """Called in rounds by the daemon: at most so many studies in an hour.

    archives: by name.  retrieve: brings one series or raises PeerFailure.  no_room: why nothing can be taken now, "" if
    it can: that is no fault of an archive or a series.
    """

    def __init__(
        self,
        fetches: Fetches,
        archives: Mapping[str, Archive],
        retrieve: Retrieve,
        settings: SendSettings,
        pauses: Send,
        studies_per_hour: float,
        clock: Callable[[], float],
        stopping: Callable[[], bool],
        no_room: Callable[[], str] = lambda: "",
    ) -> None:
        self._fetches = fetches
        self._archives = archives
        self._retrieve = retrieve
        self._settings = settings
        self._pauses = pauses
        self._spacing = 3600.0 / studies_per_hour
        self._clock = clock
        self._stopping = stopping
        self._no_room = no_room
        self._next_at = 0.0
        self._unreached: Counter[str] = Counter()

    def __call__(self) -> None:
        """One round: one study, if it is time for one and the line can take it."""
        if self._clock() < self._next_at or self._fetches.waiting_jobs() >= MOST_WAITING or self._no_room():
            return
        for fetch in self._fetches.due(self._clock()):
            if self._stopping():
                return
            if self._fetches.is_here(fetch):
                self._fetches.leave(fetch, self._clock())
                continue
            self._next_at = self._clock() + self._spacing
            archive = self._archives.get(fetch.peer)
            try:
                if archive is None:
                    raise PeerFailure(f"{fetch.peer} is no [[peer]] with a port any more, and no [[web_source]]")
                self._retrieve(fetch, archive, self._settings)
            except Unreachable as error:
                if not self._stopping():
                    self._put_off(fetch.peer, str(error))
                return
            except NotTaken as error:
                self._unreached[fetch.peer] = 0
                log.warning("not_taken", series=fetch.series_instance_uid, reason=str(error))
                self._fetches.refuse(fetch, str(error), self._clock())
            except sqlite3.Error:
                raise
            except PeerFailure as error:
                if not self._goes_on(fetch, str(error)):
                    return
            except Exception as error:
                # one series' surprise must not keep the others from being fetched
                log.exception("fetch_failed", series=fetch.series_instance_uid)
                if not self._goes_on(fetch, words(error)):
                    return
            else:
                self._unreached[fetch.peer] = 0
                log.info("fetched", series=fetch.series_instance_uid, images=fetch.images)
                self._fetches.fetched(fetch, self._clock())

    def _goes_on(self, fetch: Fetch, reason: str) -> bool:
        """After a failure: whether the other series of the study are to be asked for."""
        if self._stopping():
            return False
        if full := self._no_room():
            self._put_off(fetch.peer, full)
            return False
        self._unreached[fetch.peer] = 0
        pause = self._pauses.pause(fetch.attempts + 1)
        log.warning("not_fetched", series=fetch.series_instance_uid, seconds=pause, reason=reason)
        self._fetches.postpone(fetch, reason, self._clock(), pause)
        return True

    def _put_off(self, peer: str, reason: str) -> None:
        self._unreached[peer] += 1
        pause = self._pauses.pause(self._unreached[peer])
        log.warning("archive_not_reached", peer=peer, seconds=pause, reason=reason)
        self._fetches.put_off(peer, reason, self._clock(), pause)


def retriever(by: Literal["move", "get"], arrivals: Arrivals, stopping: Callable[[], bool]) -> Retrieve:
    """The way of retrieving that an archive has.  by: of one that speaks DIMSE.

    stopping: then no answer is waited for any longer.
    """

    def web(fetch: Fetch, archive: WebService, settings: SendSettings) -> None:
        uids = fetch.study_instance_uid, fetch.series_instance_uid
        if fetch.attempts:
            came = retrieve_rest(*uids, fetch.images, archive, settings, arrivals.landing, stopping)
        else:
            came = retrieve(*uids, archive, settings, arrivals.landing, stopping)
        if came < max(fetch.images, 1):
            raise PeerFailure(f"{archive.words} sent {came} images, and holds {fetch.images}")

    def move(fetch: Fetch, archive: Destination, settings: SendSettings) -> None:
        with (
            associate([build_context(MOVE)], archive, patient(settings)) as association,
            given_up_when(_over(stopping), association),
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
            associate(contexts, archive, patient(settings), roles=roles, begin=begin) as association,
            arrivals.hears(association, archive.ae_title),
            given_up_when(_over(lambda: stopping() or association.dul.idle_timer_expired()), association),
        ):
            _complete(association.send_c_get(_query(fetch), GET), archive, fetch, lambda: arrived)

    dimse = move if by == "move" else get

    def by_kind(fetch: Fetch, archive: Archive, settings: SendSettings) -> None:
        if isinstance(archive, WebService):
            web(fetch, archive, settings)
        else:
            dimse(fetch, archive, settings)

    return by_kind


def _over(stopping: Callable[[], bool]) -> Callable[[], bool]:
    """stopping, or that a series that is asked for now takes too long."""
    until = time.monotonic() + LONGEST_RETRIEVE
    return lambda: stopping() or time.monotonic() > until


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
            if last.get("Status") not in PENDING:
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
