"""Cascades that read volumes, through the same command and bundle as films: exams, lesions, masks."""

from __future__ import annotations

import gzip
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pydicom
import pytest
from PIL import Image

from domainseg.bundle import command
from domainseg.bundle.__main__ import main
from domainseg.bundle.drawn import Drawn
from domainseg.bundle.inputs import read_input
from domainseg.bundle.load import load_bundle, make_stages
from domainseg.bundle.predict import predict_rows
from domainseg.bundle.schema import BundleError
from domainseg.bundle.workers import Recipe, _Predictor
from domainseg.cascade.reads import FILMS, VOLUMES
from domainseg.cascade.table import prediction_table
from domainseg.config import launch
from domainseg.data.manifest import load_manifest
from domainseg.imaging import Film, read_volume
from domainseg.predict import predict

from .heads import (
    BLEED,
    BOXES,
    detector_network,
    head,
    head_record,
    make_head_bundle,
    save_dicom,
    save_nifti,
    save_pictures,
)

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
    assert "slices are missing" in table.loc["ward/gap", "notes"]
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
    truth = (head() == BLEED).sum() * 3 * 3 * 5 / 1000
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
        np.testing.assert_allclose(mask.affine, [[-3, 0, 0, 96], [0, -3, 0, 96], [0, 0, 5, 30], [0, 0, 0, 1]])
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
    told = pd.read_parquet(predicted / "predictions.parquet").set_index("image")["not_drawn"]
    assert told.dropna().to_dict() == {"a.nii.gz": "no DICOM SEG: the source is no DICOM series of single slices"}


def test_overlays_are_drawn_of_exams(predicted: Path) -> None:
    names = {path.name for path in (predicted / "overlays").iterdir()}
    assert names == {f"{name}.png" for name in ("a.nii.gz", "pictures", "ward%2Fbleed", "ward%2Fnone")}


def test_nothing_of_a_patient_is_told(predicted: Path) -> None:
    """Headers hold a name, a number and dates; a SEG belongs to its series and is the only place for them."""
    planted = (b"Planted", b"Erika", b"MRN-4711", b"19420101", b"ACC-99")
    seen = 0
    for file in predicted.rglob("*"):
        if not file.is_file() or file.parent.name == "private":
            continue
        content = plainly(file)
        if file.name.endswith(".seg.dcm"):
            assert b"MRN-4711" in content  # what is looked for would be found
            continue
        seen += 1
        assert not [name for name in planted if name in content], file
    assert seen > 8


def plainly(file: Path) -> bytes:
    """What a file holds, also of what it keeps compressed."""
    if file.suffix == ".parquet":
        return pd.read_parquet(file).to_csv().encode() + str(pq.read_schema(file).metadata).encode()
    if file.suffix == ".png":
        with Image.open(file) as picture:
            return str(picture.info).encode()
    content = file.read_bytes()
    return gzip.decompress(content) if file.suffix == ".gz" else content


