"""CT-ICH (Hssayeni et al., Data 5:14, 2020; CC BY 4.0), release as pictures: 8-bit brain window, a label a slice.

The folder holds brain/PPP/SS.jpg, slice_labels.csv and patients.csv. One exam a patient. There are no masks and no
Hounsfield units. The table counts slices from 1, the lowest, and some pictures are missing: slices_* columns here are
positions among the pictures that are there, from 0, as ``read_volume`` orders them.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from domainseg.data.manifest import Manifest, build_manifest
from domainseg.data.tables import ManifestError
from domainseg.imaging.hemorrhage import TYPES
from domainseg.imaging.picture_stack import natural
from domainseg.imaging.slices import lies_beside


def load(root: Path | str) -> Manifest:
    """The exams of the folder ``root`` with all that the source says. Raises ManifestError.

    images: image and patient are the patient's number, path the folder of the pictures. targets: part=whole with
    label_head_filter 1; part=head with label_* and slices_* of any bleed and of each type.
    """
    root = Path(root)
    try:
        rows = pd.read_csv(root / "slice_labels.csv", dtype=str, keep_default_na=False)
        patients = pd.read_csv(root / "patients.csv", dtype=str, keep_default_na=False).set_index("Patient Number")
        numbers = rows["PatientNumber"].drop_duplicates().tolist()
        images = [_image(number, patients.loc[number]) for number in numbers]
        heads = [
            _head(root, f"{int(str(number)):03d}", part) for number, part in rows.groupby("PatientNumber", sort=False)
        ]
    except (OSError, ValueError, KeyError) as error:
        raise ManifestError(f"data.root={root}: not a CT-ICH folder ({error})") from error
    wholes = [{"image": head["image"], "part": "whole", "label_head_filter": "1"} for head in heads]
    manifest = build_manifest(pd.DataFrame(images), pd.DataFrame([*wholes, *heads]), root, "ct_ich")
    if missing := manifest.missing_files():
        raise ManifestError(f"data.root={root}: {len(missing)} exams are not there, first {missing[0]}")
    return manifest


def _image(number: str, patient: pd.Series) -> dict[str, str]:
    name = f"{int(number):03d}"
    sex = {"Male": "M", "Female": "F"}.get(patient["Gender"], "")
    age = patient["Age (years)"]
    return {"image": name, "path": f"brain/{name}", "patient": name, "age": age, "sex": sex}


def _head(root: Path, name: str, rows: pd.DataFrame) -> dict[str, str]:
    """Labels of an exam and of its slices. A picture without a row leaves the slices unknown; the exam's labels are
    those of all rows, as in the patients' table."""
    found = [path for path in (root / "brain" / name).iterdir() if not lies_beside(path)]
    pictures = sorted(found, key=lambda path: natural(path.stem))
    place = {f"brain/{name}/{path.name}": str(k) for k, path in enumerate(pictures)}
    for column in ("No_Hemorrhage", *(kind.capitalize() for kind in TYPES)):
        if strange := sorted(set(rows[column]) - {"0", "1"}):
            raise ValueError(f"exam {name}: {column} holds {strange[0]!r}, which is neither 0 nor 1")
    columns = {kind: rows[kind.capitalize()] == "1" for kind in TYPES}
    columns = {"hemorrhage": rows["No_Hemorrhage"] == "0", **columns}
    head = {"image": name, "part": "head"}
    for kind, shows in columns.items():
        head[f"label_{kind}"] = str(int(shows.any()))
        if set(rows["file"]) == set(place):
            head[f"slices_{kind}"] = " ".join(place[file] for file in rows.loc[shows, "file"]) or "none"
    return head
