"""Pictures of exams for the report: best, worst and missed bleeds, what was taken for one, and a sheet of the exams.

Truth and prediction are outlined on windowed slices (domainseg/reporting/overlays_volume.py), as many as show them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.cascade.cascade import Cascade
from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.head_box import head_frame
from domainseg.cascade.head_truth import HeadTruth
from domainseg.cascade.lesions import numbers_on_volume
from domainseg.cascade.reads import VOLUMES
from domainseg.data.manifest import Manifest
from domainseg.evaluation.lesions import exam_of
from domainseg.files import write_json
from domainseg.imaging import ImageReadError
from domainseg.imaging.hemorrhage import TYPES
from domainseg.imaging.volume import Volume
from domainseg.reporting.content import read_lesions
from domainseg.reporting.overlays import write_png
from domainseg.reporting.overlays_volume import TRUE, Outlines, called, closeup, described, montage, page, paged
from domainseg.reporting.sections_volume import false_lesions
from domainseg.reporting.words import REASONS, title
from domainseg.training.stages import load_cascade

Picture = NDArray[np.uint8]
EACH = 3  # exams of each kind
KINDS = 8  # kinds of look-alikes, one false lesion each
MOST = 12  # slices of an exam

GROUPS = {
    "best": "Bleeds outlined best",
    "worst": "Bleeds outlined worst, or called for something else",
    "missed": "Bleeds missed",
    "wrongly_excluded": "Bleeds wrongly excluded",
    "false_lesion": "False lesions",
}


@dataclass(frozen=True)
class Shown:
    """A picture to draw: its kind, the row of the prediction table, and the false lesion's where it is of one."""

    kind: str
    row: Mapping[str, Any]
    lesion: Mapping[str, Any] | None = None


def write_volume_pictures(run: Path, table: pd.DataFrame, manifest: Manifest) -> None:
    """Write run/pictures/*.png and captions.json: best, worst and missed exams, false lesions, and a contact sheet.

    Lesions are those of run/lesions.parquet (or .csv); without it there are none to show.
    """
    folder, truth = run / "pictures", HeadTruth(manifest)
    shown: list[tuple[str, Shown]] = []
    for kind, members in groupby(choose(table, read_lesions(run)), lambda one: one.kind):
        shown += [(f"{kind}_{k}.png", one) for k, one in enumerate(members, start=1)]
    drawn = set()
    cascades: dict[Path, Cascade] = {}
    # An exam that is shown twice is read once.
    for image, group in groupby(sorted(shown, key=lambda item: str(item[1].row["image"])), _image):
        volume = _read(manifest, image)
        if volume is None:
            continue
        items = list(group)
        where = run / "folds" / str(items[0][1].row["fold"]) if items[0][1].row.get("fold") else run
        if where not in cascades:
            cascades[where] = Cascade(load_cascade(where, "cpu"))
        result = cascades[where].run(Case.of(image, volume))[0]
        for name, one in items:
            write_png(draw(one, volume, result, truth), folder / name)
            drawn.add(name)
    captions = {name: {"caption": caption(one), "group": GROUPS[one.kind]} for name, one in shown if name in drawn}
    sheet = contact_sheet(manifest, truth)
    if sheet is not None:
        write_png(sheet, folder / "contact_sheet.png")
    write_json(folder / "captions.json", captions)


def choose(table: pd.DataFrame, lesions: pd.DataFrame | None) -> list[Shown]:
    """Test exams worth a look. Best and worst are by Dice, of as many types as possible; missed ones the largest first;
    of each kind of look-alike the surest false lesion."""
    test = table[table["split"] == "test"] if "split" in table else table
    if "label_hemorrhage" not in test or "score_hemorrhage" not in test:
        return []
    bleeds = test[test["label_hemorrhage"] == 1]
    scored = bleeds[bleeds["excluded_by"] == ""]
    call = scored["score_hemorrhage"] >= scored["threshold_hemorrhage"]
    found = scored[call]
    by = ["dice_hemorrhage", "score_hemorrhage"] if "dice_hemorrhage" in found else ["score_hemorrhage"]
    found = found.sort_values(by, ascending=False, na_position="last", kind="stable")
    # One that was called for something else is none of the best.
    hit = found["dice_hemorrhage"] != 0 if "dice_hemorrhage" in found else found["score_hemorrhage"].notna()
    best = _varied(found[hit])
    rest = found[~found["image"].isin(best["image"])]
    missed = scored[~call]
    if "true_volume_ml" in missed:
        missed = missed.sort_values("true_volume_ml", ascending=False, kind="stable")
    lost = bleeds[(bleeds["excluded_by"] != "") & bleeds.get("eligible_hemorrhage", True)]
    kinds = {
        "best": best,
        "worst": _varied(_measured(rest)[::-1]),
        "missed": missed.head(EACH),
        "wrongly_excluded": lost.head(EACH),
    }
    shown = [Shown(kind, row) for kind, rows in kinds.items() for row in _dicts(rows)]
    return shown + list(_false(test, lesions))


