"""Rows of head CTs: truth from labels, masks and slices, what became of every exam, and the lesion table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest

from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.head import HeadFilter, HemorrhageDetector
from domainseg.cascade.head_rows import volume_rows
from domainseg.cascade.head_truth import HeadTruth, slices_of
from domainseg.cascade.operations import preprocess
from domainseg.cascade.stages import Frozen, Stage
from domainseg.cascade.table import LESION_COLUMNS, lesion_table, prediction_table
from domainseg.data.manifest import ManifestError, build_manifest
from domainseg.imaging import ImageReadError
from domainseg.imaging.hemorrhage import CODES, MIMICS, TYPES, UNKNOWN
from domainseg.imaging.nifti import write_labels
from domainseg.imaging.volume import Volume

SHAPE = (12, 32, 32)  # z, y, x
SLABS = [{"op": "slabs", "size": 32, "slices": 3, "thickness": 5}, {"op": "window", "low": 0, "high": 80}]
FROZEN = Frozen(threshold=0.6)
Make = Callable[..., HeadTruth]


def volume() -> Volume:
    """4 mm pixels and 5 mm slices: a voxel has 0.08 ml. Stored head first and mirrored."""
    return Volume(
        np.zeros(SHAPE, np.int16),
        np.diag([4.0, 4.0, 5.0, 1.0]),
        source_shape=SHAPE,
        source_axes=((0, -1), (1, 1), (2, -1)),
        source_z=np.arange(12.0)[::-1],
        notes=("one", "two"),
    )


def codes() -> np.ndarray:
    """A bleed in two ventricles' worth of slices, and a small one under the skull."""
    out = np.zeros(SHAPE, np.uint8)
    out[4:8, 10:20, 10:20] = CODES["intraventricular"]
    out[1, 2:4, 2:4] = CODES["subdural"]
    return out


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """HeadTruth of exam a from rows of targets; arrays among the cells become NIfTI files."""

    def build(*rows: dict[str, Any]) -> HeadTruth:
        images = pd.DataFrame({"image": ["a"], "patient": ["p"], "site": ["A"], "split": ["test"]}, dtype=object)
        cells = []
        for number, row in enumerate(rows):
            row = {"image": "a", "part": "head", **row}
            for key, value in row.items():
                if isinstance(value, np.ndarray):
                    stored = volume().to_source(value) if value.shape == SHAPE else value
                    row[key] = f"{key}{number}.nii.gz"
                    nibabel.save(nibabel.Nifti1Image(stored.T, np.eye(4)), tmp_path / row[key])
            cells.append(row)
        targets = pd.DataFrame(cells, columns=sorted({key for row in cells for key in row}), dtype=object)
        return HeadTruth(build_manifest(images, targets.fillna(""), tmp_path, "mine"))

    return build


def test_a_type_means_hemorrhage_and_none_means_no_type(make: Make) -> None:
    exam = make({"label_subdural": 1, "label_epidural": 0}).exam("a")
    assert (exam["hemorrhage"], exam["subdural"], exam["epidural"]) == (1, 1, 0)
    assert np.isnan(exam["subarachnoid"])
    assert exam["head_filter"] == 1
    assert set(make({"label_hemorrhage": 0}).exam("a").values()) == {0.0, 1.0}
    whole = make({"part": "whole", "label_head_filter": 0})
    assert whole.exam("a")["head_filter"] == 0
    assert not whole.has("a")
    assert np.isnan(whole.exam("a")["hemorrhage"])
    assert make({"part": "whole", "label_hemorrhage": 1}).exam("a")["hemorrhage"] == 1


