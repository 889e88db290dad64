"""Access tokens by client credentials (OAuth 2, RFC 6749 4.4)."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import quote_plus

import requests

from dicom_node.errors import PeerFailure
from dicom_node.hearing import Hearing

MARGIN = 30.0
"""Seconds before its end from which a token is renewed: a request takes its time, and clocks differ."""
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What a bearer token may be (RFC 6750 2.1)."""
_ERROR = re.compile(r"[a-z_]{1,40}")
"""The error codes of RFC 6749 5.2, and such as were added; descriptions are not repeated."""
_LONGEST_ANSWER = 2**16
"""Bytes."""

Grant = Callable[[], tuple[str, float | None]]
"""Asks for a token: the token, and the seconds that it lasts, None where that is not told."""


class Token:
    """The token of one service, shared by all who ask it: kept until shortly before its end, or until `forget`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._value = ""
        self._ends = 0.0

    def current(self, grant: Grant) -> str:
        """What we have, or a new one."""
        with self._lock:
            if not self._value or self._clock() >= self._ends - MARGIN:
                self._value, lasts = grant()
                self._ends = self._clock() + lasts if lasts is not None else float("inf")
            return self._value

    def forget(self) -> None:
        """It is not taken any more."""
        with self._lock:
            self._value = ""


def granted(
    session: requests.Session, url: str, client: tuple[str, str], scope: str, timeout: tuple[float, float]
) -> tuple[str, float | None]:
    """Asks the token endpoint.  client: identifier and secret, told by HTTP Basic (RFC 6749 2.3.1).

    timeout: s to connect, and to answer; both together for all of it.  Raises PeerFailure for an answer without a
    bearer token or one that takes longer, and what requests raises.
    """
    asked = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
    ask = partial(
        session.post,
        url,
        data=asked,
        auth=(quote_plus(client[0]), quote_plus(client[1])),
        headers={"Accept": "application/json"},
        timeout=timeout,
        allow_redirects=False,
        stream=True,
    )
    body = bytearray()
    # All who need the token wait for this answer: a time-out for each byte of it is not enough.
    with Hearing(ask, lambda: False, time.monotonic() + sum(timeout)) as hearing:
        code = hearing.answer.status_code
        for chunk in hearing.chunks():
            body += chunk
            if len(body) > _LONGEST_ANSWER:
                break
    try:
        told = json.loads(body)
        error = str(told.get("error", ""))
        token, kind, lasts = str(told.get("access_token", "")), str(told.get("token_type", "")), told.get("expires_in")
        seconds = None if lasts is None else float(lasts)
    except (ValueError, TypeError, AttributeError, RecursionError) as unreadable:
        raise PeerFailure(f"{url} answered HTTP {code} without a token; is that the token endpoint?") from unreadable
    if code != 200:
        named = f" ({error})" if _ERROR.fullmatch(error) else ""
        raise PeerFailure(f"{url} answered HTTP {code}{named}; are user, secret and scope right?")
    if kind.lower() != "bearer" or not TOKEN.fullmatch(token):
        raise PeerFailure(f"{url} granted no bearer token (RFC 6750)")
    return token, seconds
