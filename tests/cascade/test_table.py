"""The prediction table: a row for every hip that is known, whatever became of its film, and what is measured on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from domainseg.cascade.cascade import Cascade
from domainseg.cascade.case import Case
from domainseg.cascade.rows import film_rows
from domainseg.cascade.stages import FractureDetector, Frozen, ImplantFilter, Localizer, Stage, ViewFilter
from domainseg.cascade.table import FIRST, prediction_table, write_table
from domainseg.cascade.truth import Truth
from domainseg.data.manifest import build_manifest
from domainseg.imaging import Film, ImageReadError
from domainseg.imaging.geometry import inverse, transform

HEADS = {"hip_left": (90.0, 80.0), "hip_right": (210.0, 84.0)}
SIZE = 150  # of the localizer's input: two source pixels each, 25 rows of padding above


@dataclass(frozen=True)
class Answers:
    """What the networks of the four stages say of the film."""

    view: int = 0
    found: Sequence[str] = ("hip_left", "hip_right")
    metal: Sequence[str] = ()
    heads: tuple[tuple[float, float], ...] = tuple(HEADS.values())
    fracture: float = -2.0
    cell: tuple[int, int] = (16, 16)

    def stages(self) -> list[Stage]:
        """The hip cascade, each network a function that gives these answers."""
        parts = ("hip_left", "hip_right")
        going = [part for part in parts if part in self.found]

        def view(batch: np.ndarray) -> dict[str, np.ndarray]:
            return {"view": 8 * np.eye(3, dtype=np.float32)[[self.view]], "turn": np.eye(4, dtype=np.float32)[[0]]}

        def localizer(batch: np.ndarray) -> dict[str, np.ndarray]:
            frame = np.array([[2, 0, 0.5], [0, 2, 0.5 - 50], [0, 0, 1]])
            points = (transform(inverse(frame), self.heads) + 0.5) / SIZE
            return {
                "presence": np.array([[5.0 if part in self.found else -5.0 for part in parts]], np.float32),
                "center": points[None].astype(np.float32),
                "diameter": np.full((1, 2), np.log(30 / 2 / SIZE), np.float32),
            }

        def implant(batch: np.ndarray) -> dict[str, np.ndarray]:
            return {"implant": np.array([4.0 if part in self.metal else -4.0 for part in going], np.float32)}

        def fracture(batch: np.ndarray) -> dict[str, np.ndarray]:
            heat = np.full((len(batch), 3, 32, 32), -5.0, np.float32)
            heat[:, 0, self.cell[1], self.cell[0]] = 3
            return {
                "fracture": np.full(len(batch), self.fracture, np.float32),
                "location": np.tile(np.array([0, 1, 2], np.float32), (len(batch), 1)),
                "map": heat,
            }

        small = [{"op": "fit", "size": 64}]
        return [
            Stage("view_filter", small, ViewFilter(), view),
            Stage("localizer", [{"op": "fit", "size": SIZE}], Localizer(), localizer),
            Stage("implant_filter", small, ImplantFilter(), implant),
            Stage("fracture", [{"op": "fit", "size": 1024}], FractureDetector(), fracture, Frozen(threshold=0.4)),
        ]


def truth(*rows: dict[str, Any], root: Path | str = ".") -> Truth:
    """Truth about film a; ``rows`` are its targets."""
    images = pd.DataFrame({"image": ["a"], "patient": ["p"], "site": ["A"], "split": ["test"]}, dtype=object)
    targets = pd.DataFrame([{"image": "a", **row} for row in rows] or {"image": [], "part": []}, dtype=object)
    return Truth(build_manifest(images, targets, root, "made"))


def hip(part: str, **more: Any) -> dict[str, Any]:
    """The targets of a hip that is in the film."""
    x, y = HEADS[part]
    return {"part": part, "label_localizer": 1, "label_implant_filter": 0, "label_fracture": 0, "x": x, "y": y, **more}


BOTH = (hip("hip_left"), hip("hip_right"), {"part": "whole", "label_view_filter": 1, "label_view": "hip_frontal"})


def table_of(film: Film | ImageReadError, answers: Answers, known: Truth | None) -> pd.DataFrame:
    """The prediction table of one film, image a, indexed by part."""
    stages = answers.stages()
    results = [] if isinstance(film, ImageReadError) else Cascade(stages).run(Case.of("a", film))
    images = None if known is None else known.manifest.images
    return prediction_table(film_rows("a", film, results, known), stages, images).set_index("part", drop=False)


def test_an_excluded_film_keeps_a_row_for_each_hip_that_is_known(film: Film) -> None:
    table = table_of(film, Answers(view=2), truth(*BOTH))
    assert list(table["part"]) == ["hip_left", "hip_right"]
    assert set(table["excluded_by"]) == {"view_filter"}
    assert set(table["exclusion_reason"]) == {"other_body_part"}
    assert (table["score_view_filter"] < 0.5).all()
    assert (table["label_fracture"] == 0).all()
    assert table["score_fracture"].isna().all()
    assert list(table["true_head_x"]) == [90, 210]


def test_an_excluded_film_of_one_hip_has_one_row(film: Film) -> None:
    table = table_of(film, Answers(view=1), truth(hip("hip_right"), hip("hip_left", label_localizer=0, x="", y="")))
    assert list(table["part"]) == ["hip_right"]
    assert list(table["exclusion_reason"]) == ["other_view_of_hip"]


@pytest.mark.parametrize("known", [None, truth(), truth({"part": "whole", "label_view_filter": 0})])
def test_an_excluded_film_without_hips_in_the_truth_is_one_row(film: Film, known: Truth | None) -> None:
    table = table_of(film, Answers(view=2), known)
    assert list(table["part"]) == [""]
    assert list(table["excluded_by"]) == ["view_filter"]


def test_a_film_without_fracture_that_was_excluded_counts_against_the_cascade(film: Film) -> None:
    known = truth({"part": "whole", "label_view_filter": 1, "label_fracture": 0, "label_implant_filter": 0})
    table = table_of(film, Answers(view=1), known)
    assert table[["part", "label_fracture", "eligible_fracture"]].to_numpy().tolist() == [["", 0.0, True]]
    positive = truth({"part": "whole", "label_view_filter": 1, "label_fracture": 1})
    assert not table_of(film, Answers(view=1), positive).get("eligible_fracture", pd.Series([False])).any()


def test_rows_say_how_many_hips_were_found_and_in_which_half_of_the_picture(film: Film) -> None:
    """A hip that is lost keeps its side, so that results by side count it; without truth the other row tells of it."""
    both, one = table_of(film, Answers(), None), table_of(film, Answers(found=["hip_right"]), None)
    assert list(both["hips_found"]) == [2, 2]
    assert one[["part", "hips_found"]].to_numpy().tolist() == [["hip_right", 1]]
    assert list(table_of(film, Answers(found=[]), None)["hips_found"]) == [0]
    assert "hips_found" not in table_of(film, Answers(view=2), None)
    lost = table_of(film, Answers(found=["hip_right"], metal=["hip_right"]), truth(*BOTH))
    assert lost[["image_side", "hips_found"]].to_numpy().tolist() == [["left", 1], ["right", 1]]
    assert list(lost["excluded_by"]) == ["localizer", "implant_filter"]


def test_columns_that_nobody_named_stay_in_the_users_table(film: Film) -> None:
    rows = film_rows("a", film, Cascade(Answers().stages()).run(Case.of("a", film)), None)
    images = pd.DataFrame({"image": ["a"], "site": ["A"], "patient_name": ["DOE^JANE"], "accession": ["4711"]})
    table = prediction_table(rows, Answers().stages(), images)
    assert "site" in table
    assert not {"patient_name", "accession"} & set(table.columns)


def test_a_hip_that_was_not_found_is_the_localizers(film: Film) -> None:
    table = table_of(film, Answers(found=["hip_left"]), truth(*BOTH))
    assert table.loc["hip_left", "excluded_by"] == ""
    assert table.loc["hip_right", "excluded_by"] == "localizer"
    assert table.loc["hip_right", "exclusion_reason"] == "hip_not_found"
    assert table.loc["hip_right", "score_view_filter"] == table.loc["hip_left", "score_view_filter"]
    assert np.isnan(table.loc["hip_right", "score_fracture"])
    assert table["eligible_fracture"].all()


def test_a_hip_that_no_truth_knows_and_nobody_found_is_no_row(film: Film) -> None:
    table = table_of(film, Answers(found=["hip_left"]), truth(hip("hip_left")))
    assert list(table["part"]) == ["hip_left"]


def test_a_hip_that_was_found_without_truth_has_a_row_with_unknown_labels(film: Film) -> None:
    table = table_of(film, Answers(), truth(hip("hip_left")))
    assert list(table["part"]) == ["hip_left", "hip_right"]
    assert table.loc["hip_right", "score_fracture"] == pytest.approx(1 / (1 + np.exp(2)))
    assert np.isnan(table.loc["hip_right", "label_fracture"])
    assert not table.loc["hip_right", "eligible_fracture"]


def test_no_hip_found_at_all_is_the_localizers(film: Film) -> None:
    table = table_of(film, Answers(found=[]), truth(*BOTH))
    assert list(table["part"]) == ["hip_left", "hip_right"]
    assert set(table["excluded_by"]) == {"localizer"}
    assert set(table["exclusion_reason"]) == {"no_hip_found"}


def test_metal_excludes_its_own_side(film: Film) -> None:
    table = table_of(film, Answers(metal=["hip_left"]), truth(*BOTH))
    assert list(table["excluded_by"]) == ["implant_filter", ""]
    assert table.loc["hip_left", "score_implant_filter"] > 0.5 > table.loc["hip_right", "score_implant_filter"]
    assert np.isnan(table.loc["hip_left", "score_fracture"])


@pytest.mark.parametrize(("known", "parts"), [(truth(*BOTH), ["hip_left", "hip_right"]), (truth(), [""]), (None, [""])])
def test_an_unreadable_film_is_excluded_by_read(known: Truth | None, parts: list[str]) -> None:
    error = ImageReadError("secret/path.dcm", "the pixels end early")
    table = table_of(error, Answers(), known)
    assert list(table["part"]) == parts
    assert set(table["excluded_by"]) == {"read"}
    assert not table.astype(str).apply(lambda column: column.str.contains("secret")).to_numpy().any()


def test_no_truth_no_labels(film: Film) -> None:
    table = table_of(film, Answers(), None)
    assert list(table["part"]) == ["hip_left", "hip_right"]
    assert not [name for name in table if name.startswith(("label_", "eligible_", "true_"))]


def test_unknown_labels_are_empty_cells(film: Film) -> None:
    rows = (hip("hip_left", label_fracture="", label_implant_filter=""), hip("hip_right"))
    table = table_of(film, Answers(), truth(*rows))
    assert np.isnan(table.loc["hip_left", ["label_fracture", "label_implant_filter"]].astype(float)).all()
    assert table["label_view_filter"].isna().all()
    assert list(table["eligible_fracture"]) == [False, True]
    assert list(table["eligible_localizer"]) == [True, True]


def test_head_errors_are_distances_in_millimetres_and_in_film_widths(film: Film) -> None:
    """Found 3 and 4 pixels away: 5 pixels of 0.5 mm in a film of 300; the other head is right."""
    table = table_of(film, Answers(heads=((93.0, 84.0), (210.0, 84.0))), truth(*BOTH))
    assert table.loc["hip_left", "head_error_mm"] == pytest.approx(2.5, abs=1e-3)
    assert table.loc["hip_left", "head_error_pct"] == pytest.approx(100 * 5 / 300, abs=1e-3)
    assert table.loc["hip_right", "head_error_mm"] == pytest.approx(0, abs=1e-3)
    unknown = table_of(replace(film, spacing=None), Answers(heads=((93.0, 84.0), (210.0, 84.0))), truth(*BOTH))
    assert "head_error_mm" not in unknown
    assert unknown.loc["hip_left", "head_error_pct"] == pytest.approx(100 * 5 / 300, abs=1e-3)


# The ROI of a head of 30 pixels is 102 source pixels, 1024 of its own: 32 of these are 3.19 source pixels. A pixel of a
# mask reaches up to 0.9 pixels beyond its centre.
TOLERANCE = 32 * 102 / 1024


def pointed(part: str, cell: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Where a cell of the map lies in the source: the ROI is 102 wide, its middle 13.5 lateral and 22.5 below."""
    x, y = HEADS[part]
    lateral = -1 if part == "hip_left" else 1
    across, down = ((k * 32 + 15.5 - 511.5) * 102 / 1024 for k in cell)
    return np.array([x + lateral * 13.5 - lateral * across, y + 22.5 + down])