def test_a_mask_says_what_no_label_does(make: Make) -> None:
    """So that masks alone, as public sets come, give thresholds and AUCs too."""
    exam = make({"mask": codes()}).exam("a")
    present = ("hemorrhage", "intraventricular", "subdural", "head_filter")
    assert exam == {name: float(name in present) for name in exam}
    assert set(make({"mask": codes() * 0}).exam("a").values()) == {0.0, 1.0}
    one = make({"mask": np.where(codes() == CODES["subdural"], np.uint8(UNKNOWN), codes())}).exam("a")
    assert (one["hemorrhage"], one["intraventricular"]) == (1, 1)
    assert np.isnan(one["subdural"]), "the bleed of unknown type may be it"
    assert make({"mask": "nowhere.nii"}).exam("a")["head_filter"] == 1
    assert np.isnan(make({"mask": "nowhere.nii"}).exam("a")["hemorrhage"])


def test_a_label_comes_before_the_mask_and_one_that_shows_less_says_nothing(make: Make) -> None:
    assert make({"label_subdural": 0, "mask": codes()}).exam("a")["subdural"] == 0
    assert make({"label_hemorrhage": 0, "mask": codes()}).exam("a")["subdural"] == 0
    for labels in ({"label_epidural": 1, "mask": codes()}, {"label_hemorrhage": 1, "mask": codes() * 0}):
        exam = make(labels).exam("a")
        assert exam["hemorrhage"] == 1
        assert np.isnan(exam["subdural"])


def test_a_mask_that_does_not_lie_on_its_exam_says_nothing_of_it(make: Make) -> None:
    truth = make({"mask": np.zeros((20, 32, 32), np.uint8)})
    assert truth.exam("a")["hemorrhage"] == 0, "of an exam that was not read nothing else is known"
    assert np.isnan(truth.exam("a", volume())["hemorrhage"])
    (row,) = volume_rows("a", volume(), [], truth)
    assert np.isnan(row["label_hemorrhage"])
    assert row["outlined"] == 0


def test_a_mask_of_one_type_says_nothing_of_the_others(make: Make) -> None:
    subdural = (codes() == CODES["subdural"]).astype(np.uint8)
    exam = make({"mask": subdural, "mask_type": "subdural"}).exam("a")
    assert (exam["hemorrhage"], exam["subdural"]) == (1, 1)
    others = [name for name in TYPES if name != "subdural"]
    assert np.isnan([exam[name] for name in others]).all()
    blank = {"mask": subdural * 0, "mask_type": "subdural"}
    empty = make(blank).exam("a")
    assert empty["subdural"] == 0
    assert np.isnan([empty[name] for name in ("hemorrhage", *others)]).all()
    known = make(blank).slices("a", volume())
    assert not known[:, 1 + TYPES.index("subdural")].any()
    assert np.isnan(np.delete(known, 1 + TYPES.index("subdural"), axis=1)).all(), "there may be blood of another type"
    every = make(*({"mask": subdural * (name == "subdural"), "mask_type": name} for name in TYPES)).exam("a")
    assert {name for name, cell in every.items() if cell} == {"head_filter", "hemorrhage", "subdural"}
    assert every["hemorrhage"] == 1
    assert not np.isnan(list(every.values())).any()
    assert make(*({"mask": subdural * 0, "mask_type": name} for name in TYPES)).exam("a")["hemorrhage"] == 0


@pytest.mark.parametrize(
    "labels",
    [
        {"label_hemorrhage": 1, "mask": codes() * 0},
        {"label_epidural": 1, "mask": codes()},
        {"label_hemorrhage": 0, "mask": codes()},
        {"label_subdural": 0, "label_intraventricular": 1, "mask": codes()},
    ],
)
def test_a_mask_that_shows_not_what_the_labels_say_measures_nothing(make: Make, labels: dict[str, Any]) -> None:
    (row,) = volume_rows("a", volume(), [decided(codes())], make(labels))
    assert row["outlined"] == 0
    assert "its mask shows" in row["notes"]
    assert not {"dice_hemorrhage", "true_volume_ml", "false_lesions"} & {
        key for key, cell in row.items() if cell == cell
    }
    assert all(lesion["source"] == "predicted" for lesion in row["lesions"])


