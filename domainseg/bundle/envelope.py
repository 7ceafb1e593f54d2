"""The input envelope: what training films were like, and what about a film lies outside of it.

A film outside is flagged, not refused: nobody has measured how the networks do on such films. Ranges run from the 1st
to the 99th percentile of the films, so that one damaged film widens nothing, and have a margin. Percentiles and margins
are our choice. Of the metadata only codes and device names are kept, and only values that FEW films or more share:
a rarer one counts as never seen, and could tell whose film it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from domainseg.imaging.film import Film

METADATA = ("modality", "manufacturer", "model", "view", "body_part", "portable")
GREY_PERCENTILES = (1, 25, 50, 75, 99)  # of a film's valid pixels, in 0..1 after window and inversion
FEW = 5  # films that a value of the metadata must occur in to be told
RARELY = 0.05  # share of the films up to which something counts as unusual in training
FACTOR = 1.25  # margin of spacing and size: a quarter more or less
GREY_MARGIN = 0.1  # margin of a grey percentile, of the full range 0..1
LEVELS_OF_8_BITS = 256
PIXELS = 1 << 16  # about as many pixels of a film are looked at


def measure(films: Iterable[Film]) -> dict[str, Any]:
    """The envelope of ``films`` as JSON.

    films: their number. few: films below which a value of the metadata is not told. spacing: mm between pixels, the
    smaller and larger of rows and columns; size: pixels of the shorter and longer side, so that a turned film stays
    inside; grey_levels: percentile -> range of its value. Each range is [low, high], or null where no film has it.
    few_levels, no_spacing: shares of films with at most 256 grey levels, without stated spacing. metadata: name ->
    {values: value -> films, missing: share of films without it}.
    """
    rows = [_describe(film) for film in films]
    count = len(rows)
    spacings = [row["spacing"] for row in rows if row["spacing"] is not None]
    metadata = {}
    for name in METADATA:
        values = Counter(row["metadata"][name] for row in rows if name in row["metadata"])
        common = {value: n for value, n in sorted(values.items()) if n >= FEW}
        metadata[name] = {"values": common, "missing": _share(count - values.total(), count)}
    return {
        "films": count,
        "few": FEW,
        "spacing": _range([value for pair in spacings for value in pair]),
        "no_spacing": _share(count - len(spacings), count),
        "size": {
            "shorter": _range([row["size"][0] for row in rows]),
            "longer": _range([row["size"][1] for row in rows]),
        },
        "grey_levels": {
            str(percentile): _range([row["grey"][k] for row in rows if row["grey"]])
            for k, percentile in enumerate(GREY_PERCENTILES)
        },
        "few_levels": _share(sum(row["few_levels"] for row in rows), count),
        "metadata": metadata,
    }


def outside(film: Film, envelope: Mapping[str, Any]) -> list[str]:
    """What about a film lies outside ``envelope``; [] when nothing does, or when the envelope is of no film.

    Reasons: spacing, spacing:missing, size, grey_levels, bits (at most 256 grey levels where training films had more),
    metadata:NAME (a value not seen in training), metadata:NAME:missing.
    """
    if not envelope.get("films"):
        return []
    row = _describe(film)
    reasons = []
    if row["spacing"] is None:
        if envelope["no_spacing"] <= RARELY:
            reasons.append("spacing:missing")
    elif envelope["spacing"] and not all(_near(value, envelope["spacing"]) for value in row["spacing"]):
        reasons.append("spacing")
    sides = zip(row["size"], (envelope["size"]["shorter"], envelope["size"]["longer"]), strict=True)
    if not all(_near(side, limits) for side, limits in sides):
        reasons.append("size")
    if _grey_outside(row["grey"], envelope["grey_levels"]):
        reasons.append("grey_levels")
    if row["few_levels"] and envelope["few_levels"] <= RARELY:
        reasons.append("bits")
    for name, known in envelope["metadata"].items():
        value = row["metadata"].get(name)
        if value is None:
            if known["missing"] <= RARELY:
                reasons.append(f"metadata:{name}:missing")
        elif known["values"] and value not in known["values"]:
            reasons.append(f"metadata:{name}")
    return reasons


def _describe(film: Film) -> dict[str, Any]:
    step = max(1, int(np.sqrt(film.pixels.size / PIXELS)))
    pixels = film.pixels[::step, ::step]
    if film.valid is not None:
        pixels = pixels[film.valid[::step, ::step]]
    metadata = {name: film.metadata[name] for name in METADATA if film.metadata.get(name)}
    # The flag is set or absent: absent means no.
    metadata["portable"] = metadata.get("portable", "0")
    return {
        "spacing": None if film.spacing is None else sorted(film.spacing),
        "size": sorted(film.shape),
        "grey": [float(value) for value in np.percentile(pixels, GREY_PERCENTILES)] if pixels.size else [],
        "few_levels": bool(len(np.unique(pixels)) <= LEVELS_OF_8_BITS),
        "metadata": metadata,
    }


def _range(values: list[float]) -> list[float] | None:
    return [round(float(value), 5) for value in np.percentile(values, [1, 99])] if values else None


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _near(value: float, limits: list[float] | None) -> bool:
    return limits is None or limits[0] / FACTOR <= value <= limits[1] * FACTOR


def _grey_outside(levels: list[float], limits: Mapping[str, list[float] | None]) -> bool:
    if not levels:
        return True
    pairs = zip(levels, limits.values(), strict=True)
    return any(
        not limit[0] - GREY_MARGIN <= level <= limit[1] + GREY_MARGIN for level, limit in pairs if limit is not None
    )
