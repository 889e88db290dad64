"""A mend for a race in pynetdicom 3.0.4 that everybody who asks something over an association needs."""

from __future__ import annotations

import threading

from pynetdicom import evt
from pynetdicom.association import Association


def install_checkpoint(event: evt.Event) -> None:
    """For EVT_CONN_OPEN of a requested association, before its reactor runs."""
    event.assoc._reactor_checkpoint = Checkpoint(event.assoc)


class Checkpoint(threading.Event):
    """Keeps pynetdicom's reactor from taking the peer's answer away from whoever waits for it.

    In pynetdicom 3.0.4 the reactor says that it is paused before it waits; when the checkpoint closes just after the
    wait was over, both the reactor and the sender go on, the reactor drops the answer ("Received unexpected C-STORE
    service message") and the sender waits until its time-out.  Here passing and closing exclude each other.
    """

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self._passing = threading.Lock()
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        while True:
            super().wait(timeout)
            with self._passing:
                if self.is_set():
                    self._association._is_paused = False
                    return True

    def clear(self) -> None:
        with self._passing:
            super().clear()
