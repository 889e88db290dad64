"""The C-STOREs of one C-GET or C-MOVE (PS3.4 C.4.2.3, C.4.3.3): what was stored by the peer, and why the rest was not.

pynetdicom 3.0.4 keeps this to itself: a handler gives it one data set after another and learns nothing of any, and the
Move Originator is our own AE title, where PS3.7 9.3.1.1 wants that of whoever asked.  So every `send_c_store` of the
association that carries them passes here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.status import STATUS_SUCCESS, STATUS_WARNING, STORAGE_SERVICE_CLASS_STATUS

from dicom_node.audit import Party
from dicom_node.catalogue import Held

log = structlog.get_logger(__name__)

_FAILED = 0xC000
"""Of the failures that pynetdicom knows; which one, nobody is told."""
_NO_CONTEXT = "No presentation context"
"""How pynetdicom begins to tell which class and transfer syntax were not accepted."""


@dataclass(frozen=True)
class Handed:
    """The end of a C-GET or C-MOVE.  why: in words, empty where nothing failed."""

    caller: Party
    destination: Party
    stored: Sequence[Held]
    failed: Sequence[Held]
    why: str


OnHanded = Callable[[Handed], None]


class Suboperations:
    """caller: the AE title of whoever asked."""

    def __init__(self, caller: str) -> None:
        self._caller = caller
        self._stored = set[str]()
        self._reasons = Counter[str]()

    def go_over(self, association: Association) -> None:
        """Notes what is sent over an association from now on."""
        send = association.send_c_store

        def send_noting(dataset: Dataset, **more: Any) -> Dataset:
            if "originator_aet" in more:
                more["originator_aet"] = self._caller
            if "SOPClassUID" not in dataset:
                return self._failure("its file is gone or damaged")
            return self._note(str(dataset.SOPInstanceUID), lambda: send(dataset, **more))

        association.send_c_store = send_noting  # type: ignore[method-assign,assignment]  # there is no other place for it

    def leave(self, association: Association) -> None:
        """No more over an association that goes on."""
        del association.send_c_store

    def stored(self, held: Held) -> bool:
        return held.sop_instance_uid in self._stored

    def why(self, failed: int) -> str:
        """Why so many failed, the commonest reason first."""
        reasons = self._reasons + Counter({"broken off before it was sent": failed - self._reasons.total()})
        return ", ".join(f"{reason} ({times})" for reason, times in reasons.most_common())

    def _note(self, uid: str, send: Callable[[], Dataset]) -> Dataset:
        """What pynetdicom counts as it is counted here: it has no place for an answer that it does not know."""
        try:
            answer = send()
        except RuntimeError:
            return self._failure("the association had ended")
        except Exception as error:  # whatever one object provokes, the others are sent
            if str(error).startswith(_NO_CONTEXT):
                return self._failure(str(error))
            log.exception("not_handed_out", sop_instance_uid=uid)
            return self._failure(f"it could not be sent: {type(error).__name__}")
        if "Status" not in answer:
            return self._failure("no answer")
        category, _ = STORAGE_SERVICE_CLASS_STATUS.get(answer.Status, ("", ""))
        if category not in (STATUS_SUCCESS, STATUS_WARNING):
            return self._failure(f"0x{answer.Status:04X}")
        self._stored.add(uid)
        return answer

    def _failure(self, reason: str) -> Dataset:
        self._reasons[reason] += 1
        answer = Dataset()
        answer.Status = _FAILED
        return answer
