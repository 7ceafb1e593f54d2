"""Cascades that read volumes, through the same command and bundle as films: exams, lesions, masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest

from domainseg.bundle import command
from domainseg.bundle.load import load_bundle
from domainseg.bundle.schema import BundleError
from domainseg.config import launch
from domainseg.predict import predict

from .heads import BLEED, head, make_head_bundle, save_dicom, save_nifti, save_pictures

EPIDURAL = 3


def run(*argv: str) -> int:
    code: int = launch(predict, "predict", [*argv, "threads=1"])
    return code


def tables(folder: Path) -> list[bytes]:
    names = ("predictions.csv", "predictions.parquet", "lesions.csv", "lesions.parquet")
    return [(folder / name).read_bytes() for name in names]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "heads"
    make_head_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def exams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five exams of three kinds in folders, and a file that is none."""
    folder = tmp_path_factory.mktemp("exams")
    save_nifti(head(), folder / "a.nii.gz")
    save_dicom(head(), folder / "ward/bleed")
    save_dicom(head(0), folder / "ward/none")
    save_pictures(head(), folder / "pictures")
    save_dicom(head(), folder / "ward/gap")
    (folder / "ward/gap/IM0011").unlink()
    (folder / "notes.txt").write_text("no exam")
    return folder


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory, bundle: Path, exams: Path) -> Path:
    """The folder of a prediction by one worker, with all that can be drawn; its exit code was 3."""
    output = tmp_path_factory.mktemp("predicted") / "one"
    wishes = ("overlays=true", "masks=true", "seg=true")
    assert run(f"bundle={bundle}", f"input={exams}", f"output={output}", *wishes) == 3
    return output


def test_each_exam_has_its_row_and_its_lesions(predicted: Path, bundle: Path, exams: Path) -> None:
    table = pd.read_parquet(predicted / "predictions.parquet").set_index("image")
    lesions = pd.read_parquet(predicted / "lesions.parquet")
    assert list(table.index) == ["a.nii.gz", "pictures", "ward/bleed", "ward/gap", "ward/none"]
    why = {"pictures": "head_filter", "ward/gap": "read"}
    assert table["excluded_by"].to_dict() == {image: why.get(image, "") for image in table.index}
    assert "lesions" not in table
    loaded = load_bundle(bundle, threads=1)
    for image in ("a.nii.gz", "ward/bleed", "ward/none"):
        (row,) = loaded.predict(exams / image, image)
        found = lesions[lesions["image"] == image]
        assert found["score"].tolist() == [lesion["score"] for lesion in row["lesions"]]
        expected = {name: value for name, value in row.items() if name != "lesions"}
        assert {name: table.loc[image].to_dict().get(name, image) for name in expected} == expected
    called = lesions[lesions["called"] == 1]
    assert called["image"].tolist() == ["a.nii.gz", "ward/bleed"]
    assert set(called["type"]) == {"epidural"}
    assert table.loc["ward/bleed", "threshold_epidural"] == 0.25
    truth = (head() == BLEED).sum() * 4 * 4 * 6 / 1000
    assert table.loc["ward/bleed", "volume_ml"] == pytest.approx(truth, rel=0.35)
    assert table.loc["ward/none", "volume_ml"] == 0
    log = (predicted / "predict.log").read_text()
    assert "ward/gap: not read: " in log
    assert "1 of " in log
    assert "passed over" in log


@pytest.mark.parametrize("image", ["a.nii.gz", "ward/bleed"])
def test_masks_lie_on_the_grid_of_the_source(predicted: Path, exams: Path, image: str) -> None:
    mask = nibabel.load(predicted / "masks" / f"{image.replace('/', '%2F')}.nii.gz")
    labels = np.asarray(mask.dataobj)
    if image == "a.nii.gz":
        source = nibabel.load(exams / image)
        np.testing.assert_array_equal(mask.affine, source.affine)
        blood = np.asarray(source.dataobj) == BLEED
    else:
        np.testing.assert_allclose(mask.affine, [[-4, 0, 0, 96], [0, -4, 0, 96], [0, 0, 6, 30], [0, 0, 0, 1]])
        blood = (head() == BLEED).transpose(2, 1, 0)
    assert set(np.unique(labels)) == {0, EPIDURAL}
    assert 2 * (blood & (labels > 0)).sum() / (blood.sum() + (labels > 0).sum()) > 0.75


