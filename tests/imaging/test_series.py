"""CT series: every voxel keeps its place in millimetres and its HU, and what cannot be right is refused."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import uid

from domainseg.imaging import ImageReadError, Volume, VolumeTooLargeError, read_volume
from domainseg.imaging.volume import AIR

Series = Callable[..., Path]
AXIAL = [(-43.75, -46.5, 5.0 * k) for k in range(8)]
SHEAR = np.cos(np.radians(20)), np.sin(np.radians(20))
"""A gantry tilted by 20 degrees: rows run down and to the feet, the table moves along z."""
TILTED = (1, 0, 0, 0, SHEAR[0], -SHEAR[1])
UNEVEN = np.cumsum([0, 4, 4, 4, 4, 1.1, 7, 7, 7, 7])


def points_of(volume: Volume) -> Any:
    """LPS millimetres of every voxel, [z, y, x, 3]."""
    assert volume.affine is not None
    z, y, x = np.indices(volume.shape)
    return np.stack([x, y, z], axis=-1) @ volume.affine[:3, :3].T + volume.affine[:3, 3]


def refusal(folder: Path) -> ImageReadError:
    with pytest.raises(ImageReadError) as caught:
        read_volume(folder)
    assert "Doe" not in caught.value.reason
    assert "4711" not in caught.value.reason
    return caught.value


LAYOUTS: dict[str, dict[str, Any]] = {
    "axial": {},
    "feet first, prone": {"positions": [(43.75, 46.5, z) for _, _, z in AXIAL], "turn": (-1, 0, 0, 0, -1, 0)},
    "rows mirrored": {"positions": [(43.75, -46.5, z) for _, _, z in AXIAL], "turn": (-1, 0, 0, 0, 1, 0)},
    "turned in plane": {"positions": [(43.75, -46.5, z) for _, _, z in AXIAL], "turn": (0, 1, 0, -1, 0, 0)},
    "run-length encoded": {"syntax": uid.RLELossless},
    "JPEG-LS": {"syntax": uid.JPEGLSLossless},
    "oblique": {"turn": (0.98, 0.198997487, 0, -0.198997487, 0.98, 0)},
    "tilted gantry": {"turn": TILTED},
    "tilted gantry, uneven": {"positions": [(-43.75, -46.5, z) for z in UNEVEN], "turn": TILTED},
    "uneven": {"positions": [(-43.75, -46.5, z) for z in UNEVEN]},
    "sagittal, thin": {
        "positions": [(x, -40.0, 45.0) for x in np.arange(-40, 40, 2.0)],
        "turn": (0, 1, 0, 0, 0, -1),
        "spacing": (2.0, 2.0),
        "size": (40, 44),
    },
    "coronal, thin": {
        "positions": [(-40.0, y, 45.0) for y in np.arange(-40, 40, 2.0)],
        "turn": (1, 0, 0, 0, 0, -1),
        "spacing": (2.0, 2.0),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_voxel_keeps_its_place_and_value(layout: str, make_series: Series, truth: Callable[..., Any]) -> None:
    volume = read_volume(make_series(**LAYOUTS[layout]))
    assert volume.affine is not None
    difference = volume.voxels - np.maximum(truth(points_of(volume)), AIR)
    assert np.abs(difference).max() <= 1.01  # rounded twice: when stored and when interpolated
    direction = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    assert (np.diag(direction) > 0.9).all()  # x to the left, y to the back, z to the head
    assert volume.voxels.dtype == np.int16


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_go_to_the_source_and_back(layout: str, make_series: Series) -> None:
    volume = read_volume(make_series(**LAYOUTS[layout]))
    depth, rows, columns = volume.source_shape
    marked = np.zeros(volume.source_shape, np.uint8)
    marked[depth // 3, rows // 4, columns // 5] = 3
    placed = volume.from_source(marked)
    assert placed.shape == volume.shape
    z, y, x = np.argwhere(placed == 3)[0]
    settings = {"turn": (1, 0, 0, 0, 1, 0), "spacing": (3.0, 2.5), "positions": AXIAL, **LAYOUTS[layout]}
    upward = np.cross(settings["turn"][:3], settings["turn"][3:])
    upward = upward * np.sign(upward[np.abs(upward).argmax()])
    ordered = sorted(settings["positions"], key=lambda position: float(np.dot(position, upward)))
    turn, spacing = np.array(settings["turn"]), settings["spacing"]
    truth = ordered[depth // 3] + columns // 5 * spacing[1] * turn[:3] + rows // 4 * spacing[0] * turn[3:]
    assert volume.affine is not None
    found = volume.affine @ (x, y, z, 1)
    step = np.linalg.norm(volume.affine[:3, 2])
    np.testing.assert_allclose(found[:3], truth, atol=step / 2 + 0.01 if "uneven" in layout else 0.01)
    np.testing.assert_array_equal(volume.to_source(placed), marked)
    assert len(volume.files) == depth


def test_no_label_of_a_resampled_series_is_lost_on_the_way_to_the_source(make_series: Series) -> None:
    """Some slices of the grid are nearest to no slice of the source: a bleed there is seen all the same."""
    volume = read_volume(make_series(**LAYOUTS["uneven"]))
    assert volume.source_z is not None
    between = set(range(volume.shape[0])) - set(np.rint(volume.source_z).astype(int).tolist())
    assert between
    for k in range(volume.shape[0]):
        labels = np.zeros(volume.shape, np.uint8)
        labels[k, 3, 5] = 4
        drawn = np.flatnonzero((volume.to_source(labels) == 4).any(axis=(1, 2)))
        assert len(drawn), k
        assert np.abs(volume.source_z[drawn] - k).min() == np.abs(volume.source_z - k).min()
    labels[sorted(between)[0]] = 1
    labels[sorted(between)[0] - 1] = 2
    kept = volume.to_source(labels)[int(np.abs(volume.source_z - (sorted(between)[0] - 1)).argmin())]
    assert (kept == 2).all(), "what is nearest comes first"


def test_uneven_slices_lie_where_they_were(make_series: Series) -> None:
    volume = read_volume(make_series(**LAYOUTS["tilted gantry, uneven"]))
    assert volume.affine is not None
    assert volume.source_z is not None
    for k, z in enumerate(UNEVEN):
        np.testing.assert_allclose((volume.affine @ (0, 0, volume.source_z[k], 1))[:3], (-43.75, -46.5, z), atol=1e-3)
    assert volume.spacing == pytest.approx((2.5, 3.0, 4 * SHEAR[0]), abs=1e-4)
    assert "resampled along z to 3.76 mm" in volume.notes[0]
    assert "tilt of 20.0 degrees" in volume.notes[1]


def _without(*missing: int) -> list[tuple[float, float, float]]:
    return [position for k, position in enumerate(AXIAL) if k not in missing]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"positions": _without(3)}, "10.0 mm lie between slices 3 and 4"),
        ({"positions": _without(1, 3, 5)}, "slices are missing"),
        ({"positions": _without(3, 4)}, "slices are missing, or too far apart"),
        ({"positions": AXIAL[:2]}, "a volume needs 3"),
        ({"positions": [(0, 0, 15.0 * k) for k in range(5)]}, "too far apart"),
        ({"positions": [(10.0 * (k > 3), 0, 5.0 * k) for k in range(8)]}, "shifted in plane"),
        ({"RescaleSlope": None}, "no RescaleSlope"),
        ({"RescaleIntercept": None}, "no RescaleSlope"),
        ({"RescaleSlope": 0}, "implausible RescaleSlope"),
        ({"RescaleIntercept": 0}, "no Hounsfield units: no air"),
        ({"RescaleType": "OD"}, "no Hounsfield units"),
        ({"ImagePositionPatient": None}, "no ImagePositionPatient"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "no right angle"),
        ({"PixelSpacing": [0, 1]}, "implausible PixelSpacing"),
        ({"PixelPaddingValue": 900}, "PixelPaddingValue that tissue has"),
        ({"positions": [(0, 5.0 * k, 0) for k in range(8)], "turn": (1, 0, 0, 0, 0, -1)}, "not axial"),
        ({"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "modality MR"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "scouts and localizers (8)"),
        ({"ConvolutionKernel": "BONEPLUS"}, "bone or lung kernel (8)"),
        ({"ContrastBolusAgent": "Omnipaque 350"}, "contrast, CTA or perfusion (8)"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary captures"),
        ({"Rows": None}, "without a picture (8)"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_refused(settings: dict[str, Any], reason: str, make_series: Series) -> None:
    error = refusal(make_series(**settings))
    assert reason in error.reason
    kinds = {"modality MR": "not_ct", "no Hounsfield units: no air": "not_hounsfield"}
    assert error.kind == kinds.get(reason, "unreadable")


def _mixed(make_series: Series, **second: Any) -> Path:
    """Four slices as usual, and four above them that differ in something."""
    make_series(AXIAL[:4])
    return make_series(second.pop("positions", AXIAL[4:]), start=5, **second)


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ({"positions": [(x + 0.5, y, z) for x, y, z in AXIAL[3:]]}, "two different slices at one place"),
        ({"RescaleIntercept": -1000}, "different rescale slopes"),
        ({"size": (32, 34)}, "different sizes"),
        ({"spacing": (3.0, 2.6)}, "different pixel spacings"),
        ({"turn": TILTED}, "20.0 degrees between their normals"),
        ({"PatientID": "4712"}, "2 patients"),
        ({"StudyInstanceUID": "1.2.3"}, "2 exams"),
    ],
)
def test_series_that_do_not_fit_together_are_refused(second: dict[str, Any], reason: str, make_series: Series) -> None:
    assert reason in refusal(_mixed(make_series, **second)).reason


def test_a_protocol_may_change_its_distance(make_series: Series) -> None:
    positions = [(0.0, 0.0, z) for z in np.cumsum([0, *[5] * 5, *[10] * 5])]
    volume = read_volume(make_series(positions, SliceThickness=10))
    assert volume.spacing == pytest.approx((2.5, 3.0, 5.0))
    assert volume.shape[0] == 16


def test_gaps_between_all_slices_are_told(make_series: Series) -> None:
    every_other = [(0.0, 0.0, 10.0 * k) for k in range(8)]
    assert read_volume(make_series(every_other, SliceThickness=5)).notes == (
        "slices of 5.0 mm lie 10.0 mm apart: what is between them was not seen",
    )


def test_the_same_distances_with_skipped_numbers_are_holes(make_series: Series) -> None:
    make_series(AXIAL[:4])
    for k, z in enumerate((25.0, 35.0, 45.0)):
        make_series([(-43.75, -46.5, z)], start=6 + 2 * k)
    assert "slices are missing" in refusal(make_series(AXIAL[3:4], start=4)).reason


def test_a_hole_where_distances_change_is_told(make_series: Series) -> None:
    """8 mm where 4 and 7 mm meet and a number is missing: too little for a refusal, for 7 mm is usual above."""
    heights = np.cumsum([0, *[4] * 5, 8, *[7] * 4])
    make_series([(0.0, 0.0, z) for z in heights[:6]], SliceThickness=4)
    volume = read_volume(make_series([(0.0, 0.0, z) for z in heights[6:]], start=8, SliceThickness=7))
    assert "8.0 mm lie between slices 6 and 7 from below, where instance numbers skip: a slice may be missing" in (
        volume.notes
    )


@pytest.mark.parametrize("shift", [1.3, 2.5, 3.5])
def test_a_scan_that_was_repeated_in_one_series_is_refused(shift: float, make_series: Series) -> None:
    make_series(AXIAL)
    again = make_series([(x, y, z + shift) for x, y, z in AXIAL], start=9)
    assert "run over the same part of the body 2 times" in refusal(again).reason


def test_a_scan_that_was_repeated_the_other_way_is_refused(make_series: Series) -> None:
    make_series(AXIAL, SliceThickness=5)
    back = [(x, y, z + 2.5) for x, y, z in reversed(AXIAL)]
    assert "run over the same part of the body 2 times" in refusal(make_series(back, start=9, SliceThickness=5)).reason


def test_a_base_upward_and_a_vertex_downward_are_one_stack(make_series: Series) -> None:
    """Numbers leap upward from one to the other: nothing is there twice."""
    make_series([(0.0, 0.0, 2.5 * k) for k in range(13)], SliceThickness=2.5)
    vertex = [(0.0, 0.0, 70 - 5.0 * k) for k in range(8)]
    assert read_volume(make_series(vertex, start=14, SliceThickness=5)).source_shape[0] == 21


def test_two_passes_that_fill_each_others_gaps_are_one_scan(make_series: Series) -> None:
    make_series(AXIAL[::2], SliceThickness=5)
    assert read_volume(make_series(AXIAL[1::2], start=5, SliceThickness=5)).shape[0] == len(AXIAL)


def test_a_head_in_two_runs_is_one_stack(make_series: Series) -> None:
    """The vertex first, then the base: nothing is there twice, though numbers turn back once."""
    make_series(AXIAL[4:])
    assert read_volume(make_series(AXIAL[:4], start=5)).shape[0] == len(AXIAL)


def test_the_uppermost_slice_of_an_uneven_series_is_read(make_series: Series) -> None:
    heights = [*np.arange(0, 36, 5.0), 37.0]
    volume = read_volume(make_series([(0.0, 0.0, z) for z in heights], SliceThickness=5))
    top = points_of(volume)[-1, 0, 0, 2]
    assert top == pytest.approx(40)
    # hounsfield_at rises by 3 HU a mm: its own value, not that of the slice 2 mm below.
    assert np.diff(volume.voxels[-2:, 0, 0].astype(int)) == pytest.approx(6, abs=1)


def test_links_are_no_slices_that_may_be_left_out(make_series: Series, tmp_path: Path) -> None:
    """A file that an archive has not fetched, a folder elsewhere, one that nobody may look into."""
    folder = make_series()
    upper = sorted(folder.iterdir())[-1]
    kept = upper.read_bytes()
    upper.unlink()
    upper.symlink_to(tmp_path / "gone.dcm")
    assert "cannot be opened" in refusal(folder).reason
    upper.unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/8.dcm").write_bytes(kept)
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    assert "linked folder" in refusal(folder).reason
    (folder / "more").unlink()
    upper.symlink_to(tmp_path / "elsewhere/8.dcm")
    assert read_volume(folder).shape[0] == len(AXIAL)


def test_a_folder_that_cannot_be_looked_into_is_told(make_series: Series, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_series()
    (folder / "more").mkdir()
    real = os.scandir

    def scandir(path: Any) -> Any:
        if Path(path).name == "more":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert "cannot be opened: Permission denied" in refusal(folder).reason


def test_a_plain_slice_has_one_frame(make_slice: Callable[..., bytes], tmp_path: Path) -> None:
    for k, position in enumerate(AXIAL):
        two = pydicom.dcmread(BytesIO(make_slice(position, number=k + 1)))
        two.NumberOfFrames = 2
        two.PixelData = two.PixelData * 2
        two.save_as(tmp_path / f"{k}.dcm")
    assert "holds 2 frames" in refusal(tmp_path).reason


def test_slices_there_twice_are_read_once(make_series: Series) -> None:
    folder = make_series()
    for path in sorted(folder.iterdir())[:3]:
        path.with_name("copy-" + path.name).write_bytes(path.read_bytes())
    volume = read_volume(folder)
    assert volume.shape[0] == len(AXIAL)
    assert volume.notes == ("3 slices that are there twice, alike, are read once",)


def test_the_best_series_is_read_and_the_others_are_told(make_series: Series) -> None:
    def add(number: int, positions: Sequence[Sequence[float]] = AXIAL, **tags: Any) -> Path:
        return make_series(
            positions, start=100 * number, SeriesNumber=number, SeriesInstanceUID=f"1.2.826.1.{number}", **tags
        )

    thin = [(-43.75, -46.5, 0.6 * k) for k in range(40)]
    coronal = [(-40.0, y, 45.0) for y in np.arange(-40, 40, 2.0)]
    add(1, [(0, 0, 0)], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    add(2, thin, SliceThickness=0.6)
    add(3, coronal, turn=(1, 0, 0, 0, 0, -1), spacing=(2.0, 2.0), SliceThickness=2)
    add(4, ConvolutionKernel="H60s")
    add(5, ConvolutionKernel="H31s", SeriesDescription="HEAD W/O CONTRAST 5.0", StationName="CT7")
    add(6, ContrastBolusAgent="Iomeron")
    add(7, ConvolutionKernel="H31s", SeriesDescription="CTA HEAD 5.0")
    add(8, ConvolutionKernel="H31s", ImageType=["DERIVED", "SECONDARY", "AXIAL"])
    add(9, ConvolutionKernel="H31s", SeriesDescription="Neck 5.0")
    folder = add(10, [(0, 0, 0)], SOPClassUID="1.2.840.10008.5.1.4.1.1.7", SeriesDescription="Dose Report")
    volume = read_volume(folder)
    assert volume.metadata["station"] == "CT7"
    assert volume.notes[0] == "read the CT series of 8 images, not the others (of 40; 40, not axial; 8; 8)"
    assert volume.notes[1] == (
        "left out: secondary captures, dose reports and colour pictures (1), scouts and localizers (1), "
        "bone or lung kernel (8), contrast, CTA or perfusion (16)"
    )
    assert not any(word in note for note in volume.notes for word in ("Doe", "4711"))


def test_a_head_in_two_series_is_told(make_series: Series) -> None:
    def add(number: int, start: float, count: int, **tags: Any) -> Path:
        positions = [(-43.75, -46.5, start + 5.0 * k) for k in range(count)]
        return make_series(positions, start=100 * number, SeriesInstanceUID=f"1.2.826.1.{number}", **tags)

    add(1, 0, 8)
    add(2, -10, 12, SeriesDescription="thin")
    folder = add(3, -80, 12, SeriesDescription="C-Spine")
    assert not any("two parts" in note for note in read_volume(folder).notes)
    notes = read_volume(add(4, 50, 6)).notes
    assert notes[1] == "another series shows 30 mm more of the head: the exam may be in two parts"


def test_a_series_of_the_whole_head_comes_before_a_piece_of_it(make_series: Series) -> None:
    def add(number: int, heights: Any, **tags: Any) -> Path:
        positions = [(-43.75, -46.5, float(z)) for z in heights]
        return make_series(positions, start=500 * number, SeriesInstanceUID=f"1.2.826.1.{number}", **tags)

    add(1, np.arange(60, 90, 5), SliceThickness=5)
    folder = add(2, np.arange(0, 140, 1.0), SliceThickness=1)
    assert read_volume(folder).shape[0] == 140
    add(3, np.arange(0, 120, 5), SliceThickness=5)
    volume = read_volume(folder)
    assert volume.shape[0] == 24, "of two that show the head the one of 5 mm"
    assert "another series shows 24 mm more of the head: the exam may be in two parts" in volume.notes


def test_padding_with_the_other_sign_is_found(tmp_path: Path, make_slice: Callable[..., bytes]) -> None:
    for k, position in enumerate(AXIAL):
        dataset = pydicom.dcmread(BytesIO(make_slice(position, number=k, PixelRepresentation=1, RescaleIntercept=0)))
        hu = dataset.pixel_array.astype(np.int16) - 1024
        hu[:3] = -2000
        dataset.PixelData = hu.tobytes()
        dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
        dataset.save_as(tmp_path / f"{k}.dcm")
    voxels = read_volume(tmp_path).voxels
    assert (voxels[:, :3] == AIR).all()
    assert (voxels[:, 3:] > AIR).all()


def test_metadata(make_series: Series) -> None:
    volume = read_volume(
        make_series(
            KVP=120, ConvolutionKernel="H31s", StudyDate="20240102", Manufacturer="ACME", GantryDetectorTilt=-1.5
        )
    )
    assert volume.metadata == {
        "manufacturer": "ACME", "body_part": "HEAD", "modality": "CT", "date": "2024-01-02", "kernel": "H31s",
        "kvp": "120", "tilt": "-1.5", "thickness": "5",
    }  # fmt: skip


def test_damaged_and_foreign_files(make_series: Series) -> None:
    folder = make_series()
    (folder / "notes.txt").write_text("Jane Doe")
    (folder / ".hidden").write_text("x")
    assert read_volume(folder).shape[0] == len(AXIAL)
    path = sorted(folder.glob("*.dcm"))[2]
    whole = path.read_bytes()
    for data in (b"", whole[:300], whole[:-5], whole[200:]):
        path.write_bytes(data)
        refusal(folder)
    path.write_bytes(whole)
    (folder / "IM0001").write_bytes(b"Jane Doe")
    assert "no readable DICOM file" in refusal(folder).reason
    (folder / "IM0001").write_bytes(b"\xff\xd8\xff" + bytes(200))
    assert "of one kind" in refusal(folder).reason


def test_one_slice_and_empty_folders(tmp_path: Path, make_series: Series) -> None:
    assert "does not exist" in refusal(tmp_path / "nowhere").reason
    (tmp_path / "empty").mkdir()
    assert "empty folder" in refusal(tmp_path / "empty").reason
    (tmp_path / "empty" / "a.txt").write_text("x")
    assert "no DICOM file" in refusal(tmp_path / "empty").reason
    assert "a volume needs 3" in refusal(next(make_series().iterdir())).reason


def test_size_is_checked_before_memory_is_taken(make_series: Series) -> None:
    folder = make_series()
    voxels = 8 * 32 * 36
    assert read_volume(folder, max_voxels=voxels).voxels.size == voxels
    with pytest.raises(VolumeTooLargeError, match="8 slices of 32 x 36"):
        read_volume(folder, max_voxels=voxels - 1)


def test_memory_is_about_one_volume(make_series: Series) -> None:
    folder = make_series([(0, 0, 2.0 * k) for k in range(20)], size=(192, 192), spacing=(0.5, 0.5))
    read_volume(folder)
    tracemalloc.start()
    volume = read_volume(folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < volume.voxels.nbytes + 16 * volume.voxels[0].nbytes  # working space of a few slices, as float64


def _enhanced(make_slice: Callable[..., bytes], order: Sequence[int], **tags: Any) -> pydicom.Dataset:
    """The usual small series as one multi-frame file, its frames in the given order."""
    slices = [pydicom.dcmread(BytesIO(make_slice(AXIAL[k]))) for k in order]
    whole = slices[0]
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    whole.NumberOfFrames = len(slices)
    whole.PixelData = b"".join(one.PixelData for one in slices)

    def item(name: str, **values: Any) -> pydicom.Dataset:
        outer, inner = pydicom.Dataset(), pydicom.Dataset()
        for keyword, value in values.items():
            setattr(inner, keyword, value)
        setattr(outer, name, [inner])
        return outer

    shared = item("PixelMeasuresSequence", PixelSpacing=[3.0, 2.5], SliceThickness=5)
    shared.update(item("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0]))
    shared.update(item("PixelValueTransformationSequence", RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU"))
    whole.SharedFunctionalGroupsSequence = [shared]
    whole.PerFrameFunctionalGroupsSequence = [
        item("PlanePositionSequence", ImagePositionPatient=list(AXIAL[k])) for k in order
    ]
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "SliceThickness",
    ):
        delattr(whole, keyword)
    for keyword, value in tags.items():
        setattr(whole, keyword, value)
    return whole


def test_enhanced_ct_is_the_same_volume(make_series: Series, make_slice: Callable[..., bytes], tmp_path: Path) -> None:
    path = tmp_path / "enhanced.dcm"
    _enhanced(make_slice, [3, 0, 1, 7, 2, 6, 5, 4]).save_as(path)
    volume, plain = read_volume(path), read_volume(make_series())
    np.testing.assert_array_equal(volume.voxels, plain.voxels)
    np.testing.assert_allclose(volume.affine, plain.affine)
    assert volume.files == (path,)
    assert volume.source_shape == plain.source_shape


def test_enhanced_ct_is_chosen_by_its_functional_groups(make_slice: Callable[..., bytes], tmp_path: Path) -> None:
    def write(name: str, thickness: float = 5, turn: Sequence[float] = (1, 0, 0, 0, 1, 0), **tags: Any) -> None:
        """``name`` is the kernel, which like the rest stands in the sequences only."""
        whole = _enhanced(make_slice, range(8), SeriesInstanceUID=f"1.2.{tags['SeriesNumber']}", **tags)
        (shared,) = whole.SharedFunctionalGroupsSequence
        shared.CTReconstructionSequence = [pydicom.Dataset()]
        shared.CTReconstructionSequence[0].ConvolutionKernel = name
        shared.PixelMeasuresSequence[0].SliceThickness = thickness
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(turn)
        whole.save_as(tmp_path / f"{name}{thickness}{turn[5]}.dcm")

    write("BONE", SeriesNumber=1)
    assert "bone" in refusal(tmp_path).reason
    write("SOFT", 0.6, SeriesNumber=2)
    write("SOFT", turn=(1, 0, 0, 0, 0, -1), SeriesNumber=3)
    write("SOFT", SeriesNumber=4)
    volume = read_volume(tmp_path)
    assert [file.name for file in volume.files] == ["SOFT50.dcm"], "axial, and of 5 mm"
    assert "left out: bone or lung kernel (1)" in volume.notes


def test_a_header_that_inflates_without_end_takes_no_memory(
    make_slice: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("domainseg.imaging.header._INFLATED", 1 << 20)
    whole = _enhanced(make_slice, range(8))
    whole.add_new(0x00110010, "LO", "MAKER")
    whole.add_new(0x00111001, "OB", bytes(32 << 20))
    whole.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    path = tmp_path / "enhanced.dcm"
    whole.save_as(path)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        assert "no CT series" in refusal(path).reason
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


def test_incomplete_enhanced_ct_is_refused(make_slice: Callable[..., bytes], tmp_path: Path) -> None:
    path = tmp_path / "enhanced.dcm"
    for spoilt, reason in (
        ({"NumberOfFrames": 7}, "descriptions of frames"),
        ({"SharedFunctionalGroupsSequence": []}, "does not say where its frames lie"),
        ({"ContrastBolusAgent": "Iomeron"}, "contrast"),
    ):
        _enhanced(make_slice, range(8), **spoilt).save_as(path)
        assert reason in refusal(path).reason
