"""Hospitals that take chest films: detector, processing, film size, marker."""

from __future__ import annotations

from dataclasses import replace

from domainseg.phantom.detector import Site

#: rows x columns of an upright film at reduction 1. Doses are low against a hospital's: pixels are large, and noise
#: must still be seen at 224 px.
SITE = {
    "A": Site(
        "A", 0.42, 1024, 1024, 14, "MONOCHROME2", 26.0, 0.35, 2.2, 0.40, 0.5, 3.0, "block",
        "Northfield General Hospital", "Lumora", "DX-400",
    ),
    "B": Site(
        "B", 0.44, 976, 816, 12, "MONOCHROME1", 12.0, 0.30, 2.8, 0.62, 1.0, 2.0, "round",
        "St. Aldwin Infirmary", "Helion", "FlatPano 3",
    ),
    "C": Site(
        "C", 0.46, 912, 784, 12, "MONOCHROME2", 4.0, 0.75, 1.7, 0.25, 0.2, 4.0, "plate",
        "Riverside Trauma Centre", "Korvex", "CR-Reader 85",
    ),
}  # fmt: skip
#: What all sites look like inside the lungs where only what lies outside may tell them apart.
NEUTRAL: dict[str, float] = {
    "dose": 12.0,
    "blur_mm": 0.4,
    "sigmoid": 2.2,
    "flatten": 0.42,
    "edge": 0.5,
    "edge_mm": 3.0,
}
NEUTRAL_SPACING = 0.44


def dressed(site: Site, place: str) -> tuple[Site, Site]:
    """The site as it shapes the picture (grey scale, sharpness, noise, spacing), and as it shapes what lies around.

    Where only the surroundings may tell sites apart the first is neutral; where only the inside may, film size and
    markers are those of site A at any site.
    """
    inside, around = site, site
    if place == "outside":
        scale = site.spacing / NEUTRAL_SPACING
        size = {"rows": round(site.rows * scale), "columns": round(site.columns * scale)}
        inside = replace(site, spacing=NEUTRAL_SPACING, **size, **NEUTRAL)  # type: ignore[arg-type]
    elif place == "inside":
        around = SITE["A"]
        scale = around.spacing / site.spacing
        inside = replace(site, rows=round(around.rows * scale), columns=round(around.columns * scale))
    return inside, around
