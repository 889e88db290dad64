"""Web: requests to a DICOMweb service (PS3.18), as its user and over TLS; what we send it and what we fetch from it.

Proxies, a .netrc and redirections are not used: images go where the configuration says.  No message repeats a query or
the words of a server, which may name patients.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, MaxRetryError, ProtocolError

from dicom_node.call import SendSettings
from dicom_node.errors import PeerFailure, Unreachable
from dicom_node.tls import bare_context
from dicom_node.token import TOKEN, Token, granted

DICOM_JSON = "application/dicom+json"
OF_THE_PEER = {401, 403, 404, 405, 407, 429, 502, 503, 504, 507}
"""HTTP statuses (RFC 9110 15, RFC 6585 4, RFC 4918 11.5) that any instance would get; so are redirections."""
_UNAUTHORISED = 401


@dataclass(frozen=True)
class WebService:
    """A DICOMweb service.  url: its root, to which /studies is added.

    secret_file: holds the password of `user` (RFC 7617), or without a user a bearer token (RFC 6750); with `token_url`
    the secret with which the client `user` gets a token there, of `scope` (RFC 6749 4.4).  It is read anew whenever it
    is used, so that it may change at any time.  Over https our certificate is shown and the authorities of `[tls]` are
    believed, if there are any; else those of the system.
    """

    name: str
    url: str
    user: str = ""
    secret_file: str = ""
    token_url: str = ""
    scope: str = ""
    token: Token = field(default_factory=Token, compare=False, repr=False)

    @property
    def words(self) -> str:
        """For messages."""
        return f"{self.name} at {self.url}"


class BrokenOff(PeerFailure):
    """The service took the connection and gave no (whole) answer."""


Body = Callable[[], AbstractContextManager[Any]]
"""Opens what is sent; called again where a request is repeated."""


class Visit:
    """Requests to one service over connections that stay open until the end of the `with`."""

    def __init__(self, service: WebService, settings: SendSettings) -> None:
        self._service = service
        self._settings = settings
        self._session = session_in(_context(settings))

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    @contextmanager
    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        accept: str = DICOM_JSON,
        content_type: str = "",
        body: Body = nullcontext,
    ) -> Iterator[requests.Response]:
        """The answer, its body still to be read.  Once more, with a new token, where the one we had is not taken.

        Raises Unreachable where no connection can be had, BrokenOff where it ends, PeerFailure.  The same from the body
        of the `with`, where it reads the answer.
        """
        with self._telling():
            answer = self._request(method, path, query, accept, content_type, body)
            if answer.status_code == _UNAUTHORISED and self._service.token_url:
                answer.close()
                self._service.token.forget()
                answer = self._request(method, path, query, accept, content_type, body)
            with answer:
                yield answer

    def _request(
        self, method: str, path: str, query: Mapping[str, Any] | None, accept: str, content_type: str, body: Body
    ) -> requests.Response:
        settings = self._settings
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        headers |= {"Content-Type": content_type} if content_type else {}
        headers |= _authorization(self._service, settings)
        with body() as data:
            return self._session.request(
                method,
                f"{self._service.url.rstrip('/')}/{path}",
                params=query,
                data=data,
                headers=headers,
                timeout=(settings.connection_timeout, settings.response_timeout),
                allow_redirects=False,
                stream=True,
            )

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (requests.RequestException, HTTPError, ssl.SSLError, ConnectionError, TimeoutError) as error:
            if is_midway(error):
                raise BrokenOff(f"{self._service.words} broke off or did not answer in time") from error
            raise Unreachable(f"{self._service.words} cannot be reached: {why(error)}") from error

    def stopped(self, answer: requests.Response) -> Unreachable:
        """What an answer of OF_THE_PEER means.  Without the reason phrase: those are the service's words."""
        remedy = {
            401: "are the credentials right?",
            403: "may we do that there?",
            404: "is its url right?",
        }
        found = answer.status_code
        return Unreachable(
            f"{self._service.words} answered HTTP {found}; {remedy.get(found, 'it is asked again later')}"
        )


def session_in(context: ssl.SSLContext) -> requests.Session:
    """A session whose TLS is that of `context` alone."""
    session = requests.Session()
    session.trust_env = False
    session.mount("https://", _Adapter(context))
    return session


def is_midway(error: Exception) -> bool:
    """Whether the connection was there already."""
    cause = error.args[0] if error.args else None
    is_read = isinstance(error, requests.ReadTimeout | requests.exceptions.ChunkedEncodingError)
    return is_read or isinstance(error, HTTPError) or isinstance(cause, ProtocolError)


def why(error: Exception) -> str:
    """The cause, without the address that was asked: its query may name a patient."""
    cause = error.args[0] if error.args else None
    if isinstance(cause, MaxRetryError):
        return str(cause.reason).partition(": ")[2] or str(cause.reason)
    return type(error).__name__


class _Adapter(HTTPAdapter):
    """Under the same rules as TLS elsewhere, whatever those of the system are."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **keywords: Any) -> None:
        super().init_poolmanager(*arguments, **keywords, ssl_context=self._context)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Whom we believe stands in the context; requests would add authorities of its own."""


def _context(settings: SendSettings) -> ssl.SSLContext:
    if settings.tls is not None:
        return settings.tls.client()
    context = bare_context(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    return context


def _authorization(service: WebService, settings: SendSettings) -> dict[str, str]:
    """Raises PeerFailure where the secret cannot be had."""
    if not service.secret_file:
        return {}
    secret = _secret(service)
    if service.token_url:
        return {"Authorization": f"Bearer {service.token.current(lambda: _grant(service, secret, settings))}"}
    if service.user:
        credentials = base64.b64encode(f"{service.user}:{secret}".encode()).decode()  # UTF-8 (RFC 7617 2.1)
        return {"Authorization": f"Basic {credentials}"}
    if not TOKEN.fullmatch(secret):
        raise PeerFailure(f"{service.secret_file} of {service.name} holds no bearer token (RFC 6750)")
    return {"Authorization": f"Bearer {secret}"}


def _secret(service: WebService) -> str:
    try:
        return Path(service.secret_file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise PeerFailure(f"{service.secret_file} of {service.name} cannot be read: {reason}") from error


def _grant(service: WebService, secret: str, settings: SendSettings) -> tuple[str, float | None]:
    """A token for `service` of who grants them: somebody else, whom the authorities of `[tls]` or the system know."""
    context = bare_context(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    if settings.tls is not None:
        context.load_verify_locations(settings.tls.files.authorities)
    with session_in(context) as session:
        try:
            return granted(
                session,
                service.token_url,
                (service.user, secret),
                service.scope,
                (settings.connection_timeout, settings.response_timeout),
            )
        except (requests.RequestException, HTTPError, OSError) as error:
            raise Unreachable(f"the token server of {service.name} cannot be reached: {why(error)}") from error
        except PeerFailure as error:
            raise Unreachable(f"{service.name} gets no token: {error}") from error
