"""NIfTI files: volumes read from them, label volumes written. RAS exists only here."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel
import numpy as np
from numpy.typing import NDArray

from domainseg.files import atomic_path
from domainseg.imaging.axes import axes_of, stored_view, turned_affine, turned_shape
from domainseg.imaging.dicom import Refusal
from domainseg.imaging.geometry import Affine
from domainseg.imaging.hounsfield import Hounsfield, check_voxels, to_int16
from domainseg.imaging.reading import one_error
from domainseg.imaging.stack import FEWEST, WIDEST
from domainseg.imaging.volume import AIR, Volume, VolumeTooLargeError

SUFFIXES = (".nii", ".nii.gz")
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS to LPS and back
_HEADERS: dict[int, Any] = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
_IMAGE: Any = nibabel.Nifti1Image
_MAX_OFFSET = 1 << 24  # bytes before the voxels: header and extensions
_SIDES = 0.02  # of a voxel's side: how far pixdim may be off without a note
_SPACING = (0.05, 30.0)  # mm between voxels that are plausible


def read_nifti(path: Path, max_voxels: int | None) -> Volume:
    """Read a three-dimensional NIfTI-1 or NIfTI-2 file of Hounsfield units; raises Refusal."""
    with _opened(path) as stream:
        header = _header(stream)
        shape, dtype = _shape(header), _dtype(header)
        check_voxels(*shape, max_voxels)
        affine, notes = _affine(header, shape)
        slope, intercept = _scaling(header)
        axes = axes_of(affine)
        placed = turned_affine(affine, shape, axes)
        _check_slices(placed, turned_shape(shape, axes)[0])
        voxels = np.empty(turned_shape(shape, axes), np.int16)
        holes = _fill(stored_view(voxels, axes), stream, dtype, slope, intercept)
    if holes:
        notes.append(f"{holes} voxels without a number (NaN or infinite) are taken for air")
    depth = voxels.shape[0]
    places = np.arange(depth, dtype=np.float64)
    return Volume(
        voxels=voxels,
        affine=placed,
        source_shape=shape,
        source_axes=axes,
        source_z=places if axes[2][1] > 0 else depth - 1 - places,
        files=(path,),
        notes=tuple(notes),
    )


def _fill(view: NDArray[np.int16], stream: BinaryIO, dtype: np.dtype[Any], slope: float, intercept: float) -> int:
    """Read slice by slice into the view [k, j, i]; returns how many voxels have no finite value."""
    size = view.shape[1] * view.shape[2] * dtype.itemsize
    counted, holes = Hounsfield(), 0
    for number in range(len(view)):
        data = stream.read(size)
        if len(data) != size:
            raise Refusal(f"ends inside slice {number + 1} of {len(view)}: cut off")
        values = np.frombuffer(data, dtype).reshape(view.shape[1:])
        valid = np.isfinite(values) if dtype.kind == "f" else None
        if valid is not None and not valid.all():
            holes += valid.size - int(np.count_nonzero(valid))
            values = np.where(valid, values, 0)
        view[number] = counted.clamped(to_int16(values, slope, intercept, valid), valid)
    if stream.read(1):  # reading to the end is also what compares gzip's checksum
        raise Refusal("holds more voxels than its header says: damaged")
    counted.check()
    return holes


def _check_slices(affine: Affine, depth: int) -> None:
    """Refuse what is refused of a DICOM series as well: too few slices, or too far apart."""
    if depth < FEWEST:
        raise Refusal(f"holds {depth} axial slices: a volume needs {FEWEST}")
    across = np.cross(affine[:3, 0], affine[:3, 1])
    apart = abs(float(affine[:3, 2] @ across)) / float(np.linalg.norm(across))
    if apart > WIDEST:
        raise Refusal(f"its axial slices lie {apart:.1f} mm apart: too far for a volume (at most {WIDEST:g})")


def read_labels(
    path: Path, shape: Sequence[int], *, highest: int, only: int | None = None, place: Affine | None = None
) -> NDArray[np.uint8]:
    """Label volume of a NIfTI file, uint8 of ``shape`` (k, j, i): codes 0 to ``highest``; with ``only`` that, where it
    is above 0.

    place: 4x4 from (i, j, k) of the image that it belongs to to LPS millimetres, None where that is unknown. A file
    that says another place (an axis that runs the other way, more than a voxel apart at a corner) is refused: its
    labels would lie on the wrong side or slice. One without sform and qform, or with the identity, says nothing.
    Raises ImageReadError; no more is read than the image has voxels.
    """
    with one_error(path, VolumeTooLargeError), _opened(path) as stream:
        header = _header(stream)
        found, dtype = _shape(header), _dtype(header)
        if found != tuple(shape):
            want, got = (" x ".join(map(str, sides[::-1])) for sides in (tuple(shape), found))
            raise Refusal(f"the mask has {got} voxels, its image {want}: it must lie on the image's own grid")
        if place is not None:
            _check_place(header, found, place)
        slope, intercept = _scaling(header)
        out = np.empty(found, np.uint8)
        size = found[1] * found[2] * dtype.itemsize
        for number in range(len(out)):
            data = stream.read(size)
            if len(data) != size:
                raise Refusal(f"ends inside slice {number + 1} of {len(out)}: cut off")
            values = np.frombuffer(data, dtype).reshape(found[1:])
            if (slope, intercept) != (1, 0):
                values = values * slope + intercept
            if only is not None:
                out[number] = np.where(values > 0, only, 0)
                continue
            odd = ~np.isin(values, np.arange(highest + 1))
            if odd.any():
                raise Refusal(f"the mask holds the value {values[odd][0]:g}; allowed are 0 to {highest}")
            out[number] = values
        if stream.read(1):
            raise Refusal("holds more voxels than its header says: damaged")
    return out


def read_grid(path: Path) -> Volume:
    """Where the voxels of a label volume lie, as a volume of air with the file's own axes.

    For labels whose image is lost: what they show still counts. Without a known place there is no affine. Raises
    ImageReadError.
    """
    with one_error(path, VolumeTooLargeError), _opened(path) as stream:
        header = _header(stream)
        shape = _shape(header)
        check_voxels(*shape, None)
        try:
            affine, _ = _affine(header, shape)
        except Refusal:
            affine = None
    return Volume(np.broadcast_to(np.int16(AIR), shape), affine, source_shape=shape)


def _check_place(header: Any, shape: tuple[int, int, int], place: Affine) -> None:
    """Refuse a label volume whose header puts its corners elsewhere than ``place`` does."""
    forms = [header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]]
    known = [form for form in forms if form is not None and not _says_nothing(form)]
    if not known:
        return
    said = _LPS @ np.asarray(known[0], np.float64)
    if not np.isfinite(said).all():
        raise Refusal("the mask's header places it with numbers that are none; resample it onto the image's own grid")
    if (apart := _apart(said, place, shape)) > 1:
        turned = axes_of(said) != axes_of(place)
        what = "its axes run the other way" if turned else f"it lies up to {apart:.1f} voxels beside it"
        raise Refusal(
            f"the mask's header says that it does not lie on its image: {what}. Resample it onto the image's own grid"
        )


def _apart(one: Affine, other: Affine, shape: tuple[int, int, int]) -> float:
    """How far two affines put the corners of an array (k, j, i) from each other, in voxels of its finest axis."""
    corners = np.array([(i, j, k, 1) for k in (0, shape[0] - 1) for j in (0, shape[1] - 1) for i in (0, shape[2] - 1)])
    distance = float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())
    return distance / float(np.linalg.norm(other[:3, :3], axis=0).min())


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if not packed:
                yield raw
                return
            try:
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield cast(BinaryIO, unpacked)
            except EOFError:
                raise Refusal("its compressed part is cut off") from None
            except gzip.BadGzipFile:
                raise Refusal("its compressed part is damaged") from None
    except OSError as error:
        raise Refusal(f"cannot be opened: {error.strerror}") from None


def _header(stream: BinaryIO) -> Any:
    """The header, with the stream placed at the first voxel."""
    start = stream.read(4)
    sizes = {int.from_bytes(start, "little"), int.from_bytes(start, "big")} & set(_HEADERS)
    if not sizes:
        raise Refusal("is no NIfTI file, or its header is damaged")
    kind = _HEADERS[sizes.pop()]
    block = start + stream.read(kind.template_dtype.itemsize - 4)
    try:
        # nibabel mends headers where it can: what numbers mean must not be mended.
        as_written, header = kind(block, check=False), kind(block)
        bits = 8 * as_written.get_data_dtype().itemsize
        header["scl_slope"], header["scl_inter"] = as_written["scl_slope"], as_written["scl_inter"]
    except Exception:  # nibabel's texts quote the header
        raise Refusal("its NIfTI header is damaged") from None
    if int(as_written["bitpix"]) != bits:
        raise Refusal("its header says two sizes of a voxel: damaged")
    if not bytes(header["magic"]).startswith(b"n+"):
        raise Refusal("its header and voxels are two files (.hdr, .img): convert it to one .nii or .nii.gz")
    offset = float(header["vox_offset"])
    if offset != int(offset) or not len(block) <= offset <= _MAX_OFFSET:
        raise Refusal("its voxels begin at no plausible place: its header is damaged")
    stream.read(int(offset) - len(block))
    return header


def _shape(header: Any) -> tuple[int, int, int]:
    """(k, j, i)."""
    shape = [int(length) for length in header.get_data_shape()]
    if len(shape) < 3 or any(length != 1 for length in shape[3:]):
        raise Refusal(f"has {len(shape)} dimensions with more than one volume or less than one: give one volume")
    if min(shape[:3]) < 1:
        raise Refusal("has an empty axis")
    return shape[2], shape[1], shape[0]


def _dtype(header: Any) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise Refusal("its voxels are colours or complex numbers, not Hounsfield units")
    return dtype


def _scaling(header: Any) -> tuple[float, float]:
    """Slope and intercept of the values; 1 and 0 where the header says that there are none."""
    try:
        slope, intercept = header.get_slope_inter()
    except nibabel.spatialimages.HeaderDataError:
        raise Refusal("its scl_inter is no number: damaged") from None
    if np.isinf(header["scl_slope"]):  # NaN and 0 say that there is none
        raise Refusal("its scl_slope is no number: damaged")
    if slope is not None and (abs(slope) > 1e6 or abs(intercept) > 1e9):
        raise Refusal("its scl_slope or scl_inter is implausibly large: damaged")
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept))


def _affine(header: Any, shape: tuple[int, int, int]) -> tuple[Affine, list[str]]:
    """Stored (i, j, k) to LPS millimetres, by the sform, else the qform, and what to note."""
    if header.get_xyzt_units()[0] not in ("mm", "unknown"):
        raise Refusal("its lengths are not millimetres (xyzt_units): convert it")
    try:
        forms = {"sform": header.get_sform(coded=True)[0], "qform": header.get_qform(coded=True)[0]}
    except Exception:
        raise Refusal("its qform is no rotation: damaged") from None
    found = [(name, form) for name, form in forms.items() if form is not None and not _says_nothing(form)]
    if not found:
        said = (
            "only an identity, as programs write it that do not know the place"
            if any(form is not None for form in forms.values())
            else "neither sform nor qform"
        )
        raise Refusal(f"has {said}, so its left and right and its millimetres are unknown: write an sform")
    affine = np.asarray(found[0][1], np.float64)
    if not np.isfinite(affine).all() or np.abs(affine).max() > 1e5:
        raise Refusal(f"its {found[0][0]} holds implausible numbers: damaged")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not all(_SPACING[0] <= length <= _SPACING[1] for length in spacing):
        raise Refusal(f"its {found[0][0]} says voxels of {' x '.join(f'{length:.3g}' for length in spacing)} mm")
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 0.5:
        raise Refusal(f"its {found[0][0]} is singular or nearly so: its axes lie in one plane")
    differ = len(found) == 2 and not _apart(np.asarray(found[1][1], np.float64), affine, shape) <= 0.5
    if differ and axes_of(affine) != axes_of(np.asarray(found[1][1], np.float64)):
        raise Refusal("its sform and qform disagree on which way its axes run, so its sides are unknown: mend one")
    notes = ["its sform and qform differ: the sform was taken"] if differ else []
    sides = np.abs(np.asarray(header["pixdim"][1:4], np.float64))
    if not np.allclose(sides, spacing, rtol=_SIDES):
        told = " x ".join(f"{length:.3g}" for length in spacing)
        notes.append(f"its pixdim says other voxels than its {found[0][0]}, whose {told} mm were taken")
    return _LPS @ affine, notes


def _says_nothing(form: NDArray[Any]) -> bool:
    """Whether a form is the identity, in RAS or LPS: 1 mm and the origin at a corner are no scan's."""
    return bool(np.allclose(form, np.eye(4)) or np.allclose(form, _LPS))