def test_masks_lie_on_the_volume(make: Make) -> None:
    found = make({"label_hemorrhage": 1, "mask": codes()}).labels("a", volume())
    assert found is not None
    assert found.dtype == np.uint8
    assert (found == codes()).all()
    binary = make(
        {"mask": np.uint8(7) * (codes() == 5), "mask_type": "epidural"},
        {"mask": np.uint8(1) * (codes() == 2), "mask_type": "subdural"},
    )
    both = binary.labels("a", volume())
    assert both is not None
    assert (both[codes() == 5] == CODES["epidural"]).all()
    assert (both[codes() == 2] == CODES["subdural"]).all()
    assert not make({"label_hemorrhage": 0}).labels("a", volume()).any()  # type: ignore[union-attr]
    assert make({"label_hemorrhage": 1}).labels("a", volume()) is None


def test_a_wrong_mask_is_told(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match="32 x 32 x 11 voxels, its image 32 x 32 x 12"):
        make({"mask": np.zeros((11, 32, 32), np.uint8)}).labels("a", volume())
    with pytest.raises(ImageReadError, match="the value 9; allowed are 0 to 6"):
        make({"mask": codes() + 9}).labels("a", volume())
    with pytest.raises(ImageReadError, match=r"the value 0\.[25]"):
        make({"mask": codes() * np.float32(0.1)}).labels("a", volume())
    with pytest.raises(ImageReadError, match="not there"):
        make({"mask": "nowhere.nii"}).labels("a", volume())
    (tmp_path / "bad.nii.gz").write_bytes(b"\x1f\x8b nothing")
    with pytest.raises(ImageReadError, match="compressed part is damaged"):
        make({"mask": "bad.nii.gz"}).labels("a", volume())


def test_a_mask_that_says_another_place_is_refused(make: Make, tmp_path: Path) -> None:
    """As a converter writes it: rows from the back to the front. Taken as stored it would be front to back."""
    there = volume()
    write_labels(there, codes(), tmp_path / "right.nii.gz")
    found = make({"mask": "right.nii.gz"}).labels("a", there)
    assert found is not None
    assert (found == codes()).all()
    image = nibabel.load(tmp_path / "right.nii.gz")
    flip = np.diag([1.0, -1, 1, 1])
    flip[1, 3] = 31
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[:, ::-1], image.affine @ flip), tmp_path / "rows.nii.gz")
    with pytest.raises(ImageReadError, match="its axes run the other way"):
        make({"mask": "rows.nii.gz"}).labels("a", there)
    beside = image.affine.copy()
    beside[2, 3] += 10  # two slices
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), beside), tmp_path / "beside.nii.gz")
    with pytest.raises(ImageReadError, match=r"up to 2\.5 voxels beside"):
        make({"mask": "beside.nii.gz"}).labels("a", there)
    stored = nibabel.Nifti1Image(np.asarray(image.dataobj)[:, ::-1], None)
    stored.header.set_sform(np.where(flip == 31, np.nan, image.affine @ flip), 1)
    nibabel.save(stored, tmp_path / "nan.nii.gz")
    with pytest.raises(ImageReadError, match="places it with numbers that are none"):
        make({"mask": "nan.nii.gz"}).labels("a", there)


def test_slices_of_a_source_whose_third_axis_is_not_the_bodys(make: Make) -> None:
    sagittal = Volume(
        np.zeros((12, 32, 7), np.int16),
        np.diag([4.0, 4.0, 5.0, 1.0]),
        source_shape=(7, 12, 32),  # stored as (back, head, left)
        source_axes=((2, 1), (0, 1), (1, 1)),
        source_z=np.arange(12.0),
    )
    known = make({"slices_hemorrhage": "10"}).slices("a", sagittal)
    assert known[:, 0].tolist() == [0.0] * 10 + [1, 0]
    assert np.isnan(make({"label_hemorrhage": 1}).slices("a", sagittal)).all()


