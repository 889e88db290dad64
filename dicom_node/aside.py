"""Aside: reports of ours over an association that the peer opened, beside what it asks meanwhile.

pynetdicom 3.0.4 sends from whatever thread asks it to, also while another message is being sent or served, and takes
whatever comes next for the answer: the peer's next image would end the association.  Here the association's own thread
sends, between two requests of the peer, and the answer is known by what it is.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode

from dicom_node.checkpoint import Checkpoint
from dicom_node.errors import PeerFailure

LOOK_AROUND = 0.05
"""Seconds between two looks whether whoever waits is to go on."""


def install_aside(event: evt.Event) -> None:
    """For EVT_CONN_OPEN of an association that a peer opens, before its threads run."""
    event.assoc._reactor_checkpoint = Aside(event.assoc)


def aside(association: Association) -> Aside:
    """What `install_aside` left there."""
    found = association._reactor_checkpoint
    assert isinstance(found, Aside)
    return found


class Aside(Checkpoint):
    """The association's own thread passes here between two requests of the peer, never within one.

    It waits here until something comes; in pynetdicom 3.0.4 each association looks for that a thousand times a second.
    """

    def __init__(self, association: Association) -> None:
        self._bell = threading.Event()
        super().__init__(association)
        self._numbers = itertools.count()
        self._to_send: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._awaited: dict[int, queue.SimpleQueue[N_EVENT_REPORT]] = {}
        self._one_at_a_time = threading.Lock()
        association.dimse.msg_queue = _Inbox(self._awaited, self._bell)
        association.dul.to_user_queue = _Rung(self._bell)

    def set(self) -> None:
        super().set()
        self._bell.set()

    def wait(self, timeout: float | None = None) -> bool:
        association = self._association
        if association.dimse.msg_queue.empty() and association.dul.to_user_queue.empty() and self._to_send.empty():
            self._bell.wait(LOOK_AROUND)
        self._bell.clear()
        passed = super().wait(timeout)
        while not self._to_send.empty():
            self._to_send.get()()
        return passed

    def report(
        self,
        content: Dataset,
        event_type: int,
        sop_class: str,
        sop_instance: str,
        *,
        patience: float,
        stopping: Callable[[], bool],
    ) -> int | None:
        """N-EVENT-REPORT (PS3.7 10.1.1) from another thread; the status, None for an answer without one.

        patience: seconds to the answer, what the peer asks before included.  Raises PeerFailure if none came.
        """
        association = self._association
        with self._one_at_a_time:  # as no other number of operations is negotiated (PS3.7 D.3.3.3)
            number = next(self._numbers) % 2**16
            request, context = _request(association, number, content, event_type, sop_class, sop_instance)
            answers = self._awaited[number] = queue.SimpleQueue()
            given_up = threading.Event()

            def send() -> None:
                if not given_up.is_set():
                    association.dimse.send_msg(request, context)

            self._to_send.put(send)
            self._bell.set()
            deadline = time.monotonic() + patience
            try:
                while association.is_established and not stopping() and time.monotonic() < deadline:
                    try:
                        answer: Any = answers.get(timeout=LOOK_AROUND)
                    except queue.Empty:
                        continue
                    return None if answer.Status is None else int(answer.Status)
            finally:
                given_up.set()
                del self._awaited[number]
        why = f"did not answer within {patience} s" if association.is_established else "ended the association"
        raise PeerFailure(f"it {why}")


class _Rung(queue.Queue[Any]):
    """Whatever is put here is told of."""

    def __init__(self, bell: threading.Event) -> None:
        super().__init__()
        self._bell = bell

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._bell.set()


class _Inbox(_Rung):
    """Where pynetdicom puts what comes, and whoever waits takes the next; answers go to who asked."""

    def __init__(self, awaited: dict[int, queue.SimpleQueue[N_EVENT_REPORT]], bell: threading.Event) -> None:
        super().__init__(bell)
        self._awaited = awaited

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        message = item[1]
        if isinstance(message, N_EVENT_REPORT) and message.MessageIDBeingRespondedTo is not None:
            if (waiting := self._awaited.get(message.MessageIDBeingRespondedTo)) is not None:
                waiting.put(message)
            return  # one that nobody waits for any longer
        super().put(item, block, timeout)


def _request(
    association: Association, number: int, content: Dataset, event_type: int, sop_class: str, sop_instance: str
) -> tuple[N_EVENT_REPORT, int]:
    """The request and the context it goes in.  Raises PeerFailure."""
    for context in association.accepted_contexts:
        if context.abstract_syntax == sop_class:
            break
    else:
        raise PeerFailure(f"its association has no context for {sop_class}")
    syntax = context.transfer_syntax[0]
    encoded = encode(content, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    if encoded is None or context.context_id is None:
        raise PeerFailure(f"the report cannot be encoded in {syntax.name}")
    request = N_EVENT_REPORT()
    request.MessageID = number
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = UID(sop_class), UID(sop_instance)
    request.EventTypeID = event_type
    request.EventInformation = BytesIO(encoded)
    return request, context.context_id