def test_two_workers_and_an_interruption_make_the_same_tables(
    predicted: Path, bundle: Path, exams: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [f"bundle={bundle}", f"input={exams}", f"output={tmp_path}/cut", "memory_gb=8", "seg=true"]
    argv.append(f"key={predicted}/private/patient.key")
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


def test_what_was_not_drawn_is_3_and_masks_of_another_prediction_are_refused(
    bundle: Path, exams: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Masks that an abandoned prediction left would stand beside a table that does not call them."""
    argv = [f"bundle={bundle}", f"input={exams}/a.nii.gz"]
    assert run(*argv, f"output={tmp_path}/one", "seg=true") == 3
    assert run(*argv, f"output={tmp_path}/two", "masks=true") == 0
    for file in ("predictions.json", "predictions.parquet"):
        (tmp_path / "two" / file).unlink()
    with pytest.raises(SystemExit):
        run(*argv, f"output={tmp_path}/two", "masks=true")
    assert "holds masks of something else" in capsys.readouterr().err


def test_nothing_read_is_1(bundle: Path, exams: Path, tmp_path: Path) -> None:
    assert run(f"bundle={bundle}", f"input={exams}/ward/gap", f"output={tmp_path}") == 1
    assert len(pd.read_parquet(tmp_path / "lesions.parquet")) == 0


def test_masks_are_of_exams_and_seg_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="masks=true: this cascade reads films"):
        command.check_wishes({"masks": True, "seg": False}, FILMS)
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(BundleError, match=r"seg=true needs highdicom"):
        command.check_wishes({"masks": False, "seg": True}, VOLUMES)
    command.check_wishes({"masks": True, "seg": False}, VOLUMES)


def test_truth_is_measured_as_in_training(bundle: Path, exams: Path, tmp_path: Path) -> None:
    save_nifti((head() == BLEED) * np.int16(EPIDURAL), tmp_path / "mask.nii.gz")
    cells = {"image": "a", "path": str(exams / "a.nii.gz"), "part": "head", "mask": str(tmp_path / "mask.nii.gz")}
    pd.DataFrame([{**cells, "label_hemorrhage": 1, "label_epidural": 1}]).to_csv(tmp_path / "exams.csv", index=False)
    manifest = load_manifest(tmp_path / "exams.csv")
    stages = load_bundle(bundle, threads=1).stages
    rows = predict_rows(stages, manifest, VOLUMES.truth(manifest))
    assert rows[0]["dice_epidural"] > 0.75
    assert [(lesion["source"], lesion["matched"]) for lesion in rows[0]["lesions"]] == [("predicted", 1), ("truth", 1)]
    assert prediction_table(rows, stages)["eligible_hemorrhage"].tolist() == [True]


def test_a_volume_too_large_or_a_mask_that_fails_costs_no_other_exam(bundle: Path, exams: Path, tmp_path: Path) -> None:
    stages = load_bundle(bundle, threads=1).stages
    recipe = Recipe(lambda: stages, None, None, Drawn(masks=tmp_path), 1, VOLUMES, max_pixels=1000)
    done = _Predictor(recipe, stages)("a", exams / "a.nii.gz")
    assert (done.problem, done.rows[0]["exclusion_reason"]) == ("exceeds_memory", "exceeds_memory")
    done = _Predictor(replace(recipe, max_pixels=None), [stages[0]])("a", exams / "a.nii.gz")  # nothing to draw
    assert (done.problem, done.note, len(done.rows)) == ("", "no mask (KeyError)", 1)


def test_a_bundle_takes_volumes_of_its_kind_only(bundle: Path, exams: Path) -> None:
    loaded = load_bundle(bundle, threads=1)
    (row,) = loaded.predict(read_volume(exams / "a.nii.gz"))
    assert row["image"] == "volume"
    with pytest.raises(BundleError, match="this bundle is for exams, a Film was given"):
        loaded.predict(Film(pixels=np.zeros((8, 8), np.float32)))


def test_one_volume_is_in_memory_at_a_time(bundle: Path, exams: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[weakref.ref[Any]] = []

    def read(path: Path, limit: int | None) -> Any:
        assert not [one for one in known if one() is not None]
        volume = read_volume(path)
        known.append(weakref.ref(volume))
        return volume

    monkeypatch.setattr("domainseg.bundle.predict.reading_of", lambda stages: replace(VOLUMES, read=read))
    manifest = read_input(exams / "ward", reading=VOLUMES)
    assert len(predict_rows(load_bundle(bundle, threads=1).stages, manifest, None)) == 3
    assert len(known) == 2  # the third cannot be read


def test_openvino_agrees(bundle: Path, exams: Path) -> None:
    one, other = (load_bundle(bundle, backend=name, threads=1) for name in ("onnxruntime", "openvino"))
    (first,), (second,) = one.predict(exams / "a.nii.gz"), other.predict(exams / "a.nii.gz")
    assert first["score_hemorrhage"] == pytest.approx(second["score_hemorrhage"], abs=1e-4)
    assert first["volume_ml"] == second["volume_ml"]


def test_boxes_come_one_slab_at_a_time(exams: Path, tmp_path: Path) -> None:
    """A detector with a batch of one: the same box in every slice, as a network of constants gives it."""
    record = head_record()
    record["stages"][1] |= {"batch": 1, "outputs": {name: list(values.shape) for name, values in BOXES.items()}}
    make_head_bundle(tmp_path / "b", detector_network(), **record)
    (row,) = load_bundle(tmp_path / "b", threads=1).predict(exams / "a.nii.gz")
    (lesion,) = row["lesions"]
    assert (lesion["type"], lesion["first_slice"], lesion["last_slice"]) == ("epidural", 0, 22)  # up to the vertex
    assert row["score_hemorrhage"] == pytest.approx(0.95)


def test_a_mask_of_another_size_than_the_pictures_is_refused() -> None:
    """Lesions would be measured in the wrong place."""
    record = head_record()
    record["stages"][1]["outputs"]["mask"] = [6, 24, 24]
    with pytest.raises(BundleError, match=r"hemorrhage: .*a mask of \(24, 24\) for pictures of \(48, 48\)"):
        make_stages(record, dict.fromkeys(("head_filter", "hemorrhage"), lambda pictures: {}))


def test_inspect_verify_and_diff(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["inspect", str(bundle)]) == main(["verify", str(bundle)]) == 0
    shown = capsys.readouterr().out
    for text in (
        "domainseg 0, onnx 1",
        "hemorrhage_detector",
        "9 x 48 x 48",
        "6 x 32 x 32",
        "slabs, window",
        "volume reader",
        "2 networks load",
    ):
        assert text in shown
    record = head_record()
    record["stages"][1]["decision"]["threshold_epidural"] = 0.5
    make_head_bundle(tmp_path / "b", **record)
    assert main(["diff", str(bundle), str(tmp_path / "b")]) == 1
    assert "hemorrhage: decision.threshold_epidural 0.25 0.5" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r.update(reader="0"), "made for version 0 of the volume reader"),
        (
            lambda r: r["stages"][1].update(decision={"kind": "whole_film", "version": 1}),
            "whole_film is for a film, the first for a vol",
        ),
        (lambda r: r["stages"][0].update(preprocessing=[{"op": "fit", "size": 32, "version": 1}]), "fit is for a film"),
        (lambda r: r["stages"][1]["preprocessing"][0].update(slices=0), "slices must be a whole number of 1 or more"),
        (lambda r: r["stages"][1]["preprocessing"][0].update(slices=99), "makes 297 channels, 1 to 256 are possible"),
        (lambda r: r["stages"][1]["preprocessing"][0].update(thickness=0), "thickness must be above 0 mm"),
        (lambda r: r["stages"][1]["preprocessing"][1].update(high=-5), "a window needs low and high"),
        (lambda r: r["stages"][1]["preprocessing"][1].pop("low"), "a window needs low and high"),
        (lambda r: r["stages"][1].update(preprocessing=r["stages"][1]["preprocessing"][:1]), "makes 0 channels"),
        (
            lambda r: r["stages"][1]["preprocessing"].pop(),
            r"the network takes .*, its preprocessing makes \[None, 6, 48",
        ),
        (
            lambda r: r["stages"][1]["outputs"].pop("mask"),
            "hemorrhage: its decision cannot be made of the outputs pres",
        ),
        (lambda r: r["stages"][1]["decision"].update(wings=2), "hemorrhage_detector knows no such setting: .*wings"),
        (lambda r: r.update(envelope={"volumes": 5}), "envelope: cannot be used"),
    ],
)
def test_a_record_of_another_kind_is_refused(
    tmp_path: Path, edit: Callable[[dict[str, Any]], Any], message: str
) -> None:
    record = head_record()
    edit(record)

    def load() -> None:
        make_head_bundle(tmp_path / "b", **record)
        load_bundle(tmp_path / "b")

    with pytest.raises(BundleError, match=message):
        load()
