"""What commands do that an audit repository is to know: they tell it themselves, whether the node runs or not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dicom_node.config import Config

if TYPE_CHECKING:
    from dicom_node.witness import Witness


@contextmanager
def witnessed(config: Config) -> Iterator[Witness]:
    """Messages go out at the latest at the end, for some seconds; the log on stderr tells what was lost.

    Raises UnusableCertificate before anything is done.
    """
    from dicom_node import exchange
    from dicom_node.trail import Trail
    from dicom_node.witness import Witness

    identity = exchange.identity(config) if config.audit.host else None
    trail = Trail(config.audit, context=identity.client if identity else None)
    trail.start()
    try:
        yield Witness(exchange.author(config), trail, time.time)
    finally:
        trail.stop()
