"""A contact sheet of simulated or painted head CT: slices of each kind of bleed, with outlines, to be looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.imaging.hemorrhage import TYPES
from domainseg.imaging.volumes import read_volume

TILE, WINDOW = 320, (0, 80)
# Blue, green, red of each type's outline.
COLOURS = ((60, 60, 255), (60, 220, 60), (255, 140, 40), (40, 230, 230), (255, 60, 255))


def tiles(folder: Path, images: pd.DataFrame, targets: pd.DataFrame, columns: int) -> list[NDArray[np.uint8]]:
    """Rows of ``columns`` tiles: heads without a bleed from below to the vertex, then for each type its largest slices
    in an exam, first plain, then outlined; last what is no head."""
    heads = targets[targets["part"] == "head"].merge(images, on="image")
    found: list[NDArray[np.uint8]] = []
    for row in heads[heads["label_hemorrhage"] == 0].head(2).to_dict("records"):
        voxels = read_volume(folder / row["path"]).voxels
        for k in np.linspace(0.15, 0.9, columns) * (len(voxels) - 1):
            found.append(_tile(voxels[round(k)], f"{row['site']} {row['age']} y, no bleed"))
    for code, kind in enumerate(TYPES, start=1):
        for row in heads[heads[f"label_{kind}"] == 1].head(columns // 2).to_dict("records"):
            volume = read_volume(folder / row["path"])
            image: Any = nibabel.load(folder / row["mask"])
            stored = np.asarray(image.dataobj).transpose(2, 1, 0)
            labels = volume.from_source(stored)
            k = int((labels == code).sum((1, 2)).argmax())
            found.append(_tile(volume.voxels[k], f"{row['site']} {kind} {row['density']}"))
            found.append(_outlined(found[-1], labels[k]))
        while len(found) % columns:
            found.append(np.zeros((TILE, TILE, 3), np.uint8))
    others = targets[targets["label_head_filter"] == 0].merge(images, on="image")
    for row in others.head(columns).to_dict("records"):
        voxels = read_volume(folder / row["path"]).voxels
        found.append(_tile(voxels[len(voxels) // 2], f"{row['site']} no head"))
    return found


def _tile(picture: NDArray[np.int16], text: str) -> NDArray[np.uint8]:
    low, high = WINDOW
    grey = np.clip((picture.astype(np.float32) - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    tile = cv2.cvtColor(cv2.resize(grey, (TILE, TILE), interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2BGR)
    cv2.putText(tile, text, (6, TILE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(tile, np.uint8)


def _outlined(tile: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    drawn = tile.copy()
    large = cv2.resize(labels, (TILE, TILE), interpolation=cv2.INTER_NEAREST)
    for code, colour in enumerate(COLOURS, start=1):
        lines, _ = cv2.findContours((large == code).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, lines, -1, colour, 1)
    return drawn
