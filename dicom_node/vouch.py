"""Storage commitment, as those who are asked (PS3.4 J): whether the node keeps what a scanner has sent.

The request is a row before it is answered; the report follows when what was named has been looked for, in the index
*and* on the disk, byte for byte as it was received.  It goes to where the peer listens, or, to a peer without a port,
over an association that it has opened for storage commitment, now or later.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicom_node.aside import aside
from dicom_node.call import Destination, SendSettings, associate
from dicom_node.commit import (
    ALL_KEPT,
    INVALID_ARGUMENT,
    NOT_HELD,
    PUSH_MODEL,
    REQUEST_COMMITMENT,
    SOME_NOT_KEPT,
    SUCCESS,
    WELL_KNOWN_INSTANCE,
    reference,
)
from dicom_node.convert.header import MALFORMED
from dicom_node.errors import PeerFailure
from dicom_node.model import Instance
from dicom_node.peers import Peers
from dicom_node.settings import Send
from dicom_node.spool import UID_PATTERN
from dicom_node.store import Store

NO_SUCH_INSTANCE, NO_SUCH_ACTION = 0x0112, 0x0123
"""PS3.7 10.1.4.1.10."""
CLASS_CONFLICT = 0x0119
"""Failure reason (PS3.3 C.14.1.1): class-instance conflict."""
MOST_INSTANCES = 100_000
"""Of one request."""
INDEXED_WITHIN = 60.0
"""Seconds that an object which is not in the spool either gets to appear: it may still be on its way."""
ASKED_FOR = 7 * 86400.0
"""Seconds after which a report that cannot be delivered is given up."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Pledge:
    """A request.  instances: (SOP Class UID, SOP Instance UID) of each object that was named."""

    ae_title: str
    transaction_uid: str
    instances: tuple[tuple[str, str], ...]
    asked_at: float
    attempts: int


@dataclass(frozen=True)
class _Judged:
    """What of a pledge is kept, and of the rest the failure reason."""

    pledge: Pledge
    kept: list[tuple[str, str]]
    failed: dict[tuple[str, str], int]


class _Stopping(Exception):
    """The node stops: what is still to be reported is reported after the next start."""


Tell = Callable[[Dataset, int], int | None]
"""Sends the content and type of a report; the peer's status, None for an answer without one.  Raises PeerFailure."""


