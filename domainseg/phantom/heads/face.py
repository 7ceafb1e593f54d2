"""What lies around and below the skull: scalp, muscles, orbits, sinuses, jaw and neck. Rough, in the right places."""

from __future__ import annotations

import numpy as np

from domainseg.phantom.heads.anatomy import Frame, Shape
from domainseg.phantom.heads.shapes import Field, Place, ellipsoid, inside, rough, tube
from domainseg.phantom.heads.tissue import AIR, CORTEX, FAT, FLUID, MARROW, MUSCLE, SKIN


def outline(head: Shape, where: Frame) -> Field:
    """Signed distance in mm to the skin, positive inside."""
    place, s = where.place, head.scale
    edge = where.scalp + where.wall + where.skull
    if place.z.min() < 5:
        neck = _column(place, 30 * s, 52 * s, 60 * s, -12 * s)
        face = ellipsoid(place, (0, -46 * s, -50 * s), (60 * s, 46 * s, 74 * s))
        nose = tube(place, np.array([(0, -84, -18), (0, -101, -46), (0, -90, -52)]) * s, (7, 10, 8))
        edge = np.maximum(np.maximum(edge, neck), np.maximum(face, nose))
    return edge


def outside(head: Shape, where: Frame, edge: Field) -> Field:
    """HU of all that is not inside the skull and no skull bone, air around included; ``edge`` is the outline."""
    place, s = where.place, head.scale
    under = -where.wall - where.skull  # mm outside the skull's outer table
    texture = rough(place, 14, head.offset + 30)
    hu = np.float32(FAT) + 12 * texture + np.zeros_like(place.x)
    # Muscles: the temporal ones beside the skull, those of the neck below it.
    # Thickest in the temporal fossa, it thins out backwards and upwards.
    u, v = (place.y + np.float32(22 * s)) * np.float32(1 / 48), (place.z + np.float32(18 * s)) * np.float32(1 / 48)
    belly = np.float32(10) * np.sqrt(np.clip(1 - u * u - v * v, 0, 1))
    beside = inside(np.minimum(belly - under, under - 0.3), 1.5) * inside(np.abs(place.x) - 40 * s, 6)
    beside = beside * inside(where.scalp - under - 2, 2)
    _paint(hu, beside, MUSCLE)
    if place.z.min() < 5:
        seams = 16 * (np.abs(rough(place, 22, head.offset + 50)) - 0.16)  # fat between the muscles
        meat = inside(np.minimum(edge - 6.5, seams), 2) * inside(-where.floor - 2, 4)
        _paint(hu, meat * np.maximum(inside(place.y + 5, 4), inside(-place.z - 30, 5)), MUSCLE)
    _paint(hu, np.float32(0.7) * inside(0.5 - np.abs(under - 1.5), 1.0), 25)
    _paint(hu, inside(1.9 - edge, 1.0), SKIN)
    if place.z.min() < 8:
        for side in (-1, 1):
            _orbit(s, place, hu, side)
            _cheek(s, place, hu, side)
        _middle(head, place, hu)
    _paint(hu, 1 - inside(edge, 1.2), AIR)
    for side in (-1, 1):
        _ear(s, place, hu, side)
    return hu


def _column(place: Place, y: float, wide: float, long: float, top: float) -> Field:
    u, v = place.x * np.float32(1 / wide), (place.y - np.float32(y)) * np.float32(1 / long)
    return np.asarray(np.minimum((1 - np.sqrt(u * u + v * v)) * np.float32(wide), np.float32(top) - place.z))


def _paint(hu: Field, cover: Field, value: float) -> None:
    hu += (np.float32(value) - hu) * cover


def _orbit(s: float, place: Place, hu: Field, side: int) -> None:
    if (part := place.around((side * 31 * s, -58 * s, -30 * s), 32)) is None:
        return
    window, place = part
    hu = hu[window]
    cone = ellipsoid(place, (side * 31 * s, -58 * s, -30 * s), (19 * s, 27 * s, 17 * s))
    _paint(hu, inside(1.6 - np.abs(cone + 1.5)) * (place.y > -80 * s), 900)
    _paint(hu, inside(cone), FAT)
    within, back = inside(cone - 1), place.y + 70 * s
    _paint(hu, inside(2.0 - np.abs(place.x - side * (31 * s - 0.25 * back))) * within, 35)
    for turn in (-1, 1):
        line = np.abs(place.x - side * (31 * s + turn * 10 - 0.25 * (turn + 1.0) * back))
        _paint(hu, inside(1.6 - line) * within * (place.y < -45), MUSCLE)
    ball = ellipsoid(place, (side * 32 * s, -71 * s, -29 * s), (12.2 * s, 12.2 * s, 12.2 * s))
    _paint(hu, inside(ball), FLUID + 5)
    _paint(hu, inside(0.9 - np.abs(ball - 0.8)), 48)
    _paint(hu, inside(ellipsoid(place, (side * 32 * s, -79 * s, -29 * s), (4.5, 2.3, 4.5))), 78)


