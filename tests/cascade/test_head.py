"""Decisions of the head CT cascade: scores, lesions in patient millimetres, volumes, types."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage
from scipy.special import expit
from scipy.special import logit as log_odds

from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.head import CUT, HeadFilter, HemorrhageDetector, labels_on_volume
from domainseg.cascade.head_rows import volume_rows
from domainseg.cascade.lesions import Grid, divided, measured, numbers_on_volume
from domainseg.cascade.operations import Sample, preprocess
from domainseg.cascade.stages import Frozen
from domainseg.imaging.hemorrhage import CODES, TYPES
from domainseg.imaging.nifti import write_labels
from domainseg.imaging.volume import Volume

SLABS = [{"op": "slabs", "size": 64, "slices": 3, "thickness": 5}, {"op": "window", "low": 0, "high": 80}]
OPEN = Frozen(threshold=0.5, slope=1.0, intercept=0.0)


def volume(depth: int = 20, thickness: float = 5.0) -> Volume:
    """64 x 64 pixels of 2 mm; x and y turned, so that a mistake of sign shows."""
    affine = np.array([[0, -2, 0, 50], [2, 0, 0, -30], [0, 0, thickness, 100], [0, 0, 0, 1]], float)
    return Volume(np.zeros((depth, 64, 64), np.int16), affine, source_shape=(depth, 64, 64))


def sample(case: Case) -> Sample:
    return preprocess(case, SLABS)


def outputs(depth: int, *blocks: tuple[tuple[slice, slice, slice], float, dict[str, float]]) -> dict[str, np.ndarray]:
    """A mask of -6 but for blocks: where, logit of any bleed, logits of types; and a presence head that says 0."""
    mask = np.zeros((depth, 6, 64, 64), np.float32)
    mask[:, 0] = -6
    for (z, y, x), value, types in blocks:
        mask[z, 0, y, x] = value
        for name, own in types.items():
            mask[z, CODES[name], y, x] = own
    return {"mask": mask, "presence": np.zeros((depth, 6), np.float32)}


def decided(found: dict[str, np.ndarray], decision: HemorrhageDetector, case: Case, frozen: Frozen = OPEN) -> Case:
    result = decision.decide(case, sample(case), found, frozen)
    assert isinstance(result, list)
    (out,) = result
    # What parity compares is what is decided with.
    assert out.values["score_hemorrhage"] == frozen.probability(decision.logits(found)[""])
    return out


def test_head_filter_keeps_or_excludes() -> None:
    case = Case.of("a", volume())
    (kept,) = HeadFilter().decide(case, sample(case), {"head": np.array([2.0], np.float32)}, OPEN)
    assert isinstance(kept, Case)
    assert kept.part == "head"
    assert kept.values["score_head_filter"] == pytest.approx(expit(2.0))
    lost = HeadFilter().decide(case, sample(case), {"head": np.array([-2.0], np.float32)}, OPEN)
    assert isinstance(lost, Exclusion)
    assert (lost.excluded_by, lost.reason) == ("head_filter", "no_head")


def test_a_head_that_goes_on_above_the_volume_is_noted() -> None:
    solid = replace(volume(), voxels=np.full((20, 64, 64), 40, np.int16), notes=("read so",))
    case = Case.of("a", solid)
    (kept,) = HeadFilter().decide(case, sample(case), {"head": np.array([2.0], np.float32)}, OPEN)
    (row,) = volume_rows("a", solid, [kept], None)
    assert row["notes"] == f"read so; {CUT}"


def test_a_lesion_in_patient_millimetres() -> None:
    case = Case.of("a", volume())
    found = decided(
        outputs(20, (np.s_[4:8, 10:20, 30:36], 3.0, {"subdural": 9})), HemorrhageDetector(), case,
    )  # fmt: skip
    (lesion,) = found.lesions
    ml = 4 * 10 * 6 * 2 * 2 * 5 / 1000
    assert lesion["type"] == "subdural"
    assert lesion["ml"] == pytest.approx(ml)
    assert found.values["volume_ml"] == pytest.approx(ml)
    assert found.values["volume_ml_subdural"] == pytest.approx(ml)
    assert (lesion["first_slice"], lesion["last_slice"]) == (4, 7)
    # The middle of columns 30 to 35, rows 10 to 19, slices 4 to 7 through the volume's affine.
    centre = [50 - 2 * 14.5, -30 + 2 * 32.5, 100 + 5 * 5.5]
    assert [lesion[f"{axis}_mm"] for axis in "xyz"] == pytest.approx(centre)
    half = np.array([20, 12, 20]) / 2
    assert [lesion[f"box_low_{axis}_mm"] for axis in "xyz"] == pytest.approx(centre - half)
    assert [lesion[f"box_high_{axis}_mm"] for axis in "xyz"] == pytest.approx(centre + half)
    assert lesion["diameter_mm"] == pytest.approx(np.sqrt(20**2 + 12**2 + 15**2))  # pixels whole, slices in the middle
    assert lesion["score"] == found.values["score_hemorrhage"] == pytest.approx(expit(3.0))
    assert found.values["score_subdural"] == pytest.approx(expit(3.0) * (1 - 4 / (np.exp(9) + 4)))
    on_voxels = labels_on_volume(found)
    assert (on_voxels == CODES["subdural"]).sum() == 4 * 10 * 6
    assert set(np.unique(on_voxels)) == {0, CODES["subdural"]}


def test_a_thinner_uppermost_slice_counts_as_what_it_holds() -> None:
    """41 slices of 1 mm in slabs of 5: the last holds one. A column of 3 mm pixels in the last two slabs."""
    thin = Volume(np.zeros((41, 64, 64), np.int16), np.diag([3.0, 3.0, 1.0, 1.0]), source_shape=(41, 64, 64))
    found = decided(
        outputs(9, (np.s_[7:9, 20, 30], 3.0, {"subdural": 9})), HemorrhageDetector(smallest=1), Case.of("a", thin)
    )
    (lesion,) = found.lesions
    assert (lesion["first_slice"], lesion["last_slice"]) == (35, 40)
    assert lesion["z_mm"] == pytest.approx(np.mean(range(35, 41)))
    assert lesion["diameter_mm"] == pytest.approx(np.sqrt(3**2 + 3**2 + (40 - 37) ** 2))
    assert (lesion["box_low_z_mm"], lesion["box_high_z_mm"]) == pytest.approx((34.5, 40.5))


def test_thin_slices_count_as_many_as_there_are() -> None:
    thin = Case.of("a", volume(depth=9, thickness=1.25))
    found = decided(outputs(3, (np.s_[1:3, 0:4, 0:4], 3.0, {"subdural": 9})), HemorrhageDetector(), thin)
    # Slices 4 to 7 make the second slice of the grid, the ninth alone makes the third.
    assert found.values["volume_ml"] == pytest.approx(5 * 16 * 4 * 1.25 / 1000)
    assert (found.lesions[0]["first_slice"], found.lesions[0]["last_slice"]) == (4, 8)
    assert (labels_on_volume(found) > 0).any(axis=(1, 2)).tolist() == [False] * 4 + [True] * 5


def test_millilitres_are_those_of_the_written_mask(tmp_path: Path) -> None:
    """Ragged outlines, enlarged by a number that is not whole, in a frame that ends within a group of thin slices."""
    affine = np.diag([-0.45, 0.45, 2.4, 1.0])
    fine = Volume(np.zeros((21, 300, 310), np.int16), affine, source_shape=(21, 300, 310))
    frame = np.eye(4)
    frame[:3, 3] = (20, 11, 3)
    case = replace(Case.of("a", fine), affine=frame, shape=(15, 240, 260))
    found = outputs(8)
    rng = np.random.default_rng(0)
    found["mask"][:, 0] = 15 * ndimage.gaussian_filter(rng.normal(size=(8, 64, 64)), (0.5, 2, 2)) - 3
    found["mask"][:, 1:] = rng.normal(0, 3, (8, 5, 64, 64))
    frozen = Frozen(threshold=expit(0.8), slope=1.0, intercept=0.0)
    out = decided(found, HemorrhageDetector(), case, frozen)
    assert {lesion["called"] for lesion in out.lesions} == {0, 1}
    file = nibabel.load(write_labels(fine, labels_on_volume(out), tmp_path / "mask.nii.gz"))
    written = np.bincount(np.asanyarray(file.dataobj).astype(int).ravel(), minlength=7) * 0.45 * 0.45 * 2.4 / 1000
    assert written[1:6].min() > 0.1
    for name in TYPES:
        assert out.values[f"volume_ml_{name}"] == pytest.approx(written[CODES[name]], rel=1e-9)
    assert out.values["volume_ml"] == pytest.approx(written[1:].sum(), rel=1e-9)
    drawn = np.bincount(numbers_on_volume(out).ravel())[1:] * fine.voxel_ml
    assert [lesion["ml"] for lesion in out.lesions] == pytest.approx(drawn)
    assert not labels_on_volume(out)[[0, 1, 2, 18, 19, 20]].any()  # outside the frame


def test_a_lesion_of_two_types_is_two_rows() -> None:
    case = Case.of("a", volume())
    two = decided(
        outputs(
            20,
            (np.s_[4:8, 10:20, 10:20], 3.0, {"intraparenchymal": 9}),
            (np.s_[4:8, 10:20, 20:23], 2.0, {"intraventricular": 9}),
            (np.s_[4:5, 20:21, 10:14], 2.0, {"epidural": 9, "intraparenchymal": 4}),
        ),
        HemorrhageDetector(),
        case,
    )
    assert [(row["lesion"], row["type"]) for row in two.lesions] == [(1, "intraparenchymal"), (2, "intraventricular")]
    # Too little of it is epidural: those voxels have the next type.
    assert two.values["volume_ml_intraparenchymal"] == pytest.approx(0.02 * (4 * 10 * 10 + 4))
    share = np.array([4 * 100, 4 * 30]) / (4 * 130 + 4)
    assert two.values["score_intraparenchymal"] == pytest.approx(expit(3.0) * share[0], rel=0.01)
    assert two.values["score_intraventricular"] == pytest.approx(expit(3.0) * share[1], rel=0.01)
    assert divided(np.array([1] * 9 + [2])).tolist() == [1] * 10
    assert divided(np.array([1] * 8 + [2] * 2)).tolist() == [1] * 8 + [2] * 2


def test_a_voxel_that_is_unsure_has_the_type_of_its_candidate() -> None:
    sure = (np.s_[4:8, 10:20, 10:16], 3.0, {"subdural": 4})
    rest = np.s_[4:8, 10:20, 16:19]  # a third of the candidate
    for leaning, want in ((1.0, ["subdural"]), (9.0, ["subdural", "epidural"])):
        found = outputs(20, sure, (rest, 3.0, {"epidural": leaning}))
        assert [row["type"] for row in decided(found, HemorrhageDetector(), Case.of("a", volume())).lesions] == want


def test_only_what_is_called_is_drawn_and_measured() -> None:
    case = Case.of("a", volume())
    found = decided(
        outputs(20, (np.s_[4:8, 10:20, 10:20], 3.0, {"epidural": 9}), (np.s_[12:14, 5:9, 5:9], 0.5, {"subdural": 9})),
        HemorrhageDetector(),
        case,
        Frozen(threshold=0.8),
    )
    assert [row["called"] for row in found.lesions] == [1, 0]
    assert found.values["volume_ml_subdural"] == 0
    assert found.values["score_subdural"] == pytest.approx(expit(0.5), abs=0.01)  # called or not
    assert (labels_on_volume(found) > 0).sum() == 400
    assert (found.arrays["lesions"] == 2).sum() == 32


def test_an_exam_without_a_component_is_scored_where_it_comes_closest() -> None:
    case = Case.of("a", volume())
    detector = HemorrhageDetector(level=0.5)
    found = [
        decided(outputs(20, (np.s_[3:4, 3:8, 3:8], value, {})), detector, case, Frozen(threshold=0.01))
        for value in (-4.0, -2.0, -1.0)
    ]
    assert [one.values["score_hemorrhage"] for one in found] == pytest.approx(expit([-4.0, -2.0, -1.0]))
    for one in found:  # called, and so it shows where
        (lesion,) = one.lesions
        assert lesion["called"] == 1
        assert lesion["first_slice"] == lesion["last_slice"] == 3
        assert one.values["volume_ml"] == lesion["ml"] > 0
    # Strong, but too small: its few voxels are shown, their score is that of as many voxels as any other's.
    tiny = outputs(20, (np.s_[3:4, 3:6, 3:6], 8.0, {"epidural": 3}))
    lost = decided(tiny, replace(detector, smallest=100.0), case)
    assert lost.values["score_hemorrhage"] == pytest.approx(expit((9 * 8 + 7 * -6) / 16))
    assert lost.lesions[0]["type"] == "epidural"
    assert lost.values["score_epidural"] > lost.values["score_subdural"]


def test_the_presence_head_weighs_in() -> None:
    case = Case.of("a", volume())
    found = outputs(20, (np.s_[4:8, 10:20, 10:20], 3.0, {"epidural": 9}))
    found["presence"][6] = [-5, -9, -9, 9, -9, -9]
    found["presence"][15, 0] = 7  # elsewhere
    detector = HemorrhageDetector(presence=0.25)
    # In the lesion's slices the head says 0 at most.
    assert detector.logits(found)[""] == pytest.approx(0.75 * 3)
    result = decided(found, detector, case)
    assert result.values["score_epidural"] > result.values["score_subdural"]
    nothing = outputs(20)
    nothing["presence"][15, 0] = 7
    assert detector.logits(nothing)[""] == pytest.approx(0.75 * -6 + 0.25 * 7)


def boxes(depth: int) -> dict[str, np.ndarray]:
    found = {
        "boxes": np.zeros((depth, 4, 4), np.float32), "scores": np.zeros((depth, 4), np.float32),
        "labels": np.zeros((depth, 4), np.float32), "types": np.zeros((depth, 4, 5), np.float32),
        "masks": np.full((depth, 4, 56, 56), 5, np.float32),
    }  # fmt: skip
    for z, score in ((5, 0.4), (6, 0.9)):
        found["boxes"][z, 0], found["scores"][z, 0] = [10, 20, 18, 30], score
        found["types"][z, 0, 1] = 9
    return found


def test_boxes_are_called_outlined_and_typed() -> None:
    case = Case.of("a", volume())
    found = decided(boxes(20), HemorrhageDetector(), case)
    (lesion,) = found.lesions
    assert lesion["type"] == TYPES[1]
    assert lesion["score"] == pytest.approx(0.9)
    assert lesion["ml"] == pytest.approx(2 * 80 * 0.02)
    assert (labels_on_volume(found) > 0).sum() == 2 * 80
    nothing = {name: np.zeros_like(array) for name, array in boxes(20).items()}
    low = decided(nothing, HemorrhageDetector(), case)
    assert low.lesions == []
    assert low.values["score_hemorrhage"] < 0.001
    weak = boxes(20)
    weak["scores"] *= 0.01  # 0.9 to 0.009: below any level, but the closest
    (lesion,) = decided(weak, HemorrhageDetector(box_level=0.2), case).lesions
    assert lesion["score"] == pytest.approx(0.009)


def test_boxes_call_and_the_mask_outlines() -> None:
    case = Case.of("a", volume())
    both = {**boxes(20), **outputs(20, (np.s_[5:7, 20:25, 0:30], 2.0, {"epidural": 9}))}
    found = decided(both, HemorrhageDetector(mask_weight=0.5), case)
    (lesion,) = found.lesions
    assert lesion["type"] == "epidural"
    assert lesion["ml"] == pytest.approx(2 * 5 * 8 * 0.02)
    assert lesion["score"] == pytest.approx(expit((log_odds(0.9) + 2) / 2), rel=1e-5)


def test_a_bleed_that_two_boxes_share_is_one_lesion() -> None:
    """What the weaker box has beside the stronger one's is a strip of the bleed, no lesion with a score of its own."""
    both = {**boxes(20), **outputs(20, (np.s_[6:7, 20:25, 10:19], 2.0, {"epidural": 9}))}
    both["boxes"][6, 1], both["scores"][6, 1] = [10, 20, 26, 30], 0.8
    both["masks"][6, 1, :, :28] = -5  # beside the other's mask, so that they are not linked
    (lesion,) = decided(both, HemorrhageDetector(), Case.of("a", volume())).lesions
    assert lesion["score"] == pytest.approx(0.9)
    assert lesion["ml"] == pytest.approx((80 + 45) * 0.02)  # slice 5 has the box's own mask
    both = {**boxes(20), **outputs(20, (np.s_[6:7, 20:25, 10:26], 2.0, {"epidural": 9}))}
    both["boxes"][6, 1], both["scores"][6, 1] = [10, 20, 26, 30], 0.8
    both["masks"][6, 1, :, :28] = -5
    assert len(decided(both, HemorrhageDetector(), Case.of("a", volume())).lesions) == 2  # half of it is its own


