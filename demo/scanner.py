"""A scanner that pushes: sends DICOM files to a storage SCP over a real association, one instance after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dicom_node.call import Destination, SendSettings
from dicom_node.send import Delivery, send


def push(
    files: Sequence[Path], host: str, port: int, ae_title: str, *, calling_ae_title: str = "SCANNER", pause: float = 0.0
) -> Iterator[Delivery]:
    """Send the files in order and yield each answer; `pause` seconds lie between two, as when images are still made.

    Raises dicom_node.errors.PeerFailure when the association cannot be had or breaks.
    """
    destination = Destination("node", host, port, ae_title)
    for delivery in send(files, destination, SendSettings(ae_title=calling_ae_title)):
        yield delivery
        time.sleep(pause)
