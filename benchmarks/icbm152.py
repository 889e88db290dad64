"""Makes the default atlas' images of the ICBM152 template that nilearn's wheel carries.

    python -m benchmarks.icbm152 [--out config/atlas/icbm152]

Grey and white matter at 2 mm, the brain that they fill, and two regions that follow from them: the lateral ventricles
and the white matter of the hemispheres.  The same template gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import sys
from importlib.metadata import version
from pathlib import Path

import nibabel
import nilearn
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

STEP = 2
"""mm: the average of 152 brains holds no finer detail than this, and it is an eighth of the bytes."""

TISSUE = 0.4
"""Grey and white matter together above which a voxel is brain; what they enclose is brain too."""

FLUID = 0.5
THIRD_VENTRICLE_MM = (4.0, 10.0)
"""Fluid nearer to the midline than the one, and below the other, is the third ventricle's."""

WHITE = 0.9
LOWEST_WHITE_MM = 0.0
"""White matter above the commissures: below lie brain stem and cerebellum."""

NAMES = {1: "left_lateral_ventricle", 2: "right_lateral_ventricle", 3: "left_white_matter", 4: "right_white_matter"}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.icbm152", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=Path("config/atlas/icbm152"), help="the atlas' folder")
    options = parser.parse_args(arguments)
    grey, affine = _probability("gm")
    white, _ = _probability("wm")
    brain = ndimage.binary_fill_holes(grey + white > TISSUE)
    x = (affine[0, 3] + STEP * np.arange(brain.shape[0]))[:, None, None]
    z = affine[2, 3] + STEP * np.arange(brain.shape[2])
    labels = np.zeros(brain.shape, np.uint8)
    pieces, _ = ndimage.label(brain & (1 - grey - white > FLUID))
    largest = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    middle, top = THIRD_VENTRICLE_MM
    ventricles = largest & ~((np.abs(x) < middle) & (z < top))
    labels[ventricles & (x < 0)], labels[ventricles & (x > 0)] = 1, 2
    deep = (white > WHITE) & (z > LOWEST_WHITE_MM)
    labels[deep & (x < 0)], labels[deep & (x > 0)] = 3, 4
    options.out.mkdir(parents=True, exist_ok=True)
    for name, values in (("grey", grey), ("white", white)):
        _write(options.out / f"{name}.nii.gz", np.round(values * 255).astype(np.uint8), affine, 1 / 255)
    _write(options.out / "brain.nii.gz", brain.astype(np.uint8), affine)
    _write(options.out / "labels.nii.gz", labels, affine)
    rows = ["number,name", *(f"{number},{name}" for number, name in NAMES.items())]
    (options.out / "labels.csv").write_text("\n".join(rows) + "\n")
    volumes = ", ".join(f"{name} {(labels == n).sum() * STEP**3 / 1000:.1f} ml" for n, name in NAMES.items())
    print(f"nilearn {version('nilearn')}: brain {brain.sum() * STEP**3 / 1000:.0f} ml, {volumes}")
    return 0


def _probability(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A tissue's share at 2 mm, and voxel → mm."""
    folder = Path(nilearn.__file__).parent / "datasets" / "data"
    image = nibabel.load(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz")
    fine = np.asarray(image.dataobj, np.float64) / 255
    smooth = ndimage.gaussian_filter(fine, STEP / 2.3548)
    affine = np.array(image.affine)
    affine[:3, :3] *= STEP
    return np.clip(smooth[::STEP, ::STEP, ::STEP], 0, 1), affine


def _write(path: Path, values: NDArray[np.uint8], affine: NDArray[np.float64], slope: float = 1.0) -> None:
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_slope_inter(slope, 0)
    image.header["descrip"] = b"ICBM152 2009a (c) McConnell BIC, MNI, McGill; see README"
    content = io.BytesIO()
    with gzip.GzipFile(fileobj=content, mode="wb", compresslevel=9, mtime=0) as file:
        file.write(image.to_bytes())
    path.write_bytes(content.getvalue())


if __name__ == "__main__":
    sys.exit(main())
