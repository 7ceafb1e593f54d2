"""Slices are drawn as radiologists see them, and outlines lie where the lesions are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from domainseg.cascade.case import Case, Exclusion
from domainseg.imaging.volume import AIR, Volume
from domainseg.reporting.overlays_volume import (
    CALLED,
    TILE,
    TRUE,
    Outlines,
    called,
    choose,
    closeup,
    described,
    draw_volume_overlay,
    montage,
    page,
    paged,
    source_slices,
    volume_overlay,
)


@pytest.fixture
def volume() -> Volume:
    """40 slices of 2.5 mm, 100 x 100 of 2 mm: brain in a box, a dense spot on the patient's left and in front."""
    voxels = np.full((40, 100, 100), AIR, np.int16)
    voxels[:, 10:90, 20:80] = 30
    voxels[20:24, 20:30, 60:70] = 70
    return Volume(voxels, np.diag([2.0, 2.0, 2.5, 1.0]), source_shape=voxels.shape)


@pytest.fixture
def case(volume: Volume) -> Case:
    """Called at the dense spot, on a grid of 5 mm; a second candidate was not."""
    numbers = np.zeros((20, 50, 50), np.uint16)
    numbers[10:12, 10:15, 30:35], numbers[3, 30:32, 20:22] = 1, 2
    grid = np.diag([2.0, 2.0, 2.0, 1.0])
    grid[:3, 3] = 0.5
    lesion = {"lesion": 1, "type": "intraparenchymal", "score": 0.9, "called": 1, "ml": 1.0}
    return replace(
        Case.of("i", volume),
        part="head",
        values={"score_hemorrhage": 0.9},
        lesions=[lesion, {**lesion, "lesion": 2, "score": 0.1, "called": 0}],
        arrays={"lesions": numbers, "grid": grid},
    )