def test_decisions_of_blank_outputs() -> None:
    """As a bundle tries them: zeros for every output, a volume of almost nothing."""
    blank = Case.of("blank", Volume(np.zeros((4, 8, 8), np.int16), np.eye(4), source_shape=(4, 8, 8)))
    found = outputs(8)
    for outs in (found, boxes(8), {**found, **boxes(8)}):
        zeros = {name: np.zeros_like(array) for name, array in outs.items()}
        detector = HemorrhageDetector()
        detector.logits(zeros)
        assert detector.decide(blank, sample(blank), zeros, Frozen(threshold=-1.0))


def test_pictures_have_no_millilitres() -> None:
    pictures = Case.of("a", Volume(np.zeros((20, 64, 64), np.int16), None, (0.0, 80.0), (20, 64, 64)))
    found = decided(outputs(20, (np.s_[4:8, 10:20, 30:36], 3.0, {"subdural": 9})), HemorrhageDetector(), pictures)
    assert np.isnan(found.values["volume_ml"])
    assert np.isnan([found.lesions[0][name] for name in ("ml", "x_mm", "diameter_mm", "box_low_z_mm")]).all()
    assert found.lesions[0]["last_slice"] == 7
    quiet = decided(outputs(20), HemorrhageDetector(), pictures)
    assert np.isnan(quiet.values["volume_ml_epidural"])


