"""Which exams and slices of head CT a trained cascade calls, beside controls that see no blood.

  python -m domainseg.audit +probe=slices run=RUN data=ct_ich data.root=DIR output=DIR

Slices that show hemorrhage lie in the middle of a head, where the skull is wide: how large the inside of the skull is
and where in the stack a slice lies already rank slices far better than chance. So both stand beside the model, and the
model is also judged between slices of the same place only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.cascade import volumes
from domainseg.cascade.cascade import Cascade
from domainseg.cascade.case import Case
from domainseg.cascade.head import HemorrhageDetector
from domainseg.cascade.head_truth import HeadTruth
from domainseg.cascade.operations import preprocess
from domainseg.cascade.reads import VOLUMES
from domainseg.cascade.stages import Stage
from domainseg.data.manifest import Manifest
from domainseg.evaluation import roc
from domainseg.evaluation.groups import in_words
from domainseg.evaluation.intervals import Array, Metric, codes
from domainseg.evaluation.tables import clusters_of
from domainseg.imaging import ImageReadError
from domainseg.imaging.volume import Volume
from domainseg.probes.common import ProbeError, films_in_cohort, write_results
from domainseg.reporting.page import Page, Section, Table
from domainseg.reporting.words import interval

BANDS = 10  # of the stack's height, within which slices are of the same place (our choice)
NEAR = 0.05  # of the stack's height: how near other patients' slices count for the control of the place (our choice)
AGES, AGE_NAMES = (18.0, 60.0), ("under 18", "18 to 59", "60 and over")
MODEL, PRESENCE = "model", "its presence head alone"  # of an exam the highest slice's
AREA, PLACE, SLICES = "inside of the skull", "place in the stack", "number of slices"
MODELS, OF_EXAMS, OF_SLICES = (MODEL, PRESENCE), (AREA, SLICES, "age"), (AREA, PLACE)
NAMES = {"age": "age of the patient", SLICES: "number of slices", AREA: "largest inside of the skull"}
HEADS = ("Of", "Score", "AUC (95 %)", "n", "Positive", "Patients")


def run(cfg: dict[str, Any], output: Path) -> dict[str, Any]:
    """Write slices.json, slices.html and slices.csv (one row a slice); returns what the first holds.

    ``run`` is the folder of a trained run of the hemorrhage pipeline. One that was cross-validated on the same exams is
    asked fold by fold about the exams that it has not seen, another about all of them, or about its test split where
    it was trained on exams of that name. Raises ProbeError.
    """
    manifest = films_in_cohort(cfg)
    if not cfg["run"]:
        raise ProbeError("run=DIR is needed: the folder of a trained run of the hemorrhage pipeline")
    table = pd.DataFrame([row for part in asked(Path(cfg["run"]), manifest) for row in part])
    if table.empty or table["label"].isna().all():
        raise ProbeError(f"{manifest.name}: of none of these exams is known which slices show hemorrhage")
    output.mkdir(parents=True, exist_ok=True)
    table.to_csv(output / "slices.csv", index=False)
    record = judged(table)
    record |= {"run": str(cfg["run"]), "data": manifest.name, "exams": int(table["image"].nunique())}
    record["not_scored"] = len(manifest) - record["exams"]
    write_results(output, "slices", record, page_of(record), table_of(record))
    return record


def asked(run: Path, manifest: Manifest) -> Iterator[list[dict[str, Any]]]:
    """The rows of each exam: slices as a cascade that has not learned from it scores them, and the controls."""
    from domainseg.training.stages import load_cascade  # late: torch

    folds = sorted((run / "folds").glob("*"))
    known = _known(run)
    numbers = codes(clusters_of(manifest.images))[0]  # in place of names
    people = dict(zip(manifest.images["image"], numbers, strict=True))
    for number, folder in enumerate(folds or [run]):
        images = manifest.images["image"]
        if folds:
            part = manifest.where(images.isin(known.loc[known["fold"] == folder.name, "image"]))
        else:
            part = manifest.where(~images.isin(known.loc[known["split"] != "test", "image"]))
        stages = load_cascade(folder, "cpu")
        truth = HeadTruth(part)
        ages = part.images["age"] if "age" in part.images else pd.Series(np.nan, index=part.images.index)
        for image, age in zip(part.images["image"], pd.to_numeric(ages, errors="coerce"), strict=True):
            about = {"image": image, "patient": int(people[image]), "fold": number, "age": age}
            yield [{**about, **row} for row in of_exam(stages, part, truth, image)]


def _known(run: Path) -> pd.DataFrame:
    """image, split and, where there are folds, the fold that tests it, of the exams that a run was made of."""
    try:
        return pd.read_csv(run / "splits.csv", dtype=str, keep_default_na=False)
    except OSError as error:
        raise ProbeError(f"{run}: is not the folder of a finished run ({error})") from error


def of_exam(stages: list[Stage], manifest: Manifest, truth: HeadTruth, image: str) -> list[dict[str, Any]]:
    """A row for each slice of the grid; none where the exam cannot be read or is taken for no head."""
    try:
        volume = VOLUMES.read(manifest.path(image), None)
    except ImageReadError:
        return []
    (case,) = Cascade(stages[:-1]).run(Case.of(image, volume))
    if not isinstance(case, Case) or not isinstance(volume, Volume):
        return []
    stage = stages[-1]
    if not isinstance(stage.decision, HemorrhageDetector):
        raise ProbeError(f"the last stage of this run is {stage.name}, none that looks for hemorrhage")
    sample = preprocess(case, stage.preprocessing)
    outputs = stage.network(sample.pictures)
    scores = stage.decision.slice_logits(outputs)
    shown = outputs["presence"][:, 0] if "presence" in outputs else np.full(len(scores), np.nan)
    settings = stage.preprocessing[0]
    labels = volumes.slices_on_grid(case, truth.slices(image, volume), float(settings["thickness"]))[:, 0]
    middle = sample.pictures[:, int(settings["slices"]) // 2]
    exam = {
        "exam_label": truth.exam(image, volume)["hemorrhage"],
        "exam_score": stage.frozen.probability(stage.decision.logits(outputs)[""]),
        "called": int(stage.frozen.probability(stage.decision.logits(outputs)[""]) >= stage.frozen.threshold),
    }
    return [
        {
            **exam,
            "slice": z,
            "place": z / max(1, len(scores) - 1),
            "label": labels[z],
            "score": scores[z],
            PRESENCE: shown[z],
            AREA: inside(middle[z]),
        }
        for z in range(len(scores))
    ]


def inside(picture: NDArray[np.float32]) -> float:
    """Share of a slice (0..1, white from 80 HU on) within closed bone: the largest piece that no bone divides."""
    bone = cv2.morphologyEx((picture >= 0.99).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(bone, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros(bone.shape, np.uint8), contours, -1, 1, cv2.FILLED)
    _, _, stats, _ = cv2.connectedComponentsWithStats(filled * (1 - bone), connectivity=4)
    return float(stats[1:, cv2.CC_STAT_AREA].max(initial=0)) / picture.size


def judged(table: pd.DataFrame) -> dict[str, Any]:
    """AUCs of exams, of all slices, of slices within closed bone between those of one place; all and by age."""
    table = table.assign(**{PLACE: placed(table)})
    by_exam = table.groupby("image", sort=False)
    exams = by_exam[["patient", "fold", "age", "called"]].first()
    exams["label"], exams[MODEL] = by_exam["exam_label"].first(), by_exam["exam_score"].first()
    exams[PRESENCE] = by_exam[PRESENCE].max()
    exams[AREA], exams[SLICES] = by_exam[AREA].max(), by_exam.size()
    exams = exams[exams["label"].notna()]
    slices = table[table["label"].notna()].rename(columns={"score": MODEL})
    brain = slices[slices[AREA] > 0]
    bands = np.minimum((brain["place"] * BANDS).astype(int), BANDS - 1)
    parts = {
        "exams": (exams, exams["fold"], (*MODELS, *OF_EXAMS)),
        "slices": (slices, slices["fold"], (*MODELS, *OF_SLICES)),
        "slices of one place": (brain, brain["fold"] * BANDS + bands, (*MODELS, AREA)),
    }
    rows = []
    for of, (part, fold, names) in parts.items():
        rows += [_row(of, name, part, fold if name in MODELS or "place" in of else None) for name in names]
        group = in_words(part["age"].to_numpy(float), AGES, AGE_NAMES)
        for age, name in product(AGE_NAMES, MODELS):
            here = np.array([one == age for one in group], bool)
            rows.append(_row(f"{of}, {age}", name, part[here], fold[here]))
    place = slices[slices[PLACE].notna()]
    label, own, other, patient = (place[name].to_numpy() for name in ("label", MODEL, PLACE, "patient"))
    gain, p = roc.difference(label, own, other, patient, place["fold"].to_numpy())
    called = exams[exams["called"] == 1]
    return {
        "rows": rows,
        "over_place": {**gain, "p": p},
        "called": {"positive": int((called["label"] == 1).sum()), "negative": int((called["label"] == 0).sum())},
    }


def _row(of: str, name: str, part: pd.DataFrame, fold: pd.Series | None) -> dict[str, Any]:
    known = part[part[name].notna()]
    within = None if fold is None else fold[part[name].notna()].to_numpy()
    metric: Metric = roc.auc(
        known["label"].to_numpy(), known[name].to_numpy(float), known["patient"].to_numpy(), within
    )
    return {"of": of, "score": name, "auc": metric, "positive": int((known["label"] == 1).sum())}


def placed(table: pd.DataFrame) -> Array:
    """For each slice the share of positives among other patients' slices that lie within NEAR of its place."""
    place, label = table["place"].to_numpy(float), table["label"].to_numpy(float)
    patient = table["patient"].to_numpy()
    out = np.full(len(table), np.nan)
    for k in range(len(table)):
        other = (patient != patient[k]) & (np.abs(place - place[k]) <= NEAR) & ~np.isnan(label)
        out[k] = label[other].mean() if other.any() else np.nan
    return out


