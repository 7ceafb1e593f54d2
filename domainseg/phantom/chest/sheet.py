"""A contact sheet of simulated chest films: healthy ones of each site, then each finding, plain and with its box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.imaging import read_film
from domainseg.imaging.chest import FINDINGS

TILE = 320
_COLOUR = (40, 200, 255)  # blue, green, red


def tiles(folder: Path, images: pd.DataFrame, targets: pd.DataFrame, columns: int) -> list[NDArray[np.uint8]]:
    """Rows of ``columns`` tiles: films without a finding, upright ones and portable ones; then films of each finding,
    each plain and with its box."""
    known = images.set_index("image")
    drawn = (
        targets.assign(finding=targets["finding"].fillna("")) if "finding" in targets else targets.assign(finding="")
    )
    found: list[NDArray[np.uint8]] = []
    healthy = drawn.loc[drawn["finding"] == "", "image"].tolist()
    for portable in (0, 1):
        chosen = known.loc[[image for image in healthy if known.loc[image, "portable"] == portable]]
        for _, films in chosen.groupby("site"):
            found += [_tile(folder, film, "")[0] for _, film in films.head(columns // 3).iterrows()]
        _fill(found, columns)
    for name in FINDINGS:
        for row in drawn[drawn["finding"] == name].head(columns // 2).to_dict("records"):
            tile, scale, shift = _tile(folder, known.loc[row["image"]], f"{name} {float(row['severity']):.1f}")
            x, y, width, height = (float(number) * scale for number in row["box"].split(","))
            corner = (round(x + shift[0]), round(y + shift[1]))
            boxed = cv2.rectangle(
                tile.copy(), corner, (round(x + width + shift[0]), round(y + height + shift[1])), _COLOUR, 1
            )
            found += [tile, np.asarray(boxed, np.uint8)]
        _fill(found, columns)
    return found


def _fill(found: list[NDArray[np.uint8]], columns: int) -> None:
    while len(found) % columns:
        found.append(np.zeros((TILE, TILE, 3), np.uint8))


def _tile(folder: Path, film: Any, text: str) -> tuple[NDArray[np.uint8], float, tuple[float, float]]:
    """A film fitted into a tile with a line of text, its scale and where its corner lies."""
    pixels = read_film(folder / film["path"]).pixels
    height, width = pixels.shape
    scale = TILE / max(height, width)
    small = cv2.resize(pixels, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    left, top = (TILE - small.shape[1]) // 2, (TILE - small.shape[0]) // 2
    grey = np.zeros((TILE, TILE), np.uint8)
    grey[top : top + small.shape[0], left : left + small.shape[1]] = np.clip(small * 255, 0, 255).astype(np.uint8)
    tile = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    line = f"{film['site']} {film['view']}{' portable' if film['portable'] else ''} {text}"
    cv2.putText(tile, line, (6, TILE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(tile, np.uint8), scale, (float(left), float(top))
