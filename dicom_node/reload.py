"""Reload: what of a configuration that was read anew holds at once, and what waits for a restart.

Pure: it says what changes, the daemon changes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dicom_node.config import Config
from dicom_node.errors import InvalidConfiguration
from dicom_node.rules import contradictions

AT_ONCE = frozenset(
    {
        *("peer", "destination", "web_destination", "web_source", "scanner"),
        *("tls.certificate", "tls.key", "tls.authorities"),
        *("group.quiet_time", "node.tick"),
        *("reconstruct.recipe", "reconstruct.device", "reconstruct.attempts", "reconstruct.pause"),
        *("reconstruct.withhold_failed",),
        *("retention.results", "retention.sources", "retention.left_alone", "retention.unused"),
        *("retention.quarantine", "retention.free_bytes"),
        *("output", "send", "fetch", "log"),
    }
)
"""Tables, and settings of tables, that hold for what begins after a reload: associations, jobs, deliveries, looks.

All others are kept until the node is restarted: they belong to ports that are open, to the state folder, to the AE
title by which peers know the node, or to workers that run."""


@dataclass(frozen=True)
class Change:
    """config: what holds from now on.  renewed, kept: the settings that are new in it, and those that are as before
    although the file says otherwise; as they stand in the file."""

    config: Config
    renewed: tuple[str, ...]
    kept: tuple[str, ...]


def change(old: Config, new: Config) -> Change:
    """From one configuration to another, as far as a running node can go.

    Raises InvalidConfiguration where what is new contradicts what must stay as it is until a restart.
    """
    renewed: list[str] = []
    kept: list[str] = []
    tables: dict[str, Any] = {}
    for attribute, field in Config.model_fields.items():
        name = field.alias or attribute
        before, after = getattr(old, attribute), getattr(new, attribute)
        if name in AT_ONCE or isinstance(before, tuple):
            if before != after:
                (renewed if name in AT_ONCE else kept).append(name)
            tables[attribute] = after if name in AT_ONCE else before
            continue
        settings: dict[str, Any] = {}
        switched = name == "tls" and bool(before.certificate) != bool(after.certificate)
        for setting in type(before).model_fields:
            key = f"{name}.{setting}"
            if getattr(before, setting) == getattr(after, setting):
                continue
            # A certificate where there was none, or none any more, opens or closes a port.
            if key in AT_ONCE and not switched:
                settings[setting] = getattr(after, setting)
                renewed.append(key)
            else:
                kept.append(key)
        tables[attribute] = before.model_copy(update=settings)
    merged = new.model_copy(update=tables)
    if found := contradictions(merged):
        faults = "\n".join(f"  {message}" for _, message in found)
        raise InvalidConfiguration(
            f"what is new contradicts {', '.join(kept)} as they hold until a restart; restart, or mend it:\n{faults}"
        )
    return Change(merged, tuple(renewed), tuple(kept))
