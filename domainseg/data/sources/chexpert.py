"""CheXpert (Irvin et al., AAAI 2019), and tables in its form: a row a film, 14 labels that a report labeler gave.

Of its labels Atelectasis, Cardiomegaly, Consolidation, Edema, Pneumonia, Pneumothorax and Pleural Effusion (effusion)
are the findings of NIH ChestX-ray14 of the same name; the other seven findings of NIH are unknown here. The rest keep
their own name: label_no_finding, label_enlarged_cardiomediastinum, label_lung_opacity, label_lung_lesion,
label_pleural_other, label_chest_fracture (Fracture: of a rib or another bone of the chest) and label_support_devices.

A cell is 1 (named), 0 (denied), -1 (uncertain) or empty (not mentioned). What the last two count as is the user's
choice and is told in the log: NIH counts what is not mentioned as absent.
"""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath

import pandas as pd

from domainseg.data.manifest import Manifest, build_manifest
from domainseg.data.tables import ManifestError
from domainseg.imaging.chest import FINDINGS

log = logging.getLogger(__name__)

SITE = "CheXpert"
LABELS = {
    "Atelectasis": "atelectasis",
    "Cardiomegaly": "cardiomegaly",
    "Consolidation": "consolidation",
    "Edema": "edema",
    "Pleural Effusion": "effusion",
    "Pneumonia": "pneumonia",
    "Pneumothorax": "pneumothorax",
    "No Finding": "no_finding",
    "Enlarged Cardiomediastinum": "enlarged_cardiomediastinum",
    "Lung Opacity": "lung_opacity",
    "Lung Lesion": "lung_lesion",
    "Pleural Other": "pleural_other",
    "Fracture": "chest_fracture",
    "Support Devices": "support_devices",
}
_UNMENTIONED = {"negative": "0", "unknown": ""}
_UNCERTAIN = {"unknown": "", "0": "0", "1": "1"}


def load(
    root: Path | str,
    table: str = "train.csv",
    unmentioned: str = "negative",
    uncertain: str | int = "unknown",
    lateral: bool = False,
    site: str = SITE,
) -> Manifest:
    """The films that ``table`` in the folder ``root`` lists. Raises ManifestError.

    unmentioned: what an empty cell counts as, negative or unknown. uncertain: what -1 counts as, unknown, 0 or 1.
    lateral: whether lateral films are kept; they are counted and left out otherwise. site: what the hospital is called.
    images: patient and study from the path. targets: part=whole with label_<finding> of LABELS and, unknown, of the
    findings that only NIH has.
    """
    root = Path(root)
    if unmentioned not in _UNMENTIONED or str(uncertain) not in _UNCERTAIN:
        raise ManifestError(
            f"data.unmentioned={unmentioned}, data.uncertain={uncertain}: the first is negative or unknown, the second "
            "unknown, 0 or 1"
        )
    try:
        rows = pd.read_csv(root / table, dtype=str, keep_default_na=False)
        views = rows["Frontal/Lateral"].str.strip()
        images = _images(rows, site)
        found = _labels(rows, _UNMENTIONED[unmentioned], _UNCERTAIN[str(uncertain)]).assign(image=images["image"])
    except (OSError, ValueError, KeyError) as error:
        raise ManifestError(f"data.root={root}: not a table like CheXpert's ({error})") from error
    images["path"] = _below(root, rows["Path"])
    if not lateral:
        log.info("%d of %d films are lateral: left out", int((views != "Frontal").sum()), len(rows))
        images, found = images[views == "Frontal"], found[views == "Frontal"]
    manifest = build_manifest(images, found, root, "chexpert")
    if missing := manifest.missing_files():
        raise ManifestError(f"data.root={root}: {len(missing)} films are not there, first {missing[0]}")
    return manifest


def _images(rows: pd.DataFrame, site: str) -> pd.DataFrame:
    parts = rows["Path"].str.extract(r"(?P<patient>patient[^/]+)/(?P<study>[^/]+)/(?P<film>[^/]+)\.[^./]+$")
    if parts.isna().any(axis=None):
        first = rows.loc[parts.isna().any(axis=1), "Path"].iloc[0]
        raise ValueError(f"{first}: no path like patient00001/study1/view1_frontal.jpg")
    sex = rows["Sex"].str.strip().str[:1].str.upper()
    age = pd.to_numeric(rows["Age"], errors="coerce")
    return pd.DataFrame(
        {
            "image": parts["patient"] + "_" + parts["study"] + "_" + parts["film"],
            "patient": parts["patient"],
            "study": parts["patient"] + "_" + parts["study"],
            "site": site,
            "view": rows["AP/PA"].str.strip().where(rows["Frontal/Lateral"].str.strip() == "Frontal", "LATERAL"),
            "sex": sex.where(sex.isin(["F", "M"]), ""),
            "age": age.where(age > 0),  # 0 stands for unknown: all patients are adults
        }
    )


def _labels(rows: pd.DataFrame, unmentioned: str, uncertain: str) -> pd.DataFrame:
    meaning = {"1": "1", "0": "0", "-1": uncertain, "": unmentioned}
    named = {name: rows[name].str.strip().str.removesuffix(".0") for name in LABELS if name in rows}
    if not named:
        raise ValueError(f"none of the columns {', '.join(LABELS)}")
    for name, cells in named.items():
        if not cells.isin(list(meaning)).all():
            raise ValueError(f"column {name}: {cells[~cells.isin(list(meaning))].iloc[0]!r} is not 1, 0, -1 or empty")
    words = {"": "unknown", "0": "absent", "1": "present"}
    for what, cell, value in (("not mentioned", "", unmentioned), ("uncertain", "-1", uncertain)):
        count = sum(int((cells == cell).sum()) for cells in named.values())
        log.info("%d labels are %s: taken as %s", count, what, words[value])
    unknown = {f"label_{target}": "" for target in FINDINGS if target not in LABELS.values()}
    known = {f"label_{LABELS[name]}": cells.map(meaning) for name, cells in named.items()}
    return pd.DataFrame({**known, **unknown}).assign(part="whole")


def _below(root: Path, paths: pd.Series) -> pd.Series:
    """Paths relative to the root: the table's start with the name of the folder that was handed out."""
    found = [PurePosixPath(path).parts for path in paths]
    for drop in range(max(map(len, found), default=0)):
        if any((root / Path(*parts[drop:])).is_file() for parts in found[:100]):
            return pd.Series(["/".join(parts[drop:]) for parts in found], paths.index)
    return paths
