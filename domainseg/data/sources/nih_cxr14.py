"""NIH ChestX-ray14 (Wang et al., ChestX-ray8, CVPR 2017): chest films with 14 findings mined from reports.

Two layouts of a folder are read. The official one: Data_Entry_2017_v2020.csv or Data_Entry_2017.csv,
BBox_List_2017.csv, test_list.txt and train_val_list.txt where they are, the pictures anywhere below (images/,
images_001/images/, ...). And a sample: labels.csv with a row a picture, images/, boxes_<width>px.csv.

What its columns can and cannot say:

- labels were mined from reports by rules: a finding that is not named counts as absent (0), "No Finding" as none of 14.
- AP films are mostly, not always, taken at the bedside: portable is unknown.
- ages beyond 120 years are slips of the keyboard and become unknown; "058Y" is 58, "008M" two thirds of a year.
- boxes exist for some 880 films. They are in pixels of the 1024 px originals; where pictures have been resized they are
  scaled.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from domainseg.data.manifest import Manifest, build_manifest
from domainseg.data.tables import ManifestError
from domainseg.imaging.chest import FINDINGS

log = logging.getLogger(__name__)

SITE = "NIH"
OLDEST = 120  # years; ages above are slips
TUNE_SHARE = 1 / 8  # of the patients of the train_val list, which makes 70/10/20 of all
_ENTRIES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "labels.csv")
_BOXES, _SIDE = "BBox_List_2017.csv", 1024
_LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
# Column of the official tables -> of the sample's
_OFFICIAL = {
    "Image Index": "image",
    "Finding Labels": "labels",
    "Follow-up #": "follow_up",
    "Patient ID": "patient_id",
    "Patient Age": "age",
    "Patient Gender": "sex",
    "Patient Sex": "sex",
    "View Position": "view",
    "OriginalImage[Width": "orig_width",
    "Height]": "orig_height",
    "OriginalImagePixelSpacing[x": "px_spacing_x",
    "Finding Label": "finding",
    "Bbox [x": "x",
}
_TARGET = {name: target for target, name in FINDINGS.items()} | {"Infiltrate": "infiltration"}


def load(root: Path | str, official_split: bool = True, partial: bool = False) -> Manifest:
    """The films of the folder ``root`` with all that the source says. Raises ManifestError.

    images has, beside the usual columns: follow_up (number of the patient's exam), orig_width, orig_height, pixel_mm.
    targets: part=whole with label_<finding> for the 14 findings; one row a box, which names its ``finding``.
    official_split: where the lists of the official split are in the folder, they make the split; an eighth of the
    train_val patients tune. partial: films without a picture are left out and counted, otherwise they are an error.
    """
    root = Path(root)
    try:
        entries = next((root / name for name in _ENTRIES if (root / name).is_file()), None)
        if entries is None:
            raise FileNotFoundError(f"neither {' nor '.join(_ENTRIES)} is there")
        rows = _read(entries)
        images = metadata(rows)
        paths = _pictures(root, rows)
        targets = labels(rows).assign(part="whole").merge(_boxes(root, paths), on="image", how="left")
        if official_split and all((root / name).is_file() for name in _LISTS.values()):
            images["split"] = _official(root, images)
    except (OSError, ValueError, KeyError) as error:
        raise ManifestError(f"data.root={root}: not a folder of NIH ChestX-ray14 ({error})") from error
    images["path"] = images["image"].map(paths).fillna("")
    missing = images["path"] == ""
    if missing.any() and not (partial and not missing.all()):
        raise ManifestError(
            f"data.root={root}: {int(missing.sum())} of {len(images)} films are not there, first "
            f"{images.loc[missing, 'image'].iloc[0]}; data.partial=true leaves them out"
        )
    if missing.any():
        log.warning("%d of %d films have no picture below %s: left out", int(missing.sum()), len(images), root)
    images = images[~missing]
    return build_manifest(images, targets[targets["image"].isin(images["image"])], root, "nih_cxr14")


def predictions(root: Path | str) -> pd.DataFrame:
    """The prediction table of a retrained CheXNet (Zech, reproduce-chexnet) with what is known of its films.

    From chexnet_predictions.csv.gz and all_metadata.csv.gz of the sample folder: image, patient, site, view, sex, age,
    follow_up, orig_width, orig_height, pixel_mm, and label_<finding>, score_<finding> of the 14 findings; one row a
    film that stands in both. Raises ManifestError.
    """
    root = Path(root)
    try:
        rows = _read(root / "all_metadata.csv.gz")
        scores = pd.read_csv(root / "chexnet_predictions.csv.gz").rename(columns={"Image Index": "image"})
        scores = scores.rename(columns={f"prob_{name}": f"score_{target}" for target, name in FINDINGS.items()})
        scores = scores[["image", *(f"score_{target}" for target in FINDINGS)]]
        known = metadata(rows).merge(labels(rows), on="image", validate="one_to_one")
        table = known.merge(scores, on="image", validate="one_to_one")
    except (OSError, ValueError, KeyError) as error:
        raise ManifestError(f"root={root}: not the folder of a CheXNet's predictions ({error})") from error
    if len(table) < len(scores):
        log.warning("%d of %d predictions have no row of metadata: left out", len(scores) - len(table), len(scores))
    return table.sort_values("image").reset_index(drop=True)


def metadata(rows: pd.DataFrame) -> pd.DataFrame:
    """What is known of each film, in the names and values of a manifest."""
    views, sexes = rows["view"].str.strip().str.upper(), rows["sex"].str.strip().str.upper()
    found = {
        "image": rows["image"],
        "patient": rows["patient_id"],
        "site": SITE,
        "view": views.where(views.isin(["PA", "AP"]), ""),
        "sex": sexes.where(sexes.isin(["F", "M"]), ""),
        "age": rows["age"].map(years),
        "follow_up": rows["follow_up"],
    }
    found |= {name: rows[name] for name in ("orig_width", "orig_height") if name in rows}
    if "px_spacing_x" in rows:
        found["pixel_mm"] = pd.to_numeric(rows["px_spacing_x"], errors="coerce").round(4)
    return pd.DataFrame(found)


def labels(rows: pd.DataFrame) -> pd.DataFrame:
    """image and label_<finding> as 1.0, 0.0; all are unknown where the source names nothing. Raises ValueError."""
    named = rows["labels"].str.split("|").map(lambda names: [name.strip() for name in names if name.strip()])
    strange = sorted({name for names in named for name in names} - set(_TARGET) - {"No Finding"})
    if strange:
        raise ValueError(f"unknown finding {strange[0]!r}")
    both = named.map(lambda names: "No Finding" in names and len(names) > 1)
    if both.any():
        raise ValueError(f"{rows['image'][both].iloc[0]} has findings and No Finding")
    found = named.map(lambda names: {_TARGET[name] for name in names if name in _TARGET})
    known = named.map(len) > 0
    columns = {
        f"label_{target}": found.map(lambda names, target=target: float(target in names)).where(known)
        for target in FINDINGS
    }
    return pd.DataFrame({"image": rows["image"], **columns})


def years(cell: str) -> float:
    """Age in years of "58", "058Y", "008M", "012D"; NaN for what is none, and above OLDEST."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([YMWD]?)\s*", cell.upper())
    if match is None:
        return float("nan")
    age = float(match[1]) / {"": 1, "Y": 1, "M": 12, "W": 52.18, "D": 365.25}[match[2]]
    return round(age, 3) if age <= OLDEST else float("nan")