@pytest.mark.parametrize("part", ["hip_left", "hip_right"])
@pytest.mark.parametrize("drawn", ["mask", "polygon"])
@pytest.mark.parametrize(("gap", "hit"), [(TOLERANCE - 1.2, 1.0), (TOLERANCE + 2.0, 0.0)])
def test_pointing_hits_when_the_lesion_lies_within_a_cell(
    film: Film, tmp_path: Path, part: str, drawn: str, gap: float, hit: float
) -> None:
    cell = (10, 20)
    x, y = pointed(part, cell)
    left, top = round(x + gap), round(y) - 10  # a block of 12 x 21 pixels whose edge is ``gap`` to the right
    if drawn == "mask":
        mask = np.zeros(film.shape, np.uint8)
        mask[top : top + 21, left : left + 12] = 255
        cv2.imwrite(str(tmp_path / "lesion.png"), mask)
        lesion = {"mask": "lesion.png"}
    else:
        lesion = {"polygon": f"{left} {top} {left + 12} {top} {left + 12} {top + 20} {left} {top + 20}"}
    known = truth(hip(part, label_fracture=1, **lesion), *[row for row in BOTH if row["part"] != part], root=tmp_path)
    table = table_of(film, Answers(cell=cell), known)
    np.testing.assert_allclose([table.loc[part, "pointing_x"], table.loc[part, "pointing_y"]], (x, y), atol=1e-2)
    assert table.loc[part, "pointing_hit"] == hit
    assert np.isnan(table.drop(index=part)["pointing_hit"].iloc[0])


