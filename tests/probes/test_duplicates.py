"""Duplicates: planted copies are found across splits, films of different patients are not taken for copies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from domainseg.files import read_json
from domainseg.imaging import read_film
from domainseg.probes import duplicates
from domainseg.probes.common import ProbeError
from domainseg.probes.thumbnails import SIDE, mirrored, near_pairs, thumbnail

SHAPE = (200, 160)


def film(seed: int) -> np.ndarray:
    """A smooth random picture, uint8."""
    noise = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6)
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def changed(pixels: np.ndarray, how: str) -> np.ndarray:
    """A copy of a film, uint8."""
    grey = pixels.astype(np.float32) / 255
    height, width = grey.shape
    match how:
        case "smaller":
            grey = cv2.resize(grey, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
        case "compressed":
            return cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_GRAYSCALE)
        case "darker":
            grey = grey**1.6
        case "noisy":
            grey = grey + np.random.default_rng(0).normal(0, 0.03, grey.shape)
        case "marked":
            grey[: height // 10, : width // 6] = 1
        case "mirrored":
            grey = grey[:, ::-1]
    return (255 * np.clip(grey, 0, 1)).astype(np.uint8)


HOW = ("same", "smaller", "compressed", "darker", "noisy", "marked", "mirrored")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """30 films of 30 patients; the first 7 have a copy, in another split and of another patient from the fourth on."""
    folder = tmp_path_factory.mktemp("films")
    rows = []
    for k in range(30):
        cv2.imwrite(str(folder / f"f{k}.png"), film(k))
        rows.append(
            {"image": f"f{k}", "path": f"f{k}.png", "patient": f"patient-{k}", "split": ["train", "tune"][k % 2]}
        )
    for k, how in enumerate(HOW):
        cv2.imwrite(str(folder / f"copy{k}.png"), changed(film(k), how))
        who, split = (f"patient-{k}", ["train", "tune"][k % 2]) if k < 3 else (f"patient-{50 + k}", "test")
        rows.append({"image": f"copy{k}", "path": f"copy{k}.png", "patient": who, "split": split})
    for k in range(4):
        cv2.imwrite(str(folder / f"new{k}.png"), film(100 + k))
        rows.append({"image": f"new{k}", "path": f"new{k}.png", "patient": "n", "split": "test"})
    (folder / "broken.png").write_bytes(b"nothing")
    rows.append({"image": "broken", "path": "broken.png", "patient": "b", "split": "test"})
    pd.DataFrame(rows).to_csv(folder / "films.csv", index=False)
    record = duplicates.run(cfg(folder / "films.csv"), folder / "out")
    return record, folder / "out"


def cfg(path: Path) -> dict[str, Any]:
    """The settings of the command."""
    data = {"_target_": "domainseg.data.sources.manifest.load", "path": str(path)}
    return {"data": {**data, "fractions": {"train": 0.6, "tune": 0.2, "test": 0.2}}, "seed": 0}


def test_planted_copies_are_found(found: tuple[dict[str, Any], Path]) -> None:
    """Each copy with its film and nothing else; those across splits make the share of test films seen before."""
    record, output = found
    groups = {tuple(sorted(group["images"])) for group in record["groups"]}
    assert groups == {(f"copy{k}", f"f{k}") for k in range(7)}
    assert record["pairs"] == {"same pixels": 1, "nearly the same": 5, "mirrored": 1}
    assert record["groups_across_splits"] == 4
    assert (record["of_one_patient"], record["of_several_patients"]) == (3, 4)
    assert record["test_films_seen_before"]["value"] == 4 / 8
    assert record["test_films_seen_before"]["n_clusters"] == 5, "four films are one patient's"
    assert record["unread"] == 1
    assert "4 groups lie in two splits" in record["verdict"]
    assert read_json(output / "duplicates.json")["n"] == 41


def test_no_patient_leaves(found: tuple[dict[str, Any], Path]) -> None:
    """Images are named, patients are not."""
    _, output = found
    table = pd.read_csv(output / "duplicates.csv")
    assert list(table.columns) == ["group", "image", "split", "site", "kind", "correlation"]
    for name in ("duplicates.json", "duplicates.csv", "duplicates.html"):
        assert "patient-" not in (output / name).read_text()


@pytest.mark.parametrize("mirror", [False, True])
def test_search_misses_nothing(monkeypatch: pytest.MonkeyPatch, mirror: bool) -> None:
    """By blocks and in few directions first: the same pairs as comparing all with all."""
    monkeypatch.setattr("domainseg.probes.thumbnails.BLOCK", 64)
    monkeypatch.setattr("domainseg.probes.thumbnails.BASIS", 20)
    rng = np.random.default_rng(0)
    units = np.stack([thumbnail(film(k)) for k in range(150)])
    near = units[rng.integers(150, size=150)] + 0.012 * rng.normal(size=(150, SIDE * SIDE))
    if mirror:
        near[::2] = mirrored(near[::2])
    units = np.concatenate([units, (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)])
    full = units @ (mirrored(units) if mirror else units).T
    wanted = {(int(i), int(j)) for i, j in zip(*np.nonzero(np.triu(full >= 0.8, 1)), strict=True)}
    assert len(wanted) > 60
    assert {(i, j) for i, j, _ in near_pairs(units, 0.8, mirror=mirror)} == wanted


def test_flat_films_are_no_copies_of_each_other() -> None:
    """A blank film has no contrast to compare; only equal pixels make it a copy."""
    units = np.stack([thumbnail(np.full(SHAPE, value)) for value in (0.1, 0.5)])
    assert list(near_pairs(units, 0.5)) == []


def test_nothing_to_read(tmp_path: Path) -> None:
    """An error for people."""
    (tmp_path / "a.png").write_bytes(b"nothing")
    pd.DataFrame([{"image": "a", "path": "a.png", "patient": "p"}]).to_csv(tmp_path / "films.csv", index=False)
    with pytest.raises(ProbeError, match=r"level=0\.2"):
        duplicates.run(cfg(tmp_path / "films.csv"), tmp_path, level=0.2)
    with pytest.raises(ProbeError, match="films are needed"):
        duplicates.run({"data": None, "seed": 0}, tmp_path)


@pytest.mark.real_data
def test_level_on_real_chest_films(shared_data: Path) -> None:
    """120 chest films of 120 patients: no two are alike, and each kind of copy is."""
    files = sorted((shared_data / "nih_cxr14" / "images").glob("*"))[:120]
    pixels = [(255 * read_film(path).pixels).astype(np.uint8) for path in files]
    units = np.stack([thumbnail(each / 255) for each in pixels])
    assert list(near_pairs(units, 0.88)) == []
    for how in HOW[:-1]:
        copies = np.stack([thumbnail(changed(each, how) / 255) for each in pixels[::10]])
        assert (np.einsum("nd,nd->n", copies, units[::10]) >= 0.88).mean() >= 0.9, how
