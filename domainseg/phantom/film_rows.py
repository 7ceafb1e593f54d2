"""A simulated film written out: DICOM file, masks as PNG, its rows of the manifest's two tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainseg.files import write_bytes
from domainseg.phantom.dicom import station, write_film
from domainseg.phantom.film import film
from domainseg.phantom.settings import Settings

_VIEWS = {"pelvis_ap": "hip_frontal", "hip_ap": "hip_frontal", "hip_lateral": "hip_other", "frog_leg": "hip_other"}


def write(settings: Settings, index: int, output: Path) -> dict[str, Any]:
    """Write one film below ``output``; its rows of both tables and the names of its files."""
    made = film(settings.seed, index, settings)
    plan = made.plan
    path = f"images/{plan.image}.dcm"
    write_film(made, output / path)
    files = [path]
    image = {
        "image": plan.image,
        "path": path,
        "patient": plan.patient,
        "group": plan.patient,
        "study": plan.study,
        "series": plan.series,
        "site": plan.site,
        "department": plan.department,
        "scanner": station(made),
        "view": {"pelvis_ap": "AP", "hip_ap": "AP", "hip_lateral": "LL", "frog_leg": "FROG"}.get(plan.view, "OTHER"),
        "projection": plan.view,
        "body_part": plan.part,
        "portable": int(plan.portable),
        "date": plan.date,
        "age": plan.age,
        "sex": plan.sex,
    }
    view = _VIEWS.get(plan.view, "other")
    targets: list[dict[str, Any]] = []
    if view == "hip_frontal":
        shown = {hip.part for hip in made.hips}
        absent = [part for part in ("hip_left", "hip_right") if part not in shown]
        targets += [{"image": plan.image, "part": part, "label_localizer": 0} for part in absent]
    for hip in made.hips:
        row: dict[str, Any] = {
            "image": plan.image,
            "part": hip.part,
            "side": hip.side,
            "label_localizer": 1,
            "label_implant_filter": int(bool(hip.implant)),
            "label_fracture": int(bool(hip.fracture_class)),
            "label_location": hip.location,
            "x": round(hip.x, 2),
            "y": round(hip.y, 2),
            "diameter": round(hip.diameter, 2),
            "femur_mask": f"masks/{plan.image}_{hip.part}_femur.png",
            "implant": hip.implant,
            "fracture_class": hip.fracture_class,
            "fracture_place": hip.place,
            "fracture_width_mm": None if np.isnan(hip.width_mm) else round(hip.width_mm, 3),
            "displacement_mm": None if np.isnan(hip.displacement_mm) else round(hip.displacement_mm, 3),
        }
        _mask(output / row["femur_mask"], hip.femur)
        files.append(row["femur_mask"])
        if hip.line is not None:
            row["mask"] = f"masks/{plan.image}_{hip.part}_fracture.png"
            _mask(output / row["mask"], hip.line)
            files.append(row["mask"])
        targets.append(row)
    whole: dict[str, Any] = {
        "image": plan.image,
        "part": "whole",
        "label_view_filter": int(view == "hip_frontal"),
        "label_view": view,
        "label_turn": plan.turns,
    }
    if made.hips:
        whole["label_fracture"] = int(any(hip.fracture_class for hip in made.hips))
    return {"image": image, "targets": [*targets, whole], "files": files}


def _mask(path: Path, mask: NDArray[np.bool_]) -> None:
    flags = [cv2.IMWRITE_PNG_BILEVEL, 1, cv2.IMWRITE_PNG_COMPRESSION, 1]
    write_bytes(path, cv2.imencode(".png", mask.astype(np.uint8) * 255, flags)[1].tobytes())  # imwrite hides errors