def test_a_lesion_outside_the_roi_is_not_hit(film: Film) -> None:
    polygon = "280 180 290 180 290 190"
    table = table_of(film, Answers(), truth(hip("hip_left", label_fracture=1, polygon=polygon)))
    assert table.loc["hip_left", "pointing_hit"] == 0


def test_eligible_are_known_labels_that_no_truth_of_an_earlier_stage_stops() -> None:
    unknown = np.nan
    cases = [
        # view, localizer, metal, fracture -> eligible for each
        ((1, 1, 0, 1), (True, True, True, True)),
        ((1, 1, 0, 0), (True, True, True, True)),
        ((0, 1, 0, 1), (True, False, False, False)),
        ((1, 0, 0, 1), (True, False, False, False)),
        ((1, 1, 1, 1), (True, True, True, False)),
        ((unknown, unknown, unknown, 1), (False, False, False, True)),
        ((1, 1, 0, unknown), (True, True, True, False)),
        ((0, unknown, unknown, unknown), (True, False, False, False)),
        ((unknown, 0, unknown, 0), (False, False, False, False)),
        ((1, 1, unknown, 0), (True, True, False, True)),
    ]
    targets = ("view_filter", "localizer", "implant_filter", "fracture")
    rows = [
        {"image": f"{k:02}", "part": "hip_left"}
        | {f"label_{name}": value for name, value in zip(targets, labels, strict=True)}
        for k, (labels, _) in enumerate(cases)
    ]
    table = prediction_table(rows, Answers().stages())
    for k, (labels, expected) in enumerate(cases):
        found = tuple(bool(table.loc[k, f"eligible_{name}"]) for name in targets)
        assert found == expected, labels


