"""STOW: sends results to a DICOMweb archive (STOW-RS, PS3.18 10.5), an instance for each request over one connection.

A file goes out as the bytes it holds and is never held in memory as a whole.  What the answer says of an instance
means what the same status means in a C-STORE response; what stops all of them, as wrong credentials do, is the peer's
failure.  One that the peer stumbles over is tried again later and does not keep the others.
"""

from __future__ import annotations

import base64
import io
import json
import secrets
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import requests
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, ProtocolError

from dicom_node.call import SendSettings
from dicom_node.errors import PeerFailure, UnreadableObject
from dicom_node.send import Delivery, classify
from dicom_node.tls import bare_context

_FAILED, _REFERENCED = "00081198", "00081199"
_FAILURE_REASON, _INSTANCE = "00081197", "00081155"
"""FailedSOPSequence, ReferencedSOPSequence, FailureReason, ReferencedSOPInstanceUID in the DICOM JSON model."""
_REFUSED = {400: 0xC000, 413: 0xC000, 415: 0x0122}
"""What an HTTP status says of this very instance, as a status of C-STORE: cannot understand, class not supported."""
_OF_THE_PEER = {401, 403, 404, 405, 407, 429, 502, 503, 504, 507}
"""HTTP statuses (RFC 9110 15, RFC 6585 4, RFC 4918 11.5) that any instance would get; so are redirections."""
_PROCESSING_FAILURE = 0x0110
"""Status of C-STORE for an instance that is to be tried again."""
_LONGEST_ANSWER, _CHUNK = 2**20, 2**16
"""Bytes."""


@dataclass(frozen=True)
class WebDestination:
    """url: of the DICOMweb service, to which /studies is added.

    secret_file: holds the password of `user`, or without a user a bearer token; read anew for each association, so that
    a token may be renewed.  Over https our certificate is shown and the authorities of `[tls]` are believed, if there
    are any; else those of the system.
    """

    name: str
    url: str
    user: str = ""
    secret_file: str = ""


def stow(files: Sequence[Path], destination: WebDestination, settings: SendSettings) -> Iterator[Delivery]:
    """Yields one Delivery for each file as it is answered, in order; like `send.send`, with the same errors."""
    uids = [_uid(path) for path in files]
    broke_off = False
    with _session(destination, settings) as session:
        for path, uid in zip(files, uids, strict=True):
            try:
                delivery = _post(session, path, uid, destination, settings)
            except _BrokenOff as error:
                # Once may be the doing of this instance; twice in a row is the peer's.
                if broke_off:
                    raise
                delivery = Delivery(uid, path, _PROCESSING_FAILURE, "retry", str(error))
                broke_off = True
            else:
                broke_off = False
            yield delivery


def ask(destination: WebDestination, settings: SendSettings) -> None:
    """Returns when the service answers a query (QIDO-RS).  Raises PeerFailure."""
    with _session(destination, settings) as session:
        try:
            answer = session.get(
                f"{destination.url.rstrip('/')}/studies?limit=1",
                timeout=(settings.connection_timeout, settings.response_timeout),
                allow_redirects=False,
                stream=True,
            )
        except (requests.RequestException, OSError) as error:
            raise PeerFailure(f"{destination.name} at {destination.url} cannot be asked: {error}") from error
        if answer.status_code not in (200, 204):
            raise _stopped(destination, answer)


class _BrokenOff(PeerFailure):
    """The peer took the connection and gave no (whole) answer."""


def _is_midway(error: Exception) -> bool:
    """Whether the connection was there already."""
    cause = error.args[0] if error.args else None
    return isinstance(error, requests.ReadTimeout | HTTPError) or isinstance(cause, ProtocolError)


class _Adapter(HTTPAdapter):
    """Under the same rules as TLS elsewhere, whatever those of the system are."""

    def init_poolmanager(self, *arguments: Any, **keywords: Any) -> None:
        super().init_poolmanager(*arguments, **keywords, ssl_context=bare_context(ssl.PROTOCOL_TLS_CLIENT))


def _session(destination: WebDestination, settings: SendSettings) -> requests.Session:
    session = requests.Session()
    # Neither a .netrc nor a proxy that happens to be set: images go where the configuration says.
    session.trust_env = False
    session.headers.update({"Accept": "application/dicom+json", "Accept-Encoding": "identity"})
    session.mount("https://", _Adapter())
    _prove_who_we_are(session, destination, settings)
    return session


