"""What the listener answers: the pages, the pictures, `/metrics` and `/health`.

The pages name no patient, and neither does what they read: jobs have numbers, and a study its UID.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dicom_node import survey
from dicom_node.contacts import callers
from dicom_node.identity import RESEARCH_ONLY
from dicom_node.regions import in_words, split, title
from dicom_node.states import State
from dicom_node.status import age
from dicom_node.store import Store
from dicom_node.survey import SECTIONS, Line, Section
from dicom_node.watch.health import Health, as_data
from dicom_node.watch.listener import Answer, Request
from dicom_node.watch.metrics import Metrics
from dicom_node.watch.results import Results

MOST_LISTED = 50
"""Jobs in a list; older ones are on further pages."""
MOST_PICTURED = 12
MOST_OBJECTIONS = 10
REFRESH = 15
"""Seconds until a page that shows something moving is loaded anew."""
MOST_DIGITS = 18
"""Of a job's number: SQLite counts to 2⁶³."""


@dataclass(frozen=True)
class About:
    """Of the node, for the head of each page."""

    ae_title: str
    port: Callable[[], int]
    started_at: float
    destinations: Callable[[], Sequence[str]]


class Site:
    """Answers every request.  Called from several threads."""

    def __init__(
        self,
        store: Store,
        jobs_folder: Path,
        health: Health,
        metrics: Metrics,
        about: About,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._jobs_folder = jobs_folder
        self._health = health
        self._metrics = metrics
        self._about = about
        self._clock = clock
        self._results = Results(jobs_folder)
        templates = files("dicom_node.watch") / "templates"
        self._style = (templates / "style.css").read_bytes()
        self._icon = (templates / "icon.svg").read_bytes()

    def __call__(self, request: Request) -> Answer:
        match request.path.strip("/").split("/"):
            case [""]:
                return self._overview(request)
            case ["jobs", number] if _is_number(number):
                return self._job(int(number), request)
            case ["jobs", number, "thumbnail.png"] if _is_number(number):
                return _picture(self._results.thumbnail(int(number)))
            case ["jobs", number, "map.png"] if _is_number(number):
                return _picture(self._results.page(int(number)))
            case ["list", name] if name in list(Section):
                return self._list(Section(name), request)
            case ["style.css"]:
                return Answer(self._style, "text/css; charset=utf-8")
            case ["icon.svg"]:
                return Answer(self._icon, "image/svg+xml")
            case ["metrics"]:
                return Answer(*self._metrics.encoded(request.accept))
            case ["health"]:
                return self._healthy(self._health.ready())
            case ["health", "live"]:
                return self._healthy(self._health.live())
        return self._page("missing.html", HTTPStatus.NOT_FOUND, still=True)

    def _healthy(self, checks: list[Any]) -> Answer:
        data = as_data(checks) | {"version": version("qsm-node")}
        status = HTTPStatus.OK if data["status"] == "ok" else HTTPStatus.SERVICE_UNAVAILABLE
        return Answer((json.dumps(data, indent=1) + "\n").encode(), "application/json", status)

    def _overview(self, request: Request) -> Answer:
        counts = survey.counts(self._store)
        done = self._lines(Section.DONE, MOST_PICTURED)
        objections = survey.objections(self._store, MOST_OBJECTIONS)
        return self._page(
            "overview.html",
            still="still" in request.query,
            checks=self._health.ready(),
            totals={section: sum(counts[state] for state in states) for section, states in SECTIONS.items()},
            attention=self._lines(Section.ATTENTION),
            active=self._lines(Section.ACTIVE),
            done=[(line, self._results.of(line.id)) for line in done],
            queue=counts[State.READY],
            oldest=survey.oldest_waiting(self._store),
            disk=survey.disk(self._jobs_folder.parent),
            targets=survey.targets(self._store, self._about.destinations()),
            callers=callers(self._store),
            fetches=survey.fetches(self._store),
            foreign=survey.foreign(self._store)[:MOST_OBJECTIONS],
            objections=objections,
            objections_in_all=survey.objections_in_all(self._store),
        )

    def _list(self, section: Section, request: Request) -> Answer:
        before = request.query.get("before", "")
        lines = survey.lines(
            self._store,
            self._jobs_folder,
            SECTIONS[section],
            MOST_LISTED + 1,
            before=int(before) if _is_number(before) else None,
        )
        return self._page(
            "list.html", still=True, section=section, lines=lines[:MOST_LISTED], more=len(lines) > MOST_LISTED
        )

    def _job(self, number: int, request: Request) -> Answer:
        line = survey.line(self._store, self._jobs_folder, number)
        if line is None:
            return self._page("missing.html", HTTPStatus.NOT_FOUND, still=True)
        result = self._results.of(number)
        return self._page(
            "job.html",
            still="still" in request.query or line.section is not Section.ACTIVE,
            line=line,
            result=result,
            record=result.record if result else None,
            regions=_regions(result.record) if result else [],
            journal=self._store.journal_of(number),
        )

    def _lines(self, section: Section, most: int = MOST_LISTED) -> list[Line]:
        return survey.lines(self._store, self._jobs_folder, SECTIONS[section], most)

    def _page(self, template: str, status: HTTPStatus = HTTPStatus.OK, *, still: bool, **values: Any) -> Answer:
        html = self._templates.get_template(template).render(
            now=self._clock(), about=self._about, still=still, refresh=REFRESH, **values
        )
        return Answer(html.encode(), "text/html; charset=utf-8", status)

    @cached_property
    def _templates(self) -> Environment:
        environment = Environment(
            loader=PackageLoader("dicom_node.watch"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"age": age, "local": _local, "iso": _iso, "signed": _signed}
        environment.filters |= {"told": survey.told, "region": in_words}
        environment.globals |= {"version": version("qsm-node"), "purpose": RESEARCH_ONLY}
        return environment


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS


def _picture(png: bytes | None) -> Answer:
    if png is None:
        return Answer(b"there is no picture\n", status=HTTPStatus.NOT_FOUND)
    return Answer(png, "image/png")


def _regions(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each structure, with the figures of its sides: "left", "right", or "" for what has none."""
    rows: dict[str, dict[str, Any]] = {}
    for name, figures in record.get("regions", {}).items():
        plain, side = split(name)
        rows.setdefault(plain, {"title": title(name), "sides": {}})["sides"][side] = figures
    return list(rows.values())


def _local(at: float) -> str:
    """In the machine's time zone, as its log's reader has it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _signed(value: float, digits: int = 0) -> str:
    """A typographer's minus sign is as wide as a digit."""
    return f"{value:.{digits}f}".replace("-", "−")
