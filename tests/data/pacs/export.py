"""Films and annotations as other programs write them: with pydicom, json and text, never with the code under test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pydicom
from omegaconf import OmegaConf
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CR, DX = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1"
ROOT = Path(__file__).resolve().parents[3]


def settings(**changes: Any) -> dict[str, Any]:
    """conf/manifest.yaml as the command hands it over, with changes."""
    found: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "conf/manifest.yaml"), resolve=False)
    return {**found, "workers": 1, **changes}


def film(path: Path, size: tuple[int, int] = (24, 16), **tags: Any) -> Dataset:
    """Write a tiny CR film of ``size`` (rows, columns) with the tags given; a tag that is None is left out."""
    rows, columns = size
    values: dict[str, Any] = {
        "SOPClassUID": CR,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "Modality": "CR",
        "PatientID": "4711",
        "PatientName": "Doe^Jane",
        "AccessionNumber": "A1",
        "StudyDate": "20200229",
        "PhotometricInterpretation": "MONOCHROME2",
        "SamplesPerPixel": 1,
        "Rows": rows,
        "Columns": columns,
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelData": (np.arange(rows * columns) % 4096).astype("<u2").tobytes(),
        **tags,
    }
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name, value in values.items():
        if value is not None:
            setattr(data, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return data


def text_report(path: Path, **tags: Any) -> None:
    """Write a structured report: DICOM without a picture."""
    data = film(
        path,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11",
        Modality="SR",
        PixelData=None,
        Rows=None,
        Columns=None,
        **tags,
    )
    assert "PixelData" not in data


def pack(mask: np.ndarray) -> str:
    """COCO's packed run lengths of a mask, written from the format's description (pycocotools, maskApi.c)."""
    flat = np.concatenate([[0], mask.T.ravel().astype(int), [2]])
    edges = np.flatnonzero(np.diff(flat))
    lengths = np.diff(np.concatenate([[0], edges])).tolist()
    text = ""
    for place, length in enumerate(lengths):
        value = length - (lengths[place - 2] if place > 2 else 0)
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | 32 if more else bits) + 48)
    return text


def simulated(films: Path, folder: Path, *, secrets: bool = True) -> dict[str, Path]:
    """A PACS export of simulated films (a folder that the phantom wrote): DICOM tree, reports and COCO annotations.

    dicom/<patient>/<study>/IM<n>.dcm with duplicates, structured reports and other things that lie about in exports;
    reports.csv; notes.json with heads as boxes, femora as packed runs, fractures as packed runs, labels as attributes.
    """
    images = pd.read_parquet(films / "images.parquet").sort_values("image")
    targets = pd.read_parquet(films / "targets.parquet")
    reports, coco = [], {"images": [], "annotations": [], "categories": []}
    names = ["film", "femur_left", "femur_right", "hip_left", "hip_right", "fracture_left", "fracture_right"]
    names += ["no_fracture_left", "no_fracture_right", "implant_left", "implant_right", "no_implant_left"]
    names += ["no_implant_right", "no_hip_left", "no_hip_right", "hip_frontal", "hip_other", "other"]
    coco["categories"] = [{"id": number, "name": name} for number, name in enumerate(names)]

    def note(image: int, category: str, **what: Any) -> None:
        coco["annotations"].append(
            {"id": len(coco["annotations"]), "image_id": image, "category_id": names.index(category), **what}
        )

    for number, row in enumerate(images.to_dict("records")):
        data = pydicom.dcmread(films / row["path"])
        folder_name = f"{data.PatientName}_{data.PatientID}" if secrets else f"P{number // 3}"
        path = folder / "dicom" / folder_name / row["study"] / f"IM{number:05d}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((films / row["path"]).read_bytes())
        if number % 7 == 0:
            (path.parent / f"copy of {path.name}").write_bytes(path.read_bytes())
        if number % 5 == 0:
            text_report(path.parent / f"SR{number:05d}.dcm", PatientName=str(data.PatientName))
        reports.append((data.AccessionNumber, f"{data.PatientName}, {data.PatientID}: hip {number}", row["date"]))
        coco["images"].append(
            {
                "id": number,
                "file_name": path.relative_to(folder / "dicom").as_posix(),
                "height": int(data.Rows),
                "width": int(data.Columns),
            }
        )
        for target in targets[targets["image"] == row["image"]].to_dict("records"):
            if target["part"] == "whole":
                note(number, target["label_view"])
                note(number, "film", attributes={"label_turn": int(target["label_turn"])})
                continue
            side = target["part"].removeprefix("hip_")
            if target["label_localizer"] == 0:
                note(number, f"no_hip_{side}")
                continue
            d = target["diameter"]
            # COCO counts from the corner of the picture, the manifest from the centre of the first pixel.
            box = [target["x"] - d / 2 + 0.5, target["y"] - d / 2 + 0.5, d, d]
            note(number, f"hip_{side}", bbox=box)
            femur = cv2.imread(str(films / target["femur_mask"]), cv2.IMREAD_GRAYSCALE) > 0
            note(number, f"femur_{side}", segmentation={"counts": pack(femur), "size": list(femur.shape)})
            note(number, f"{'' if target['label_implant_filter'] else 'no_'}implant_{side}")
            if not target["label_fracture"]:
                note(number, f"no_fracture_{side}")
                continue
            line = cv2.imread(str(films / target["mask"]), cv2.IMREAD_GRAYSCALE) > 0
            said = {"label_location": target["label_location"], "fracture_class": target["fracture_class"]}
            code = {"counts": pack(line), "size": list(line.shape)}
            note(number, f"fracture_{side}", segmentation=code, attributes=said)
    (folder / "dicom" / "DICOMDIR.txt").write_text("not a DICOM file")
    (folder / "notes.json").write_text(json.dumps(coco))
    pd.DataFrame(reports, columns=["accession", "text", "date"]).to_csv(folder / "reports.csv", index=False)
    return {"dicom": folder / "dicom", "reports": folder / "reports.csv", "annotations": folder / "notes.json"}
