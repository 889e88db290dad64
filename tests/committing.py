"""An archive that is asked for storage commitment and answers as the test wants."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from demo.archive import Archive
from dicom_node.checkpoint import install_checkpoint
from dicom_node.commit import PUSH_MODEL, REQUEST_COMMITMENT, WELL_KNOWN_INSTANCE, reference


class CommittingArchive(Archive):
    """answer_on: the same association, a new one to `listener`, or none; `reported` is what we were answered.

    keeps: whether it says of an instance that it has it.  asked: the requests by their transaction UIDs, in order.
    """

    def __init__(self, folder: Path, *, answer_on: Literal["same", "new", "none"] = "same", **keywords: Any) -> None:
        super().__init__(folder, **keywords)
        self.answer_on = answer_on
        self.listener = ("127.0.0.1", 0)
        self.keeps: Callable[[str], bool] = lambda uid: uid in self.paths
        self.asked: dict[str, Dataset] = {}
        self.reported: list[int] = []
        self._entity.add_supported_context(PUSH_MODEL)

    def _handlers(self) -> list[Any]:
        return [
            *super()._handlers(),
            (evt.EVT_CONN_OPEN, install_checkpoint),
            (evt.EVT_N_ACTION, self._take),
        ]

    def _take(self, event: evt.Event) -> tuple[int, None]:
        assert event.action_type == REQUEST_COMMITMENT
        request = event.action_information
        self.asked[request.TransactionUID] = request
        if self.answer_on != "none":
            threading.Thread(target=self._answer_later, args=(event.assoc, request.TransactionUID)).start()
        return 0x0000, None

    def _answer_later(self, asking: Association, transaction: str) -> None:
        time.sleep(0.1)  # the response to the request goes first
        if self.answer_on == "same":
            self._send(asking, transaction)
        else:
            self.report(transaction)

    def report(self, transaction: str, ae_title: str | None = None) -> None:
        """Answers a transaction on an association of its own."""
        association = AE(ae_title or self.ae_title).associate(
            *self.listener,
            contexts=[build_context(PUSH_MODEL)],
            ae_title="QSMNODE",
            ext_neg=[build_role(PUSH_MODEL, scp_role=True)],
            evt_handlers=[(evt.EVT_CONN_OPEN, install_checkpoint)],
        )
        assert association.is_established
        self._send(association, transaction)
        association.release()

    def _send(self, association: Association, transaction: str) -> None:
        content = Dataset()
        content.TransactionUID = transaction
        asked = [
            (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID)
            for item in self.asked[transaction].ReferencedSOPSequence
        ]
        kept = [pair for pair in asked if self.keeps(pair[1])]
        lost = [pair for pair in asked if pair not in kept]
        content.ReferencedSOPSequence = [reference(*pair) for pair in kept]
        if lost:
            content.FailedSOPSequence = [reference(*pair, FailureReason=0x0112) for pair in lost]
        answer, _ = association.send_n_event_report(content, 2 if lost else 1, PUSH_MODEL, WELL_KNOWN_INSTANCE)
        if "Status" not in answer:
            raise ConnectionError("the node did not answer a report")
        self.reported.append(int(answer["Status"].value))
