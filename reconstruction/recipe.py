"""One method and its settings for each stage.

A recipe is a TOML file with a table for each stage:

    name = "default"
    [background]
    method = "vsharp"
    max_radius_mm = 12.0
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from reconstruction import stage
from reconstruction.errors import InvalidRecipe


@dataclass(frozen=True)
class Step:
    """One stage's method with every one of its settings, defaults included."""

    method: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """A step for every stage of `stage.STAGES`, but that those of `stage.OPTIONAL` may be absent.

    atlas: digest of the atlas that [regions] names, "" until it has been read: what lies behind a name may change.
    """

    name: str
    steps: Mapping[str, Step]
    atlas: str = ""

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any]) -> Recipe:
        """Reads what a TOML file holds.  Raises InvalidRecipe with every fault at once."""
        if not isinstance(content, Mapping):
            raise InvalidRecipe(
                f"the recipe is {type(content).__name__}; expected a table of a name and stages: read it by tomllib"
            )
        faults: list[str] = []
        steps: dict[str, Step] = {}
        for name in content:
            if name not in ("name", *stage.STAGES):
                faults.append(f"{name!r} is no stage; expected name, {', '.join(stage.STAGES)}")
        if not isinstance(content.get("name"), str) or not content["name"].strip():
            faults.append('name is missing or empty; expected name = "…"')
        for name in stage.STAGES:
            if name in stage.OPTIONAL and name not in content:
                continue
            table = content.get(name)
            if not isinstance(table, Mapping) or not isinstance(table.get("method"), str):
                faults.append(f'[{name}] has no method; expected method = "{"|".join(stage.methods(name))}"')
                continue
            settings = {k: v for k, v in table.items() if k != "method"}
            try:
                steps[name] = Step(table["method"], stage.check(name, table["method"], settings))
            except InvalidRecipe as error:
                faults.append(str(error))
        if faults:
            raise InvalidRecipe("\n".join(faults))
        return cls(content["name"], steps)

    def as_mapping(self) -> dict[str, Any]:
        """Every stage, method and setting as plain data; `from_mapping` reads it back."""
        return {"name": self.name} | {
            name: {"method": step.method} | dict(step.settings) for name, step in self.steps.items()
        }

    def digest(self) -> str:
        """SHA-256 over methods, settings, atlas and this software's version: equal digests make equal maps."""
        content = {k: v for k, v in self.as_mapping().items() if k != "name"}
        content |= {"version": version("qsm-node"), "atlas": self.atlas}
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=list).encode()).hexdigest()
