"""What the Enhanced MR objects of all vendors have in common (PS3.3 A.36.2): shared and per-frame groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage

from tests.simulation import header
from tests.simulation.head import SimulatedHead
from tests.simulation.tissue import READOUT_TAIL

STACK_ID, IN_STACK_POSITION, FRAME_CONTENT = Tag(0x00209056), Tag(0x00209057), Tag(0x00209111)
TEMPORAL_POSITION = Tag(0x00209128)
EFFECTIVE_ECHO_TIME, MR_ECHO = Tag(0x00189082), Tag(0x00189114)


@dataclass(frozen=True)
class EnhancedFrame:
    """One frame: where it lies, what it holds, how its stored values are read.

    component: MAGNITUDE or PHASE.  index: its Dimension Index Values.  rescale: slope, intercept, type.
    """

    slice_index: int
    echo: int
    component: str
    frame_type: tuple[str, str, str, str]
    index: tuple[int, ...]
    rescale: tuple[float, float, str]
    window: tuple[int, int]


def enhanced_mr(
    study: header.Study, head: SimulatedHead, series: int, image_type: tuple[str, str, str, str], component: str
) -> Dataset:
    """An Enhanced MR object without frames: everything that is said once."""
    acquisition = head.acquisition
    d = study.dataset(series, 1, EnhancedMRImageStorage)
    del d.AcquisitionDate, d.AcquisitionTime
    d.ImageType = list(image_type)
    d.AcquisitionNumber = 1
    d.AcquisitionDateTime = f"{header.DATE}{d.SeriesTime}"
    d.AcquisitionDuration = 240.0
    _describe_frame_type(d, component)
    d.MRAcquisitionType = "3D"
    d.MagneticFieldStrength = header.decimal(header.nominal_field_strength(head))
    d.ResonantNucleus = "1H"
    d.KSpaceFiltering = "NONE"
    d.ApplicableSafetyStandardAgency = "IEC"
    d.ContentQualification = "PRODUCT"
    d.EchoPulseSequence = "GRADIENT"
    d.MultiPlanarExcitation = d.PhaseContrast = d.TimeOfFlightContrast = d.EchoPlanarPulseSequence = "NO"
    d.SaturationRecovery = "NO"
    d.SteadyStatePulseSequence = d.SpectrallySelectedSuppression = "NONE"
    d.OversamplingPhase = "NONE"
    d.GeometryOfKSpaceTraversal = "RECTILINEAR"
    d.SegmentedKSpaceTraversal = "SINGLE"
    d.RectilinearPhaseEncodeReordering = "LINEAR"
    d.NumberOfKSpaceTrajectories = 1
    d.CoverageOfKSpace = "FULL"
    d.AcquisitionContrast = "UNKNOWN"
    d.BurnedInAnnotation = "NO"
    d.LossyImageCompression = "00"
    d.PresentationLUTShape = "IDENTITY"
    d.AcquisitionContextSequence = Items()
    d.SharedFunctionalGroupsSequence = [_shared(head, len(acquisition.echo_times))]
    return d


def add_dimensions(d: Dataset, study: header.Study, pointers: Sequence[Dataset]) -> None:
    """Dimension Organization and Index: what the values of `EnhancedFrame.index` count."""
    organization = study.uid("dimensions", d.SeriesNumber)
    item = Dataset()
    item.DimensionOrganizationUID = organization
    d.DimensionOrganizationSequence = [item]
    for pointer in pointers:
        pointer.DimensionOrganizationUID = organization
    d.DimensionIndexSequence = list(pointers)


def pointer(tag: int, group: int, label: str) -> Dataset:
    """One item of the Dimension Index Sequence."""
    item = Dataset()
    item.DimensionIndexPointer = tag
    item.FunctionalGroupPointer = group
    item.DimensionDescriptionLabel = label
    return item


def per_frame(d: Dataset, head: SimulatedHead, frame: EnhancedFrame) -> Dataset:
    """The functional groups of one frame."""
    x, y, z = (header.decimal(size) for size in head.acquisition.geometry.voxel_size)
    content = Dataset()
    content.FrameAcquisitionDateTime = content.FrameReferenceDateTime = d.AcquisitionDateTime
    content.FrameAcquisitionDuration = 240000.0
    content.FrameAcquisitionNumber = 1
    content.StackID = "1"
    content.InStackPositionNumber = frame.slice_index + 1
    content.TemporalPositionIndex = 1
    content.DimensionIndexValues = list(frame.index)
    position, orientation, measures = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = [header.decimal(c) for c in header.position(head, frame.slice_index)]
    orientation.ImageOrientationPatient = [header.decimal(c) for c in header.orientation(head)]
    measures.SliceThickness = measures.SpacingBetweenSlices = z
    measures.PixelSpacing = [y, x]
    echo = Dataset()
    echo.EffectiveEchoTime = header.echo_time_ms(head.acquisition.echo_times[frame.echo])
    kind = Dataset()
    kind.FrameType = list(frame.frame_type)
    _describe_frame_type(kind, frame.component)
    window, values = Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = frame.window
    values.RescaleSlope, values.RescaleIntercept = header.decimal(frame.rescale[0]), header.decimal(frame.rescale[1])
    values.RescaleType = frame.rescale[2]
    groups = Dataset()
    groups.FrameContentSequence = [content]
    groups.PlanePositionSequence = [position]
    groups.PlaneOrientationSequence = [orientation]
    groups.PixelMeasuresSequence = [measures]
    groups.MREchoSequence = [echo]
    groups.MRImageFrameTypeSequence = [kind]
    groups.FrameVOILUTSequence = [window]
    groups.PixelValueTransformationSequence = [values]
    return groups


def private(group: int, element: int, vr: str, value: object) -> DataElement:
    """An element of a vendor."""
    return DataElement(Tag(group, element), vr, value)


def _describe_frame_type(d: Dataset, component: str) -> None:
    d.PixelPresentation = "MONOCHROME"
    d.VolumetricProperties = "VOLUME"
    d.VolumeBasedCalculationTechnique = "NONE"
    d.ComplexImageComponent = component
    d.AcquisitionContrast = "UNKNOWN"


def _shared(head: SimulatedHead, echoes: int) -> Dataset:
    """The functional groups that no frame changes."""
    acquisition = head.acquisition
    columns, rows, slices = acquisition.geometry.shape
    modifier = Dataset()
    modifier.PixelBandwidth = "280"
    modifier.MagnetizationTransfer = modifier.Tagging = "NONE"
    modifier.BloodSignalNulling = "NO"
    modifier.TransmitterFrequency = header.imaging_frequency_mhz(head)
    element, coil, transmit = Dataset(), Dataset(), Dataset()
    element.MultiCoilElementName, element.MultiCoilElementUsed = "H1", "YES"
    coil.ReceiveCoilName, coil.ReceiveCoilManufacturerName = "Head", None
    coil.ReceiveCoilType, coil.QuadratureReceiveCoil = "MULTICOIL", "NO"
    coil.MultiCoilDefinitionSequence = [element]
    transmit.TransmitCoilName, transmit.TransmitCoilManufacturerName, transmit.TransmitCoilType = "Body", None, "BODY"
    timing = Dataset()
    timing.RepetitionTime = header.decimal(1e3 * (acquisition.echo_times[-1] + READOUT_TAIL))
    timing.FlipAngle = "15"
    timing.EchoTrainLength = echoes
    timing.RFEchoTrainLength, timing.GradientEchoTrainLength = 0, echoes
    timing.SpecificAbsorptionRateSequence = [Dataset()]
    timing.SpecificAbsorptionRateSequence[0].SpecificAbsorptionRateDefinition = "IEC_HEAD"
    timing.SpecificAbsorptionRateSequence[0].SpecificAbsorptionRateValue = 0.02
    timing.GradientOutputType, timing.GradientOutput = "DB_DT", 50.0
    timing.OperatingModeSequence = [Dataset() for _ in range(3)]
    for mode, name in zip(timing.OperatingModeSequence, ("STATIC FIELD", "RF", "GRADIENT"), strict=True):
        mode.OperatingModeType, mode.OperatingMode = name, "IEC_NORMAL"
    geometry = Dataset()
    geometry.InPlanePhaseEncodingDirection = "ROW"
    geometry.MRAcquisitionFrequencyEncodingSteps = rows
    geometry.MRAcquisitionPhaseEncodingStepsInPlane = columns
    geometry.MRAcquisitionPhaseEncodingStepsOutOfPlane = slices
    geometry.PercentSampling = geometry.PercentPhaseFieldOfView = "100"
    changes = Dataset()
    changes.InversionRecovery = changes.T2Preparation = "NO"
    changes.FlowCompensation = "NONE"
    changes.Spoiling = "RF"
    changes.SpectrallySelectedExcitation = changes.SpatialPresaturation = "NONE"
    changes.PartialFourier = changes.ParallelAcquisition = "NO"
    averages = Dataset()
    averages.NumberOfAverages = "1"
    region, anatomy = Dataset(), Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "12738006", "SCT", "Brain"
    anatomy.AnatomicRegionSequence = [region]
    anatomy.FrameLaterality = "U"
    shared = Dataset()
    shared.MRImagingModifierSequence = [modifier]
    shared.MRReceiveCoilSequence = [coil]
    shared.MRTransmitCoilSequence = [transmit]
    shared.MRTimingAndRelatedParametersSequence = [timing]
    shared.MRFOVGeometrySequence = [geometry]
    shared.MRModifierSequence = [changes]
    shared.MRAveragesSequence = [averages]
    shared.FrameAnatomySequence = [anatomy]
    return shared
