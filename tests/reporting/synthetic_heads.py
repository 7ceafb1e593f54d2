"""Tables of the head CT cascade, exams and lesions, drawn from known distributions and consistent with each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from domainseg.imaging.hemorrhage import MIMICS, TYPES

THRESHOLD = 0.4


def tables(exams: int = 100, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The prediction table and the lesion table: half of the exams have bleeds, a few are excluded."""
    rng = np.random.default_rng(seed)
    rows, lesions = [], []
    for number in range(exams):
        row, found = _exam(rng, number)
        rows.append(row)
        lesions += found
    return pd.DataFrame(rows), pd.DataFrame(lesions)


def _exam(rng: np.random.Generator, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    image, head = f"exam{number:03d}", rng.random() > 0.05
    kinds = [str(name) for name in rng.choice(TYPES, rng.integers(1, 3), replace=False)] if rng.random() < 0.5 else []
    mimics = [str(name) for name in rng.choice(MIMICS[::3], rng.integers(0, 3), replace=False)]
    row: dict[str, Any] = {
        "image": image, "part": "head" if head else "", "patient": f"p{number:03d}", "site": "AB"[number % 2],
        "split": "tune" if number % 4 == 0 else "test", "age": float(rng.integers(18, 90)), "excluded_by": "",
        "exclusion_reason": "", "slices": 34, "label_head_filter": float(head), "threshold_head_filter": 0.2,
        "score_head_filter": float(expit(rng.normal(4 if head else -4, 1.5))), "eligible_head_filter": True,
        "threshold_hemorrhage": THRESHOLD, "mimic": "+".join(mimics), "density": "fresh" if number % 3 else "subacute",
    }  # fmt: skip
    if not head:
        return row | {"excluded_by": "head_filter", "exclusion_reason": "no_head"}, []
    row |= {"label_hemorrhage": float(bool(kinds)), "eligible_hemorrhage": True}
    true = {kind: float(np.exp(rng.normal(1.8, 1.2))) for kind in kinds}
    excluded = row["score_head_filter"] < 0.2
    lesions: list[dict[str, Any]] = []
    for kind, ml in true.items():
        score = float(expit(rng.normal(np.log(ml), 1.5)))
        found = not excluded and score >= 0.05
        lesions.append(_lesion(rng, image, "truth", kind, ml, score if found else np.nan, score >= THRESHOLD and found))
        if found:
            measured = ml * float(np.exp(rng.normal(-0.1, 0.3)))
            lesions.append(_lesion(rng, image, "predicted", kind, measured, score, 1.0))
    for kind in mimics if not excluded else []:
        if rng.random() < 0.5:
            score = float(expit(rng.normal(-1, 1.2)))
            lesions.append(_lesion(rng, image, "predicted", "subdural", rng.uniform(0.2, 2), score, 0.0, kind))
    called = [one for one in lesions if one["source"] == "predicted" and one["called"]]
    row["false_lesions"] = float(sum(one["matched"] == 0 for one in called)) if not excluded else np.nan
    row["true_volume_ml"] = sum(true.values())
    row["size_class"] = ("under 3 ml", "3 to 10 ml", "10 to 30 ml", "30 ml and over")[
        int(np.searchsorted((3, 10, 30), row["true_volume_ml"], side="right"))
    ] if true else ""  # fmt: skip
    for kind in TYPES:
        row |= {f"label_{kind}": float(kind in kinds), f"eligible_{kind}": True, f"threshold_{kind}": THRESHOLD}
        row[f"true_volume_ml_{kind}"] = true.get(kind, 0.0)
        mine = [one for one in lesions if one["source"] == "predicted" and one["type"] == kind]
        if excluded:
            continue
        row[f"score_{kind}"] = max((one["score"] for one in mine), default=0.02)
        row[f"volume_ml_{kind}"] = sum(one["ml"] for one in mine if one["called"])
        if kind in kinds or row[f"volume_ml_{kind}"]:
            both = kind in kinds and row[f"volume_ml_{kind}"] > 0
            row[f"dice_{kind}"] = rng.uniform(0.4, 0.9) if both else 0.0
            row[f"surface_mm_{kind}"] = rng.uniform(0.5, 4) if both else np.nan
    outer = [row.get(f"dice_{kind}", np.nan) for kind in ("subdural", "epidural")]
    row["true_volume_ml_extra_axial"] = true.get("subdural", 0.0) + true.get("epidural", 0.0)
    row["dice_extra_axial"] = float(np.nanmean(outer)) if not np.isnan(outer).all() else np.nan
    if excluded:
        return row | {"part": "", "excluded_by": "head_filter", "exclusion_reason": "no_head"}, lesions
    row["score_hemorrhage"] = max((row[f"score_{kind}"] for kind in TYPES), default=0.02)
    row["volume_ml"] = sum(row[f"volume_ml_{kind}"] for kind in TYPES)
    if kinds or row["volume_ml"]:
        row["dice_hemorrhage"] = rng.uniform(0.4, 0.9) if kinds and row["volume_ml"] else 0.0
        row["surface_mm_hemorrhage"] = rng.uniform(0.5, 4) if kinds and row["volume_ml"] else np.nan
    return row, lesions


def _lesion(
    rng: np.random.Generator, image: str, source: str, kind: str, ml: float, score: float, matched: float,
    mimic: str = "",
) -> dict[str, Any]:  # fmt: skip
    first = int(rng.integers(2, 25))
    return {
        "image": image, "lesion": 1, "source": source, "type": kind, "score": score, "called": score >= THRESHOLD,
        "matched": float(matched), "ml": ml, "diameter_mm": 12 * ml ** (1 / 3), "first_slice": first,
        "last_slice": first + 3, "x_mm": 0.0, "y_mm": 0.0, "z_mm": 5.0 * first, "mimic": mimic,
    }  # fmt: skip
