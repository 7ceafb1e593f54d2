"""Simulated chest reports with known labels: templates, synonyms, lists of negations, doubt, history, replaced names.

No real report was used. The sentences imitate what chest reports say; how hard real ones are they can't tell.
"""

# ruff: noqa: E501
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

# finding -> (how often it is there, its phrases); phrases are used in any of the frames below
FINDINGS = {
    "cardiomegaly": (0.16, ["cardiomegaly", "enlargement of the cardiac silhouette", "cardiac enlargement", "an enlarged heart"]),
    "effusion": (0.14, ["pleural effusion", "effusion", "pleural fluid", "layering effusion", "bilateral pleural effusions"]),
    "atelectasis": (0.15, ["atelectasis", "atelectatic change", "subsegmental atelectasis", "basilar collapse", "volume loss"]),
    "pneumonia": (0.07, ["pneumonia", "an infectious process", "bronchopneumonia", "infectious infiltrate"]),
    "edema": (0.08, ["pulmonary edema", "interstitial edema", "vascular congestion", "congestive heart failure"]),
    "pneumothorax": (0.04, ["pneumothorax", "apical pneumothorax", "hydropneumothorax"]),
    "nodule": (0.05, ["pulmonary nodule", "nodular density", "a calcified granuloma", "lung nodules"]),
    "fracture": (0.03, ["rib fracture", "compression fracture", "fractured clavicle", "fractures"]),
}  # fmt: skip
SIZES = ["mild", "small", "moderate", "large", "stable", "new", "minimal", "severe", "persistent", "increasing", ""]
PLACES = [
    "on the left",
    "on the right",
    "in the right lower lobe",
    "at the left base",
    "bilaterally",
    "in the lingula",
    "",
]
PRESENT = [
    "There is {size} {finding} {place}.", "{size} {finding} {place}.", "Again seen is {size} {finding} {place}.",
    "{finding} {place} is {size}.", "Findings are consistent with {size} {finding} {place}.", "Likely {finding} {place}.",
    "{size} {finding} is noted {place}, unchanged from XXXX.", "Interval development of {size} {finding} {place}.",
    "Opacity {place}, most compatible with {finding}.", "{size} {finding} {place} without {other}.",
    "No {other}, but there is {size} {finding} {place}.", "{size} {finding} without evidence of {other} or {another}.",
    "No significant change in {size} {finding} {place}.", "The {finding} {place} has not resolved.",
]  # fmt: skip
ABSENT = [
    "No {finding}.", "There is no evidence of {finding}.", "No {other}, {finding}, or {another}.",
    "Negative for {finding}.", "No radiographic evidence of {other} or {finding}.", "{finding} is not seen.",
    "The previously seen {finding} {place} has resolved.", "Interval resolution of {finding}.",
    "Without {finding} or {other}.", "The lungs are clear without {another}, {finding} or {other}.",
    "{finding} has been excluded.", "There is no {finding} {place}.", "No large {finding} identified.",
]  # fmt: skip
DOUBT = [
    "{finding} cannot be excluded.", "Possible {size} {finding} {place}.", "This may represent {finding}.",
    "Opacity {place}, {finding} versus {other}.", "Questionable {finding} {place}.",
]  # fmt: skip
HISTORY = ["History of {finding}.", "Evaluate for {finding}.", "Rule out {finding}.", "Fall.", "Chest pain.", "Cough and fever.",
           "XXXX-year-old with dyspnea, prior {finding}.", "Shortness of breath, ?{finding}"]  # fmt: skip
FILLER = [
    "The mediastinal contours are stable.", "Osseous structures are intact.", "Degenerative changes of the thoracic spine.",
    "The trachea is midline.", "Right PICC with tip in the SVC.", "The aorta is tortuous.", "Low lung volumes.",
    "Sternotomy XXXX are intact.", "The hilar contours are within normal limits.", "Surgical clips in the right upper quadrant.",
    "Lungs are hyperexpanded.", "Views of the upper abdomen are unremarkable.", "No free air under the diaphragm.",
]  # fmt: skip
NORMAL = [
    "The heart is normal in size. The lungs are clear. No pleural effusion or pneumothorax.",
    "Heart size and mediastinal contours are within normal limits. No focal consolidation, pneumothorax or effusion.",
    "Lungs are clear. No acute bony abnormality. Normal heart size.",
]


