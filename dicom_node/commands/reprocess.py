"""qsm-node reprocess: jobs are done once more with another recipe, and their first results are kept."""

from __future__ import annotations

import argparse

from dicom_node import config as configuration
from dicom_node.commands._common import Subparsers, state_folder_of, time_of
from dicom_node.commands._jobs import add_jobs, asked, each


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("reprocess", help="do jobs once more with another recipe; what was made is kept")
    add_jobs(parser)
    parser.add_argument(
        "--recipe", required=True, metavar="NAME_OR_FILE", help="a name in config/recipes or a TOML file"
    )
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    config = configuration.load(options.config)
    from dicom_node.recipes import read_recipe
    from dicom_node.reprocess import reprocess
    from dicom_node.store import Job, Store

    recipe = read_recipe(configuration.recipe_file(options.recipe))
    own = read_recipe(configuration.recipe_file(config.reconstruct.recipe))
    store = Store(state_folder_of(options.config) / "node.db", owner=False)

    def do(job: Job) -> str:
        now = time_of(store.path.parent)
        reason = f"{asked(now)}: job {job.id} once more, with the recipe {recipe.name}"
        made, is_new = reprocess(store, job, recipe, own, now, reason)
        return (
            f"is reprocessed as job {made.id}" if is_new else f"was reprocessed as job {made.id}, which is {made.state}"
        )

    return each(store, options.jobs, do)
