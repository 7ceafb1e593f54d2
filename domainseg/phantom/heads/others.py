"""Exams that are no heads, for the filter: a trunk with ribs and spine, legs, a neck. Rough outlines with bones."""

from __future__ import annotations

import numpy as np

from domainseg.phantom.heads.scan import Scan
from domainseg.phantom.heads.shapes import Field, Place, inside, rough
from domainseg.phantom.heads.tissue import AIR, FAT, MUSCLE

REACH = {"trunk": (-120.0, 120.0), "legs": (-120.0, 120.0), "neck": (-75.0, 75.0)}  # mm along the patient


def draw(rng: np.random.Generator, kind: str, scanned: Scan) -> Field:
    """Slices without noise, float32 [slices, rows, columns] in HU."""
    size, offset = float(rng.uniform(0.85, 1.1)), float(rng.uniform(0, 256))
    part = {"trunk": _trunk, "legs": _legs, "neck": _neck}[kind]
    return np.stack([part(scanned.place(k), size, offset).mean(0) for k in range(scanned.shape[0])])


def _oval(place: Place, x: float, y: float, wide: float, long: float) -> Field:
    u, v = (place.x - np.float32(x)) * np.float32(1 / wide), (place.y - np.float32(y)) * np.float32(1 / long)
    return np.asarray((1 - np.sqrt(u * u + v * v)) * np.float32(min(wide, long)))


def _paint(hu: Field, cover: Field, value: float | Field) -> None:
    hu += (value - hu) * cover


def _bone(hu: Field, distance: Field, shell: float = 3.0) -> None:
    _paint(hu, inside(distance), 1100)
    _paint(hu, inside(distance - shell), 220)


def _start(place: Place, edge: Field, fat: float, offset: float) -> Field:
    hu = np.full_like(place.x, AIR)
    _paint(hu, inside(edge), FAT + 10 * rough(place, 14, offset))
    seams = 16 * (np.abs(rough(place, 26, offset + 50)) - np.float32(0.12))
    _paint(hu, inside(np.minimum(edge - fat, seams), 2), MUSCLE)
    _paint(hu, inside(2 - edge) * inside(edge), 30)
    return hu


def _trunk(place: Place, size: float, offset: float) -> Field:
    edge = _oval(place, 0, 0, 165 * size, 115 * size)
    hu = _start(place, edge, 16, offset)
    wave = np.sin(place.z * np.float32(2 * np.pi / 28) + np.float32(0.11) * place.y)
    cage = _oval(place, 0, -4, 140 * size, 95 * size)
    high = inside(place.z - 10, 20)
    for side in (-1, 1):
        lung = _oval(place, side * 68 * size, -6, 56 * size, 70 * size) - np.maximum(0, -place.z) * 0.8
        _paint(hu, inside(lung), -840 + 25 * rough(place, 20, offset + 9))
        _paint(hu, inside(_oval(place, side * 70 * size, 10, 45 * size, 55 * size)) * (1 - high), 52)
    _paint(hu, inside(_oval(place, 10, -25, 48 * size, 40 * size)), 42)
    _paint(hu, inside(_oval(place, 18, 40 * size, 11, 11)), 40)
    _bone(hu, np.minimum(5 - np.abs(cage - 3), 4 * (wave - np.float32(0.2))), 2)
    _bone(hu, _oval(place, 0, 66 * size, 22, 17))
    _paint(hu, inside(_oval(place, 0, 90 * size, 9, 8)), 30)
    _bone(hu, np.maximum(_oval(place, 0, 104 * size, 5, 14), 4 - np.abs(_oval(place, 0, 90 * size, 13, 12))))
    return hu


def _legs(place: Place, size: float, offset: float) -> Field:
    lean = place.z * np.float32(0.08)
    left = _oval(Place(place.x - lean, place.y, place.z, place.to_voxels), 85 * size, 0, 72 * size, 80 * size)
    right = _oval(Place(place.x + lean, place.y, place.z, place.to_voxels), -85 * size, 0, 72 * size, 80 * size)
    hu = _start(place, np.maximum(left, right), 12, offset)
    for side in (-1, 1):
        shaft = _oval(Place(place.x - side * lean, place.y, place.z, place.to_voxels), side * 88 * size, -8, 15, 15)
        _bone(hu, shaft, 6)
    return hu


def _neck(place: Place, size: float, offset: float) -> Field:
    shoulders = np.maximum(0, -place.z - 25)
    edge = _oval(place, 0, 0, 62 * size, 60 * size) + shoulders * 1.2
    hu = _start(place, edge, 6, offset)
    _paint(hu, inside(_oval(place, 0, -26, 10, 9)), AIR)
    _bone(hu, 3 - np.abs(_oval(place, 0, -26, 15, 13)), 9)
    for side in (-1, 1):
        _paint(hu, inside(_oval(place, side * 24, -14, 5, 5)), 45)
        _paint(hu, inside(_oval(place, side * 20, -30, 10, 13)) * inside(-place.z), 95)
        _bone(hu, np.minimum(_oval(place, side * 60, 0, 60, 9), -place.z - 50))
    disc = np.sin(place.z * np.float32(2 * np.pi / 18))
    _bone(hu, np.minimum(_oval(place, 0, 10, 14, 10), 6 + 6 * disc))
    _paint(hu, inside(_oval(place, 0, 28, 11, 8)), 30)
    _bone(hu, np.maximum(3 - np.abs(_oval(place, 0, 28, 16, 12)), _oval(place, 0, 48, 4, 14)))
    return hu
