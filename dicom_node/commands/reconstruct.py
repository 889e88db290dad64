"""qsm-node reconstruct: a folder of DICOM files, without a network."""

from __future__ import annotations

import argparse
from pathlib import Path

from dicom_node.ahead import read_ahead
from dicom_node.commands._common import Subparsers
from dicom_node.errors import InvalidConfiguration


def register(commands: Subparsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("reconstruct", help="reconstruct a folder of DICOM files, without a network")
    parser.add_argument("input", type=Path, metavar="INPUT_DIR", help="DICOM files of any name, in any order")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT_DIR")
    parser.add_argument("--recipe", metavar="NAME_OR_FILE", help="default: the configuration's")
    parser.add_argument("--nifti", action="store_true", help="write NIfTI volumes too")
    parser.add_argument(
        "--mask",
        type=Path,
        metavar="FILE",
        help="the brain, as NIfTI or DICOM Segmentation on the images' grid (default: a segmentation in INPUT_DIR, or "
        "what the recipe's method finds)",
    )
    parser.set_defaults(command=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    if not options.input.is_dir():
        raise InvalidConfiguration(f"{options.input} is no folder; expected a folder of DICOM files")
    if options.mask is not None and not options.mask.is_file():
        raise InvalidConfiguration(f"{options.mask} is no file; expected a mask as NIfTI or DICOM Segmentation")
    with read_ahead(options.input) as instances:
        from dicom_node import config as configuration
        from dicom_node import heap, log

        config = configuration.load(options.config)
        recipe_file = configuration.recipe_file(options.recipe or config.reconstruct.recipe)
        log.configure(config.log.style, "warning")
        heap.keep()
        from dicom_node.desk import reconstruct_folder
        from dicom_node.recipes import check_device, load_compiler, read_recipe

        recipe = read_recipe(recipe_file)
        check_device(config.reconstruct.device)
        load_compiler()
        found = instances()
    return reconstruct_folder(
        options.input,
        options.out,
        recipe,
        options.nifti,
        config.scanners,
        config.output,
        options.mask,
        config.reconstruct.device,
        found,
    )