def _measured(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a Dice, all where none has."""
    if "dice_hemorrhage" not in rows or rows["dice_hemorrhage"].isna().all():
        return rows
    return rows[rows["dice_hemorrhage"].notna()]


def _varied(rows: pd.DataFrame) -> pd.DataFrame:
    """The first rows whose types differ, filled up with the first of the others."""
    kinds = ["+".join(_types(row)) for row in _dicts(rows)]
    order = pd.Series(kinds, index=rows.index, dtype=object)
    first = rows[~order.duplicated()]
    return pd.concat([first, rows[order.duplicated()]]).head(EACH)


def _false(test: pd.DataFrame, lesions: pd.DataFrame | None) -> Iterator[Shown]:
    if lesions is None or not len(lesions):
        return
    wrong = false_lesions(lesions[exam_of(test, lesions) >= 0]).sort_values("score", ascending=False)
    rows = {str(row["image"]): row for row in _dicts(test)}
    if "mimic" in wrong:
        wrong = wrong.assign(mimic=wrong["mimic"].fillna("")).drop_duplicates("mimic")
    for lesion in _dicts(wrong.head(KINDS)):
        yield Shown("false_lesion", rows[str(lesion["image"])], lesion)


def draw(one: Shown, volume: Volume, result: Case | Exclusion, truth: HeadTruth) -> Picture:
    """The picture of one exam: the slices with truth (in one colour) and called lesions (in another)."""
    labels = truth.outlines(result.image, volume)
    true = [] if labels is None or not labels.any() else [Outlines(labels, TRUE, "true")]
    lines = described(result)
    if isinstance(result, Exclusion):
        return montage(Case.of(result.image, volume), true, lines, most=MOST)
    layers = [*true, *called(result)]
    if one.lesion is not None:
        numbers = numbers_on_volume(result)
        if (lesion := numbers == one.lesion["lesion"]).any():
            return closeup(result, layers, lesion, lines)
    return montage(result, layers, lines, most=MOST)


def caption(one: Shown) -> str:
    """What the picture shows, in words."""
    row, lesion = one.row, one.lesion
    if lesion is not None:
        what = str(lesion.get("mimic") or "").replace("_", " ")
        text = f"{what.capitalize() or 'No known look-alike'}, taken for {lesion['type'] or 'a'} hemorrhage"
        text += f"{_ml(lesion.get('ml'))}, score {lesion['score']:.2f}; exam {row['image']}"
        return f"{text}, slices {lesion['first_slice']:.0f} to {lesion['last_slice']:.0f}"
    held = [f"{name}{_ml(row.get(f'true_volume_ml_{name}'))}" for name in _types(row)]
    text = f"Exam {row['image']}: {', '.join(held) or 'hemorrhage'}"
    if row["excluded_by"]:
        stage, reason = str(row["excluded_by"]), str(row["exclusion_reason"])
        return f"{text}; excluded by {stage.replace('_', ' ')} ({title(reason, REASONS)})"
    if np.isfinite(dice := _number(row.get("dice_hemorrhage"))) and one.kind != "missed":
        text += f"; Dice {dice:.2f}, measured{_ml(row.get('volume_ml'))}"
    text += f"; score {row['score_hemorrhage']:.2f}, threshold {row['threshold_hemorrhage']:.2f}"
    mimics = str(row.get("mimic") or "").replace("_", " ").replace("+", ", ")
    return text + (f"; also {mimics}" if mimics and mimics != "nan" else "")


def contact_sheet(manifest: Manifest, truth: HeadTruth, count: int = 16, columns: int = 8) -> Picture | None:
    """The first exams of each type side by side, each in the slice with most of it; None when none can be read."""
    said = {image: _said(truth.exam(image)) for image in manifest.images["image"]}
    kinds = manifest.images["image"].map(said)
    # Types take turns: the first exam of each, then the second of each.
    images = manifest.images["image"].iloc[kinds.groupby(kinds).cumcount().argsort(kind="stable")]
    tiles: list[Picture] = []
    for image in images:
        if len(tiles) == count:
            break
        volume = _read(manifest, image)
        if volume is None:
            continue
        frame = head_frame(volume)
        case = Case(image, volume, frame.affine, frame.shape)
        places, labels = paged(case), truth.outlines(image, volume)
        areas = [0 if labels is None else np.count_nonzero(labels[place.start : place.stop]) for place in places]
        k = int(np.argmax(np.array(areas))) if any(areas) else round(0.6 * (len(places) - 1))
        tile = page(case, places[k], ())
        cv2.putText(tile, said[image], (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 220, 255), 1, cv2.LINE_AA)
        tiles.append(tile)
    if not tiles:
        return None
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.concatenate([np.concatenate(tiles[k : k + columns], 1) for k in range(0, len(tiles), columns)])


def _said(exam: Mapping[str, float]) -> str:
    if exam["head_filter"] == 0:
        return "no head"
    known = {0.0: "no hemorrhage", 1.0: "hemorrhage"}.get(exam["hemorrhage"], "")
    return ", ".join(name for name in TYPES if exam[name] == 1) or known


def _types(row: Mapping[str, Any]) -> list[str]:
    return [name for name in TYPES if row.get(f"label_{name}") == 1]


def _ml(value: Any) -> str:
    return f" {number:.1f} ml" if np.isfinite(number := _number(value)) else ""


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")


def _image(item: tuple[str, Shown]) -> str:
    return str(item[1].row["image"])


def _dicts(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(column): value for column, value in row.items()} for row in rows.to_dict("records")]


def _read(manifest: Manifest, image: str) -> Volume | None:
    try:
        volume = VOLUMES.read(manifest.path(image), None)
    except ImageReadError:
        return None
    return volume if isinstance(volume, Volume) else None
