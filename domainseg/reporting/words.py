"""How things are called and numbers are written in reports: for readers who never saw the code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from domainseg.imaging.chest import FINDINGS
from domainseg.imaging.hemorrhage import TYPES


@dataclass(frozen=True)
class Nouns:
    """What a cascade reads (image) and what it gives an answer for (case), one and many."""

    image: str
    images: str
    case: str
    cases: str


FILMS = Nouns("film", "films", "hip", "hips")
EXAMS = Nouns("exam", "exams", "exam", "exams")
CHESTS = Nouns("film", "films", "film", "films")
OTHERS = Nouns("film", "films", "case", "cases")
_OF_EXAMS = ("head_filter", "hemorrhage", *TYPES)

TITLES = {
    "view_filter": "View filter",
    "localizer": "Femoral head localizer",
    "implant_filter": "Implant filter",
    "fracture": "Fracture",
    "location": "Fracture location",
    "head_filter": "Head filter",
    "hemorrhage": "Hemorrhage",
    **{name: name.capitalize() for name in TYPES},
    "extra_axial": "Extra-axial (subdural or epidural)",
    "findings": "Findings",
    **{name: name.capitalize().replace("_", " ") for name in FINDINGS},
}
QUESTIONS = {
    "view_filter": "Is this a frontal film of the hip or pelvis?",
    "localizer": "Where is the femoral head?",
    "implant_filter": "Is there metal in this hip?",
    "fracture": "Is the proximal femur of this hip fractured?",
    "location": "Intra- or extra-capsular?",
    "head_filter": "Is this a head CT that can be read for hemorrhage?",
    "hemorrhage": "Is there a hemorrhage in this head?",
    **{name: f"Is there a hemorrhage that is {name}?" for name in TYPES},
    **{name: f"Does this chest film show {name.replace('_', ' ')}?" for name in FINDINGS},
}
CLASSES = {  # (negative, positive)
    "view_filter": ("other film", "frontal hip or pelvis"),
    "localizer": ("hip not in the film", "hip in the film"),
    "implant_filter": ("no metal", "metal"),
    "fracture": ("no fracture", "fracture"),
    "head_filter": ("no head CT", "head CT"),
    "hemorrhage": ("no hemorrhage", "hemorrhage"),
    **{name: (f"no {name} hemorrhage", f"{name} hemorrhage") for name in TYPES},
    **{name: (f"no {name.replace('_', ' ')}", name.replace("_", " ")) for name in FINDINGS},
}
COLUMNS = {
    "site": "Site",
    "department": "Department",
    "view": "View (tag)",
    "portable": "Portable",
    "sex": "Sex",
    "image_side": "Side in the picture",
    "fracture_class": "Fracture class",
    "fracture_width": "Fracture width",
    "label_location": "Location",
    "implant": "Implant",
    "label_view": "Other view",
    "size_class": "Volume of all bleeds",
    "density": "Density",
    "mimic": "Look-alike",
    "age": "Age",
}
METRICS = {
    "auc": "AUC",
    "auc_pooled": "AUC, folds pooled",
    "auc_mean": "Mean AUC of the findings",
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "prevalence": "Prevalence",
    "coverage": "Coverage",
    "coverage_positive": "Coverage, positives",
    "coverage_negative": "Coverage, negatives",
    "missed_exclusion": "Scored though it should have been excluded",
    "within_5mm": "Within 5 mm",
    "within_6pct": "Within 6 % of the film's width",
    "head_error_mm_median": "Median error, mm",
    "head_error_pct_median": "Median error, % of width",
    "pointing_hit": "Map points at the fracture",
    "calibration_in_the_large": "Calibration in the large (0 is right)",
    "calibration_slope": "Calibration slope (1 is right)",
    "calibration_intercept": "Calibration intercept (0 is right)",
    "ece": "Expected calibration error",
    "brier": "Brier score",
    "volume_r": "Volume, Pearson r",
    "volume_r_all": "Volume, Pearson r with normal exams",
    "volume_bias": "Volume, mean difference, ml",
    "lesion_sensitivity": "Lesions found",
    "dice": "Dice",
    "surface_mm": "Surface distance, mm",
    "called_without_lesion": "Called exams without a called lesion",
    "false_lesions_per_normal": "False lesions a normal exam",
    "at_0.25": "Lesions found at 0.25 false a scan",
    "at_1": "Lesions found at 1 false a scan",
    "at_4": "Lesions found at 4 false a scan",
}
STAGES = {
    "read": "Unreadable file",
    "view_filter": "View filter",
    "localizer": "Localizer",
    "implant_filter": "Implant filter",
    "head_filter": "Head filter",
    "not scored": "Not scored",
}


METHODS = (
    ("delong", "DeLong"),
    ("obuchowski", "Obuchowski (clustered)"),
    (" logit", ", logit scale"),
    ("wilson", "Wilson"),
    ("degenerate", "exact bound"),
)
PICTURES = {  # kinds of pictures, as their files are called
    "found": "Fractures found",
    "missed": "Fractures missed",
    "false_alarm": "False alarms",
    "clear": "Rightly called clear",
    "wrongly_excluded": "Fractures wrongly excluded",
}
REASONS = {  # of exclusions, where the code does not say it
    "no_head": "no head CT that can be read for hemorrhage",
}


def nouns(target: str | None) -> Nouns:
    """The words for films or exams, after the target that a cascade is for."""
    if target in FINDINGS:
        return CHESTS
    return FILMS if target == "fracture" else EXAMS if target in _OF_EXAMS else OTHERS


def several(count: int | str, one: str, many: str) -> str:
    """1 film, 2 films, few films."""
    return f"{count} {one if count == 1 else many}"


def method(name: str) -> str:
    """How an interval was made, as a reader knows it."""
    for ours, theirs in METHODS:
        name = name.replace(ours, theirs)
    return name


def number(value: Any, digits: int = 3) -> str:
    """A number with fixed digits, a dash when there is none (None, NaN)."""
    if value is None or not np.isfinite(value):
        return "–"
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def known(metric: Mapping[str, Any] | None) -> bool:
    """Whether there is a metric, and it has a value."""
    return metric is not None and number(metric["value"]) != "–"


def interval(metric: Mapping[str, Any] | None, digits: int = 3) -> str:
    """0.845 (0.774 to 0.896), or a dash."""
    if metric is None or not known(metric):
        return "–"
    if number(metric["low"]) == "–":
        return number(metric["value"], digits)
    low, high = number(metric["low"], digits), number(metric["high"], digits)
    return f"{number(metric['value'], digits)} ({low} to {high})"


def title(name: str, names: Mapping[str, str]) -> str:
    """The name a reader knows, or the column's own in plain words."""
    return names.get(name, name.replace("_", " "))


def stage_title(name: str) -> str:
    """A stage with what was said about it: "fold 0, fracture" or "fracture, patch"."""
    return ", ".join(title(part, TITLES) for part in name.split(", "))
