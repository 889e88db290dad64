"""The configuration: one TOML file.  `config/node.toml` shows every setting; `settings` says what each means.

An empty file is valid, and so is none: one state folder, and nothing but the loopback interface.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from dicom_node.errors import InvalidConfiguration
from dicom_node.settings import (
    Destination,
    Fetch,
    Group,
    Log,
    Node,
    Output,
    Peer,
    Receive,
    Reconstruct,
    Retention,
    Scanner,
    Send,
    Table,
    Tls,
    WebDestination,
    network,
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
    web_destinations: Annotated[tuple[WebDestination, ...], Field(alias="web_destination")] = ()
    peers: Annotated[tuple[Peer, ...], Field(alias="peer")] = ()
    scanners: Annotated[tuple[Scanner, ...], Field(alias="scanner")] = ()
    fetch: Fetch = Fetch()
    retention: Retention = Retention()
    log: Log = Log()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Config:
        names_of = {
            "destination": [
                *(destination.name for destination in self.destinations),
                *(destination.name for destination in self.web_destinations),
            ],
            "peer": [peer.name for peer in self.peers],
        }
        for table, names in names_of.items():
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{table} {', '.join(twice)} is there more than once; give each a name of its own")
        return self

    @model_validator(mode="after")
    def _peers_can_be_told_apart(self) -> Config:
        """Who calls, by title, address and certificate; whom a C-MOVE calls, by title alone."""
        callable_: dict[str, str] = {}
        calling: dict[tuple[str, str, str], str] = {}
        for peer in self.peers:
            called_too = callable_.setdefault(peer.ae_title, peer.name) if peer.port else peer.name
            if called_too != peer.name:
                raise ValueError(
                    f"peers {called_too} and {peer.name} both listen as {peer.ae_title}: a C-MOVE could not tell them "
                    "apart; give one of them another ae_title, or no port"
                )
            who = (peer.ae_title, network(peer.address), peer.certificate.lower())
            if (other := calling.setdefault(who, peer.name)) != peer.name:
                raise ValueError(
                    f"peers {other} and {peer.name} have the same ae_title, address and certificate; make one of them"
                )
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> Config:
        both = bool(self.tls.certificate) and not self.tls.only
        if both and self.tls.port == self.receive.port != 0:
            raise ValueError(
                f"tls.port and receive.port are both {self.tls.port}; give them different ports, or set tls.only"
            )
        return self

    @model_validator(mode="after")
    def _certificates_can_be_checked(self) -> Config:
        named: list[Destination | Peer] = [*self.destinations, *self.peers]
        secure = [entry.name for entry in named if entry.certificate]
        if secure and not self.tls.certificate:
            raise ValueError(f"{', '.join(secure)} have a certificate, but this node has none; fill in [tls]")
        return self

    @model_validator(mode="after")
    def _ranges_exist(self) -> Config:
        if self.output.reference_ranges:
            ranges_file(self.output.reference_ranges)
        return self

    @model_validator(mode="after")
    def _archive_can_be_asked(self) -> Config:
        named = {peer.name: peer for peer in self.peers}
        if self.fetch.peer and not (self.fetch.peer in named and named[self.fetch.peer].port):
            callable_ = ", ".join(name for name, peer in named.items() if peer.port) or "(none)"
            raise ValueError(f"fetch.peer is {self.fetch.peer!r}: expected a [[peer]] with a port, one of {callable_}")
        if self.fetch.peer and self.fetch.by == "move" and "store" not in named[self.fetch.peer].may:
            raise ValueError(
                f"{self.fetch.peer} is to move images to us and may not store; let it (may), or set fetch.by to 'get'"
            )
        return self

    @model_validator(mode="after")
    def _recipe_exists(self) -> Config:
        recipe_file(self.reconstruct.recipe)
        return self


_LISTED: dict[str, type[Table]] = {
    "destination": Destination,
    "web_destination": WebDestination,
    "peer": Peer,
    "scanner": Scanner,
}
"""The tables of which there may be several, by their names in the file."""
_GONE: dict[tuple[int | str, ...], str] = {
    ("receive", "calling_ae_titles"): "name who may send in [[peer]] tables, each with its address"
}
"""Settings of earlier versions."""


def load(path: Path | None) -> Config:
    """Reads a TOML file; the defaults alone where `path` is None.

    Raises InvalidConfiguration with every fault at once, a line for each: the key, what is wrong, what to do.
    """
    try:
        content = {} if path is None else tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfiguration(f"{path} cannot be read: {error.strerror}; name a file with --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"{path} is not TOML: {error}; compare it with config/node.toml") from error
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        faults = [_fault(detail) for detail in error.errors(include_url=False)]
        raise InvalidConfiguration(
            "\n".join([f"{path or 'the default'} has {len(faults)} fault(s):", *faults])
        ) from error


def recipe_file(name: str) -> Path:
    """The file of a recipe, by name or path.  Raises InvalidConfiguration with the names there are."""
    by_name = config_folder() / "recipes" / f"{name}.toml"
    if "/" not in name and by_name.is_file():
        return by_name
    if (path := Path(name).expanduser()).is_file():
        return path
    known = ", ".join(sorted(recipe.stem for recipe in by_name.parent.glob("*.toml"))) or "(none)"
    raise InvalidConfiguration(f"recipe {name!r} is neither a file nor one of: {known}")


def ranges_file(name: str) -> Path:
    """The file of a table of reference ranges, by name or path.  Raises ValueError with the names there are."""
    by_name = config_folder() / "ranges" / f"{name}.toml"
    if "/" not in name and by_name.is_file():
        return by_name
    if (path := Path(name).expanduser()).is_file():
        return path
    known = ", ".join(sorted(table.stem for table in by_name.parent.glob("*.toml"))) or "(none)"
    raise ValueError(f"neither a file nor one of: {known}")


def config_folder() -> Path:
    """Where the recipes lie: inside an installed package, or beside it in a working copy."""
    installed = Path(__file__).parent / "config_files"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "config"


def _fault(detail: ErrorDetails) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if remedy := _GONE.get(detail["loc"]):
        return f"  {key} is no setting any more; {remedy}"
    if detail["type"] == "extra_forbidden":
        return f"  {key} is no setting{_nearest(detail['loc'])}"
    if detail["type"] == "missing":
        return f"  {key} is missing; add it"
    message = detail["msg"].removeprefix("Value error, ")
    return f"  {key or 'destination'} is {detail['input']!r}: {message}" if key else f"  {message}"


def _nearest(location: tuple[Any, ...]) -> str:
    table: Any = Config
    for part in location[:-1]:
        if isinstance(part, str):
            table = _LISTED.get(part) or table.model_fields[part].annotation
    known = [field.alias or name for name, field in table.model_fields.items()]
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(known)}"
