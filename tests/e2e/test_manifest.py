"""From a PACS export to a manifest, a trained run and predictions by the commands, and no patient on the way."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet
import pydicom
import pytest

from .conftest import command

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SHORT = [  # one step a stage on small regions
    *("trainer.threads=1", "trainer.precision=fp32", "stage.localizer.task.batch_size=2"),
    *(f"stage.{name}.task.steps=1" for name in ("view_filter", "localizer", "implant_filter")),
    *("stage.fracture.task.patch.steps=1", "stage.fracture.task.tail.steps=1"),
    *("stage.fracture.task.patch.batch_size=2", "stage.fracture.task.tail.batch_size=2"),
    *(
        "stage.fracture.variants=1",
        "stage.fracture.task.patch.size=128",
        "stage.fracture.network.blocks=[1,1,1,1,1,1,1]",
    ),
    "stage.fracture.preprocessing=[{op: fit, size: 512}, {op: local_contrast, sigma: 18, clip: 4}]",
    "stage.localizer.preprocessing=[{op: fit, size: 128}, {op: stretch, low: 1, high: 99}]",
]
# Planted in one patient's films, files, reports and annotations.
NAME, NUMBER, BORN, OTHER = "Mustermann", "4711-0815", "19391224", "Kowalczyk"
SPELT = (NAME, NUMBER, BORN, OTHER, "1939-12-24", "24.12.1939", NUMBER.replace("-", ""), "ACC-778899")


def plant(export: dict[str, Path]) -> set[str]:
    """Write the secrets into a third of the films and everything about them; returns all that must not get out."""
    secrets = set(SPELT)
    notes: Any = json.loads(export["annotations"].read_text())
    reports = pd.read_csv(export["reports"], dtype=str)
    for number, image in enumerate(notes["images"]):
        path = export["dicom"] / image["file_name"]
        data = pydicom.dcmread(path)
        secrets |= {str(data.PatientName), str(data.PatientID), str(data.SOPInstanceUID), str(data.AccessionNumber)}
        secrets.add(path.name)
        if number % 3:
            continue
        before = data.AccessionNumber
        data.PatientName, data.PatientID, data.PatientBirthDate = f"{NAME}^Erika", NUMBER, BORN
        data.OtherPatientIDs, data.PatientAddress, data.ReferringPhysicianName = NUMBER, f"{NAME} road 1", OTHER
        data.AccessionNumber = f"ACC-778899-{number}"
        data.PatientAge, data.PatientComments, data.ImageComments = "", f"{NAME}, born {BORN}", NUMBER
        data.StationName, data.ViewPosition = f"{NAME} {NUMBER}"[:16], ""
        data.SeriesDescription = f"pelvis ap {NAME} 24.12.1939"
        data.InstitutionalDepartmentName, data.BodyPartExamined = f"emergency {NAME}", NAME.upper()
        data.add_new(0x00190010, "LO", f"{NAME} private")
        data.add_new(0x00191001, "UN", f"{NAME} {NUMBER}".encode())
        data.RequestAttributesSequence = [pydicom.Dataset()]
        data.RequestAttributesSequence[0].ScheduledProcedureStepDescription = f"{NAME} {BORN}"
        if number % 2:
            data.BurnedInAnnotation = "YES"
        named = path.parent.parent.parent / f"{NAME}_{NUMBER}" / f"{NAME} {BORN} {number}.dcm"
        named.parent.mkdir(exist_ok=True)
        data.save_as(named, enforce_file_format=True)
        path.unlink()
        image["file_name"] = named.relative_to(export["dicom"]).as_posix()
        mine = reports["accession"] == before
        reports.loc[mine, "accession"] = data.AccessionNumber
        reports.loc[mine, "text"] = f"{NAME}, Erika, {NUMBER}, born 24.12.1939. No fracture. Dr. {OTHER}"
    notes["info"] = {"contributor": NAME}
    for note in notes["annotations"]:
        note.setdefault("attributes", {}).update({"comment": f"{NAME} {NUMBER}", "implant": NAME, "label_origin": NAME})
    names = [category["name"] for category in notes["categories"]]
    for wrong in (f"{NAME} {NUMBER}.dcm", notes["images"][0]["file_name"]):
        notes["categories"].append({"id": len(names), "name": f"{NAME} knee"})
        notes["images"].append({"id": 1000 + len(names), "file_name": wrong})
        notes["annotations"].append({"image_id": 1000 + len(names), "category_id": len(names), "bbox": [1, 1, 2, 2]})
        names.append("")
    (export["dicom"] / f"{NAME}.txt").write_text(NAME)
    (export["dicom"] / f"{NAME}.dcm").write_bytes(b"\0" * 128 + b"DICM" + NAME.encode() * 9)
    export["annotations"].write_text(json.dumps(notes))
    reports.loc[len(reports)] = ["ACC-778899-none", f"{NAME} without a film", "2020-01-01"]
    reports.to_csv(export["reports"], index=False)
    return secrets


def written(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file outside private/: its path, then its content, and that of Parquet tables unpacked."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "private" not in path.relative_to(folder).parts:
            yield path, str(path.relative_to(folder)).encode()
            yield path, path.read_bytes()
            if path.suffix == ".parquet":
                table = pyarrow.parquet.read_table(path)
                yield path, table.to_pandas().to_csv().encode() + repr(table.schema.metadata).encode()


def found(secrets: set[str], content: bytes) -> list[str]:
    """The secrets that stand in bytes, in any case, as UTF-8 or UTF-16."""
    folded = content.lower()
    return [text for text in secrets if any(text.lower().encode(form) in folded for form in ("utf-8", "utf-16-le"))]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str], str]:
    """A folder with an export in dicom/ and its manifest in man/; the secrets; what the command printed."""
    spec = importlib.util.spec_from_file_location("export", ROOT / "tests/data/pacs/export.py")
    assert spec is not None
    assert spec.loader is not None
    export = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(export)
    folder = tmp_path_factory.mktemp("pacs")
    command("phantom", "pelvis", "n=24", "reduction=6", "workers=1", "seed=3", "output=films", cwd=folder)
    secrets = plant(export.simulated(folder / "films", folder))
    printed = command(
        *("manifest", "dicom=dicom", "reports=reports.csv", "report_columns.date=date", "annotations=notes.json"),
        *("output=man", "workers=2"),
        cwd=folder,
    )
    return folder, secrets, printed


def test_the_command_tells_what_it_did(made: tuple[Path, set[str], str]) -> None:
    folder, _, printed = made
    summary = json.loads((folder / "man/summary.json").read_text())
    assert summary["left_out"]["burned_in"] == 5  # one of them has a twin that does not say so
    assert summary["films"] == 20
    assert f"{summary['films']} films of" in printed
    out = summary["annotations"]["left_out"]
    assert out["film_not_found"] == 1
    assert out["unknown_category"] == 1
    assert summary["reports"]["reports_without_film"] == 5
    targets = pd.read_parquet(folder / "man/targets.parquet")
    truth = pd.read_parquet(folder / "films/targets.parquet")
    paths = pd.read_parquet(folder / "man/private/paths.parquet")
    number = {image: int(Path(path).stem.split()[-1].removeprefix("IM")) for image, path in paths.to_numpy()}
    original = sorted(truth["image"].unique())
    named = targets.assign(image=[original[number[image]] for image in targets["image"]])
    both = named.merge(truth, on=["image", "part"], suffixes=("", "_true"))
    assert len(both) == len(targets)
    for column in ("x", "y", "diameter"):
        assert (both[column] - both[f"{column}_true"]).abs().max() < 0.01
    for column in ("label_fracture", "label_localizer", "label_implant_filter", "label_view_filter", "label_turn"):
        known = both[column].notna()
        assert (both.loc[known, column] == both.loc[known, f"{column}_true"]).all()


def test_a_second_run_reads_nothing_again(made: tuple[Path, set[str], str]) -> None:
    folder, _, _ = made
    before = {path: path.read_bytes() for path in (folder / "man").glob("*.parquet")}
    argv = ("dicom=dicom", "reports=reports.csv", "report_columns.date=date", "annotations=notes.json", "output=man")
    files = len([path for path in (folder / "dicom").rglob("*") if path.is_file()])
    assert f"{files} files, {files} of them read before" in command("manifest", *argv, cwd=folder)
    assert {path: path.read_bytes() for path in before} == before


def test_no_patient_leaves_the_export(made: tuple[Path, set[str], str]) -> None:
    """Manifest, log, training, report, bundle and predictions; the private folder is what is needed to go back."""
    folder, secrets, printed = made
    argv = ("data=manifest", "data.path=man/images.parquet", "data.targets=man/targets.parquet")
    printed += command("train", "+pipeline=hip", *argv, *SHORT, "output=run", cwd=folder)
    printed += command(
        "predict", "bundle=run/bundle", "input=man/images.parquet", "threads=1", "output=out", cwd=folder
    )
    assert not found(secrets, printed.encode())
    films = pd.read_parquet(folder / "man/images.parquet")
    assert set(pd.read_parquet(folder / "out/predictions.parquet")["image"]) == set(films["image"])
    for name in ("man", "run", "out"):
        files = list(written(folder / name))
        assert len(files) > 5
        for path, content in files:
            assert not found(secrets, content), path
    assert found(secrets, b"".join(path.read_bytes() for path in (folder / "man/private").iterdir()))


def test_errors_hold_no_patient(made: tuple[Path, set[str], str]) -> None:
    folder, secrets, _ = made
    broken = folder / "broken.json"
    broken.write_text(json.dumps({"images": [{"id": NAME}], "categories": [], "annotations": [{"image_id": NAME}]}))
    printed = command("manifest", "dicom=dicom", "annotations=broken.json", "output=bad", cwd=folder, code=1)
    printed += command("manifest", "dicom=dicom", "reports=reports.csv", "report_columns.text=Befund", "output=bad",
                       cwd=folder, code=1)  # fmt: skip
    assert "error: " in printed
    assert not found(secrets, printed.encode())