def _post(
    session: requests.Session, path: Path, uid: str, destination: WebDestination, settings: SendSettings
) -> Delivery:
    with _Part(path) as part:
        try:
            with session.post(
                f"{destination.url.rstrip('/')}/studies",
                data=part,
                headers={"Content-Type": f'multipart/related; type="application/dicom"; boundary={part.boundary}'},
                timeout=(settings.connection_timeout, settings.response_timeout),
                allow_redirects=False,
                stream=True,
            ) as answer:
                body = answer.raw.read(_LONGEST_ANSWER)
        except (requests.RequestException, HTTPError, OSError) as error:
            if _is_midway(error):
                raise _BrokenOff(
                    f"{destination.name} at {destination.url} broke off or did not answer in time at instance {uid}"
                ) from error
            raise PeerFailure(f"{destination.name} at {destination.url} cannot be sent to: {error}") from error
    code = answer.status_code
    if code in (200, 202, 409):
        return _told(uid, path, code, body)
    if code in _REFUSED:
        return Delivery(uid, path, _REFUSED[code], "refused", f"HTTP {code} {answer.reason}")
    if code < 400 or code in _OF_THE_PEER:
        raise _stopped(destination, answer)
    return Delivery(uid, path, _PROCESSING_FAILURE, "retry", f"HTTP {code} {answer.reason}")


def _stopped(destination: WebDestination, answer: requests.Response) -> PeerFailure:
    """Without the reason phrase: those are the peer's words, and this goes into the log."""
    remedy = {401: "are the credentials right?", 403: "may we store there?", 404: "is its url right?"}
    return PeerFailure(
        f"{destination.name} at {destination.url} answered HTTP {answer.status_code}; "
        f"{remedy.get(answer.status_code, 'it is asked again later')}"
    )


def _told(uid: str, path: Path, code: int, body: bytes) -> Delivery:
    """What the Store Instances Response Module (PS3.18 I.2) says of the instance."""
    try:
        told: dict[str, Any] = json.loads(body) if body.strip() else {}
        failed = {_value(item, _INSTANCE): item for item in told.get(_FAILED, {}).get("Value", [])}
        stored = {_value(item, _INSTANCE) for item in told.get(_REFERENCED, {}).get("Value", [])}
        if uid in failed:
            status = int(_value(failed[uid], _FAILURE_REASON) or _PROCESSING_FAILURE)
            return Delivery(uid, path, status, classify(status), f"HTTP {code}")
    except (ValueError, TypeError, AttributeError, KeyError, IndexError):
        return Delivery(uid, path, _PROCESSING_FAILURE, "retry", f"HTTP {code} with an answer that is no DICOM JSON")
    if uid in stored or (code == 200 and not failed):
        return Delivery(uid, path, 0x0000, "stored")
    return Delivery(uid, path, _PROCESSING_FAILURE, "retry", f"HTTP {code} without a word about this instance")


def _value(item: dict[str, Any], tag: str) -> Any:
    values = item.get(tag, {}).get("Value", [])
    return values[0] if values else None


def _prove_who_we_are(session: requests.Session, destination: WebDestination, settings: SendSettings) -> None:
    if settings.tls is not None:
        files = settings.tls.files
        session.cert = (str(files.certificate), str(files.key))
        session.verify = str(files.authorities)
    if not destination.secret_file:
        return
    try:
        secret = Path(destination.secret_file).expanduser().read_text(encoding="utf-8").strip()
    except OSError as error:
        raise PeerFailure(
            f"{destination.secret_file} of {destination.name} cannot be read: {error.strerror}"
        ) from error
    if destination.user:
        credentials = base64.b64encode(f"{destination.user}:{secret}".encode()).decode()  # UTF-8 (RFC 7617 2.1)
        session.headers["Authorization"] = f"Basic {credentials}"
    else:
        session.headers["Authorization"] = f"Bearer {secret}"


class _Part:
    """A multipart body with one file in it, read as it is sent; its length is known beforehand."""

    def __init__(self, path: Path) -> None:
        self.boundary = secrets.token_hex(16)
        self._file = path.open("rb")
        head = f"--{self.boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{self.boundary}--\r\n".encode()
        self._left: list[IO[bytes]] = [io.BytesIO(head), self._file, io.BytesIO(tail)]
        self._length = len(head) + path.stat().st_size + len(tail)

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(_CHUNK), b"")

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, and some as long as there are any."""
        while self._left:
            if chunk := self._left[0].read(size):
                return chunk
            self._left.pop(0)
        return b""


def _uid(path: Path) -> str:
    try:
        return str(read_file_meta_info(path).MediaStorageSOPInstanceUID)
    except (InvalidDicomError, AttributeError, EOFError) as error:
        raise UnreadableObject(f"{path} is no DICOM file with File Meta Information: {error}") from error
