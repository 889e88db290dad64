from __future__ import annotations

import threading
from types import SimpleNamespace

from dicom_node.checkpoint import Checkpoint


def test_a_checkpoint_that_closes_while_the_reactor_passes_holds_it() -> None:
    """Else the reactor takes the peer's answer away from the sender, who waits for it until its time-out."""
    association = SimpleNamespace(_is_paused=True)
    checkpoint = Checkpoint(association)  # type: ignore[arg-type]  # only the flag is used
    reactor = threading.Thread(target=checkpoint.wait, daemon=True)
    with checkpoint._passing:  # the reactor has seen the checkpoint open and is about to go on
        reactor.start()
        threading.Event.clear(checkpoint)
    reactor.join(0.2)
    assert reactor.is_alive()
    assert association._is_paused
    checkpoint.set()
    reactor.join(5)
    assert not reactor.is_alive()
    assert not association._is_paused