def test_thresholds_of_types_travel_in_the_decision() -> None:
    assert HemorrhageDetector(threshold_epidural=0.3).thresholds(OPEN)["epidural"] == 0.3


def test_longest_diameter_of_a_large_lesion() -> None:
    rng = np.random.default_rng(0)
    tilted = volume(40)
    tilted.affine[1, 2] = 2.0  # type: ignore[index]
    z, y, x = np.nonzero(np.indices((40, 64, 64)).transpose(1, 2, 3, 0) @ rng.normal(size=3) > 20)
    row = measured(Grid.of_voxels(tilted), z, y, x)
    points = np.stack([x, y, z], axis=1) @ tilted.affine[:3, :3].T
    some = points[rng.permutation(len(points))[:100]]
    brute = max(float(np.sqrt(((points - one) ** 2).sum(axis=1)).max()) for one in some)
    assert brute <= row["diameter_mm"]
    assert row["diameter_mm"] <= np.linalg.norm(np.ptp(points, axis=0)) + 4  # two half pixels more than the box


def test_what_lies_beside_the_picture_has_no_millilitres() -> None:
    volume = Volume(np.zeros((4, 20, 20), np.int16), np.eye(4), source_shape=(4, 20, 20))
    affine = np.eye(4)
    affine[:2, 3] = 5, -3  # the frame of a head near the edge reaches beyond the picture
    grid = Grid(volume, affine, np.arange(4), np.arange(4))
    for x in (0, 10, 16, 22, 27):
        numbers = np.zeros((4, 26, 30), np.uint16)
        numbers[1, 10:13, x : x + 3] = 1
        assert grid.ml(numbers)[1] == pytest.approx(3 * max(0, min(3, 15 - x)) / 1000)


