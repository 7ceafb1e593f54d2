"""What a film's error says arrives from another process as it was raised there."""

from __future__ import annotations

import pickle

import pytest

from domainseg.imaging import ImageReadError
from domainseg.imaging.film import FilmTooLargeError
from domainseg.imaging.volume import VolumeTooLargeError


@pytest.mark.parametrize(
    "error",
    [
        ImageReadError("a.dcm", "holds no CT", "not_ct"),
        FilmTooLargeError("b", "huge"),
        VolumeTooLargeError("c", "huge"),
    ],
)
def test_an_error_goes_whole_through_pickle(error: ImageReadError) -> None:
    """Else it breaks a pool of processes, and nobody reads it."""
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is type(error)
    assert (str(there), there.path, there.reason, there.kind) == (str(error), error.path, error.reason, error.kind)
