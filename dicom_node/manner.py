"""How a job's results are made: recipe, what the site knows of its scanners, and what is wanted of the result.

All of it decides about the UIDs.  It is kept with the job when the job is first begun, so that what is begun again,
after a crash or because its files are gone, comes to the same objects whatever the configuration says by then.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dicom_node.errors import InvalidConfiguration
from dicom_node.recipes import Recipe, atlas_of


@dataclass(frozen=True)
class Manner:
    """scanners, output: see `reconstruct`."""

    recipe: Recipe
    scanners: list[dict[str, Any]]
    output: dict[str, Any]

    def written(self) -> str:
        """Two that are written alike make the same objects of the same images."""
        content = {
            "digest": self.recipe.digest(),
            "recipe": self.recipe.as_mapping(),
            "atlas": self.recipe.atlas,
            "scanners": self.scanners,
            "output": self.output,
        }
        return json.dumps(content, sort_keys=True)


def read_manner(written: str) -> Manner:
    """Raises InvalidConfiguration for one that this software, or the atlas as it is now, cannot follow any more."""
    held = json.loads(written)
    recipe = held["recipe"]
    try:
        made = replace(Recipe.from_mapping(recipe), atlas=held["atlas"])
        atlas_of(made)
    except (ValueError, InvalidConfiguration) as error:
        raise InvalidConfiguration(f"its recipe {recipe['name']} cannot be followed any more: {error}") from error
    if made.digest() != held["digest"]:
        raise InvalidConfiguration(f"its recipe {recipe['name']} was followed by another version of the node")
    return Manner(made, held["scanners"], held["output"])


def told_by(folder: Path) -> str:
    """How the result in a job's folder was made, as its files say, for one from before that was kept with the job.

    Raises InvalidConfiguration where they do not.
    """
    try:
        asked = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        made = json.loads((folder / "result" / "report.json").read_text(encoding="utf-8"))
        content = {
            "digest": made["recipe"].pop("digest"),
            "recipe": made["recipe"],
            "atlas": (made["atlas"] or {}).get("sha256", ""),
            "scanners": asked["scanners"],
            "output": asked["output"],
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidConfiguration(
            "an earlier version of the node made it and did not write down how, nor is its result here to tell"
        ) from error
    return json.dumps(content, sort_keys=True)


def digest_of(written: str) -> str:
    """The digest of the recipe, whether it can still be followed or not."""
    return str(json.loads(written)["digest"])


def recipe_in_words(written: str) -> str:
    """Name and beginning of the digest: a recipe may change and keep its name.  "" for a job that was not begun."""
    if not written:
        return ""
    held = json.loads(written)
    return f"{held['recipe']['name']} ({held['digest'][:8]})"
