"""A simulated chest film written out: DICOM file, its rows of the manifest's two tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from domainseg.imaging.chest import FINDINGS
from domainseg.phantom.chest.cohort import ChestPlan
from domainseg.phantom.chest.film import SimulatedChest, film
from domainseg.phantom.chest.settings import ChestSettings
from domainseg.phantom.dicom import Header, write_dx


def write(settings: ChestSettings, index: int, output: Path) -> dict[str, Any]:
    """Write one film below ``output``; its rows of both tables and the names of its files.

    One row of targets a finding that is drawn, with its box; a film without one has one row. Where reports err, labels
    differ from what is drawn, but boxes, ``finding`` and ``severity`` do not. heart_ratio: heart over thorax as drawn.
    """
    made = film(settings, index)
    plan = made.plan
    path = f"images/{plan.image}.dcm"
    header = Header(
        patient=plan.patient,
        study=plan.study,
        series=plan.series,
        image=plan.image,
        date=plan.date,
        age=plan.age,
        sex=plan.sex,
        department=plan.department,
        station=station(made),
        body_part="CHEST",
        view=plan.view,
        described=f"Chest {plan.view}{' portable' if plan.portable else ''}",
        laterality="U",
        orientation=["L", "F"],
        distance=1100 if plan.portable else 1800,
        kvp=95 if plan.portable else 120,
    )
    write_dx(made.pixels, made.site, made.spacing, header, output / path)
    image = {
        "image": plan.image,
        "path": path,
        "patient": plan.patient,
        "group": plan.patient,
        "study": plan.study,
        "series": plan.series,
        "site": plan.site,
        "department": plan.department,
        "scanner": header.station,
        "view": plan.view,
        "portable": int(plan.portable),
        "date": plan.date,
        "age": plan.age,
        "sex": plan.sex,
    }
    common = {"image": plan.image, "part": "whole", "heart_ratio": round(made.ratio, 3), **labels(settings, plan)}
    boxes = [
        {
            **common,
            "finding": name,
            "severity": round(plan.findings[name], 3),
            "box": ",".join(f"{number:g}" for number in box),
        }
        for name, box in made.boxes.items()
    ]
    return {"image": image, "targets": boxes or [common], "files": [path]}


def labels(settings: ChestSettings, plan: ChestPlan) -> dict[str, int]:
    """label_<finding> 1 or 0, as a report has it: with the sensitivity and specificity of the settings."""
    draws = np.random.default_rng([settings.seed, plan.index, 801]).random(len(FINDINGS))
    found = {}
    for name, draw in zip(FINDINGS, draws, strict=True):
        there = name in plan.findings
        right = draw < (settings.report_sensitivity if there else settings.report_specificity)
        found[f"label_{name}"] = int(there == right)
    return found


def station(made: SimulatedChest) -> str:
    """Station name: one room a department and site, a mobile unit for portable films."""
    plan = made.plan
    return f"{plan.site}-{'MOBILE' if plan.portable else plan.department[:4].upper()}1"
