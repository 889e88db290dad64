"""Objects of a few bytes that would be gigabytes: refused at the door, before anything unpacks them."""

from __future__ import annotations

import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless

from dicom_node.admission import NotAdmitted, admit
from tests.objects import encode, mr_image, with_meta

LARGE = 2048


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
def test_pixels_that_unpack_to_more_than_they_say_are_refused(syntax: UID) -> None:
    bomb = with_meta(mr_image(rows=LARGE, columns=LARGE), ExplicitVRLittleEndian)
    bomb.PixelData = bytes(2 * LARGE * LARGE)
    bomb.compress(syntax, generate_instance_uid=False)
    (frame,) = generate_frames(bomb.PixelData, number_of_frames=1)
    assert len(frame) < LARGE, "some hundred bytes for eight million"
    image = mr_image(rows=32, columns=32)
    image.PixelData = encapsulate([frame])
    image["PixelData"].VR, image["PixelData"].is_undefined_length = "OB", True
    with pytest.raises(NotAdmitted, match="a compressed frame is 2048 x 2048, expected 32 x 32") as told:
        admit(
            encode(image),
            sop_class_uid=image.SOPClassUID,
            sop_instance_uid=image.SOPInstanceUID,
            transfer_syntax=syntax,
        )
    assert told.value.status == 0xC000
