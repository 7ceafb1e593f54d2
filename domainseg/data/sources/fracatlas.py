"""FracAtlas (Abedeen et al., Scientific Data 10:521, 2023; CC BY 4.0): the hip films and some of other regions.

The folder holds images/, labels.csv, fracture_annotations.json and femoral_heads.csv. What its columns can and cannot
say about a hip, and so what the labels here mean:

- view: a hip film that is frontal and nothing else is 1 (hip_frontal); a hip film that is not frontal is 0
  (hip_other); one that is ticked as frontal and as lateral or oblique shows limbs at several angles: unknown. A film
  without a hip is 0 (other).
- turn: 16 frontal hip films are turned by 90 degrees, seen by eye; the other frontal ones are upright.
- metal: hardware=1 says that there is metal on the film, not at which hip: a label of the film. hardware=0 counts as no
  metal, although some metal away from the bones named in the table may have been passed over (screws in a spine).
- fracture: a label of the film; where it lies is in the polygons. ``lesions.lesion_to_part`` says what that means for
  one hip, once its ROI is known.
- patients are unknown. Neighbouring numbers are often one person: films whose numbers differ by at most 3 are chained
  into one group, the other regions too, so that a person's hip and leg stay together.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from domainseg.data.manifest import Manifest, build_manifest
from domainseg.data.tables import ManifestError

CHAIN = 3  # largest step between the numbers of two films that count as one person
LEGS_RIGHT = (315, 329, 428, 679, 680, 789, 1068, 1169, 1753, 1803, 1825, 1988, 2026)  # three quarter turns back
LEGS_LEFT = (429, 726, 1490)  # one quarter turn back
LAYOUT = ("region", "mixed", "multiscan", "hardware", "orig_width", "orig_height", "orig_mode")


def load(root: Path | str) -> Manifest:
    """The 392 films of the folder ``root``, with all that the source says. Raises ManifestError.

    images has, beside the usual columns: landscape (1 when wider than high) and, as in the source, region, mixed,
    multiscan, hardware, orig_width, orig_height, orig_mode: the layout that fractures go with and a model must beat.
    targets: part=whole with the film's labels, one row a lesion (box, polygon); hip_left and hip_right with x, y where
    heads are marked (to about 3 % of the width).
    """
    root = Path(root)
    try:
        labels = pd.read_csv(root / "labels.csv", dtype=str, keep_default_na=False)
        heads = pd.read_csv(root / "femoral_heads.csv", dtype={"image_id": str})
        lesions = json.loads((root / "fracture_annotations.json").read_text())
    except (OSError, ValueError) as error:
        raise ManifestError(f"data.root={root}: not a FracAtlas folder ({error})") from error
    films = labels.sort_values("image_id").reset_index(drop=True)
    number = films["image_id"].str.extract(r"(\d+)", expand=False).astype(int)
    images = pd.DataFrame(
        {
            "image": films["image_id"],
            "path": "images/" + films["image_id"],
            "group": "fracatlas-" + _chains(number).astype(str),
            "landscape": (films["width"].astype(int) > films["height"].astype(int)).astype(int),
            **{column: films[column] for column in LAYOUT},
        }
    )
    whole = _film_labels(films, number).merge(_lesion_rows(lesions), on="image", how="left")
    manifest = build_manifest(images, pd.concat([whole, _head_rows(heads)], ignore_index=True), root, "fracatlas")
    if missing := manifest.missing_files():
        raise ManifestError(f"data.root={root}: {len(missing)} films are not there, first {missing[0]}")
    return manifest


def _chains(number: pd.Series) -> pd.Series:
    """For each number, in rising order, the first number of its chain."""
    starts = number.diff().fillna(CHAIN + 1) > CHAIN
    return number.where(starts).ffill().astype(int)


def _film_labels(films: pd.DataFrame, number: pd.Series) -> pd.DataFrame:
    hip, frontal = films["hip"] == "1", films["frontal"] == "1"
    angled = (films["lateral"] == "1") | (films["oblique"] == "1")
    view = np.select([~hip, frontal & ~angled, ~frontal], ["other", "hip_frontal", "hip_other"], "")
    turn = np.select([number.isin(LEGS_LEFT), number.isin(LEGS_RIGHT), view == "hip_frontal"], ["1", "3", "0"], "")
    return pd.DataFrame(
        {
            "image": films["image_id"],
            "part": "whole",
            "label_view_filter": pd.Series(view).map({"hip_frontal": "1", "hip_other": "0", "other": "0", "": ""}),
            "label_view": view,
            "label_turn": turn,
            "label_implant_filter": films["hardware"],
            "label_fracture": films["fractured"],
        }
    )


def _lesion_rows(lesions: list[dict[str, object]]) -> pd.DataFrame:
    rows = []
    for lesion in lesions:
        box = ",".join(str(number) for number in lesion["bbox"])  # type: ignore[attr-defined]
        for polygon in lesion["segmentation"]:  # type: ignore[attr-defined]
            rows.append((lesion["image_id"], box, " ".join(str(number) for number in polygon)))
    return pd.DataFrame(rows, columns=["image", "box", "polygon"])


def _head_rows(heads: pd.DataFrame) -> pd.DataFrame:
    marked = heads[heads["image_left_x"].notna()]
    return pd.concat(
        pd.DataFrame(
            {
                "image": marked["image_id"],
                "part": f"hip_{side}",
                "label_localizer": "1",
                "x": marked[f"image_{side}_x"],
                "y": marked[f"image_{side}_y"],
            }
        )
        for side in ("left", "right")
    )
