"""What the inside of a head is made of: Hounsfield units of each voxel, and where blood may lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domainseg.phantom.heads import anatomy
from domainseg.phantom.heads.anatomy import Frame, Shape
from domainseg.phantom.heads.shapes import Field, Place, ellipsoid, inside, look, rough, tube

AIR, FAT, MUSCLE, SKIN = -1000.0, -95.0, 52.0, 35.0
FLUID, WHITE, GREY, DURA = 5.0, 28.5, 37.5, 52.0
CORTEX, DIPLOE, MARROW = 1350.0, 620.0, 250.0


@dataclass
class Inside:
    """The inside of the skull: HU, and coverage 0..1 of the spaces in which blood may lie.

    cavity: all of it. brain: grey and white matter. sulci: fluid around and between the gyri and in the cisterns.
    ventricles: all of them. falx, tent: the two sheets. low: below the tentorium. sinus: the large veins.
    """

    hu: Field
    cavity: Field
    brain: Field
    sulci: Field
    ventricles: Field
    falx: Field
    tent: Field
    low: Field
    sinus: Field


def ventricles(head: Shape, place: Place) -> Field:
    """Signed distance in mm to the ventricles, positive inside."""
    s, g = head.scale, head.ventricles
    found = np.full_like(place.x, -99)
    for side in (-1, 1):
        w = g * (1 + 0.12 * side * np.sin(head.offset))
        lateral = [(7, -37, 1), (9, -24, 11), (11, 0, 21), (14, 18, 19), (23, 33, 8), (22, 52, 2)]
        points = np.array([(side * (x + 2.2 * (w - 1)), y, z) for x, y, z in lateral]) * s
        radii = np.array([3.6, 5.6, 5.6, 6.2, 7.6, 2.8]) * s * w
        np.maximum(found, tube(place, points, radii), out=found)
        temporal = np.array([(side * 24, 33, 6), (side * 32, 16, -11), (side * 31, -4, -19)]) * s
        np.maximum(found, tube(place, temporal, np.array([5.0, 2.4, 1.4]) * s * w), out=found)
    third = ellipsoid(place, (0, 3 * s, -1 * s), (1.2 + 2.2 * g, 15 * s, 10 * s))
    fourth = ellipsoid(place, (0, 27 * s, -33 * s), (5 * s + 1.5 * g, 4.5 * s, 9 * s))
    aqueduct = tube(place, np.array([(0, 18, -6), (0, 25, -28)]) * s, (1.2, 1.4))
    for part in (third, fourth, aqueduct):
        np.maximum(found, part, out=found)
    # The heads of the caudate bulge into the frontal horns.
    for side in (-1, 1):
        bulge = ellipsoid(place, (side * 15 * s, -20 * s, 7 * s), (6.5 * s, 12 * s, 9 * s))
        found = np.minimum(found, -bulge)
    return found


def interior(head: Shape, where: Frame, moved: Place, swell: Field | None = None) -> Inside:
    """The inside of the skull. moved: places after the shift by bleeds; swell: 0..1, where sulci are pressed shut."""
    s = head.scale
    depth, place = where.depth, moved
    cavity = inside(depth, 1.2)
    bend = np.float32(0.045) * np.sin(where.far * np.float32(0.33) + np.float32(5) * where.elevation + head.offset)
    near, deep, film = np.moveaxis(look(head.folds, where.azimuth + bend, where.elevation + bend), -1, 0)
    over = anatomy.tentorium(place)
    behind = place.y > np.float32(8 * s) + np.float32(0.55) * (np.abs(place.x) - 12)
    low = inside(-over, 2) * behind
    # Fluid around the brain and in the sulci, at the vault and at the medial surface.
    open_ = np.float32(1) if swell is None else 1 - swell
    near = near * np.minimum(where.far / where.radius, 1)
    width = (0.55 + 1.5 * head.atrophy + 0.25 * film) * np.clip(1.15 - depth / deep, 0.1, 1) * open_
    sylvian = _sylvian(head, place)
    fluid = np.maximum(inside(film * open_ - depth, 1.2), inside(width - near, 1.0) * (depth < deep))
    falx_mm = np.abs(anatomy.falx_distance(head, place))
    reach = anatomy.falx_reach(place)
    # The two sides differ, and sulci run obliquely from the medial surface.
    lean = np.float32(3) * np.sin(place.x * np.float32(0.28) + np.float32(0.05) * place.y + np.float32(head.offset))
    flat = anatomy.read_map(head.medial, place.y + lean + np.float32(23) * (place.x > 0), place.z - lean)
    seam = (0.5 + 0.9 * head.atrophy) * open_
    between = inside(seam - falx_mm, 1.0)
    side = inside(0.5 + 0.8 * head.atrophy - flat[..., 0], 1.0) * (falx_mm < flat[..., 1])
    gap = np.maximum(between, side) * (place.z > -8)
    upper = np.maximum(np.maximum(fluid, gap * np.maximum(reach, 0.6 * (depth < 25))), sylvian * open_)
    # Below the tentorium: folia, and the cisterns around the brainstem.
    folia = 0.35 * inside(np.sin((where.far + 2 * near) * np.float32(1.1)) - np.float32(0.82), 0.3)
    lower = np.maximum(inside(0.8 + 0.8 * head.atrophy - depth, 1.2), folia * (0.4 + 0.6 * head.atrophy))
    sulci = upper * (1 - low) + lower * low
    cisterns, stem = _cisterns(head, place)
    sulci = np.where(stem > 0, np.minimum(sulci, 0), np.maximum(sulci, cisterns * inside(depth - 0.5)))
    inner = ventricles(head, place)
    chamber = inside(inner, 1.0)
    sulci *= (1 - chamber) * cavity
    chamber = chamber * cavity
    # Grey matter lies around fluid; nuclei are grey.
    ribbon = np.maximum(inside(film + 3.2 - depth, 1.2), inside(width + 2.8 - near, 1.2) * (depth < deep + 3))
    ribbon = np.maximum(ribbon, inside(flat[..., 1] * 0 + 3.5 - falx_mm, 1.2) * reach)
    ribbon = np.maximum(ribbon, inside(3.5 - flat[..., 0], 1.2) * (falx_mm < flat[..., 1] + 3) * reach)
    grey = np.maximum(ribbon * (1 - low), np.float32(0.78) * low)
    grey = np.maximum(grey, inside(_nuclei(s, place), 2.0))
    grey = np.maximum(grey, np.float32(0.6) * (stem > 0))
    hu = np.float32(WHITE) + np.float32(GREY - WHITE) * grey
    hu += np.float32(1.3) * rough(place, 30, head.offset) + np.float32(0.7) * rough(place, 11, head.offset + 15)
    # White matter of the old is thinner around the ventricles.
    hu -= np.float32(5 * min(head.atrophy, 1.2)) * np.exp(-np.maximum(-inner, 0) * np.float32(0.16)) * (inner > -25)
    wet = np.maximum(sulci, chamber)
    hu += (np.float32(FLUID) - hu) * wet
    falx = inside(0.55 - falx_mm, 1.0) * reach * cavity
    tent = inside(0.7 - np.abs(over), 1.2) * behind * (1 - anatomy.notch(place)) * cavity
    sheet = np.maximum(falx, tent * np.float32(0.8))
    hu += (np.float32(DURA) - hu) * sheet
    sinus = _sinuses(head, where, place, falx_mm, over) * cavity
    hu += (np.float32(DURA + 2) - hu) * sinus
    brain = cavity * (1 - wet) * (1 - sheet) * (1 - sinus)
    return Inside(hu, cavity, brain, sulci * (1 - sheet), chamber, falx, tent, low, sinus)


def _sylvian(head: Shape, place: Place) -> Field:
    """Coverage of the fluid of the Sylvian fissures and over the insulae."""
    s, w = head.scale, 0.7 + 1.3 * head.atrophy
    x = np.abs(place.x)
    line = place.z - (np.float32(-12 * s) + np.float32(0.42) * (place.y + 22))
    along = inside(np.minimum(place.y + 32 * s, 26 * s - place.y), 6)
    entry = inside(w - np.abs(line + np.float32(2) * np.sin(x * np.float32(0.25) + np.float32(head.offset))), 1.2)
    entry *= inside(x - 39 * s, 2)
    bow = np.float32(0.012) * (place.y * place.y + line * line) + np.sin(place.y * np.float32(0.35) + head.offset)
    insula = inside(w * 0.8 - np.abs(x - np.float32(42 * s) + bow), 1.2)
    insula *= inside(13 * s - np.abs(line - 4 * s), 4)
    return np.maximum(entry, insula) * along


def _nuclei(s: float, place: Place) -> Field:
    found = np.full_like(place.x, -99)
    for side in (-1, 1):
        for centre, axes in (
            ((11, 9, 4), (8.5, 13, 9)),
            ((14, -21, 8), (5.5, 11, 9)),
            ((25, -6, 2), (6, 15, 10)),
        ):
            body = ellipsoid(place, (side * centre[0] * s, centre[1] * s, centre[2] * s), tuple(k * s for k in axes))  # type: ignore[arg-type]
            np.maximum(found, body, out=found)
    return found


def _cisterns(head: Shape, place: Place) -> tuple[Field, Field]:
    """Coverage of the basal cisterns, and the signed distance to the brainstem, positive inside."""
    s, w = head.scale, 2.2 + 1.8 * head.atrophy
    stem = np.maximum(
        ellipsoid(place, (0, 7 * s, -14 * s), (17 * s, 13 * s, 13 * s)),
        np.maximum(
            ellipsoid(place, (0, 7 * s, -32 * s), (17 * s, 13 * s, 14 * s)),
            tube(place, np.array([(0, 15, -42), (0, 30, -80)]) * s, (9 * s, 7 * s)),
        ),
    )
    # Wide in front of the pons and at the sides of the midbrain, elsewhere a film.
    angle = np.arctan2(place.x, place.y - np.float32(7 * s))
    front = inside(np.float32(7 * s) - place.y, 6) * inside(-place.z - 22 * s, 5)
    lobes = np.float32(0.4) * np.cos(3 * angle) * inside(place.y - np.float32(9 * s), 4)
    thick = w * np.clip(
        np.float32(0.3) + 0.6 * front + lobes + np.float32(0.2) * rough(place, 14, head.offset + 70), 0, 1.2
    )
    around = inside(thick - np.abs(stem + thick), 1.2) * ((place.z < -2) & (place.y < 26 * s) & (place.z > -60))
    back = inside(ellipsoid(place, (0, 24 * s, -4 * s), (11 * s, 4.5 * s, 6 * s)), 1.5)
    star = inside(ellipsoid(place, (0, -11 * s, -19 * s), (12 * s + w, 9 * s, 6 * s)), 1.5)
    magna = inside(ellipsoid(place, (0, 44 * s, -58 * s), (12 * s, 7 * s, 8 * s)), 1.5)
    canal = (place.z < -58) & (stem < 0)
    return np.maximum(np.maximum(np.maximum(around, back), np.maximum(star, magna)), canal), stem


def _sinuses(head: Shape, where: Frame, place: Place, falx_mm: Field, over: Field) -> Field:
    """Coverage of the superior sagittal and transverse sinuses and the torcula."""
    sagittal = inside(5.5 - 0.9 * where.wall - falx_mm, 1.2) * (place.z > 5) * ((place.y > -40) | (place.z > 40))
    transverse = inside(6.5 - where.wall - np.abs(over + 1), 1.5) * (place.y > 25 * head.scale)
    return np.asarray(np.maximum(sagittal, transverse))


def skull(head: Shape, where: Frame) -> tuple[Field, Field]:
    """Coverage of bone and its HU: two tables with diploe between, the petrous bones with air cells."""
    wall, floor, t = where.wall, where.floor, where.skull
    shell = np.minimum(np.minimum(wall + t, floor + where.under), -where.depth)
    shell = np.where((floor > 110) & (where.place.z < -50), np.float32(-9), shell)  # the great hole
    bone = inside(shell, 1.0)
    middle = np.minimum(shell, where.skull * 0.5) - np.float32(1.6)
    hu = np.float32(CORTEX) - np.float32(CORTEX - DIPLOE) * inside(middle, 1.0)
    hu += np.float32(160) * rough(where.place, 9, head.offset)
    cells = rough(where.place, 6, head.offset + 60)
    place = where.place
    s = head.scale
    mastoid = ellipsoid(place, (0, 26 * s, -36 * s), (70 * s, 17 * s, 14 * s)) - 99 * (np.abs(place.x) < 34 * s)
    airy = inside((cells - np.float32(head.air)) * 2, 1.0) * inside(np.minimum(mastoid, shell - 1.2), 1.5)
    hu += (np.float32(AIR) - hu) * airy
    # Sutures: coronal and lambdoid, thin and wavy.
    wavy = np.float32(1.6) * np.sin(place.z * np.float32(0.9)) + np.float32(1.2) * np.sin(place.x * np.float32(0.7))
    coronal = np.abs(place.y + np.float32(18 * s) - np.float32(0.25) * place.z + wavy)
    lambdoid = np.abs(place.y - np.float32(62 * s) + np.float32(0.5) * np.maximum(place.z, -20) * 0.8 + wavy)
    gap = inside(0.7 - np.minimum(coronal, lambdoid), 1.0) * (place.z > -25)
    hu -= np.float32(0.75) * (hu - 60) * gap
    return bone, hu
