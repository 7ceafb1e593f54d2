"""Pictures for the report: right and wrong calls on the test films, and a sheet of the films themselves.

Those of volumes are made in domainseg/training/pictures_volume.py, those of findings in pictures_findings.py.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.cascade.cascade import Cascade
from domainseg.cascade.case import Case
from domainseg.cascade.whole import WHOLE
from domainseg.data.manifest import Manifest
from domainseg.files import write_json
from domainseg.imaging import ImageReadError, read_film
from domainseg.reporting.overlays import film_picture, overlay, write_png
from domainseg.training.pictures_findings import write_findings_pictures
from domainseg.training.pictures_volume import write_volume_pictures
from domainseg.training.stages import load_cascade

log = logging.getLogger(__name__)

Picture = NDArray[np.uint8]
EACH = 4  # pictures of each kind


def write_pictures(run: Path, table: pd.DataFrame, manifest: Manifest) -> None:
    """Write run/pictures/*.png and captions.json: true and false calls, misses, exclusions, and a contact sheet."""
    if "score_hemorrhage" in table:
        write_volume_pictures(run, table, manifest)
        return
    if set(table["part"]) == {WHOLE}:
        write_findings_pictures(run, table, manifest, contact_sheet(manifest))
        return
    captions: dict[str, str] = {}
    folder = run / "pictures"
    cascades: dict[Path, Cascade] = {}
    for kind, rows in choose(table).items():
        for k, row in enumerate(rows):
            name = f"{kind}_{k + 1}.png"
            try:
                film = read_film(manifest.path(row["image"]))
            except ImageReadError:
                continue
            where = run if "fold" not in row or not row["fold"] else run / "folds" / str(row["fold"])
            if where not in cascades:
                cascades[where] = Cascade(load_cascade(where, "cpu"))
            results = cascades[where].run(Case.of(row["image"], film))
            write_png(overlay(film, results), folder / name)
            captions[name] = caption(kind, row)
    sheet = contact_sheet(manifest)
    if sheet is not None:
        write_png(sheet, folder / "contact_sheet.png")
    write_json(folder / "captions.json", captions)


def choose(table: pd.DataFrame) -> dict[str, list[Mapping[str, Any]]]:
    """Test cases worth a look, by kind: the surest true and false calls, the lowest misses, wrong exclusions."""
    if "label_fracture" not in table or "score_fracture" not in table:
        return {}
    test = table[table["split"] == "test"] if "split" in table else table
    scored = test[test["excluded_by"] == ""].sort_values("score_fracture", ascending=False)
    call = scored["score_fracture"] >= scored["threshold_fracture"]
    fractured, intact = scored["label_fracture"] == 1, scored["label_fracture"] == 0
    wrong = test[(test["excluded_by"] != "") & test.get("eligible_fracture", False) & (test["label_fracture"] == 1)]
    kinds = {
        "found": scored[call & fractured],
        "false_alarm": scored[call & intact],
        "missed": scored[~call & fractured][::-1],
        "clear": scored[~call & intact][::-1],
        "wrongly_excluded": wrong,
    }
    shown = {kind: rows.drop_duplicates("image").head(EACH) for kind, rows in kinds.items() if len(rows)}
    return {
        kind: [{str(column): value for column, value in row.items()} for row in rows.to_dict("records")]
        for kind, rows in shown.items()
    }


def caption(kind: str, row: Mapping[str, Any]) -> str:
    """What the picture shows, in words."""
    text = f"{kind.replace('_', ' ')}: {row['part'].replace('_', ' ')}, film {row['image']}"
    if row["excluded_by"]:
        return f"{text}; excluded by {row['excluded_by']} ({row['exclusion_reason']})"
    text += f"; score {row['score_fracture']:.2f}, threshold {row['threshold_fracture']:.2f}"
    width = row.get("fracture_width_mm")
    if row.get("fracture_class"):
        text += f"; {row['fracture_class']}" + (f", {width:.1f} mm wide" if width and np.isfinite(width) else "")
    return text


def contact_sheet(manifest: Manifest, count: int = 24, columns: int = 8, side: int = 240) -> Picture | None:
    """The first films of each view side by side, 8-bit BGR; None when none can be read."""
    whole = manifest.targets[manifest.targets["part"] == "whole"].drop_duplicates("image")
    views = dict(zip(manifest.images["image"], manifest.images["view"], strict=True))
    if "label_view" in whole:
        views = dict(zip(whole["image"], whole["label_view"], strict=True))
    view = manifest.images["image"].map(views).fillna("")
    # Views take turns: the first film of each, then the second of each.
    images = manifest.images["image"].iloc[view.groupby(view).cumcount().argsort(kind="stable")]
    tiles: list[Picture] = []
    for image in images:
        if len(tiles) == count:
            break
        try:
            picture, _ = film_picture(read_film(manifest.path(image)), side)
        except ImageReadError:
            continue
        tile = np.zeros((side, side, 3), np.uint8)
        top, left = (side - picture.shape[0]) // 2, (side - picture.shape[1]) // 2
        tile[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        cv2.putText(
            tile, views.get(image, ""), (6, side - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 220, 255), 1, cv2.LINE_AA
        )
        tiles.append(tile)
    if not tiles:
        return None
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.concatenate([np.concatenate(tiles[k : k + columns], 1) for k in range(0, len(tiles), columns)])
