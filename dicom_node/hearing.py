"""Hearing: an HTTP answer that comes on a thread of its own, so that whoever waits for it need not wait to the end.

An archive may be silent for long before it answers, and nothing wakes a thread that reads from a socket.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from requests import Response

from dicom_node.errors import PeerFailure

LOOK_AROUND = 0.2
"""Seconds between two looks whether to go on."""
_CHUNK, _AHEAD = 2**16, 4
"""Bytes that are read at once, and how often that is done before somebody takes them."""


class Hearing:
    """The answer to one request, from the beginning of the `with` to its end.

    ask: makes the request; raises PeerFailure, as what is read here does then.  stopping: then nothing more is heard.
    until: nor after that, by time.monotonic().
    """

    answer: Response
    """Status and headers."""

    def __init__(
        self,
        ask: Callable[[], AbstractContextManager[Response]],
        stopping: Callable[[], bool],
        until: float = float("inf"),
    ) -> None:
        self._ask = ask
        self._stopping = stopping
        self._until = until
        self._heard: queue.Queue[Any] = queue.Queue(_AHEAD)
        self._over = threading.Event()

    def __enter__(self) -> Hearing:
        # A daemon: where the archive stays silent it waits on, when nobody waits for it any more.
        threading.Thread(target=self._listen, name="hearing", daemon=True).start()
        self.answer = self._next()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def chunks(self) -> Iterator[bytes]:
        """The body, piece by piece."""
        while (chunk := self._next()) is not None:
            yield chunk

    def _next(self) -> Any:
        while not self._stopping():
            if time.monotonic() > self._until:
                self._over.set()
                raise PeerFailure("it is listened to no further: it takes too long")
            try:
                heard = self._heard.get(timeout=LOOK_AROUND)
            except queue.Empty:
                continue
            if isinstance(heard, Exception):
                raise heard
            return heard
        self._over.set()
        raise PeerFailure("it is listened to no further: the node stops")

    def _listen(self) -> None:
        try:
            with self._ask() as answer:
                self._tell(answer)
                for chunk in answer.raw.stream(_CHUNK, decode_content=True):
                    if not self._tell(chunk):
                        return
            self._tell(None)
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is waited for
            self._tell(error)

    def _tell(self, heard: Any) -> bool:
        """False when nobody listens any more."""
        while not self._over.is_set():
            try:
                self._heard.put(heard, timeout=LOOK_AROUND)
            except queue.Full:
                continue
            return True
        return False
