"""Archives as hospitals have them: each misbehaves in its own way until it is mended.

Real peers on free ports.  What one says it has stored is counted, however badly it answered otherwise.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydicom.uid import CTImageStorage
from pynetdicom import AE, AllStoragePresentationContexts, evt

from demo.archive import Archive
from tests.peers import free_port

SLOW = 0.3
"""Seconds to each answer of the slow one."""
AE_TITLE = "ARCHIVE"

Answer = Callable[[Any, "Misbehaving"], int | None]
"""(C-STORE event, archive) → the status, or None where the association was ended instead."""


class Misbehaving:
    """Runs inside `with`.  stored: how often each instance was answered as stored."""

    def __init__(self, folder: Path, name: str, serve: Callable[[Misbehaving, ExitStack], None]) -> None:
        self.name = name
        self.port = free_port()
        self.stored: Counter[str] = Counter()
        self.asked: list[str] = []
        self._folder = folder / name
        self._serve = serve
        self._running = ExitStack()

    def __enter__(self) -> Misbehaving:
        self._serve(self, self._running)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def mend(self) -> None:
        """The same port, and all is well."""
        self._running.close()
        archive = Archive(self._folder, ae_title=AE_TITLE, port=self.port)
        archive.sent = self.stored
        self._running.enter_context(archive)


def down(archive: Misbehaving, running: ExitStack) -> None:
    """Nobody listens."""


def silent(archive: Misbehaving, running: ExitStack) -> None:
    """Connections are taken, and nothing is ever said."""
    running.enter_context(socket.create_server(("127.0.0.1", archive.port)))


def rejecting(archive: Misbehaving, running: ExitStack) -> None:
    """The AE title of the caller is not known."""
    entity = _entity()
    entity.require_calling_aet = ["SOMEBODY"]
    running.enter_context(_serving(entity, archive, lambda event, _: 0x0000))


def refusing_contexts(archive: Misbehaving, running: ExitStack) -> None:
    """An archive for CT alone."""
    entity = AE(AE_TITLE)
    entity.add_supported_context(CTImageStorage)
    running.enter_context(_serving(entity, archive, lambda event, _: 0x0000))


def answering(answer: int | Answer) -> Callable[[Misbehaving, ExitStack], None]:
    """Takes associations, and answers each C-STORE in this way."""
    given: Answer = (lambda event, archive: answer) if isinstance(answer, int) else answer
    return lambda archive, running: running.enter_context(_serving(_entity(), archive, given)) and None


def slowly(event: Any, archive: Misbehaving) -> int:
    time.sleep(SLOW)
    return 0x0000


def aborting_at_one(event: Any, archive: Misbehaving) -> int | None:
    """At the same instance each time, as if it were poison."""
    if archive.asked[-1] == archive.asked[0]:
        event.assoc.abort()
        return None
    return 0x0000


def closing_half_way(event: Any, archive: Misbehaving) -> int | None:
    """The connection falls without a word, each time at the first instance, which it has kept all the same."""
    event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
    return None


def never_answering(event: Any, archive: Misbehaving) -> int:
    """Takes the instance, and says nothing of it within the time-out."""
    time.sleep(2.0)
    return 0xC000


def _entity() -> AE:
    entity = AE(AE_TITLE)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax))
    return entity


@contextmanager
def _serving(entity: AE, archive: Misbehaving, answer: Answer) -> Iterator[None]:
    lock = threading.Lock()

    def store(event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)  # type: ignore[union-attr]  # C-STORE has one
        with lock:
            archive.asked.append(uid)
        status = answer(event, archive)
        if status is None:
            return 0xC000  # goes nowhere
        if status == 0x0000 or status >> 12 == 0xB:
            archive.stored[uid] += 1
        return status

    entity.start_server(("127.0.0.1", archive.port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield
    finally:
        entity.shutdown()