def test_eligibility_does_not_depend_on_what_the_stages_did(film: Film) -> None:
    for answers in (Answers(), Answers(view=2), Answers(metal=["hip_left"]), Answers(found=["hip_left"])):
        table = table_of(film, answers, truth(*BOTH))
        for target in ("view_filter", "localizer", "implant_filter", "fracture"):
            assert table[f"eligible_{target}"].all(), (answers, target)


def test_rows_are_sorted_and_carry_metadata_thresholds_and_geometry(film: Film, tmp_path: Path) -> None:
    answers = Answers(fracture=1.0)
    rows: list[dict[str, Any]] = []
    for image in ("b", "a"):
        rows += film_rows(image, film, Cascade(answers.stages()).run(Case.of(image, film)), None)[::-1]
    images = pd.DataFrame({"image": ["a", "b"], "site": ["A", "B"], "path": ["x", "y"], "report": ["text", ""]})
    table = prediction_table(rows, answers.stages(), images)
    assert list(zip(table["image"], table["part"], strict=True)) == [
        ("a", "hip_left"), ("a", "hip_right"), ("b", "hip_left"), ("b", "hip_right"),
    ]  # fmt: skip
    assert list(table["site"]) == ["A", "A", "B", "B"]
    assert not {"path", "report"} & set(table)
    assert list(table)[: table.columns.get_loc("exclusion_reason") + 1] == [name for name in FIRST if name in table]
    assert (table["threshold_fracture"] == 0.4).all()
    assert set(table["location"]) == {"extra"}
    assert (table["width"] == 300).all()
    assert (table["height"] == 200).all()
    assert (table["spacing"] == 0.5).all()
    write_table(table, tmp_path)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "predictions.parquet"), table)
    written = pd.read_csv(tmp_path / "predictions.csv", keep_default_na=False)
    assert list(written) == list(table)
    np.testing.assert_allclose(written["head_x"], table["head_x"])