def table_of(record: Mapping[str, Any]) -> Table:
    """AUCs, one a row."""
    rows = []
    for row in record["rows"]:
        auc = row["auc"]
        cells = [
            row["of"],
            NAMES.get(row["score"], row["score"]) if row["of"] == "exams" else row["score"],
            interval(auc),
        ]
        rows.append([*cells, str(auc["n"]), str(row["positive"]), str(auc["n_clusters"])])
    return Table(HEADS, rows, "Exams and slices with and without hemorrhage", numeric=(3, 4, 5))


def page_of(record: Mapping[str, Any]) -> Page:
    """The page of the results."""
    gain, called = record["over_place"], record["called"]
    by_name = {(row["of"], row["score"]): row["auc"] for row in record["rows"]}
    model, place = (interval(by_name["slices", name]) for name in (MODEL, PLACE))
    calls = f"{called['positive']} with and {called['negative']} without hemorrhage are called at the frozen threshold"
    brief = (
        f"Exams: AUC {interval(by_name['exams', MODEL])}; {calls}.",
        f"Slices: AUC {model}, against {place} for their place in the stack alone; difference {interval(gain)}.",
    )
    text = (
        "Intervals are clustered by patient. The inside of the skull is the largest piece of a slice within closed "
        "bone. The place in the stack scores a slice by the share of positives among other patients' slices within "
        f"{NEAR:.0%} of the stack's height. Slices of one place: those within closed bone, compared within {BANDS} "
        "bands of the stack's height only. The model of a cross-validated run is compared within its folds."
    )
    warnings = [f"{record['not_scored']} exams were not scored or are not asked about."] if record["not_scored"] else []
    section = Section("AUC beside controls without an image", text=[text], tables=[table_of(record)])
    return Page("Slices of head CT", f"{record['exams']} exams of {record['data']}.", brief, warnings, [section])
