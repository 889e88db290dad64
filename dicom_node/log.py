"""What the node says: one event for each line, as JSON for machines or plain for people.

No line names a patient: a log leaves the hospital more easily than an image.  Keys that could are refused before they
are written, so a careless call shows itself in the tests and costs nothing but its value in the field.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import warnings
from typing import Literal

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from dicom_node.surprise import trace, words

FORBIDDEN = re.compile(
    r"patient|person|birth|physician|operator|accession|other_?ids|address|telephone|institution|^name$|pixel", re.I
)
"""Names of keys whose values could tell who was scanned (after the identifying attributes of PS3.15 E.1)."""
WITHHELD = "(withheld)"


def withhold_people(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Takes the value of every key that could name a person; whole datasets are never written."""
    for key, value in event.items():
        if FORBIDDEN.search(key) or type(value).__module__.partition(".")[0] == "pydicom":
            event[key] = WITHHELD
    return event


def name_the_peer(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """pynetdicom tells of a trouble and not of whose it is, but each association is a thread, and so is its reader."""
    record = event.get("_record")
    if record is None or not record.name.startswith("pynetdicom"):
        return event
    thread = threading.current_thread()
    if remote := getattr(getattr(thread, "assoc", thread), "remote", None):
        event["ae_title"], event["host"] = remote["ae_title"], remote["address"]
    if record.exc_info:
        event["event"] = words(record.exc_info[1])  # its own may quote a value
    return event


def _is_told_by_nobody_else(record: logging.LogRecord) -> bool:
    """What happens while we wait for an answer is told by whoever waits; the rest on the association's own thread."""
    return hasattr(threading.current_thread(), "remote") and "while waiting" not in record.getMessage()


def configure(style: Literal["console", "json"] = "console", level: str = "info") -> None:
    """Sends structlog and the standard library's logging through one formatter to stderr."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        withhold_people,
        name_the_peer,
    ]
    last: list[Processor] = (
        [structlog.processors.ExceptionRenderer(_exception), structlog.processors.JSONRenderer()]
        if style == "json"
        else [
            # never structlog's own choice of traceback: it prints local variables, and a dataset may be among them
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=0,
                exception_formatter=lambda out, error: print("\n" + _exception(error), end="", file=out),
            )
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # Told, with the peer and what to do, by whoever calls (`call`), hands out (`suboperations`) or serves (`receive`).
    for told in ("acse", "service_class", "service_class_n", "transport"):
        logging.getLogger(f"pynetdicom.{told}").setLevel(logging.CRITICAL)
    logging.getLogger("pynetdicom.association").addFilter(_is_told_by_nobody_else)
    # pynetdicom tells of every PDU, highdicom of every module it copies, numba of every pass: only troubles are news
    for chatty in ("pynetdicom", "highdicom", "numba", "python_multipart"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    # pydicom quotes values where it warns and where it logs, and a value may be a name
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    # urllib3 quotes the address that was asked, whose query may name a patient
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"pydicom\b")
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _exception(exc_info: ExcInfo) -> str:
    return trace(exc_info[1])
