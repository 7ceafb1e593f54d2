"""The envelope of films whose ranges are known by construction."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from domainseg.bundle.envelope import measure, outside
from domainseg.imaging import Film

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
