"""The input envelope: what training films or volumes were like, and what about another one lies outside of it.

A film outside is flagged, not refused: nobody has measured how the networks do on such films. Ranges run from the 1st
to the 99th percentile of the films, so that one damaged film widens nothing, and have a margin. Percentiles and margins
are our choice. Of the metadata only codes and device names are kept, and only values that FEW films or more share:
a rarer one counts as never seen, and could tell whose film it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from domainseg.imaging.film import Film
from domainseg.imaging.volume import Volume

METADATA = ("modality", "manufacturer", "model", "view", "body_part", "portable")
VOLUME_METADATA = ("modality", "manufacturer", "model", "body_part", "kernel", "kvp")
GREY_PERCENTILES = (1, 25, 50, 75, 99)  # of a film's valid pixels, in 0..1 after window and inversion
HU_PERCENTILES = (5, 25, 50, 75, 95)  # of a volume's voxels above BODY
HU_MARGINS = (100, 20, 20, 50, 300)  # of these: fat, brain, brain, brain and bone, bone; air cells and implants vary
BODY = -300  # HU; below lie air, hair and most of what a head rests on
FEW = 5  # films that a value of the metadata must occur in to be told
RARELY = 0.05  # share of the films up to which something counts as unusual in training
FACTOR = 1.25  # margin of spacing and size: a quarter more or less
GREY_MARGIN = 0.1  # margin of a grey percentile, of the full range 0..1
LEVELS_OF_8_BITS = 256
PIXELS = 1 << 16  # about as many pixels of a film, or voxels of a volume, are looked at
# What of a volume has a range, beside HU: in plane and along the normal, as nominal, and counted.
LENGTHS = ("spacing", "slice_distance", "thickness", "slices")


def measure(films: Iterable[Film | Volume]) -> dict[str, Any]:
    """The envelope of ``films``, or of volumes, as JSON.

    films: their number. few: films below which a value of the metadata is not told. spacing: mm between pixels, the
    smaller and larger of rows and columns; size: pixels of the shorter and longer side, so that a turned film stays
    inside; grey_levels: percentile -> range of its value. Each range is [low, high], or null where no film has it.
    few_levels, no_spacing: shares of films with at most 256 grey levels, without stated spacing. metadata: name ->
    {values: value -> films, missing: share of films without it}.

    Of volumes: volumes instead of films; slice_distance and thickness in mm, slices counted, size in plane; hu instead
    of grey_levels, of what lies above -300 HU in volumes that hold HU as stored; renderings: share of those that were
    made of pictures of a window.
    """
    rows = [_describe_volume(film) if isinstance(film, Volume) else _describe(film) for film in films]
    of_volumes = bool(rows) and "slices" in rows[0]
    count = len(rows)
    shared = {
        "few": FEW,
        "spacing": _range([value for row in rows for value in row["spacing"] or ()]),
        "no_spacing": _share(sum(row["spacing"] is None for row in rows), count),
        "size": {
            "shorter": _range([row["size"][0] for row in rows]),
            "longer": _range([row["size"][1] for row in rows]),
        },
        "metadata": {name: _values(name, rows) for name in (VOLUME_METADATA if of_volumes else METADATA)},
    }
    if of_volumes:
        return {
            "volumes": count,
            **shared,
            **{name: _range([row[name] for row in rows if row[name] is not None]) for name in LENGTHS[1:]},
            "hu": _levels(HU_PERCENTILES, [row["hu"] for row in rows]),
            "renderings": _share(sum(row["rendering"] for row in rows), count),
        }
    return {
        "films": count,
        **shared,
        "grey_levels": _levels(GREY_PERCENTILES, [row["grey"] for row in rows]),
        "few_levels": _share(sum(row["few_levels"] for row in rows), count),
    }


def outside(film: Film | Volume, envelope: Mapping[str, Any]) -> list[str]:
    """What about a film or volume lies outside ``envelope``; [] when nothing does, or when the envelope is of none.

    Reasons: spacing, spacing:missing, size, grey_levels, bits (at most 256 grey levels where training films had more),
    metadata:NAME (a value not seen in training), metadata:NAME:missing. Of volumes also slice_distance, thickness,
    slices, rendering (pictures where training had HU, or the reverse), and hu instead of grey_levels and bits.
    """
    if not envelope.get("volumes" if isinstance(film, Volume) else "films"):
        return []
    row = _describe_volume(film) if isinstance(film, Volume) else _describe(film)
    reasons = []
    if row["spacing"] is None:
        if envelope["no_spacing"] <= RARELY:
            reasons.append("spacing:missing")
    elif not all(_near(value, envelope["spacing"]) for value in row["spacing"]):
        reasons.append("spacing")
    sides = zip(row["size"], (envelope["size"]["shorter"], envelope["size"]["longer"]), strict=True)
    if not all(_near(side, limits) for side, limits in sides):
        reasons.append("size")
    if isinstance(film, Volume):
        reasons += [name for name in LENGTHS[1:] if row[name] is not None and not _near(row[name], envelope[name])]
        if (envelope["renderings"] <= RARELY) if row["rendering"] else (envelope["renderings"] >= 1 - RARELY):
            reasons.append("rendering")
        elif not row["rendering"] and _levels_outside(row["hu"], envelope["hu"], HU_MARGINS):
            reasons.append("hu")
    else:
        if _levels_outside(row["grey"], envelope["grey_levels"], [GREY_MARGIN] * len(GREY_PERCENTILES)):
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


def _describe_volume(volume: Volume) -> dict[str, Any]:
    step = max(1, round((volume.voxels.size / PIXELS) ** (1 / 3)))
    voxels = volume.voxels[::step, ::step, ::step]
    body = voxels[voxels > BODY]
    rendering = volume.rendering is not None
    thickness = _number(volume.metadata.get("thickness"))
    return {
        "spacing": None if volume.spacing is None else sorted(volume.spacing[:2]),
        "slice_distance": None if volume.spacing is None else volume.spacing[2],
        "thickness": thickness,
        "slices": volume.shape[0],
        "size": sorted(volume.shape[1:]),
        "hu": [] if rendering or not body.size else [float(value) for value in np.percentile(body, HU_PERCENTILES)],
        "rendering": rendering,
        "metadata": {name: volume.metadata[name] for name in VOLUME_METADATA if volume.metadata.get(name)},
    }


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _values(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = Counter(row["metadata"][name] for row in rows if name in row["metadata"])
    common = {value: times for value, times in sorted(found.items()) if times >= FEW}
    return {"values": common, "missing": _share(len(rows) - found.total(), len(rows))}


def _levels(percentiles: Sequence[int], rows: Sequence[Sequence[float]]) -> dict[str, Any]:
    return {str(percentile): _range([row[k] for row in rows if row]) for k, percentile in enumerate(percentiles)}


def _range(values: list[float]) -> list[float] | None:
    return [round(float(value), 5) for value in np.percentile(values, [1, 99])] if values else None


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0


def _near(value: float, limits: list[float] | None) -> bool:
    return limits is None or limits[0] / FACTOR <= value <= limits[1] * FACTOR


def _levels_outside(levels: list[float], limits: Mapping[str, list[float] | None], margins: Sequence[float]) -> bool:
    if not levels:
        return True
    pairs = zip(levels, limits.values(), margins, strict=True)
    return any(
        not limit[0] - margin <= level <= limit[1] + margin for level, limit, margin in pairs if limit is not None
    )