def colored(picture: NDArray[np.uint8], color: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((np.abs(picture.astype(int) - color) < 30).all(axis=-1))


def test_left_of_the_patient_is_right_in_the_picture_and_the_front_on_top(case: Case) -> None:
    tile = page(case, range(20, 22), ())
    assert tile.shape == (TILE, TILE, 3)
    scale = TILE / 100
    y, x = np.nonzero(tile[..., 0] > 200)
    inside = (x > 40) & (x < 180)  # without the letters at the edges
    assert abs(x[inside].mean() - 64.5 * scale) < 2
    assert abs(y[inside].mean() - 24.5 * scale) < 2
    letters = [tile[90:130, :20], tile[90:130, -20:]]
    assert all((letter > 200).any() for letter in letters)


def test_outlines_surround_what_is_called_and_nothing_else(case: Case) -> None:
    (layer,) = called(case)
    assert np.array_equal(np.argwhere(layer.codes)[[0, -1], 0], [20, 23])
    scale = TILE / 100
    lines = colored(page(case, range(20, 22), [replace(layer, said={})]), CALLED)
    y, x = np.nonzero(lines)
    assert abs(x.min() - 60 * scale) < 3
    assert abs(x.max() - 70 * scale) < 3
    assert abs(y.min() - 20 * scale) < 3
    assert abs(y.max() - 30 * scale) < 3
    assert not colored(page(case, range(6, 8), [layer]), CALLED).any(), "the candidate that was not called"
    assert colored(page(case, range(20, 22), [layer]), CALLED).sum() > lines.sum(), "its number beside it"
    assert layer.said == {1: "1"}


def test_lesions_are_told_by_their_numbers_and_what_is_left_out_is_said(case: Case) -> None:
    assert [text for text, _ in described(case)][1:] == ["1: intraparenchymal 0.90 1.0 ml"]
    many = replace(case, lesions=[{**case.lesions[0], "lesion": number} for number in range(1, 12)])
    lines = [text for text, _ in described(many)]
    assert len(lines) == 3
    assert lines[2].endswith("7: intraparenchymal 0.90 1.0 ml; and 4 more in the table of lesions")


def test_thin_slices_are_averaged_and_source_slices_named(case: Case, volume: Volume) -> None:
    assert paged(case)[:2] == [range(2), range(2, 4)]
    assert len(paged(case)) == 20
    cropped = np.eye(4)
    cropped[2, 3] = 10
    assert paged(replace(case, affine=cropped, shape=(5, 100, 100))) == [range(10, 12), range(12, 14), range(14, 15)]
    assert source_slices(volume, range(4, 6)) == "4-5"
    uneven = replace(volume, source_z=np.array([0.0, 3.0, 6.0]))
    assert [source_slices(uneven, place) for place in (range(2), range(4, 5), range(6, 8))] == ["0", "1", "2"]


def test_pages_with_outlines_come_with_their_neighbours_and_none_is_forgotten(case: Case) -> None:
    places, (layer,) = paged(case), called(case)
    assert choose(places, [layer], 24) == [9, 10, 11, 12]
    assert choose(places, (), 24) == list(range(20))
    assert choose(places, (), 4) == [0, 6, 12, 19]
    everywhere = np.ones_like(layer.codes)
    everywhere[30, 40, 40] = 2
    chosen = choose(places, [Outlines(everywhere, TRUE, "true")], 5)
    assert len(chosen) == 5
    assert 15 in chosen, "the only page with the other type"
    two = np.zeros_like(layer.codes)
    two[4:20], two[30:34] = 1, 1
    held = [2, 3, 4, 5, 6, 7, 8, 9, 15, 16]
    assert set(choose(places, [Outlines(two, TRUE, "true")], 10)) == set(held), "no neighbour in place of an outline"
    assert set(choose(places, [Outlines(two, TRUE, "true")], 12)) > set(held)
    numbers = np.where(np.arange(len(two))[:, None, None] < 30, two, 2 * two)
    assert set(choose(places, [Outlines(two, TRUE, "true", numbers)], 3)) & {15, 16}, "the smaller lesion of one type"


def test_an_overlay_shows_the_called_lesions_or_why_there_are_none(case: Case, volume: Volume, tmp_path: Path) -> None:
    picture = volume_overlay(volume, case)
    assert picture.shape[1] == 4 * TILE
    assert colored(picture, CALLED).any()
    draw_volume_overlay(volume, Exclusion("i", "", "head_filter", "no_head"), tmp_path / "i.png")
    drawn = cv2.imread(str(tmp_path / "i.png"))
    assert drawn is not None
    assert drawn.shape[1] == 6 * TILE
    assert drawn.shape[0] > 2 * TILE


def test_exported_pictures_have_no_sides(case: Case, volume: Volume) -> None:
    pictures = replace(volume, affine=None, rendering=(0.0, 100.0))
    tile = page(replace(case, film=pictures), range(20, 21), ())
    assert not (tile[90:130, :20] > 200).any()
    assert tile[60, 146, 0] == int(255 * 0.7), "in the window of the pictures"


def test_a_closeup_magnifies_the_lesion_between_its_neighbours(case: Case) -> None:
    (layer,) = called(case)
    true = Outlines(layer.codes, TRUE, "true")
    picture = closeup(case, [true], layer.codes > 0)
    assert picture.shape[1] == 4 * TILE
    row = picture[-TILE:]
    below, middle, above = (colored(row[:, k * TILE : (k + 1) * TILE], TRUE) for k in (1, 2, 3))
    assert not below.any()
    assert above.any()
    y, x = np.nonzero(middle)
    assert abs((x.max() - x.min()) / TILE - 20 / 64) < 0.03, "20 mm of 64"
    assert abs((y.max() + y.min()) / 2 - TILE / 2) < 4


def test_montages_hold_whole_rows(case: Case) -> None:
    assert montage(case, (), most=7).shape[1] == 6 * TILE
    assert montage(case, (), most=3).shape[1] == 3 * TILE
