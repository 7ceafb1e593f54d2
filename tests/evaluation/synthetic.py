"""A prediction table of the hip cascade, drawn from known distributions: the truth that tests measure against."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import expit


def prediction_table(patients: int = 300, seed: int = 0) -> pd.DataFrame:
    """One film a patient, two hips a film; splits, sites, departments, exclusions at every stage, location, points."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(patients):
        split = "tune" if number % 3 == 0 else "test"
        site, department = "ABC"[rng.integers(3)], ["emergency", "inpatient"][number % 2]
        frontal, readable = rng.random() > 0.15, rng.random() > 0.01
        view_score = float(expit(rng.normal(4 if frontal else -4, 1.5))) if readable else np.nan
        film = {
            "image": f"film{number:04d}", "patient": f"p{number:04d}", "site": site, "department": department,
            "view": "AP" if frontal else "LL", "split": split, "spacing": 0.15, "width": 2000, "height": 2500,
            "label_view_filter": int(frontal), "score_view_filter": view_score, "threshold_view_filter": 0.5,
            "eligible_view_filter": 1, "label_view": "hip_frontal" if frontal else ["hip_other", "other"][number % 2],
        }  # fmt: skip
        for part in ("hip_left", "hip_right"):
            row = dict(film, part=part, excluded_by=None, side="R" if part == "hip_left" else "L")
            metal, broken = rng.random() < 0.15, rng.random() < 0.3
            kind = rng.choice(["hairline", "undisplaced", "displaced"]) if broken else None
            row |= {
                "label_localizer": int(frontal), "label_implant_filter": int(metal), "label_fracture": int(broken),
                "eligible_localizer": int(frontal), "eligible_implant_filter": int(frontal),
                "eligible_fracture": int(frontal and not metal), "true_head_x": 500.0 if frontal else np.nan,
                "label_location": str(rng.choice(["intra", "extra"])) if broken else "none",
                "fracture_class": kind, "implant": "nail" if metal else None,
                "fracture_width_mm": {"hairline": 0.6, "undisplaced": 1.5, "displaced": 5.0}.get(str(kind), np.nan),
            }  # fmt: skip
            if not readable or view_score < 0.5:
                row["excluded_by"] = "view_filter" if readable else "read"
            elif not frontal or rng.random() < 0.03:
                row["excluded_by"] = "localizer"
            else:
                row |= _scored(rng, metal, broken, str(kind), row)
            rows.append(row)
    table = pd.DataFrame(rows)
    table["excluded_by"] = table["excluded_by"].astype(object)
    return table


def _scored(
    rng: np.random.Generator, metal: bool, broken: bool, kind: str, row: dict[str, object]
) -> dict[str, object]:
    error = abs(rng.normal(0, 2.2))
    out: dict[str, object] = {
        "score_localizer": float(expit(rng.normal(4, 1))), "threshold_localizer": 0.3, "head_x": 500 + error / 0.15,
        "head_y": 700.0, "head_error_mm": error, "head_error_pct": error / 0.15 / 2000 * 100,
        "score_implant_filter": float(expit(rng.normal(4 if metal else -4, 1.8))), "threshold_implant_filter": 0.4,
    }  # fmt: skip
    if float(str(out["score_implant_filter"])) >= 0.4:
        return out | {"excluded_by": "implant_filter"}
    shift = {"hairline": 0.6, "undisplaced": 2.5, "displaced": 4.5}.get(kind, -2.0)
    out |= {"score_fracture": float(expit(rng.normal(shift, 1.5))), "threshold_fracture": 0.25}
    right = rng.random() < 0.8
    truth = row["label_location"]
    out["location"] = (truth if right else {"intra": "extra", "extra": "intra"}[str(truth)]) if broken else "none"
    if broken:
        out["pointing_hit"] = float(rng.random() < 0.7)
    return out
