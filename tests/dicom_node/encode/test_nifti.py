from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from dicom_node.encode.nifti import write_nifti
from tests.dicom_node.encode.example import affine, maps


def test_values_affine_and_units(tmp_path: Path) -> None:
    given = maps()
    write_nifti(given, affine(), tmp_path / "nifti")
    for name in ("chi", "r2star", "field", "local_field", "mask", "magnitude"):
        image = nib.load(tmp_path / "nifti" / f"{name}.nii.gz")
        np.testing.assert_array_equal(np.asarray(image.dataobj), getattr(given, name))
        np.testing.assert_allclose(image.get_sform(), affine(), atol=1e-5)
        np.testing.assert_allclose(image.get_qform(), affine(), atol=1e-5)
        assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
        assert image.header.get_xyzt_units()[0] == "mm"
        assert image.get_data_dtype() == (np.uint8 if name == "mask" else np.float32)


def test_without_r2star_no_file_of_it(tmp_path: Path) -> None:
    written = write_nifti(maps(r2star=False), affine(), tmp_path)
    assert "r2star.nii.gz" not in {path.name for path in written}
    assert len(written) == 5


def test_the_same_maps_make_the_same_bytes(tmp_path: Path) -> None:
    once, again = (write_nifti(maps(), affine(), tmp_path / name) for name in ("a", "b"))
    assert [p.read_bytes() for p in once] == [p.read_bytes() for p in again]
