"""The envelope of films whose ranges are known by construction."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from domainseg.bundle.envelope import measure, outside
from domainseg.imaging import Film, Volume

DEVICE = {"modality": "DX", "manufacturer": "Acme", "model": "One", "view": "AP", "body_part": "PELVIS"}


def film(*, shape: tuple[int, int] = (400, 300), spacing: float | None = 0.2, seed: int = 0, **metadata: str) -> Film:
    """A film with grey levels that are uniform in 0.1..0.9."""
    pixels = np.random.default_rng(seed).uniform(0.1, 0.9, shape).astype(np.float32)
    both = None if spacing is None else (spacing, spacing)
    return Film(pixels=pixels, spacing=both, metadata={**DEVICE, **metadata})


@pytest.fixture(scope="module")
def envelope() -> dict[str, Any]:
    """Of 40 films: spacing 0.15 to 0.25 mm, 400 to 500 x 300 pixels, two makers; through JSON, as a bundle keeps it."""
    makers = ["Acme", "Bolt"]
    films = [
        film(shape=(400 + 100 * (k % 2), 300), spacing=0.15 + 0.1 * (k % 2), seed=k, manufacturer=makers[k % 2])
        for k in range(40)
    ]
    found: dict[str, Any] = json.loads(json.dumps(measure(films)))
    return found


def test_ranges_are_those_of_the_films(envelope: dict[str, Any]) -> None:
    assert envelope["films"] == 40
    assert envelope["spacing"] == [0.15, 0.25]
    assert envelope["size"] == {"shorter": [300, 300], "longer": [400, 500]}
    assert envelope["grey_levels"]["50"] == pytest.approx([0.5, 0.5], abs=0.01)
    assert envelope["grey_levels"]["99"] == pytest.approx([0.892, 0.892], abs=0.01)
    assert envelope["metadata"]["manufacturer"] == {"values": {"Acme": 20, "Bolt": 20}, "missing": 0}
    assert envelope["metadata"]["portable"] == {"values": {"0": 40}, "missing": 0}


@pytest.mark.parametrize(
    ("changed", "reasons"),
    [
        (film(), []),
        (film(shape=(300, 500)), []),  # turned
        (film(spacing=0.13), []),
        (film(spacing=0.31), []),
        (film(spacing=0.11), ["spacing"]),
        (film(spacing=0.32), ["spacing"]),
        (replace(film(), spacing=(0.2, 0.4)), ["spacing"]),
        (film(spacing=None), ["spacing:missing"]),
        (film(shape=(630, 300)), ["size"]),
        (film(shape=(400, 230)), ["size"]),
        (film(manufacturer="Corp"), ["metadata:manufacturer"]),
        (film(modality="CR", portable="1"), ["metadata:modality", "metadata:portable"]),
        (film(view=""), ["metadata:view:missing"]),
        (replace(film(), pixels=film().pixels ** 3), ["grey_levels"]),
        (replace(film(), pixels=(film().pixels > 0.5) * np.float32(0.8) + np.float32(0.1)), ["grey_levels", "bits"]),
        (replace(film(), pixels=np.round(film().pixels * 255) / np.float32(255)), ["bits"]),
        (replace(film(), pixels=np.round(film().pixels * 4095) / np.float32(4095)), []),
        (replace(film(), valid=np.zeros((400, 300), bool)), ["grey_levels", "bits"]),
    ],
)
def test_what_lies_outside_is_named(envelope: dict[str, Any], changed: Film, reasons: list[str]) -> None:
    assert outside(changed, envelope) == reasons


def test_padding_counts_for_no_grey_level(envelope: dict[str, Any]) -> None:
    padded = film()
    padded.pixels[:300] = 0
    valid = np.ones(padded.shape, bool)
    valid[:300] = False
    assert outside(padded, envelope) == ["grey_levels"]
    assert outside(replace(padded, valid=valid), envelope) == []


def test_films_without_metadata_or_spacing_ask_for_none() -> None:
    """A bundle made from PNG files knows neither; a DICOM film is then not outside for having them."""
    bare = [replace(film(seed=k), metadata={}, spacing=None) for k in range(10)]
    assert outside(film(), measure(bare)) == []


def test_a_rare_value_is_not_told_and_counts_as_unseen() -> None:
    """What a handful of films share may be a name that someone typed into the wrong field."""
    films = [film(seed=k, body_part="PELVIS" if k < 36 else "Mustermann Erika") for k in range(40)]
    envelope = measure(films)
    assert "Mustermann" not in json.dumps(envelope)
    assert outside(films[-1], envelope) == ["metadata:body_part"]


def test_other_metadata_is_left_out() -> None:
    films = [film(seed=k, institution="St. Elsewhere", station="ROOM 7", date="2020-01-01") for k in range(10)]
    text = json.dumps(measure(films))
    assert not [word for word in ("Elsewhere", "ROOM", "2020") if word in text]


def test_an_envelope_of_no_films_flags_nothing() -> None:
    assert outside(film(), measure([])) == []


SCANNER = {
    "modality": "CT",
    "manufacturer": "Acme",
    "model": "Two",
    "body_part": "HEAD",
    "kernel": "H31s",
    "kvp": "120",
}


def volume(
    *,
    shape: tuple[int, int, int] = (30, 64, 64),
    spacing: tuple[float, float, float] | None = (0.5, 0.5, 5.0),
    shift: int = 0,
    rendering: tuple[float, float] | None = None,
    **metadata: str,
) -> Volume:
    """Half air, half 0 to 100 HU, uniformly."""
    voxels = np.random.default_rng(0).integers(0, 101, shape) + shift
    voxels[:, :, :32] = -1000
    affine = None if spacing is None else np.diag([*spacing, 1.0])
    told = {**SCANNER, "thickness": "5", **metadata}
    return Volume(voxels.astype(np.int16), affine, rendering=rendering, metadata=told)


@pytest.fixture(scope="module")
def of_volumes() -> dict[str, Any]:
    """Of 20 volumes: slices 4 to 5 mm apart, 30 or 40 of them; through JSON."""
    made = [volume(shape=(30 + 10 * (k % 2), 64, 64), spacing=(0.5, 0.5, 4.0 + k % 2)) for k in range(20)]
    found: dict[str, Any] = json.loads(json.dumps(measure(made)))
    return found


def test_ranges_of_volumes(of_volumes: dict[str, Any]) -> None:
    assert of_volumes["volumes"] == 20
    assert (of_volumes["spacing"], of_volumes["slice_distance"]) == ([0.5, 0.5], [4.0, 5.0])
    assert (of_volumes["thickness"], of_volumes["slices"]) == ([5.0, 5.0], [30.0, 40.0])
    assert of_volumes["size"] == {"shorter": [64, 64], "longer": [64, 64]}
    assert of_volumes["hu"]["50"] == pytest.approx([50, 50], abs=2)  # air is left out
    assert (of_volumes["renderings"], of_volumes["no_spacing"]) == (0, 0)
    assert of_volumes["metadata"]["kernel"] == {"values": {"H31s": 20}, "missing": 0}


@pytest.mark.parametrize(
    ("changed", "reasons"),
    [
        (volume(), []),
        (volume(spacing=(0.7, 0.5, 5.0)), ["spacing"]),
        (volume(spacing=(0.5, 0.5, 1.0)), ["slice_distance"]),
        (volume(thickness="10"), ["thickness"]),
        (volume(thickness="unknown"), []),
        (volume(shape=(60, 64, 64)), ["slices"]),
        (volume(shape=(30, 64, 96)), ["size"]),
        (volume(shift=15), []),
        (volume(shift=40), ["hu"]),
        (volume(shift=-900), ["hu"]),  # nothing of a body
        (volume(rendering=(-20.0, 100.0)), ["rendering"]),
        (volume(spacing=None, rendering=(-20.0, 100.0)), ["spacing:missing", "rendering"]),
        (volume(kernel="B70"), ["metadata:kernel"]),
        (volume(body_part=""), ["metadata:body_part:missing"]),
    ],
)
def test_what_lies_outside_of_volumes_is_named(of_volumes: dict[str, Any], changed: Volume, reasons: list[str]) -> None:
    assert outside(changed, of_volumes) == reasons


def test_pictures_ask_for_pictures_and_films_for_films(of_volumes: dict[str, Any], envelope: dict[str, Any]) -> None:
    pictures = volume(spacing=None, rendering=(-20.0, 100.0))
    made = measure([pictures] * 6)
    assert outside(pictures, made) == []
    assert outside(volume(shift=500), made) == ["rendering"]
    assert outside(film(), of_volumes) == outside(volume(), envelope) == []
