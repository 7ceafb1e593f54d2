"""A contact sheet: films or exams of a manifest side by side, to be looked at."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.files import write_bytes
from domainseg.imaging import geometry, read_film
from domainseg.phantom.chest.sheet import tiles as chest_tiles

_TILE = 320


def contact_sheet(manifest_folder: Path | str, path: Path | str, *, columns: int = 6) -> Path:
    """Write a PNG with films of every view and hips of every kind (2.9 head diameters wide), or head CT, or chests.

    manifest_folder holds images.parquet, targets.parquet and what they name, as ``simulate`` writes it. Returns path.
    """
    folder, path = Path(manifest_folder), Path(path)
    images = pd.read_parquet(folder / "images.parquet")
    targets = pd.read_parquet(folder / "targets.parquet")
    if "label_hemorrhage" in targets:
        from domainseg.phantom.heads.sheet import tiles as head_tiles  # late: scipy

        return _write(head_tiles(folder, images, targets, columns), path, columns)
    if "label_cardiomegaly" in targets:
        return _write(chest_tiles(folder, images, targets, columns), path, columns)
    tiles = []
    for _, rows in images.groupby(["projection", "body_part"], sort=True):
        for row in rows.head(columns if rows["projection"].iloc[0] == "pelvis_ap" else 2).to_dict("records"):
            film = read_film(folder / row["path"])
            tiles.append(_labelled(_fit(film.pixels), f"{row['site']} {row['body_part']} {row['projection']}"))
    hips = targets[targets["label_localizer"] == 1].merge(images[["image", "path", "site", "projection"]], on="image")
    hips = hips[hips["projection"].isin(["pelvis_ap", "hip_ap"])]
    kinds = hips["implant"].where(hips["implant"] != "", hips["fracture_class"])
    turns = targets[targets["part"] == "whole"].set_index("image")["label_turn"]
    for kind, rows in hips.groupby(kinds, sort=True):
        count = columns if kind in ("", "hairline", "undisplaced", "displaced") else 2
        for row in rows.head(count).to_dict("records"):
            film = read_film(folder / row["path"])
            turn = geometry.quarter_turns(film.shape, int(turns[row["image"]]))
            centre = geometry.transform(np.asarray(np.linalg.inv(turn), np.float64), (row["x"], row["y"]))
            square = geometry.square(np.add(centre, (0, 0.5 * row["diameter"])), 2.9 * row["diameter"], _TILE)
            tile = geometry.warp(film.pixels, turn @ square, (_TILE, _TILE))
            name = f"{kind or 'normal'} {row['fracture_place'] if kind else ''}"
            tiles.append(_labelled(tile, name))
    return _write(tiles, path, columns)


def _write(tiles: list[NDArray[np.uint8]], path: Path, columns: int) -> Path:
    while len(tiles) % columns:
        tiles.append(np.zeros_like(tiles[0]))
    sheet = np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])
    write_bytes(path, cv2.imencode(".png", sheet)[1].tobytes())
    return path


def _fit(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    side = max(pixels.shape)
    affine = geometry.square(((pixels.shape[1] - 1) / 2, (pixels.shape[0] - 1) / 2), side, _TILE)
    return np.asarray(geometry.warp(pixels, affine, (_TILE, _TILE)), np.float32)


def _labelled(tile: NDArray[np.float32], text: str) -> NDArray[np.uint8]:
    picture = np.clip(tile * 255, 0, 255).astype(np.uint8)
    cv2.putText(picture, text, (6, _TILE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.42, 255, 1, cv2.LINE_AA)
    return picture
