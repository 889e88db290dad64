"""Messengers: bring a message by mail (RFC 5321, STARTTLS of RFC 3207) or to a webhook (JSON by HTTPS)."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

import requests
import structlog

from dicom_node.notify import Message, NotTold
from dicom_node.settings import Notify

PATIENCE = 30.0
"""Seconds for every answer of a mail server or a webhook."""

_NEVER = 500
"""Of SMTP: from here on an answer is for good (RFC 5321 4.2.1)."""

Tell = Callable[[Message], None]

log = structlog.get_logger(__name__)


def messengers(settings: Notify) -> list[tuple[str, Tell]]:
    """Those that are configured, by name."""
    found: list[tuple[str, Tell]] = []
    if settings.mail_to:
        found.append(("mail", lambda message: mail(message, settings)))
    if settings.webhook:
        found.append(("webhook", lambda message: post(message, settings)))
    return found


def knocks(settings: Notify) -> list[tuple[str, Callable[[], str]]]:
    """For each that is configured, whether a message could be given, in words; none is given.  They raise NotTold."""
    found: list[tuple[str, Callable[[], str]]] = []
    if settings.mail_to:
        found.append(("mail", lambda: _greet(settings)))
    if settings.webhook:
        found.append(("webhook", lambda: _ask(settings)))
    return found


def mail(message: Message, settings: Notify) -> None:
    """Hands it to the site's mail server.  Raises NotTold."""
    letter = EmailMessage()
    letter["Subject"] = message.subject
    letter["From"], letter["To"] = settings.mail_from, ", ".join(settings.mail_to)
    letter["Date"] = formatdate(message.at, localtime=True)
    letter["Message-ID"] = make_msgid("qsm-node", domain=settings.mail_from.rpartition("@")[2])
    letter["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence notice answers it
    letter.set_content(message.text)
    with _mail_server(settings) as server:
        if refused := server.send_message(letter):
            log.warning("mail_refused_for_some", receivers=len(refused), of=len(settings.mail_to))


@contextmanager
def _mail_server(settings: Notify) -> Iterator[smtplib.SMTP]:
    """As who may send.  Raises NotTold, also for what goes wrong in the body."""
    trust = ssl.create_default_context()
    host, port = settings.mail_host, settings.mail_port
    try:
        secret = _secret(settings.mail_secret_file)
        with (
            smtplib.SMTP_SSL(host, port, timeout=PATIENCE, context=trust)
            if settings.mail_security == "tls"
            else smtplib.SMTP(host, port, timeout=PATIENCE)
        ) as server:
            if settings.mail_security == "starttls":
                server.starttls(context=trust)
            if settings.mail_user:
                server.login(settings.mail_user, secret)
            yield server
    except smtplib.SMTPResponseException as error:
        # not its words: a server may repeat what it was given
        raise NotTold(f"{host}:{port} answered {error.smtp_code}, expected 250; is mail_user right?") from error
    except (OSError, smtplib.SMTPException) as error:
        raise NotTold(f"{host}:{port} took no mail: {type(error).__name__}: {error}") from error


def post(message: Message, settings: Notify) -> None:
    """Gives it to a webhook; any 2xx is taken as told.  Raises NotTold."""
    try:
        secret = _secret(settings.webhook_secret_file)
        answer = requests.post(
            settings.webhook,
            json=message.as_data(),
            headers={"Authorization": f"Bearer {secret}"} if secret else {},
            timeout=PATIENCE,
            allow_redirects=False,  # what is told and the secret go where the site said, and nowhere else
        )
    except OSError as error:  # requests' own are OSErrors; theirs quote the address, which may hold a token
        raise NotTold(f"the webhook cannot be reached: {type(error).__name__}") from error
    if not answer.ok or answer.is_redirect:
        raise NotTold(f"the webhook answered HTTP {answer.status_code}, expected 200")


def _greet(settings: Notify) -> str:
    """Begins a mail and takes it back (RFC 5321 4.1.1.5): a server need not say earlier whom it serves."""
    where = f"{settings.mail_host}:{settings.mail_port}"
    with _mail_server(settings) as server:
        server.ehlo_or_helo_if_needed()
        codes = [server.mail(settings.mail_from)[0], *(server.rcpt(receiver)[0] for receiver in settings.mail_to)]
        server.rset()
    if refused := [code for code in codes if code >= _NEVER]:
        raise NotTold(f"{where} answered {refused[0]} to our addresses, expected 250; may we send by it, and to them?")
    return f"{where} takes mail of ours"


def _ask(settings: Notify) -> str:
    """Without the secret; whatever is answered, somebody we believe answers."""
    try:
        requests.head(settings.webhook, timeout=PATIENCE, allow_redirects=False).close()
    except OSError as error:
        raise NotTold(f"the webhook cannot be reached: {type(error).__name__}") from error
    return "its server answers"


def _secret(file: str) -> str:
    return Path(file).expanduser().read_text(encoding="utf-8").strip() if file else ""
