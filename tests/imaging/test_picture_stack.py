"""Folders of exported pictures: a volume that says what it does not know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from domainseg.imaging import ImageReadError, read_volume
from domainseg.imaging.nifti import write_labels


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Write pictures by name."""

    def _write(**pictures: NDArray[Any]) -> Path:
        for name, pixels in pictures.items():
            Image.fromarray(pixels).save(tmp_path / name.replace("__", "."))
        return tmp_path

    return _write


def grey(value: int) -> NDArray[np.uint8]:
    return np.full((20, 24), value, np.uint8)


def refused(path: Path) -> str:
    with pytest.raises(ImageReadError) as caught:
        read_volume(path)
    return caught.value.reason


def test_grey_is_brought_to_the_brain_window_in_order_of_numbers(folder: Callable[..., Path]) -> None:
    volume = read_volume(folder(a10__png=grey(255), a2__png=grey(51), a1__png=grey(0)))
    assert volume.voxels[:, 3, 3].tolist() == [-20, 4, 100]
    assert (volume.affine, volume.spacing, volume.rendering) == (None, None, (-20.0, 100.0))
    assert np.isnan(volume.voxel_ml)
    assert [path.name for path in volume.files] == ["a1.png", "a2.png", "a10.png"]
    assert "assumed" in volume.notes[0]
    assert volume.notes[-1] == "7 numbers are left out in its names: slices may be missing"
    assert volume.source_shape == (3, 20, 24)
    labels = np.arange(3 * 20 * 24).reshape(3, 20, 24) % 7
    np.testing.assert_array_equal(volume.from_source(volume.to_source(labels)), labels)


def test_the_case_of_letters_orders_nothing(folder: Callable[..., Path]) -> None:
    volume = read_volume(folder(S1__png=grey(0), s2__png=grey(51), S3__png=grey(255)))
    assert [path.name for path in volume.files] == ["S1.png", "s2.png", "S3.png"]


def test_masks_of_pictures(folder: Callable[..., Path], tmp_path: Path) -> None:
    import nibabel

    volume = read_volume(folder(a1__png=grey(0), a2__png=grey(9)))
    labels = np.zeros(volume.shape, np.uint8)
    labels[1, 2, 3] = 1
    image = nibabel.load(write_labels(volume, labels, tmp_path / "masks" / "m.nii.gz"))
    assert np.argwhere(np.asarray(image.dataobj)).tolist() == [[3, 2, 1]]
    assert image.get_sform(coded=True)[1] == 0


@pytest.mark.parametrize(
    ("pictures", "reason"),
    [
        ({"a1__png": grey(1), "a2__png": np.zeros((20, 25), np.uint8)}, "another size"),
        ({"a1__png": grey(1), "b2__png": grey(2)}, "order is unknown"),
        ({"a1__png": grey(1), "a01__png": grey(2)}, "order is unknown"),
        ({f"IM-000{series}-000{k}__png": grey(k) for series in (1, 2) for k in range(4)}, "order is unknown"),
        ({"a1__png": grey(1), "a2__png": grey(1)}, "one grey"),
        ({"a1__png": grey(1), "a2__png": np.zeros((20, 24, 3), np.uint8) + np.uint8([9, 90, 0])}, "colour"),
        ({"a1__png": grey(1), "a2__png": np.zeros((20, 24), np.uint16)}, "8-bit"),
    ],
)  # fmt: skip
def test_what_is_no_stack_is_refused(pictures: dict[str, Any], reason: str, folder: Callable[..., Path]) -> None:
    assert reason in refused(folder(**pictures))


def test_mixed_and_damaged_folders(folder: Callable[..., Path], tmp_path: Path) -> None:
    folder(a1__png=grey(1), a2__png=grey(2))
    assert "one picture" in refused(tmp_path / "a1.png")
    (tmp_path / "labels.csv").write_text("x")
    assert read_volume(tmp_path).shape == (2, 20, 24)
    (tmp_path / "IM0001").write_text("x")
    assert "one kind" in refused(tmp_path)
    (tmp_path / "IM0001").unlink()
    (tmp_path / "a2.png").write_bytes((tmp_path / "a2.png").read_bytes()[:45])
    assert refused(tmp_path)
    (tmp_path / "more").mkdir()
    Image.fromarray(grey(3)).save(tmp_path / "more" / "a3.png")
    assert "several folders" in refused(tmp_path)
