"""A film and outputs that a test can read the answer off."""

from __future__ import annotations

import numpy as np
import pytest

from domainseg.imaging import Film


@pytest.fixture
def film() -> Film:
    """A film of 200 x 300 pixels whose value at (x, y) is (x + 2 y) / 1000: any resampling can be checked."""
    y, x = np.mgrid[:200, :300]
    return Film(
        pixels=((x + 2 * y) / 1000).astype(np.float32),
        spacing=(0.5, 0.5),
        spacing_kind="detector",
        orientation=("L", "F"),
        metadata={"view": "AP"},
    )
