"""What does a bundle look at? The same films with parts painted over, each part by itself.

  python -m domainseg.audit +probe=occlusion bundle=DIR data=manifest data.path=films.csv output=DIR
  python -m domainseg.audit +probe=occlusion bundle=DIR data=... predictions=TABLE_WITH_ROIS output=DIR

Without the ROI a detector should know nothing; without everything else it should know as much as before. Parts are
filled smoothly from what surrounds them, so that a painted patch has no edges of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.evaluation.tables import read_table
from domainseg.imaging import Film
from domainseg.imaging.geometry import inverse, transform
from domainseg.probes.changed_films import bundle_and_films, effects, predict_changed, with_pixels
from domainseg.probes.common import ProbeError, need_columns, p_text, write_results
from domainseg.reporting.page import Figure, Page, Section, Table
from domainseg.reporting.words import interval

Mask = NDArray[np.bool_]
PARTS = {
    "outside": "everything outside the ROI",
    "roi": "the ROI itself",
    "border": "the outer tenth of each side",
    "corners": "the corners, a fifth of each side",
    "markers": "small bright things outside the ROI",
    "metal": "larger bright things, and bright things in the ROI",
}
CORNERS = tuple(f"roi_{axis}{k}" for k in range(1, 5) for axis in "xy")
WIDE = 512  # pixels of the longer side on which bright things are sought
SMALL = 0.005  # of the film: bright things below this are markers, above it metal (our choice)
LARGE = 0.15  # of the film: bright things above this are no things but film
LONG = 0.6  # of a side: nor are those that span more, such as a white frame
BRIGHT = 0.9  # of the range 0..1, and 0.95 of the brightest pixels: from here on a pixel is bright (our choice)
CONTRAST = 0.15  # of the range 0..1, by which a bright thing exceeds what surrounds it (our choice)
THIN = 0.007  # of the longer side: what is nowhere thicker than twice this is no metal (our choice)
GROWN = (0.03, 0.008)  # of the longer side: how far masks of markers and of metal go beyond bright pixels
SCALES = (2.0, 8.0, 32.0)  # pixels of the filling's 128 pixels, the nearest surroundings first
SHOWN = 6
TEXT = (
    "Scored both ways: cases with a score before and after, the fair comparison of the decision itself. On intention a "
    "case that a stage excludes when the part is gone is lost, so that a filter's need of the whole film shows there. "
    "Changes of the log-odds are means within each label. Markers and metal are found by brightness, size and "
    "contrast: films where none was found stay as they are."
)


def run(cfg: dict[str, Any], output: Path, *, parts: Sequence[str], films: str = "test") -> dict[str, Any]:
    """Write occlusion.json, occlusion.html and the table of predictions; returns the record. Raises ProbeError.

    predictions=: a table with ROIs (roi_x1 .. roi_y4) of the same images, for bundles that find none themselves.
    """
    if unknown := [part for part in parts if part not in PARTS]:
        raise ProbeError(f"probe.parts: {unknown[0]} is unknown; known are {', '.join(PARTS)}")
    bundle, manifest, origin = bundle_and_films(cfg, films)
    given = None if not cfg["predictions"] else rois_of(read_table(cfg["predictions"], cfg["columns"]))
    changes = {part: partial(_painted, part=part, given=given) for part in dict.fromkeys(parts)}
    table, touched = predict_changed(bundle, manifest, changes, output)
    record = effects(table, str(bundle.record["target"]), list(changes), touched)
    said = [origin]
    if given is None and "roi_x1" not in table:
        said.append(
            "No ROIs are known: what lies in and outside of them is not told apart. predictions=TABLE gives some."
        )
    record |= {"films": len(manifest), "bundle_sha256": bundle.sha256, "said": said}
    record["verdict"] = verdict(record)
    write_results(
        output, "occlusion", record, page_of(record, _examples(manifest, table, given, parts)), short_table(record)
    )
    return record


def rois_of(table: pd.DataFrame) -> dict[str, list[NDArray[np.float64]]]:
    """image -> corners [4, 2] in source pixels of its ROIs, from a prediction table. Raises ProbeError."""
    need_columns(table, "image", *CORNERS)
    known = table.dropna(subset=list(CORNERS))
    corners = known[list(CORNERS)].to_numpy(np.float64).reshape(-1, 4, 2)
    found: dict[str, list[NDArray[np.float64]]] = {}
    for image, roi in zip(known["image"].astype(str), corners, strict=True):
        found.setdefault(image, []).append(roi)
    return found


def _painted(
    film: Film,
    rows: Sequence[Mapping[str, Any]],
    part: str,
    given: Mapping[str, Sequence[NDArray[np.float64]]] | None,
) -> Film | None:
    mask = mask_of(film, _corners(rows, given), part)
    return None if mask is None or not mask.any() else with_pixels(film, filled(film.pixels, mask, film.valid))


def _corners(
    rows: Sequence[Mapping[str, Any]], given: Mapping[str, Sequence[NDArray[np.float64]]] | None
) -> list[NDArray[np.float64]]:
    if given is not None:
        return list(given.get(str(rows[0]["image"]), []))
    found = [np.array([row.get(name, np.nan) for name in CORNERS], np.float64).reshape(4, 2) for row in rows]
    return [corners for corners in found if np.isfinite(corners).all()]


def mask_of(film: Film, rois: Sequence[NDArray[np.float64]], part: str) -> Mask | None:
    """Where a part of a film [H, W] lies; None where that cannot be told. rois: corners [4, 2] in source pixels.

    All ROIs of a film count as one region. Outside and ROI need one.
    """
    inside = np.zeros(film.shape, np.uint8)
    for corners in rois:
        points = transform(inverse(film.geometry), corners)
        cv2.fillPoly(inside, [np.round(points).astype(np.int32)], 1)
    roi = inside.astype(bool)
    if part in ("outside", "roi"):
        return None if not roi.any() else roi if part == "roi" else np.asarray(~roi)
    if part in ("border", "corners"):
        return np.asarray(_edges(film.shape, corners=part == "corners") & ~roi)
    return bright_things(film, roi)[part == "metal"]


def _edges(shape: tuple[int, int], *, corners: bool) -> Mask:
    height, width = shape
    share = 0.2 if corners else 0.1
    y, x = np.ogrid[:height, :width]
    down = (y < share * height) | (y >= (1 - share) * height)
    across = (x < share * width) | (x >= (1 - share) * width)
    return np.asarray(down & across if corners else down | across)


def bright_things(film: Film, roi: Mask) -> tuple[Mask, Mask]:
    """Markers and metal of a film, each a mask [H, W]: connected bright pixels that stand out from their surroundings.

    Small ones outside the ROI count as markers; larger ones, and those that meet the ROI, as metal. What fills more
    than LARGE of the film, or is as bright as what surrounds it, is film.
    """
    height, width = film.shape
    scale = min(1.0, WIDE / max(height, width))
    side = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(film.pixels, side, interpolation=cv2.INTER_AREA)
    near = cv2.resize(roi.astype(np.uint8), side, interpolation=cv2.INTER_NEAREST) > 0
    bright = small >= max(BRIGHT, 0.95 * float(np.quantile(small, 0.9999)))
    count, parts, stats, _ = cv2.connectedComponentsWithStats(bright.astype(np.uint8), connectivity=8)
    found = np.zeros((2, *small.shape), np.uint8)
    for number in range(1, count):
        _, _, across, down, area = stats[number]
        if area < 4 or area > LARGE * small.size or across > LONG * side[0] or down > LONG * side[1]:
            continue
        thing = (parts == number).astype(np.uint8)
        ring = _grown(_grown(thing, 0.008), 0.008) > _grown(thing, 0.008)
        if not ring.any() or small[thing > 0].mean() - np.median(small[ring]) < CONTRAST:
            continue
        metal = int(area >= SMALL * small.size or bool((near & (thing > 0)).any()))
        if metal and cv2.distanceTransform(thing, cv2.DIST_L2, 3).max() < THIN * max(small.shape):
            continue  # cortical bone is bright, long and thin
        found[metal] |= _grown(thing, GROWN[metal])
    markers, implants = (
        cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST).astype(bool) for mask in found
    )
    return markers & ~roi, implants


def _grown(thing: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    reach = max(1, round(share * max(thing.shape)))
    shape = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return np.asarray(cv2.dilate(thing, shape), np.uint8)


def filled(pixels: NDArray[np.float32], mask: Mask, valid: Mask | None = None) -> NDArray[np.float32]:
    """The picture [H, W] with ``mask`` painted over by blurred surroundings, near ones before far ones."""
    known = (~mask if valid is None else ~mask & valid).astype(np.float32)
    if not known.any():
        return np.full_like(pixels, 0.5)
    height, width = pixels.shape
    side = (max(1, round(128 * width / max(height, width))), max(1, round(128 * height / max(height, width))))
    weight = cv2.resize(known, side, interpolation=cv2.INTER_AREA)
    value = cv2.resize(pixels * known, side, interpolation=cv2.INTER_AREA)
    above, below = np.full(value.shape, 1e-12 * float(value.sum() / weight.sum())), np.full(value.shape, 1e-12)
    for step, scale in enumerate(SCALES):
        importance = 1e-3**step
        above += importance * cv2.GaussianBlur(value, (0, 0), scale, borderType=cv2.BORDER_REFLECT)
        below += importance * cv2.GaussianBlur(weight, (0, 0), scale, borderType=cv2.BORDER_REFLECT)
    smooth = cv2.resize((above / below).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.where(mask, smooth, pixels)


def verdict(record: Mapping[str, Any]) -> list[str]:
    """The result in sentences."""
    said = [f"AUC on films as they are: {interval(record['auc'])}, {record['n']} cases."]
    if record["few"]:
        return [*said, "Too few cases for a verdict."]
    for effect in record["effects"]:
        what, gap = PARTS[effect["name"]], effect["scored_both"]["difference"]
        if not effect["films"]:
            said.append(f"No film had this part: {what}.")
        elif effect["few"]:
            said.append(f"Without {what}: too few cases keep a score ({effect['lost']} are lost) for a verdict.")
        elif effect["p_holm"] < 0.05:
            how = "falls" if gap["value"] < 0 else "rises"
            said.append(f"Without {what} the AUC {how} by {interval(gap)}: the decision depends on it.")
        else:
            said.append(f"Without {what} no change of the AUC is shown: {interval(gap)}.")
    return said


def short_table(record: Mapping[str, Any]) -> Table:
    """One row a part."""
    rows = [
        (
            effect["name"],
            str(effect["films"]),
            interval(effect["scored_both"]["difference"]),
            "too few" if effect["few"] else p_text(effect["p_holm"]),
            interval(effect["difference"]),
            str(effect["lost"]),
            interval(effect["positive"], 2),
            interval(effect["negative"], 2),
        )
        for effect in record["effects"]
    ]
    heads = (
        *("Painted over", "Films", "AUC, scored both ways", "p (Holm)", "AUC, on intention", "Lost"),
        *("Log-odds, positives", "Log-odds, negatives"),
    )
    return Table(heads, rows, f"{record['target']}: change without a part, 95 %", numeric=range(1, 8))


def page_of(record: Mapping[str, Any], examples: Sequence[Figure]) -> Page:
    """The report."""
    legend = Table(("Part", "What it is"), list(PARTS.items()))
    return Page(
        title="Occlusion",
        subtitle=f"Target: {record['target']}, {record['n']} cases, {record['positive_n']} positive.",
        brief=record["verdict"],
        warnings=record["said"],
        sections=[
            Section("Change without each part", text=[TEXT], tables=[short_table(record), legend]),
            Section("One film, painted over", gallery=examples),
        ],
    )


def _examples(
    manifest: Any, table: pd.DataFrame, given: Mapping[str, Sequence[NDArray[np.float64]]] | None, parts: Sequence[str]
) -> list[Figure]:
    """The first film that has a ROI, or the first one, with each part painted over."""
    from domainseg.imaging import read_film

    read = table[table["excluded_by"] != "read"]
    best = read.dropna(subset=["roi_x1"]) if "roi_x1" in read else read
    if not len(image := (best if len(best) else read)["image"].head(1)):
        return []
    film = read_film(manifest.path(image.iloc[0]))
    rows = table[table["image"] == image.iloc[0]].to_dict("records")
    figures = []
    for part in parts:
        if (painted := _painted(film, [{str(k): v for k, v in row.items()} for row in rows], part, given)) is not None:
            height = round(300 * film.shape[0] / film.shape[1])
            small = cv2.resize(painted.pixels, (300, height), interpolation=cv2.INTER_AREA)
            coded = cv2.imencode(".jpg", (small * 255).astype(np.uint8))[1]
            figures.append(Figure(coded.tobytes(), f"Without {PARTS[part]}"))
    return figures