def test_slices_from_lists_or_masks(make: Make) -> None:
    listed = make({"slices_hemorrhage": "2 3", "slices_subdural": "3", "slices_epidural": "none"})
    known = listed.slices("a", volume())
    assert known.shape == (12, 6)
    assert known[:, 0].tolist() == [0.0] * 8 + [1, 1] + [0] * 2  # source slices run from the head down
    assert known[8, 1 + TYPES.index("subdural")] == 1
    assert not known[:, 1 + TYPES.index("epidural")].any()
    assert np.isnan(known[[8, 9], 1 + TYPES.index("subarachnoid")]).all()
    assert (known[:8, 1:] == 0).all()
    drawn = make({"mask": codes()}).slices("a", volume())
    assert np.flatnonzero(drawn[:, 0]).tolist() == [1, 4, 5, 6, 7]
    assert not make({"label_hemorrhage": 0}).slices("a", volume()).any()
    assert np.isnan(make({"label_hemorrhage": 1}).slices("a", volume())).all()
    with pytest.raises(ManifestError, match="slice 12, but the exam ends with slice 11"):
        make({"slices_hemorrhage": "12"}).slices("a", volume())
    # A mask that lacks a bleed that its labels name adds its blood to what the table says.
    partial = make(
        {"label_subdural": 1, "label_intraventricular": 1, "label_epidural": 1, "slices_hemorrhage": "2 3",
         "mask": codes()},
    )  # fmt: skip
    known = partial.slices("a", volume())
    assert np.flatnonzero(known[:, 0]).tolist() == [1, 4, 5, 6, 7, 8, 9]
    assert known[1, 1 + TYPES.index("subdural")] == 1
    unsure = slices_of(np.where(codes() == 5, UNKNOWN, codes()).astype(np.uint8))
    assert unsure[4, 0] == 1
    assert np.isnan(unsure[4, 1:]).all()
    assert unsure[1, 1:].tolist() == [0, 1, 0, 0, 0]


def decided(drawn: np.ndarray, logit: float = 3.0) -> Case:
    """What the detector makes of a network that draws these codes."""
    mask = np.zeros((12, 6, 32, 32), np.float32)
    mask[:, 0] = np.where(drawn > 0, logit, -6)
    for code in CODES.values():
        mask[:, code] = 9 * (drawn == code)
    case = Case.of("a", volume())
    (result,) = HemorrhageDetector().decide(case, preprocess(case, SLABS), {"mask": mask}, FROZEN)
    assert isinstance(result, Case)
    return result


def test_rows_without_truth() -> None:
    (row,) = volume_rows("a", volume(), [decided(codes())], None)
    assert {key: row[key] for key in ("width", "height", "slices", "spacing", "slice_mm", "rendering", "notes")} == {
        "width": 32, "height": 32, "slices": 12, "spacing": 4.0, "slice_mm": 5.0, "rendering": 0, "notes": "one; two",
    }  # fmt: skip
    assert row["volume_ml"] == pytest.approx(404 * 0.08)
    lesions = {lesion["type"]: lesion for lesion in row["lesions"]}
    assert set(lesions) == {"intraventricular", "subdural"}
    # Source slices run the other way.
    assert (lesions["intraventricular"]["first_slice"], lesions["intraventricular"]["last_slice"]) == (4, 7)
    assert lesions["subdural"]["first_slice"] == 10
    assert np.isnan(lesions["subdural"]["matched"])
    json.dumps(row)


