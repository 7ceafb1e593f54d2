"""From attenuation to a stored film: exposure, scatter, noise, sharpness, and each site's own processing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from domainseg.phantom.canvas import Map, Points, blur


@dataclass(frozen=True)
class Site:
    """A hospital's detector and processing. Lengths in mm; ``rows`` x ``columns`` is the film's size (landscape).

    sigmoid: steepness of the display curve; flatten: how much of the slow variation is taken out; edge: gain of the
    unsharp mask with radius ``edge_mm``; dose: photons a mm2 behind no patient, in thousands.
    """

    name: str
    spacing: float
    rows: int
    columns: int
    bits: int
    photometric: str
    dose: float
    blur_mm: float
    sigmoid: float
    flatten: float
    edge: float
    edge_mm: float
    marker: str
    institution: str
    manufacturer: str
    model: str


SITE = {
    "A": Site(
        "A", 0.148, 2208, 2688, 14, "MONOCHROME2", 1100.0, 0.10, 2.3, 0.55, 0.6, 1.2, "block",
        "Northfield General Hospital", "Lumora", "DX-400",
    ),
    "B": Site(
        "B", 0.168, 1952, 2400, 12, "MONOCHROME1", 1300.0, 0.14, 2.6, 0.70, 0.9, 0.9, "round",
        "St. Aldwin Infirmary", "Helion", "FlatPano 3",
    ),
    "C": Site(
        "C", 0.187, 1792, 2176, 12, "MONOCHROME2", 600.0, 0.19, 1.9, 0.42, 0.4, 2.0, "plate",
        "Riverside Trauma Centre", "Korvex", "CR-Reader 85",
    ),
}  # fmt: skip
#: What all sites look like inside the region of interest where only what lies outside may tell them apart.
NEUTRAL: dict[str, float] = {
    "dose": 900.0,
    "blur_mm": 0.14,
    "sigmoid": 2.3,
    "flatten": 0.55,
    "edge": 0.6,
    "edge_mm": 1.2,
}
NEUTRAL_SPACING = 0.168


def dressed(site: Site, place: str) -> tuple[Site, Site]:
    """The site as it shapes the picture (grey scale, sharpness, noise, spacing), and as it shapes what lies around.

    Where only the surroundings may tell sites apart the first is neutral, and films are as large as those of site A,
    since a region of interest may reach the film's edge; where only the inside may, film size and markers are those of
    site A at any site.
    """
    inside, around = site, site
    if place == "outside":
        shared = SITE["A"]
        scale = shared.spacing / NEUTRAL_SPACING
        size = {"rows": round(shared.rows * scale), "columns": round(shared.columns * scale)}
        inside = replace(site, spacing=NEUTRAL_SPACING, **size, **NEUTRAL)  # type: ignore[arg-type]
    elif place == "inside":
        around = SITE["A"]
        scale = around.spacing / site.spacing
        inside = replace(site, rows=round(around.rows * scale), columns=round(around.columns * scale))
    return inside, around


def expose(
    attenuation: Map, spacing: float, site: Site, rng: np.random.Generator, *, portable: bool
) -> tuple[Map, Map]:
    """Logarithm of what the detector measures [H, W], bright = dense, and its slow part (for ``process``).

    ``attenuation`` [H, W] is the line integral without scatter. Scatter is a wide blur of the primary, without a grid
    (portable) about four times as strong. Noise is that of photon counts, correlated by the detector's blur.
    """
    factor = 8
    height, width = attenuation.shape
    small = cv2.resize(attenuation, (-(-width // factor), -(-height // factor)), interpolation=cv2.INTER_AREA)
    primary = np.exp(-small)
    ratio = 0.42 if portable else 0.18
    step = spacing * factor
    scatter = ratio * (0.6 * blur(primary, 18 / step) + 0.4 * blur(primary, 55 / step)) + 1e-4
    signal = np.exp(-attenuation)
    signal += cv2.resize(scatter, (width, height), interpolation=cv2.INTER_LINEAR)
    photons = site.dose * 1e3 * spacing**2 * rng.uniform(0.7, 1.4) * (0.75 if portable else 1.0)
    noise = rng.standard_normal(attenuation.shape, dtype=np.float32)
    sigma = site.blur_mm / spacing
    cv2.GaussianBlur(noise, (3, 3), max(0.35, 0.7 * sigma), dst=noise)
    noise *= np.float32(1 / noise[::16, ::16].std() / np.sqrt(photons))
    cv2.sqrt(signal, signal_root := np.empty_like(signal))
    noise *= signal_root
    signal += noise
    np.maximum(signal, 2e-5, out=signal)
    if sigma > 0.4:
        cv2.GaussianBlur(signal, (5, 5), sigma, dst=signal)
    cv2.log(signal, dst=signal)
    np.negative(signal, out=signal)
    slow = -np.log(np.exp(-small) + scatter)
    return signal, np.asarray(slow, np.float32)


def process(
    log: Map,
    slow: Map,
    spacing: float,
    site: Site,
    inside: NDArray[np.bool_],
    jitter: Points,
    measured: NDArray[np.bool_] | None = None,
) -> Map:
    """The site's picture 0..1, bright = dense: slow parts flattened, edges enhanced, display curve.

    ``inside`` [h, w] is the collimated field on the raster of ``slow``; dark and bright ends of the display are taken
    from the body in it, as a console does, or in ``measured`` alone; ``jitter`` (3,) moves both ends and the steepness
    (as a logarithm).
    """
    height, width = log.shape
    held = np.where(inside, slow, np.float32(slow[inside].mean() if inside.any() else 0))
    wide = blur(held, 12 / (spacing * 8))
    if measured is not None:
        inside = inside & measured
    ends = np.quantile(slow[inside][::5], 0.95) if inside.any() else 0.0
    body = inside & (slow > min(0.6, 0.4 * float(ends)))
    body = body if body.sum() > 100 else np.ones_like(body)
    wide -= np.float32(wide[body].mean())
    wide *= np.float32(site.flatten)
    # Metal fills a few per cent of a film and must not darken the rest of it: the bright end is taken well below.
    low, high = np.quantile((slow - wide)[body][::3], (0.06, 0.88)) + jitter[:2] + (0.05, 0.66)
    log -= cv2.resize(wide, (width, height), interpolation=cv2.INTER_LINEAR)
    if site.edge:
        half = np.asarray(cv2.resize(log, (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.float32)
        soft = cv2.resize(blur(half, site.edge_mm / spacing / 2), (width, height), interpolation=cv2.INTER_LINEAR)
        log += np.float32(site.edge) * (log - soft)
    scaled = (log - np.float32((low + high) / 2)) * np.float32(2 * site.sigmoid * np.exp(jitter[2]) / (high - low))
    np.clip(scaled, -12, 12, out=scaled)
    return np.asarray(1 / (1 + cv2.exp(-scaled)), np.float32)


def quantise(picture: Map, site: Site) -> NDArray[np.uint16]:
    """Stored values: ``bits`` deep, inverted for MONOCHROME1."""
    top = np.float32(2**site.bits - 1)
    stored = np.clip(picture, 0, 1) * top
    if site.photometric == "MONOCHROME1":
        stored = top - stored
    return (stored + np.float32(0.5)).astype(np.uint16)
