"""QIDO-RS (PS3.18 10.6): the queries that `seek` asks, of a DICOMweb archive."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from dicom_node.call import MOST_ANSWERS, Destination, SendSettings
from dicom_node.errors import PeerFailure
from dicom_node.web import OF_THE_PEER, Visit, WebService

PAGE = 1000
"""Results that are asked for at once; a service may give fewer."""
_LONGEST_ANSWER = 2**26
"""Bytes."""
_UNIQUE = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
_ABOVE = {"STUDY": (), "SERIES": ("StudyInstanceUID",), "IMAGE": ("StudyInstanceUID", "SeriesInstanceUID")}
"""The keys that are part of the path."""

Find = Callable[[str, Mapping[str, str]], Iterable[Dataset]]
"""Asks at a level for what matches keywords; "" for one that is to be returned."""

log = structlog.get_logger(__name__)


@contextmanager
def querying(service: WebService, settings: SendSettings, stopping: Callable[[], bool]) -> Iterator[Find]:
    """stopping: then nothing more is asked.  What it yields raises PeerFailure."""
    with Visit(service, settings) as visit:

        def find(level: str, keys: Mapping[str, str]) -> Iterator[Dataset]:
            seen: set[str] = set()
            wanted = _wanted(level, keys)
            while True:
                if stopping():
                    raise PeerFailure(f"{service.words} is asked no further: the node stops")
                page, is_last = _page(visit, service, _path(level, keys), {**wanted, "offset": len(seen)})
                found = [_dataset(item, keys) for item in page]
                new = [one for one in found if str(one.get(_UNIQUE[level]) or "") not in seen]
                if len(seen) + len(new) > MOST_ANSWERS:
                    raise too_many(service)
                yield from new
                before = len(seen)
                seen |= {str(one.get(_UNIQUE[level]) or "") for one in new}
                # Studies are asked for until none is left: a service that cuts its answers short need not say so.
                if len(seen) == before or (is_last and level != "STUDY"):
                    return

        yield find


def ask(service: WebService, settings: SendSettings) -> None:
    """Returns when the service answers a query.  Raises PeerFailure."""
    with Visit(service, settings) as visit, visit.ask("GET", "studies", query={"limit": 1}) as answer:
        if answer.status_code not in (200, 204):
            raise visit.stopped(answer)


def too_many(archive: Destination | WebService) -> PeerFailure:
    """What it means that more than MOST_ANSWERS come."""
    return PeerFailure(f"{archive.words} gives more than {MOST_ANSWERS} answers to one query; ask for fewer days")


def _path(level: str, keys: Mapping[str, str]) -> str:
    named = {"STUDY": "studies", "SERIES": "studies/{}/series", "IMAGE": "studies/{}/series/{}/instances"}
    return named[level].format(*(keys[keyword] for keyword in _ABOVE[level]))


def _wanted(level: str, keys: Mapping[str, str]) -> dict[str, Any]:
    below = {keyword: value for keyword, value in keys.items() if keyword not in _ABOVE[level]}
    matched: dict[str, Any] = {keyword: value for keyword, value in below.items() if value}
    return {**matched, "includefield": [keyword for keyword in below if keyword not in matched], "limit": PAGE}


def _page(visit: Visit, service: WebService, path: str, query: Mapping[str, Any]) -> tuple[list[Any], bool]:
    """Results, and whether there are no more."""
    with visit.ask("GET", path, query=query) as answer:
        if answer.status_code == 204:
            return [], True
        if answer.status_code in (404, 410) and path != "studies":  # a study or series that was deleted
            raise PeerFailure(f"{service.words} does not have what it is asked for (HTTP {answer.status_code})")
        if answer.status_code in OF_THE_PEER or answer.status_code < 200 or 300 <= answer.status_code < 400:
            raise visit.stopped(answer)
        if answer.status_code != 200:
            raise PeerFailure(f"{service.words} answered a query with HTTP {answer.status_code}")
        body = answer.raw.read(_LONGEST_ANSWER, decode_content=True)
        cut_short = answer.headers.get("Warning", "").startswith("299")  # PS3.18 8.3.4.4
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PeerFailure(f"{service.words} answered a query with what is no DICOM JSON, or too much of it") from error
    if not isinstance(found, list):
        raise PeerFailure(f"{service.words} answered a query with what is no DICOM JSON: expected an array")
    return found, len(found) < query["limit"] and not cut_short


def _dataset(item: Any, keys: Mapping[str, str]) -> Dataset:
    """Of what was asked for, that which can be read: an odd value is one that was not told."""
    found = Dataset()
    for keyword in keys:
        tag = f"{tag_for_keyword(keyword):08X}"
        element = item.get(tag) if isinstance(item, dict) else None
        if not isinstance(element, dict):
            continue
        try:
            found.update(Dataset.from_json({tag: element}))
        except Exception as error:  # noqa: BLE001 - whatever pydicom raises for what a stranger has sent
            log.warning("answer_unreadable", tag=tag, error=type(error).__name__)
    return found