def _read(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, dtype=str, keep_default_na=False).rename(columns=_OFFICIAL)
    return table.drop(columns=[name for name in table if not name or str(name).startswith("Unnamed:")])


def _pictures(root: Path, rows: pd.DataFrame) -> dict[str, str]:
    """Where the picture of each film is, relative to the root; only a sample names its file."""
    there = {
        path.name: path.relative_to(root).as_posix() for path in root.rglob("*") if path.suffix in (".png", ".jpg")
    }
    files = rows["file"] if "file" in rows else rows["image"]
    return {image: there[file] for image, file in zip(rows["image"], files, strict=True) if file in there}


def _boxes(root: Path, paths: dict[str, str]) -> pd.DataFrame:
    """image, finding, box in pixels of the stored pictures."""
    sample = next(iter(sorted(root.glob("boxes_*px.csv"))), None)
    official = (root / _BOXES).is_file()
    if not official and sample is None:
        return pd.DataFrame(columns=["image", "finding", "box"])
    rows = _read(root / _BOXES if official or sample is None else sample).rename(columns={"h]": "h"})
    rows = rows[rows["image"].isin(paths)]
    numbers = rows[["x", "y", "w", "h"]].astype(float)
    if official:
        sizes = {image: _width(root / paths[image]) for image in rows["image"].unique()}
        numbers = numbers.mul(rows["image"].map(sizes).astype(float) / _SIDE, axis=0)
    if strange := sorted(set(rows["finding"].str.strip()) - set(_TARGET)):
        raise ManifestError(f"data.root={root}: boxes of the finding {strange[0]!r}, which is none of NIH's")
    box = [",".join(f"{number:.6g}" for number in row) for row in numbers.to_numpy()]
    return pd.DataFrame({"image": rows["image"], "finding": rows["finding"].str.strip().map(_TARGET), "box": box})


def _width(path: Path) -> int:
    with Image.open(path) as picture:
        return int(picture.width)


def _official(root: Path, images: pd.DataFrame) -> pd.Series:
    """The official split: test as listed; of the other patients an eighth, drawn by their number, tunes."""
    listed = {name: set((root / file).read_text().split()) for name, file in _LISTS.items()}
    split = np.select(
        [images["image"].isin(listed["test"]), images["image"].isin(listed["train"])], ["test", "train"], ""
    )
    tunes = images["patient"].map(lambda patient: int(hashlib.sha256(patient.encode()).hexdigest()[:8], 16) / 2**32)
    return pd.Series(split, images.index).mask((split == "train") & (tunes < TUNE_SHARE), "tune")