def test_an_exam_without_lesions_has_an_empty_mask_and_one_that_is_no_head_none(predicted: Path) -> None:
    names = {path.name for path in (predicted / "masks").iterdir() if path.name.endswith(".nii.gz")}
    assert names == {f"{name}.nii.gz" for name in ("a.nii.gz", "ward%2Fbleed", "ward%2Fnone")}
    assert not np.asarray(nibabel.load(predicted / "masks/ward%2Fnone.nii.gz").dataobj).any()


def test_a_dicom_seg_points_to_its_series_and_other_sources_are_told(predicted: Path, exams: Path) -> None:
    seg = pydicom.dcmread(predicted / "masks/ward%2Fbleed.seg.dcm")
    source = pydicom.dcmread(exams / "ward/bleed/IM0000")
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    assert seg.StudyInstanceUID == source.StudyInstanceUID
    assert not (predicted / "masks/a.nii.gz.seg.dcm").exists()
    assert "a.nii.gz: no DICOM SEG" in (predicted / "predict.log").read_text()


def test_overlays_are_drawn_of_exams(predicted: Path) -> None:
    names = {path.name for path in (predicted / "overlays").iterdir()}
    assert names == {f"{name}.png" for name in ("a.nii.gz", "pictures", "ward%2Fbleed", "ward%2Fnone")}


def test_nothing_of_a_patient_is_told(predicted: Path) -> None:
    """Headers hold a name, a number and dates; a SEG belongs to its series and is the only place for them."""
    for file in predicted.rglob("*"):
        if file.is_file() and not file.name.endswith(".seg.dcm"):
            content = file.read_bytes()
            for planted in (b"Planted", b"Erika", b"4711", b"19420101", b"ACC-99"):
                assert planted not in content, file


def test_two_workers_and_an_interruption_make_the_same_tables(
    predicted: Path, bundle: Path, exams: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [f"bundle={bundle}", f"input={exams}", f"output={tmp_path}/cut", f"key={predicted}/private/patient.key"]
    real = command.predict_films

    def stopped(*args: Any) -> Iterator[Any]:
        films = real(*args)
        yield next(films)
        yield next(films)
        films.close()  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "predict_films", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(*argv)
    assert not (tmp_path / "cut/predictions.csv").exists()
    assert run(*argv, "workers=2") == 3
    assert "2 of 5 exams were done before" in (tmp_path / "cut/predict.log").read_text()
    assert tables(tmp_path / "cut") == tables(predicted)


def test_one_exam_is_a_folder_or_a_file(bundle: Path, exams: Path, tmp_path: Path) -> None:
    assert run(f"bundle={bundle}", f"input={exams}/ward/none", f"output={tmp_path}/a") == 0
    assert pd.read_csv(tmp_path / "a/predictions.csv")["image"].tolist() == ["none"]
    assert run(f"bundle={bundle}", f"input={exams}/ward/gap", f"output={tmp_path}/b") == 1
    assert len(pd.read_parquet(tmp_path / "b/lesions.parquet")) == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["input=EXAMS/ward/none", "output=EXAMS/ward/none/out"], "lies in the folder of the exam none"),
        (["input=EXAMS/notes", "output=OUT"], "input="),
        (["input=EXAMS", "output=OUT", "memory_gb=0.3"], "an ordinary volume 0.42 GB more"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    bundle: Path, exams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    with pytest.raises(SystemExit):
        run(
            f"bundle={bundle}",
            *(word.replace("EXAMS", str(exams)).replace("OUT", str(tmp_path / "o")) for word in argv),
        )
    assert message in capsys.readouterr().err


def test_masks_are_of_exams_and_seg_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from domainseg.cascade.reads import FILMS, VOLUMES

    with pytest.raises(BundleError, match="masks=true: this cascade reads films"):
        command.check_wishes({"masks": True, "seg": False}, FILMS)
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(BundleError, match=r"seg=true needs highdicom"):
        command.check_wishes({"masks": False, "seg": True}, VOLUMES)
    command.check_wishes({"masks": True, "seg": False}, VOLUMES)
