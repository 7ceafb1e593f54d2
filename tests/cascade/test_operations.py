"""Preprocessing is data: what the lists may hold, and what the operations do to grey levels."""

from __future__ import annotations

import numpy as np
import pytest

from domainseg.cascade.case import Case
from domainseg.cascade.operations import PreprocessingError, local_contrast, preprocess, stretch, versioned
from domainseg.imaging import Film
from domainseg.imaging.geometry import transform


def test_fit_centres_the_frame_and_keeps_its_shape(film: Film) -> None:
    sample = preprocess(Case.of("a", film), [{"op": "fit", "size": 150}])
    assert sample.pixels.shape == (150, 150)
    assert sample.pixels.dtype == np.float32
    corners = transform(sample.affine, [[-0.5, 24.5], [149.5, 124.5]])
    np.testing.assert_allclose(corners, [[-0.5, -0.5], [299.5, 199.5]], atol=1e-9)


def test_stretch_ignores_invalid_pixels() -> None:
    pixels = np.linspace(0.2, 0.4, 10000, dtype=np.float32).reshape(100, 100)
    pixels[:20] = 1.0
    valid = np.ones((100, 100), bool)
    valid[:20] = False
    result = stretch(pixels, valid, low=0, high=100)
    assert result[20, 0] == pytest.approx(0, abs=0.01)
    assert result[99, 99] == pytest.approx(1, abs=0.01)
    assert (result[:20] == 0).all()


def test_local_contrast_does_not_depend_on_exposure_or_gain() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.random((128, 128), dtype=np.float32) * 0.2 + 0.3
    valid = np.ones((128, 128), bool)
    other = pixels * 2.0 + 0.05
    np.testing.assert_allclose(local_contrast(pixels, valid), local_contrast(other, valid), atol=2e-3)


def test_local_contrast_keeps_a_thin_line_and_drops_a_slope() -> None:
    rng = np.random.default_rng(0)
    slope = np.tile(np.linspace(0, 0.5, 256, dtype=np.float32), (256, 1))
    pixels = slope + rng.normal(0, 0.005, (256, 256)).astype(np.float32)
    pixels[128] -= 0.05
    result = local_contrast(pixels, np.ones((256, 256), bool), sigma=24, clip=4)
    assert result[128].mean() < 0.1
    assert abs(result[60:100, 40:100].mean() - result[60:100, 150:210].mean()) < 0.03


def test_local_contrast_has_no_edge_where_the_film_ends() -> None:
    rng = np.random.default_rng(0)
    pixels = (0.8 + rng.normal(0, 0.01, (256, 256))).astype(np.float32)
    valid = np.ones((256, 256), bool)
    valid[:, 128:] = False
    result = local_contrast(np.where(valid, pixels, 0).astype(np.float32), valid)
    assert abs(result[:, 100:127].mean() - 0.5) < 0.05
    assert (result[:, 129:] == 0.5).all()


@pytest.mark.parametrize(
    "operations",
    [
        [],
        [{"op": "stretch"}],
        [{"op": "fit"}],
        [{"op": "fit", "size": 10}, {"op": "exec", "path": "os.system"}],
        [{"op": "fit", "size": 10}, {"op": "stretch", "lowest": 1}],
    ],
)
def test_lists_that_are_not_valid_are_refused(operations: list[dict[str, object]]) -> None:
    with pytest.raises(PreprocessingError):
        versioned(operations)


def test_versions_are_written_in() -> None:
    assert [o["version"] for o in versioned([{"op": "fit", "size": 8}, {"op": "stretch"}])] == [1, 1]