def test_rows_beside_their_truth(make: Make) -> None:
    mimics = np.zeros(SHAPE, np.uint8)
    mimics[9:11, 25:30, 25:30] = 1 + MIMICS.index("falx_calcification")
    truth = make(
        {"label_hemorrhage": 1, "mask": codes(), "mimics": mimics, "true_ml": 99, "mimic": "falx_calcification",
         "size_class": "30 ml and over", "density": "fresh"},
    )  # fmt: skip
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[4:8, 10:20, 12:22] = CODES["intraventricular"]
    drawn[9, 25:29, 25:29] = CODES["epidural"]
    (row,) = volume_rows("a", volume(), [decided(drawn)], truth)
    assert row["true_volume_ml"] == pytest.approx(404 * 0.08)
    assert row["true_volume_ml_subdural"] == row["true_volume_ml_extra_axial"] == pytest.approx(0.32)
    assert row["dice_intraventricular"] == pytest.approx(0.8)
    assert row["dice_hemorrhage"] == pytest.approx(2 * 320 / (404 + 416))
    assert row["dice_subdural"] == row["dice_extra_axial"] == 0
    assert np.isnan(row["dice_subarachnoid"])
    assert np.isnan(row["surface_mm_subdural"])
    assert 0 < row["surface_mm_intraventricular"] < 8
    assert row["false_lesions"] == 1
    assert (row["size_class"], row["density"]) == ("30 ml and over", "fresh")
    table = lesion_table([row])
    assert tuple(table) == LESION_COLUMNS
    assert table[["source", "lesion", "type", "matched", "mimic"]].to_numpy().tolist() == [
        ["predicted", 1, "intraventricular", 1.0, ""],
        ["predicted", 2, "epidural", 0.0, "falx_calcification"],
        ["truth", 1, "intraventricular", 1.0, ""],
        ["truth", 2, "subdural", 0.0, ""],
    ]
    assert table["score"].isna().tolist() == [False, False, False, True]
    assert table["ml"].tolist() == pytest.approx([32, 1.28, 32, 0.32])
    json.dumps(row)


def test_a_bleed_is_judged_though_its_look_alikes_cannot_be_read(make: Make) -> None:
    truth = make({"label_hemorrhage": 1, "mask": codes(), "mimics": "gone.nii.gz"})
    (row,) = volume_rows("a", volume(), [decided(codes())], truth)
    assert (row["dice_hemorrhage"], row["outlined"]) == (1, 1)
    assert {lesion["mimic"] for lesion in row["lesions"]} == {""}


def test_a_bleed_of_unknown_type_is_judged_as_a_bleed(make: Make) -> None:
    truth = make({"label_hemorrhage": 1, "mask": np.where(codes() > 0, UNKNOWN, 0).astype(np.uint8)})
    (row,) = volume_rows("a", volume(), [decided(codes())], truth)
    assert row["dice_hemorrhage"] == 1
    assert "dice_subdural" not in row
    assert "true_volume_ml_subdural" not in row


def test_every_exam_has_a_row_and_its_true_lesions(make: Make) -> None:
    truth = make({"label_hemorrhage": 1, "label_subdural": 1, "mask": codes()})
    gone = Exclusion("a", "", "head_filter", "no_head", {"score_head_filter": 0.1})
    (row,) = volume_rows("a", volume(), [gone], truth)
    assert (row["part"], row["excluded_by"], row["label_hemorrhage"]) == ("head", "head_filter", 1)
    assert row["true_volume_ml"] == pytest.approx(404 * 0.08)
    assert "dice_hemorrhage" not in row
    assert [(lesion["source"], np.isnan(lesion["matched"])) for lesion in row["lesions"]] == [("truth", True)] * 2
    (other,) = volume_rows("a", volume(), [gone], make({"part": "whole", "label_head_filter": 0}))
    assert (other["part"], other["label_head_filter"]) == ("", 0)


