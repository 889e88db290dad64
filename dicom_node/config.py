"""The configuration: one TOML file.  `config/node.toml` shows every setting; `settings` says what each means.

An empty file is valid, and so is none: one state folder, and nothing but the loopback interface.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, create_model
from pydantic_core import ErrorDetails

from dicom_node.errors import InvalidConfiguration
from dicom_node.lines import Location, line_of, lines_of
from dicom_node.ranges import read_ranges
from dicom_node.rules import Contradiction, Unsaid, contradictions
from dicom_node.settings import (
    Audit,
    Destination,
    Fetch,
    Group,
    Log,
    Node,
    Notify,
    Output,
    Peer,
    Receive,
    Reconstruct,
    Retention,
    Scanner,
    Send,
    Table,
    Tls,
    Watch,
    WebService,
)


class Config(Table):
    node: Node = Node()
    receive: Receive = Receive()
    group: Group = Group()
    reconstruct: Reconstruct = Reconstruct()
    output: Output = Output()
    tls: Tls = Tls()
    send: Send = Send()
    destinations: Annotated[tuple[Destination, ...], Field(alias="destination")] = ()
    web_destinations: Annotated[tuple[WebService, ...], Field(alias="web_destination")] = ()
    web_sources: Annotated[tuple[WebService, ...], Field(alias="web_source")] = ()
    peers: Annotated[tuple[Peer, ...], Field(alias="peer")] = ()
    scanners: Annotated[tuple[Scanner, ...], Field(alias="scanner")] = ()
    fetch: Fetch = Fetch()
    retention: Retention = Retention()
    watch: Watch = Watch()
    notify: Notify = Notify()
    audit: Audit = Audit()
    log: Log = Log()


_LISTED: dict[str, type[Table]] = {
    "destination": Destination,
    "web_destination": WebService,
    "web_source": WebService,
    "peer": Peer,
    "scanner": Scanner,
}
"""The tables of which there may be several, by their names in the file."""
_LONGEST_SHOWN = 100
"""Characters of a value that a fault quotes."""
_URLS = frozenset({"url", "token_url", "webhook", "page"})
"""Settings that hold one."""
_GONE: dict[tuple[int | str, ...], str] = {
    ("receive", "calling_ae_titles"): "name who may send in [[peer]] tables, each with its address",
    ("retention", "jobs"): "it is called retention.results now",
}
"""Settings of earlier versions."""


def load(path: Path | None) -> Config:
    """Reads a TOML file; the defaults alone where `path` is None.

    Raises InvalidConfiguration with every fault at once, a line for each: where it stands, the key, what is wrong, what
    to do.
    """
    try:
        text = "" if path is None else path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise InvalidConfiguration(f"{path} cannot be read: {error.strerror}; name a file with --config") from error
    except RecursionError as error:
        raise InvalidConfiguration(f"{path} is nested too deeply; compare it with config/node.toml") from error
    except ValueError as error:  # of UTF-8, of TOML, or of a number too long for Python
        raise InvalidConfiguration(f"{path} is not TOML: {error}; compare it with config/node.toml") from error
    found: list[Contradiction] = []
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        found = [_fault(detail) for detail in error.errors(include_url=False)]
        config = _as_far_as_it_goes(content, [location for location, _ in found])
    at_fault = {location for location, _ in found}
    found += [
        (location, message)
        for location, message in (*contradictions(config), *_unusable_files(config))
        if not any(location[:end] in at_fault for end in range(len(location) + 1))  # each is told once
    ]
    if not found:
        return config
    lines = lines_of(text)
    told = [(line_of(location, lines) or 0, message) for location, message in found]
    faults = [f"  line {line}: {message}" if line else f"  {message}" for line, message in sorted(told)]
    raise InvalidConfiguration("\n".join([f"{path or 'the default'} has {len(faults)} fault(s):", *faults]))


def recipe_file(name: str) -> Path:
    """The file of a recipe, by name or path.  Raises InvalidConfiguration with the names there are."""
    if found := _first_file(name, config_folder() / "recipes"):
        return found
    raise InvalidConfiguration(f"recipe {name!r} is neither a file nor one of: {_names_in('recipes')}")


def ranges_file(name: str) -> Path:
    """The file of a table of reference ranges, by name or path.  Raises InvalidConfiguration as `recipe_file` does."""
    if found := _first_file(name, config_folder() / "ranges"):
        return found
    raise InvalidConfiguration(f"{name!r} is neither a file nor one of: {_names_in('ranges')}")


def _names_in(folder: str) -> str:
    return ", ".join(sorted(file.stem for file in (config_folder() / folder).glob("*.toml"))) or "(none)"


def _first_file(name: str, folder: Path) -> Path | None:
    try:
        own = Path(name).expanduser()
        candidates = (own,) if "/" in name else (folder / f"{name}.toml", own)
        return next((path for path in candidates if path.is_file()), None)
    except (OSError, RuntimeError):  # too long a name, or the home of nobody
        return None


def config_folder() -> Path:
    """Where the recipes lie: inside an installed package, or beside it in a working copy."""
    installed = Path(__file__).parent / "config_files"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "config"


def _unusable_files(config: Config) -> Iterator[Contradiction]:
    try:
        recipe_file(config.reconstruct.recipe)
    except InvalidConfiguration as error:
        yield ("reconstruct", "recipe"), str(error)
    try:
        if config.output.reference_ranges:
            read_ranges(ranges_file(config.output.reference_ranges))
    except InvalidConfiguration as error:
        yield ("output", "reference_ranges"), f"output.reference_ranges: {error}"


def _as_far_as_it_goes(content: dict[str, Any], faults: list[Location]) -> Config:
    """What a file says where it is not at fault; there it is `Unsaid`, and lists are at their defaults."""
    tables: dict[str, Any] = {}
    for name, field in Config.model_fields.items():
        table = field.alias or name
        given = content.get(table, {})
        if kind := _LISTED.get(table):
            entries = enumerate(given if isinstance(given, list) else [])
            tables[name] = tuple(_table(kind, entry, (table, place), faults) for place, entry in entries)
        else:
            tables[name] = _table(type(field.default), given, (table,), faults)
    return Config.model_construct(**tables)


def _table(kind: type[Table], given: Any, where: Location, faults: list[Location]) -> Table:
    told = given if isinstance(given, dict) else {}
    at_fault = {fault[len(where)] for fault in faults if fault[: len(where)] == where and len(fault) > len(where)}
    unsaid: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        if name in at_fault or told is not given:
            named = Unsaid(" ".join(str(part + 1 if isinstance(part, int) else part) for part in where))
            unsaid[name] = (Any, field.default if isinstance(field.default, tuple) else named)
    kept = {name: value for name, value in told.items() if name in kind.model_fields and name not in unsaid}
    return create_model(kind.__name__, __base__=kind, **unsaid).model_validate(kept)


def _fault(detail: ErrorDetails) -> Contradiction:
    """Where it is, and its words."""
    location = detail["loc"]
    key = ".".join(str(part) for part in location)
    if remedy := _GONE.get(location):
        return location, f"{key} is no setting any more; {remedy}"
    if detail["type"] == "extra_forbidden":
        return location, f"{key} is no setting{_nearest(location)}"
    if detail["type"] == "missing":
        return location, f"{key} is missing; add it"
    message = detail["msg"].removeprefix("Value error, ")
    shown = repr(detail["input"])
    # A URL may hold a password, and what is said here goes into logs.
    if _URLS.intersection(map(str, location)) or "://" in shown:
        return location, f"{key}: {message}"
    shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…"
    return location, f"{key} is {shown}: {message}"


def _nearest(location: tuple[Any, ...]) -> str:
    table: Any = Config
    for part in location[:-1]:
        if isinstance(part, str):
            table = _LISTED.get(part) or table.model_fields[part].annotation
    known = [field.alias or name for name, field in table.model_fields.items()]
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(known)}"
