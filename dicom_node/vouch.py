"""Storage commitment, as those who are asked (PS3.4 J): whether the node keeps what a scanner has sent.

The request is a row before it is answered; the report follows when what was named has been looked for, in the index
*and* on the disk, byte for byte as it was received.  It goes to where the peer listens, or, for a peer without a port,
over the association that asked, as long as that is open.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom import build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicom_node.call import Destination, SendSettings, associate
from dicom_node.commit import (
    ALL_KEPT,
    INVALID_ARGUMENT,
    PUSH_MODEL,
    REQUEST_COMMITMENT,
    SOME_NOT_KEPT,
    SUCCESS,
    WELL_KNOWN_INSTANCE,
    reference,
)
from dicom_node.config import Send
from dicom_node.errors import PeerFailure
from dicom_node.model import Instance
from dicom_node.peers import Peers
from dicom_node.spool import UID_PATTERN
from dicom_node.store import Store

NO_SUCH_ACTION = 0x0123
NOT_HELD, CLASS_CONFLICT = 0x0112, 0x0119
"""Failure reasons (PS3.3 C.14.1.1): no such object instance, class-instance conflict."""
MOST_INSTANCES = 100_000
"""Of one request."""
INDEXED_WITHIN = 60.0
"""Seconds that an object which was just acknowledged gets to appear in the index."""
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


class Vouch:
    """Takes requests on the association's thread; reports in its rounds.

    pending: whether anything that was acknowledged is not indexed yet.
    """

    def __init__(
        self,
        store: Store,
        peers: Peers,
        settings: SendSettings,
        pauses: Send,
        pending: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._peers = peers
        self._settings = settings
        self._pauses = pauses
        self._pending = pending
        self._clock = clock
        self._asking: dict[tuple[str, str], Association] = {}
        self._lock = threading.Lock()

    def requested(self, event: evt.Event) -> tuple[int, None]:
        """For EVT_N_ACTION."""
        if event.action_type != REQUEST_COMMITMENT:
            return NO_SUCH_ACTION, None
        asked = event.action_information
        transaction = str(asked.get("TransactionUID", ""))
        named = [
            (str(item.get("ReferencedSOPClassUID", "")), str(item.get("ReferencedSOPInstanceUID", "")))
            for item in asked.get("ReferencedSOPSequence") or []
        ]
        uids = [transaction, *(uid for pair in named for uid in pair)]
        if not 0 < len(named) <= MOST_INSTANCES or not all(UID_PATTERN.fullmatch(uid) for uid in uids):
            return INVALID_ARGUMENT, None
        title, now = str(event.assoc.requestor.ae_title).strip(), self._clock()
        self._store.database.execute(
            """INSERT INTO pledges (ae_title, transaction_uid, instances, asked_at, due_at) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (ae_title, transaction_uid) DO NOTHING""",
            [title, transaction, json.dumps(named), now, now],
        )
        if self._peers.called(title) is None:
            with self._lock:
                self._asking[title, transaction] = event.assoc
        log.info("commitment_asked", ae_title=title, transaction_uid=transaction, instances=len(named))
        return SUCCESS, None

    def __call__(self) -> None:
        """One round: reports what is due."""
        now = self._clock()
        for row in self._store.rows(
            """SELECT ae_title, transaction_uid, instances, asked_at, attempts FROM pledges
            WHERE answered_at IS NULL AND due_at <= :now ORDER BY asked_at""",
            {"now": now},
        ):
            pledge = Pledge(**(row | {"instances": tuple((a, b) for a, b in json.loads(row["instances"]))}))
            kept, failed = self.judge(pledge)
            if failed and self._pending() and now < pledge.asked_at + INDEXED_WITHIN:
                continue
            try:
                self._report(pledge, _event(pledge, kept, failed), SOME_NOT_KEPT if failed else ALL_KEPT)
            except PeerFailure as error:
                self._postpone(pledge, str(error))
            else:
                self._close(pledge, f"{len(kept)} kept, {len(failed)} not")

    def judge(self, pledge: Pledge) -> tuple[list[tuple[str, str]], dict[tuple[str, str], int]]:
        """What of it is kept, and of the rest the failure reason."""
        known = {instance.sop_instance_uid: instance for instance in self._store.find([u for _, u in pledge.instances])}
        failed: dict[tuple[str, str], int] = {}
        for sop_class, uid in pledge.instances:
            instance = known.get(uid)
            if instance is None or not _is_on_disk(instance):
                failed[sop_class, uid] = NOT_HELD
            elif instance.sop_class_uid != sop_class:
                failed[sop_class, uid] = CLASS_CONFLICT
        return [pair for pair in pledge.instances if pair not in failed], failed

    def _report(self, pledge: Pledge, content: Dataset, event_type: int) -> None:
        """Raises PeerFailure."""
        peer = self._peers.called(pledge.ae_title)
        if peer is None:
            with self._lock:
                association = self._asking.get((pledge.ae_title, pledge.transaction_uid))
            if association is None or not association.is_established:
                raise PeerFailure(f"{pledge.ae_title} has ended its association and has no port to be called at")
            return _send(association, content, event_type, pledge.ae_title)
        destination = Destination(peer.name, peer.address, peer.port, peer.ae_title, peer.certificate)
        role = build_role(PUSH_MODEL, scp_role=True)
        with associate([build_context(PUSH_MODEL)], destination, self._settings, roles=[role]) as association:
            return _send(association, content, event_type, destination.words)

    def _postpone(self, pledge: Pledge, reason: str) -> None:
        now = self._clock()
        if now > pledge.asked_at + ASKED_FOR:
            log.error("commitment_not_reported", ae_title=pledge.ae_title, reason=reason)
            return self._close(pledge, f"given up: {reason}")
        log.warning("commitment_report_postponed", ae_title=pledge.ae_title, reason=reason)
        self._store.database.execute(
            """UPDATE pledges SET attempts = attempts + 1, due_at = ?, comment = ?
            WHERE ae_title = ? AND transaction_uid = ?""",
            [now + self._pauses.pause(pledge.attempts + 1), reason, pledge.ae_title, pledge.transaction_uid],
        )
        return None

    def _close(self, pledge: Pledge, comment: str) -> None:
        self._store.database.execute(
            "UPDATE pledges SET answered_at = ?, comment = ? WHERE ae_title = ? AND transaction_uid = ?",
            [self._clock(), comment, pledge.ae_title, pledge.transaction_uid],
        )
        with self._lock:
            self._asking.pop((pledge.ae_title, pledge.transaction_uid), None)


def _is_on_disk(instance: Instance) -> bool:
    """Whether the file is what was received, to the last bit."""
    try:
        with instance.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == instance.digest
    except OSError:
        return False


def _event(pledge: Pledge, kept: list[tuple[str, str]], failed: dict[tuple[str, str], int]) -> Dataset:
    content = Dataset()
    content.TransactionUID = pledge.transaction_uid
    if kept:
        content.ReferencedSOPSequence = [reference(*pair) for pair in kept]
    if failed:
        content.FailedSOPSequence = [reference(*pair, FailureReason=reason) for pair, reason in failed.items()]
    return content


def _send(association: Association, content: Dataset, event_type: int, peer: str) -> None:
    answer: Any
    try:
        answer, _ = association.send_n_event_report(content, event_type, PUSH_MODEL, WELL_KNOWN_INSTANCE)
    except (RuntimeError, ValueError) as error:  # it has just ended, or has no context for it
        raise PeerFailure(f"{peer} cannot be told of its storage commitment: {error}") from error
    if "Status" not in answer or answer.Status != SUCCESS:
        found = f"0x{answer.Status:04X}" if "Status" in answer else "nothing"
        raise PeerFailure(f"{peer} answered a report of storage commitment with {found}, expected 0x0000")