def _cheek(s: float, place: Place, hu: Field, side: int) -> None:
    if (part := place.around((side * 40 * s, -45 * s, -65 * s), 68)) is None:
        return
    window, place = part
    hu = hu[window]
    antrum = ellipsoid(place, (side * 25 * s, -56 * s, -62 * s), (14 * s, 18 * s, 16 * s))
    _paint(hu, inside(1.0 - np.abs(antrum + 1.0)), 800)
    _paint(hu, inside(antrum), AIR)
    arch = tube(place, np.array([(side * 46, -64, -45), (side * 63, -38, -44), (side * 66, -8, -42)]) * s, (5, 3, 3.5))
    _paint(hu, inside(arch), 1000)
    jaw = np.array([(side * 52, -4, -44), (side * 48, -14, -72), (side * 40, -40, -92), (side * 10, -84, -98)]) * s
    bone = tube(place, jaw, (4.5, 5, 6, 6))
    _paint(hu, inside(bone), 1100)
    _paint(hu, inside(bone - 2.5), MARROW)


def _middle(head: Shape, place: Place, hu: Field) -> None:
    """Nose and ethmoid cells, the sphenoid sinus, the throat, the first vertebra."""
    s = head.scale
    if (part := place.around((0, -54 * s, -50 * s), 42)) is not None:
        window, near = part
        comb = np.minimum(11 * s - np.abs(near.x), np.minimum(-30 * s - near.y, near.y + 80 * s))
        comb = np.minimum(comb, np.minimum(-22 * s - near.z, near.z + 85 * s))
        cells = inside((np.abs(rough(near, 7, head.offset + 90)) - np.float32(0.30)) * 4)
        _paint(hu[window], inside(comb), 420)
        _paint(hu[window], inside(comb - 1) * cells, AIR)
    if (part := place.around((0, -24 * s, -40 * s), 16)) is not None:
        window, near = part
        sphenoid = ellipsoid(near, (0, -24 * s, -40 * s), (13 * s, 11 * s, 9 * s))
        _paint(hu[window], inside(1.2 - np.abs(sphenoid + 1.0)), 800)
        _paint(hu[window], inside(sphenoid), AIR)
    if place.z.min() < -50 * s and (part := place.around((0, 15 * s, -90 * s), 50)) is not None:
        window, near = part
        _paint(hu[window], inside(_column(near, -18 * s, 12 * s, 8 * s, -55 * s)), AIR)
        ring = _column(near, 30 * s, 26 * s, 24 * s, 99)
        bone = np.maximum(8 - np.abs(ring - 7), _column(near, 8 * s, 13 * s, 10 * s, -72 * s))
        bone = np.minimum(bone, -72 * s - near.z)
        _paint(hu[window], inside(bone), 500)
        _paint(hu[window], inside(1.8 - np.abs(bone - 1)), CORTEX * 0.8)
        low = inside(-68 * s - near.z)
        _paint(hu[window], inside(ring - 13) * low, FLUID + 3)
        _paint(hu[window], inside(ring - 18) * low, 35)


def _ear(s: float, place: Place, hu: Field, side: int) -> None:
    if (part := place.around((side * 70 * s, 12 * s, -36 * s), 34)) is None:
        return
    window, place = part
    hu = hu[window]
    ear = ellipsoid(place, (side * 79 * s, 16 * s, -36 * s), (11, 11, 28))
    shell = inside(1.4 - np.abs(ear - 1.5)) * (np.abs(place.x) > 72 * s)
    np.maximum(hu, np.float32(AIR) + np.float32(1010) * shell, out=hu)
    canal = tube(place, np.array([(side * 80, 6, -36), (side * 46, 8, -35)]) * s, (3.2, 2.6))
    _paint(hu, inside(canal), AIR)


def frontal_sinus(head: Shape, where: Frame) -> Field | None:
    """Coverage of the air in the frontal bone; None where there is none."""
    place, s = where.place, head.scale
    grown = float(np.clip((head.age - 6) / 10, 0, 1))
    if grown < 0.2 or place.window((0, -88 * s, -2), 32) is None:
        return None
    points = np.array([(-14, -86, -6), (-4, -88, 0), (5, -88, 2), (17, -85, -5)]) * s
    body = tube(place, points, np.array([5, 7, 6, 5]) * grown)
    thick = np.minimum(-where.wall - 1.5, where.wall + where.skull - 1.3)
    return inside(np.minimum(body, thick))
