"""`qsm-node check`: whether a node of this configuration could run here, and whether its peers answer."""

from __future__ import annotations

from collections.abc import Iterator

from dicom_node import exchange
from dicom_node.alone import process
from dicom_node.check.certificate import certificate
from dicom_node.check.finding import Finding
from dicom_node.check.machine import memory, port, state_folder
from dicom_node.check.neighbours import neighbours
from dicom_node.check.secrets import secrets
from dicom_node.config import Config, recipe_file
from dicom_node.errors import NodeError
from dicom_node.recipes import check_device, read_recipe
from dicom_node.settings import STAGE_OF_MAP
from dicom_node.table import Column, table
from dicom_node.tls import UnusableCertificate


def check(config: Config, now: float, *, settings_only: bool = False) -> Iterator[Finding]:
    """Each finding as it is made: the last ones take as long as peers take to answer.

    The configuration itself has been loaded, and with it every setting looked at.  settings_only: and the files that
    it names; neither disk nor ports nor peers.
    """
    yield from _recipe(config)
    identity = None
    try:
        if identity := exchange.identity(config):
            yield from certificate(identity.files, now)
    except UnusableCertificate as error:
        yield Finding("FAILURE", "certificate", str(error), "mend the files of [tls]; they are read anew")
    yield from secrets(config)
    if settings_only:
        return
    yield from state_folder(config.node.state_folder, config.retention)
    yield memory(config.reconstruct)
    running = process(config.node.state_folder / "node.lock")["running"]
    if not (config.tls.only and config.tls.certificate):
        yield port("DICOM", config.receive.host, config.receive.port, running)
    if config.tls.certificate:
        yield port("DICOM over TLS", config.receive.host, config.tls.port, running)
    if config.watch.host:
        yield port("page", config.watch.host, config.watch.port, running)
    yield from neighbours(config, identity)


def has_failed(findings: list[Finding]) -> bool:
    return any(finding.verdict == "FAILURE" for finding in findings)


def in_words(findings: list[Finding], width: int = 120) -> str:
    """A table: each finding, and below it what to do."""
    columns = [
        Column("", max(len(finding.verdict) for finding in findings)),
        Column("looked at", max(len(finding.what) for finding in findings)),
        Column("found"),
    ]
    rows = [[one.verdict, one.what, f"{one.found}\n→ {one.remedy}" if one.remedy else one.found] for one in findings]
    return "\n".join(table(columns, rows, width))


def _recipe(config: Config) -> Iterator[Finding]:
    name = config.reconstruct.recipe
    try:
        stages = read_recipe(recipe_file(name)).steps
        yield Finding("good", "recipe", f"{name} can be read")
        for wanted in config.output.maps:
            if (stage := STAGE_OF_MAP.get(wanted, "")) and stage not in stages:
                yield Finding(
                    "warning",
                    "maps",
                    f"{name} does not make {wanted}, which [output] asks for",
                    f"take a recipe with a table [{stage}] (docs/methods.md has its methods), or leave the map out",
                )
    except (NodeError, OSError, ValueError) as error:
        yield Finding("FAILURE", "recipe", str(error), "mend it, or take another: [reconstruct] recipe")
    except RuntimeError as error:  # of numba, which finds no place for what it compiles
        remedy = "set NUMBA_CACHE_DIR to a folder that the node's user alone may write to"
        yield Finding("FAILURE", "recipe", f"the methods of {name} cannot be loaded: {error}", remedy)
    try:
        check_device(config.reconstruct.device)
        yield Finding("good", "device", config.reconstruct.device)
    except NodeError as error:
        yield Finding("FAILURE", "device", str(error))