@dataclass(frozen=True)
class Simulated:
    """reports: report, patient, text. labels: report and a column a finding, 1, 0, -1 = in doubt. truth: 1 or 0."""

    reports: pd.DataFrame
    labels: pd.DataFrame
    truth: pd.DataFrame


def simulate(n: int, seed: int = 0) -> Simulated:
    """n reports of about 0.7 n patients. A finding in doubt is truly there in half of the reports."""
    rng = np.random.default_rng(seed)
    reports, labels, truth = [], [], []
    for number in range(n):
        states = {name: _state(rng, often) for name, (often, _) in FINDINGS.items()}
        if rng.random() < 0.15:
            states = dict.fromkeys(FINDINGS, "silent")
            text = str(rng.choice(NORMAL))
        else:
            text = _text(rng, states)
        identity = f"r{number:05d}"
        patient = f"p{rng.integers(int(0.7 * n)):05d}"
        there = {
            name: int(state == "present" or (state == "doubt" and rng.random() < 0.5)) for name, state in states.items()
        }
        reports.append({"report": identity, "patient": patient, "text": text})
        truth.append({"report": identity, **there})
        labels.append({"report": identity, **{k: (-1 if s == "doubt" else there[k]) for k, s in states.items()}})
    return Simulated(pd.DataFrame(reports), pd.DataFrame(labels), pd.DataFrame(truth))


def _state(rng: np.random.Generator, often: float) -> str:
    shares = [often, 0.04, 0.36, 0.6 - often]
    return str(rng.choice(["present", "doubt", "denied", "silent"], p=shares))


def _text(rng: np.random.Generator, states: dict[str, str]) -> str:
    body = [str(rng.choice(FILLER)) for _ in range(rng.integers(1, 5))]
    denied = [name for name, state in states.items() if state in ("denied", "silent")]
    for name, state in states.items():
        if state == "silent":
            continue
        frames = {"present": PRESENT, "denied": ABSENT, "doubt": DOUBT}[state]
        body.append(_fill(rng, str(rng.choice(frames)), name, denied))
    rng.shuffle(body)
    history = _fill(rng, str(rng.choice(HISTORY)), str(rng.choice(list(FINDINGS))), denied)
    firm = [name for name, state in states.items() if state == "present"]
    impression = _fill(rng, "{size} {finding} {place}.", str(rng.choice(firm)), denied) if firm else "No acute disease."
    layout = rng.integers(4)
    findings = " ".join(body)
    if layout == 0:
        return f"INDICATION: {history}\n\nCOMPARISON: None.\n\nFINDINGS: {findings}\n\nIMPRESSION: {impression}"
    if layout == 1:
        return f"History: {history} Findings: {findings} Impression: 1. {impression} 2. Follow up as needed."
    if layout == 2:
        return f"CHEST, 2 VIEWS\n\nCLINICAL HISTORY: {history}\n\n{findings}\n\nIMPRESSION:\n{impression}".upper()
    return findings


def _fill(rng: np.random.Generator, frame: str, name: str, denied: list[str]) -> str:
    others = [other for other in denied if other != name] or ["free air"]
    said = [str(rng.choice(FINDINGS[o][1])) if o in FINDINGS else o for o in rng.choice(others, 2)]
    text = frame.format(
        size=rng.choice(SIZES),
        place=rng.choice(PLACES),
        finding=rng.choice(FINDINGS[name][1]),
        other=said[0],
        another=said[1],
    )
    text = " ".join(text.split()).replace(" .", ".").replace(" ,", ",")
    return text[0].upper() + text[1:]