class Vouch:
    """Takes requests on the association's thread; reports in its rounds.

    pending: whether anything that was acknowledged is not indexed yet.  holds: whether the spool has an instance.
    stopping: whether a round is to end early.
    """

    def __init__(
        self,
        store: Store,
        peers: Peers,
        settings: SendSettings,
        pauses: Send,
        pending: Callable[[], bool],
        holds: Callable[[str], bool],
        clock: Callable[[], float],
        stopping: Callable[[], bool],
    ) -> None:
        self._store = store
        self._peers = peers
        self.renew(settings, pauses)
        self._pending = pending
        self._holds = holds
        self._clock = clock
        self._stopping = stopping
        self._lock = threading.Lock()
        self._open: dict[Association, str] = {}
        """Of peers without a port: their associations for storage commitment, the latest last, and AE titles."""

    def renew(self, settings: SendSettings, pauses: Send) -> None:
        """The configuration was read anew."""
        self._settings, self._pauses = settings, pauses

    def met(self, event: evt.Event) -> None:
        """For EVT_ESTABLISHED: who cannot be called is told of what is due when it calls."""
        title = _title(event)
        if self._peers.called(title) or not any(
            context.abstract_syntax == PUSH_MODEL for context in event.assoc.accepted_contexts
        ):
            return
        with self._lock:
            self._open[event.assoc] = title
        self._store.database.execute(
            "UPDATE pledges SET due_at = ? WHERE ae_title = ? AND answered_at IS NULL", [self._clock(), title]
        )

    def requested(self, event: evt.Event) -> tuple[int, None]:
        """For EVT_N_ACTION."""
        instance = str(event.request.RequestedSOPInstanceUID)  # type: ignore[union-attr]  # it has one
        if instance != WELL_KNOWN_INSTANCE:
            log.warning("commitment_refused", reason=f"it is asked of {instance}", ae_title=_title(event))
            return NO_SUCH_INSTANCE, None
        if event.action_type != REQUEST_COMMITMENT:
            return NO_SUCH_ACTION, None
        try:
            asked = event.action_information
            for _ in asked.iterall():  # pydicom reads an element when it is touched, and raises then
                pass
        except MALFORMED as error:
            log.warning(
                "commitment_refused", reason=f"it cannot be read: {type(error).__name__}", ae_title=_title(event)
            )
            return INVALID_ARGUMENT, None
        transaction = str(asked.get("TransactionUID", ""))
        named = [
            (str(item.get("ReferencedSOPClassUID", "")), str(item.get("ReferencedSOPInstanceUID", "")))
            for item in asked.get("ReferencedSOPSequence") or []
        ]
        uids = [transaction, *(uid for pair in named for uid in pair)]
        if not 0 < len(named) <= MOST_INSTANCES or not all(UID_PATTERN.fullmatch(uid) for uid in uids):
            return INVALID_ARGUMENT, None
        title = _title(event)
        told = {"ae_title": title, "transaction_uid": transaction, "instances": len(named)}
        if not self._pledge(title, transaction, named):
            log.warning("commitment_refused", reason="its Transaction UID is in use for other instances", **told)
            return INVALID_ARGUMENT, None
        log.info("commitment_asked", **told)
        return SUCCESS, None

    def _pledge(self, title: str, transaction: str, named: list[tuple[str, str]]) -> bool:
        """Writes the request down; one that comes again is answered again.  False for the UID of another request."""
        key = {"title": title, "transaction": transaction}
        with self._store.transaction() as database:
            for row in self._store.rows(
                "SELECT instances FROM pledges WHERE ae_title = :title AND transaction_uid = :transaction", key
            ):
                if sorted(map(tuple, json.loads(row["instances"]))) != sorted(named):
                    return False
            database.execute(
                """INSERT INTO pledges (ae_title, transaction_uid, instances, asked_at, due_at)
                VALUES (:title, :transaction, :instances, :now, :now)
                ON CONFLICT (ae_title, transaction_uid) DO UPDATE SET
                    asked_at = :now, due_at = :now, attempts = 0, answered_at = NULL, comment = ''""",
                {**key, "instances": json.dumps(named), "now": self._clock()},
            )
        return True

    def __call__(self) -> None:
        """One round: reports what is due, to one peer after another."""
        with self._lock:
            self._open = {association: title for association, title in self._open.items() if association.is_established}
        due: dict[str, list[Pledge]] = {}
        for row in self._store.rows(
            """SELECT ae_title, transaction_uid, instances, asked_at, attempts FROM pledges
            WHERE answered_at IS NULL AND due_at <= :now ORDER BY asked_at""",
            {"now": self._clock()},
        ):
            pledge = Pledge(**(row | {"instances": tuple((a, b) for a, b in json.loads(row["instances"]))}))
            due.setdefault(pledge.ae_title, []).append(pledge)
        try:
            for title, pledges in due.items():
                self._report(title, pledges)
        except _Stopping:
            return

    def _report(self, title: str, pledges: Sequence[Pledge]) -> None:
        """What is due to one peer, over one association.  Raises _Stopping."""
        if self._peers.called(title) is None and self._association(title) is None:
            for pledge in pledges:
                if self._is_old(pledge):
                    self._give_up(pledge, f"{title} has no port to be called at and did not call")
            return
        # All of them before anybody is called: a peer that waits may hang up.
        judged = [self._judged(pledge) for pledge in pledges if not self._may_be_indexed_yet(pledge)]
        if not judged:
            return
        try:
            with self._way_to(title) as tell:
                while judged:
                    self._stop_if_asked()
                    self._answer(judged[0], tell)
                    judged.pop(0)
        except PeerFailure as error:
            for one in judged:
                self._postpone(one.pledge, str(error))

    def _answer(self, judged: _Judged, tell: Tell) -> None:
        """Raises PeerFailure where the peer gives no answer at all."""
        event_type = SOME_NOT_KEPT if judged.failed else ALL_KEPT
        status = tell(_event(judged), event_type)
        if status == SUCCESS:
            return self._close(judged.pledge, f"{len(judged.kept)} kept, {len(judged.failed)} not")
        found = "nothing" if status is None else f"0x{status:04X}"
        return self._postpone(
            judged.pledge,
            f"{judged.pledge.ae_title} answered a report of storage commitment with {found}, expected 0x0000",
        )

    @contextmanager
    def _way_to(self, title: str) -> Iterator[Tell]:
        """Raises PeerFailure where there is none."""
        peer = self._peers.called(title)
        if peer is None:
            association = self._association(title)
            if association is None:
                raise PeerFailure(f"{title} has ended its association and has no port to be called at")
            yield partial(
                aside(association).report,
                sop_class=PUSH_MODEL,
                sop_instance=WELL_KNOWN_INSTANCE,
                patience=self._settings.response_timeout,
                stopping=self._stopping,
            )
            return
        destination = Destination(peer.name, peer.address, peer.port, peer.ae_title, peer.certificate)
        role = build_role(PUSH_MODEL, scp_role=True)
        with associate([build_context(PUSH_MODEL)], destination, self._settings, roles=[role]) as association:
            yield partial(_send, association, destination.words)

    def _association(self, title: str) -> Association | None:
        """The latest that the peer has open."""
        with self._lock:
            known = [association for association, of in self._open.items() if of == title]
        return next((association for association in reversed(known) if association.is_established), None)

    def _may_be_indexed_yet(self, pledge: Pledge) -> bool:
        """Whether some of it is not in the index and may appear there."""
        # In this order: what is indexed between the two is found.
        pending = self._pending()
        uids = {uid for _, uid in pledge.instances}
        if not pending or len(self._store.paths(list(uids))) == len(uids):
            return False
        if self._clock() < pledge.asked_at + INDEXED_WITHIN:
            return True
        # What was acknowledged is never denied, however long the database takes no rows.
        return any(
            self._holds(uid) for uid in uids - {found.sop_instance_uid for found in self._store.find(list(uids))}
        )

    def _judged(self, pledge: Pledge) -> _Judged:
        """Raises _Stopping."""
        known = {instance.sop_instance_uid: instance for instance in self._store.find([u for _, u in pledge.instances])}
        failed: dict[tuple[str, str], int] = {}
        for sop_class, uid in pledge.instances:
            self._stop_if_asked()
            instance = known.get(uid)
            if instance is None or not _is_on_disk(instance):
                failed[sop_class, uid] = NOT_HELD
            elif instance.sop_class_uid != sop_class:
                failed[sop_class, uid] = CLASS_CONFLICT
        return _Judged(pledge, [pair for pair in pledge.instances if pair not in failed], failed)

    def _stop_if_asked(self) -> None:
        if self._stopping():
            raise _Stopping

    def _is_old(self, pledge: Pledge) -> bool:
        return self._clock() > pledge.asked_at + ASKED_FOR

    def _postpone(self, pledge: Pledge, reason: str) -> None:
        self._stop_if_asked()
        if self._is_old(pledge):
            return self._give_up(pledge, reason)
        log.warning("commitment_report_postponed", ae_title=pledge.ae_title, reason=reason)
        self._store.database.execute(
            """UPDATE pledges SET attempts = attempts + 1, due_at = ?, comment = ?
            WHERE ae_title = ? AND transaction_uid = ?""",
            [
                *(self._clock() + self._pauses.pause(pledge.attempts + 1), reason),
                *(pledge.ae_title, pledge.transaction_uid),
            ],
        )
        return None

    def _give_up(self, pledge: Pledge, reason: str) -> None:
        log.error("commitment_not_reported", ae_title=pledge.ae_title, reason=reason)
        self._close(pledge, f"given up: {reason}")

    def _close(self, pledge: Pledge, comment: str) -> None:
        """Answered, or given up; `retention` goes by it, and forgets it."""
        now = self._clock()
        self._store.database.execute(
            "UPDATE pledges SET answered_at = ?, comment = ? WHERE ae_title = ? AND transaction_uid = ?",
            [now, comment, pledge.ae_title, pledge.transaction_uid],
        )


def _title(event: evt.Event) -> str:
    return str(event.assoc.requestor.ae_title).strip()


def _is_on_disk(instance: Instance) -> bool:
    """Whether the file is what was received, to the last bit."""
    try:
        with instance.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == instance.digest
    except OSError:
        return False


def _event(judged: _Judged) -> Dataset:
    content = Dataset()
    content.TransactionUID = judged.pledge.transaction_uid
    if judged.kept:
        content.ReferencedSOPSequence = [reference(*pair) for pair in judged.kept]
    if judged.failed:
        content.FailedSOPSequence = [reference(*pair, FailureReason=reason) for pair, reason in judged.failed.items()]
    return content


def _send(association: Association, peer: str, content: Dataset, event_type: int) -> int | None:
    answer: Any
    try:
        answer, _ = association.send_n_event_report(content, event_type, PUSH_MODEL, WELL_KNOWN_INSTANCE)
    except (RuntimeError, ValueError) as error:  # it has just ended, or has no context for it
        raise PeerFailure(f"{peer} cannot be told of its storage commitment: {error}") from error
    if "Status" not in answer:
        raise PeerFailure(f"{peer} answered a report of storage commitment with nothing, expected 0x0000")
    return int(answer.Status)