def write_labels(volume: Volume, labels: NDArray[Any], path: Path | str) -> Path:
    """Write labels [z, y, x] on the voxels of ``volume`` as NIfTI on the grid of its source; returns the path.

    For NIfTI sources the array has the axes and the affine of the file; for a DICOM series or pictures it is (columns,
    rows, slices sorted along the normal, from feet to head). Where no affine can say where the slices lie (pictures;
    series whose slice distance is uneven) the file says that its place is unknown (sform and qform code 0), and its
    voxel size is the mean one, 1 mm for pictures: a DICOM SEG has the place of every slice.
    """
    path = Path(path)
    array = np.asfortranarray(volume.to_source(np.asarray(labels).astype(np.uint8)).transpose(2, 1, 0))
    affine, even = source_affine(volume)
    image = _IMAGE(array, _LPS @ affine)
    image.set_sform(_LPS @ affine if even else None, 1 if even else 0)
    image.set_qform(None, 0)
    image.header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    image.header.set_xyzt_units("unknown" if volume.affine is None else "mm")
    data = image.to_bytes()
    with atomic_path(path) as partial:
        partial.write_bytes(gzip.compress(data, 6, mtime=0) if path.name.endswith(".gz") else data)
    return path


def source_affine(volume: Volume) -> tuple[Affine, bool]:
    """From (i, j, k) of the source as ``source_shape`` counts it to LPS millimetres, and whether it holds throughout.

    Where slices are uneven it leads from the first to the last.
    """
    if volume.affine is None:
        return np.eye(4), False
    stored = np.zeros((4, 4))  # from (i, j, k) to (x, y, z) of the volume
    stored[3, 3] = 1
    even = True
    for axis, (at, direction) in enumerate(volume.source_axes):
        count = volume.source_shape[2 - at]
        places = np.arange(count, dtype=np.float64)[::direction]
        if axis == 2 and volume.source_z is not None:
            places = volume.source_z
        stored[axis, 3] = places[0]
        stored[axis, at] = direction if count == 1 else (places[-1] - places[0]) / (count - 1)
        even = even and np.allclose(np.diff(places), stored[axis, at])
    return np.asarray(volume.affine @ stored, np.float64), even