def test_the_uppermost_slices_end_where_the_frame_does() -> None:
    """Thin slices in groups of seven: the last group of a frame is cut short, and a lesion in it with it."""
    thin = volume(285, 0.75)
    case = replace(Case.of("a", thin), part="head", shape=(267, 64, 64))
    case.affine[2, 3] = 13
    affine = np.diag([1.0, 1.0, 7.0, 1.0])
    affine[2, 3] = 13 + 3
    grid = Grid.of(case, affine, 39)
    assert (grid.first[-1], grid.last[-1]) == (279, 279)
    numbers = np.zeros((39, 64, 64), np.uint16)
    numbers[38, 20:24, 30:40] = 1
    row = measured(grid, *np.nonzero(numbers))
    drawn = np.flatnonzero(grid.on_voxels(numbers, np.array([0, 1], np.uint8)).any(axis=(1, 2)))
    assert (row["first_slice"], row["last_slice"]) == (drawn.min(), drawn.max()) == (279, 279)
    assert thin.affine is not None
    assert row["box_low_z_mm"] == pytest.approx(100 + 0.75 * 278.5)
    assert row["box_high_z_mm"] == pytest.approx(100 + 0.75 * 279.5)
    assert row["z_mm"] == pytest.approx(100 + 0.75 * 279)