def test_an_exam_that_was_not_read_still_has_its_true_lesions(make: Make, tmp_path: Path) -> None:
    write_labels(volume(), codes(), tmp_path / "mask.nii.gz")
    lost = ImageReadError(Path("a"), "nothing")
    truth = make({"label_hemorrhage": 1, "label_subdural": 1, "mask": "mask.nii.gz"})
    (unread,) = volume_rows("a", lost, [], truth)
    (read,) = volume_rows("a", volume(), [Exclusion("a", "", "head_filter", "no_head")], truth)
    assert (unread["part"], unread["excluded_by"], unread["label_subdural"]) == ("head", "read", 1)
    true = [name for name in read if name.startswith("true_volume_ml")]
    assert {name: unread[name] for name in true} == pytest.approx({name: read[name] for name in true})
    assert unread["true_volume_ml"] == pytest.approx(404 * 0.08)
    for one, other in zip(unread["lesions"], read["lesions"][::-1], strict=True):
        for name in ("ml", "diameter_mm", "x_mm", "y_mm", "z_mm"):
            assert one[name] == pytest.approx(other[name])
        assert one["type"] == other["type"]
    assert [(one["source"], np.isnan(one["matched"])) for one in unread["lesions"]] == [("truth", True)] * 2
    stored = volume().to_source(codes())
    nibabel.save(nibabel.Nifti1Image(stored.T, np.eye(4)), tmp_path / "nowhere.nii.gz")
    known = make({"label_hemorrhage": 1, "label_subdural": 1, "mask": "nowhere.nii.gz", "true_ml": 7.0})
    (placeless,) = volume_rows("a", lost, [], known)
    assert (placeless["true_volume_ml"], placeless["outlined"], placeless["typed"]) == (7, 1, 1)
    assert len(placeless["lesions"]) == 2
    (normal,) = volume_rows("a", lost, [], make({"label_hemorrhage": 0}))
    assert (normal["true_volume_ml"], normal["true_volume_ml_subdural"], normal["outlined"]) == (0, 0, 1)
    for row in ({"mask": "lost.nii.gz"}, {}):
        (unknown,) = volume_rows("a", lost, [], make({"label_hemorrhage": 1, **row}))
        assert "true_volume_ml" not in unknown
        assert (unknown["outlined"], unknown["lesions"]) == (0, [])


def test_an_exam_whose_mask_cannot_be_read_is_judged_by_its_labels(make: Make) -> None:
    truth = make({"label_hemorrhage": 1, "label_subdural": 1, "mask": "nowhere.nii.gz"})
    (row,) = volume_rows("a", volume(), [decided(codes())], truth)
    assert (row["label_subdural"], row["outlined"]) == (1, 0)
    assert row["score_hemorrhage"] > 0.5
    assert row["notes"] == "one; two; mask not read: unreadable"
    assert "dice_hemorrhage" not in row
    assert truth.outlines("a", volume()) is None
    assert volume_rows("a", volume(), [], make({"label_hemorrhage": 1}))[0]["outlined"] == 0
    assert volume_rows("a", volume(), [], make({"label_hemorrhage": 0}))[0]["outlined"] == 1


def test_the_table_has_thresholds_and_eligibility_of_types(make: Make) -> None:
    truth = make({"label_hemorrhage": 1, "label_subdural": 1, "mask": codes()})
    rows = volume_rows("a", volume(), [decided(codes())], truth)
    other = volume_rows("b", volume(), [], None)
    other[0] |= {"label_head_filter": 0.0, "label_hemorrhage": 0.0, "label_subdural": 0.0}
    detector = HemorrhageDetector(threshold_subdural=0.25)
    stages = [
        Stage("head_filter", [], HeadFilter(), dict),  # type: ignore[arg-type]
        Stage("hemorrhage", [], detector, dict, FROZEN),  # type: ignore[arg-type]
    ]
    table = prediction_table([*rows, *other], stages)
    assert "lesions" not in table
    assert table["threshold_subdural"].tolist() == [0.25, 0.25]
    assert table["threshold_hemorrhage"].tolist() == [0.6, 0.6]
    assert table["eligible_head_filter"].tolist() == [True, True]
    assert table["eligible_subdural"].tolist() == [True, False]
    assert table["eligible_epidural"].tolist() == [True, False], "the mask says that there is none"
    assert table["label_epidural"].iloc[0] == 0
