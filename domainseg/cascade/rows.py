"""The rows of one film: one a case, with its scores or the reason for its exclusion, and the truth beside them.

Without pandas: a bundle that reads one film has no time to import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from domainseg.cascade.case import Case, Exclusion, roi_corners
from domainseg.cascade.stages import PARTS
from domainseg.imaging.film import Film, ImageReadError
from domainseg.imaging.geometry import inverse, transform

if TYPE_CHECKING:
    from domainseg.cascade.truth import Truth

# Truth that gives a hip its place in subgroups of the results.
TRUTH_COLUMNS = ("label_location", "fracture_class", "fracture_width_mm", "displacement_mm", "implant")
POINTING_TOLERANCE = 32  # ROI pixels: one cell of the map, about 5 mm


def film_rows(
    image: str,
    film: Film | ImageReadError,
    results: Sequence[Case | Exclusion],
    truth: Truth | None,
) -> list[dict[str, Any]]:
    """The rows of one film: every hip found, and every hip that the truth knows of, whatever became of its film.

    Without truth nobody can say whether a hip that was not found is missed or outside the film: ``hips_found`` of its
    other rows (0 to 2, absent where the film did not come so far) says how many there were.
    """
    common = described(film)
    if isinstance(film, ImageReadError):
        results = []
    elif any(result.part in PARTS or "score_localizer" in result.values for result in results):
        common["hips_found"] = sum(result.part in PARTS for result in results)
    rows = []
    for result in results:
        row = {"image": image, "part": result.part, **common, **result.values}
        if isinstance(result, Exclusion):
            row |= {"excluded_by": result.excluded_by, "exclusion_reason": result.reason}
        elif truth is not None:
            row |= _measured(result, truth)
        if result.part in PARTS:
            row["image_side"] = result.part.removeprefix("hip_")
        rows.append(row)
    if truth is None:
        return rows or [{"image": image, "part": "", **common}]
    whole = next((row for row in rows if not row["part"]), {"image": image, "part": "", **common})
    met = {row["part"] for row in rows}
    found = sorted(met & set(PARTS))
    for part in PARTS:
        if part in met or not truth.has(image, part):
            continue
        row = {**whole, "part": part, "image_side": part.removeprefix("hip_")}
        row.pop("score_localizer", None)  # that of the film's likelier side
        if found:  # the film went on with its other hip
            shared: dict[str, Any] = {key: rows[0][key] for key in ("score_view_filter", "turns") if key in rows[0]}
            row |= {**shared, "excluded_by": "localizer", "exclusion_reason": "hip_not_found"}
        rows.append(row)
    if any(row["part"] for row in rows):
        rows = [row for row in rows if row["part"]]
    for row in rows or [whole]:
        _add_truth(row, truth)
    return rows or [whole]


def described(film: Film | ImageReadError) -> dict[str, Any]:
    """Columns that say what was read: size in pixels and spacing in mm, or why nothing was."""
    if isinstance(film, ImageReadError):
        return {"excluded_by": "read", "exclusion_reason": film.kind}
    found: dict[str, Any] = {"width": film.shape[1], "height": film.shape[0], "spacing_kind": film.spacing_kind}
    if film.spacing is not None:
        found["spacing"] = float(np.sqrt(film.spacing[0] * film.spacing[1]))
    return found


def _add_truth(row: dict[str, Any], truth: Truth) -> None:
    film = truth.film(row["image"])
    row["label_view_filter"] = film["label_view_filter"]
    row["label_view"] = film["label_view"]
    if row["part"] not in PARTS:
        for label in ("label_implant_filter", "label_fracture"):
            if film[label] == 0:  # a film that is free of it has no hip with it, found or not: lost, it counts
                row[label] = 0.0
        return
    known = truth.part(row["image"], row["part"])
    corners = [[row[f"roi_x{k}"], row[f"roi_y{k}"]] for k in range(1, 5)] if "roi_x1" in row else None
    roi = None if corners is None else np.array(corners)
    row["label_localizer"] = known["label_localizer"]
    for target in ("implant_filter", "fracture"):
        row[f"label_{target}"] = truth.label(target, row["image"], row["part"], roi)
    for column in TRUTH_COLUMNS:
        if column in known:
            row[column] = known[column]
    if np.isnan(known["x"]):
        return
    row["true_head_x"], row["true_head_y"] = known["x"], known["y"]
    if "head_x" in row:
        error = float(np.hypot(row["head_x"] - known["x"], row["head_y"] - known["y"]))
        row["head_error_pct"] = 100 * error / row["width"]
        if "spacing" in row:
            row["head_error_mm"] = error * row["spacing"]


def _measured(case: Case, truth: Truth) -> dict[str, Any]:
    """Whether the map points at the lesion: a lesion pixel lies within POINTING_TOLERANCE of the pointed place."""
    if "pointing_x" not in case.values or truth.label("fracture", case.image, case.part, roi_corners(case)) != 1:
        return {}
    lesions = truth.lesions(case)
    if not lesions:
        return {}
    assert isinstance(case.film, Film)
    mask = truth.draw(lesions, case.affine, case.shape, case.film.shape)
    if not mask.any():
        return {"pointing_hit": 0.0}
    x, y = transform(inverse(case.affine), [case.values["pointing_x"], case.values["pointing_y"]])
    rows, columns = np.nonzero(mask)
    return {"pointing_hit": float(np.hypot(columns - x, rows - y).min() <= POINTING_TOLERANCE)}
