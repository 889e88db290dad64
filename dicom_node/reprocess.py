"""A job is done once more with another recipe: a job of its own, beside the first, which stays as it is.

Its key is that of the first and the recipe's digest, so that asking twice makes one, and that late images, which find
their job by the key of their group, never reach it.  It holds the recipe itself: a file that changes later changes
nothing.  Its UIDs follow from the recipe, so it never takes the place of the first in an archive.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from dicom_node.alone import LOCK_FILE, process
from dicom_node.errors import InvalidConfiguration, NodeError
from dicom_node.manner import digest_of
from dicom_node.outbox import Outbox
from dicom_node.recipes import Recipe
from dicom_node.states import Priority, State
from dicom_node.store import Job, Store, base_key

NOT_YET = (State.WAITING, State.INCOMPLETE, State.FOREIGN)
DIGITS = 16
"""Of the digest, in the key: far from meeting another by chance."""


class NotReprocessed(NodeError):
    """A job that cannot be done with that recipe, or that is done with it already."""


def reprocess(store: Store, job: Job, recipe: Recipe, own: Recipe, now: float, reason: str) -> tuple[Job, bool]:
    """The job that does another's images with `recipe`, and whether it is new.

    own: the node's recipe, for a job of which nothing was made yet.  Raises NotReprocessed.
    """
    if job.state in NOT_YET:
        raise NotReprocessed(f"job {job.id} is {job.state} ({job.reason}): there is nothing to reprocess yet")
    digest = recipe.digest()
    if digest == _digest_of(store, job, own):
        raise NotReprocessed(
            f"job {job.id} is made with the recipe {recipe.name} already: qsm-node retry runs it again"
        )
    if gone := len(job.images) - len(store.paths(job.images)):
        if process(store.path.parent / LOCK_FILE).get("reads_anew"):
            raise NotReprocessed(
                f"the node has yet to read {gone} of the {len(job.images)} images of job {job.id}: ask again when "
                "qsm-node status says no more that it reads them"
            )
        raise NotReprocessed(f"{gone} of the {len(job.images)} images of job {job.id} are gone; send them again")
    key = f"{base_key(job)}/{digest[:DIGITS]}"
    with store.transaction():
        if found := store.of_revision(key, job.revision):
            return found, False
        made = store.open_job(
            key,
            job.revision,
            job.study_instance_uid,
            job.images,
            now,
            priority=Priority.COHORT,
            recipe=json.dumps({"recipe": recipe.as_mapping(), "atlas": recipe.atlas}),
            reason=reason,
        )
        store.advance(made.id, State.WAITING, State.READY, now, reason)
    return made, True


def recipe_of(job: Job) -> Recipe | None:
    """The recipe of a job that has one of its own.  Raises InvalidConfiguration for one of another software."""
    if not job.recipe:
        return None
    held = json.loads(job.recipe)
    try:
        return replace(Recipe.from_mapping(held["recipe"]), atlas=held["atlas"])
    except ValueError as error:
        raise InvalidConfiguration(
            f"its recipe is none of this version of the node: {error}; reprocess it with a present one"
        ) from error


def _digest_of(store: Store, job: Job, own: Recipe) -> str | None:
    if job.made_with:
        return digest_of(job.made_with)
    recipe = recipe_of(job)
    if recipe is not None:
        return recipe.digest()
    told = _told(store.path.parent / "jobs" / str(job.id) / "job.json")
    if told is None and Outbox(store).has_delivered(job.id):
        return None  # an earlier version of the node made it: by no recipe of this one
    return told or own.digest()


def _told(description: Path) -> str | None:
    try:
        return str(json.loads(description.read_text(encoding="utf-8"))["recipe"]["digest"])
    except (OSError, ValueError, KeyError):
        return None
