"""Bleeds: where each type lies, how large it is, and which voxels it fills, exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from domainseg.phantom.heads import anatomy
from domainseg.phantom.heads.anatomy import Frame, Shape
from domainseg.phantom.heads.shapes import Field, Place, Point, directions, ellipsoid, inside, look, rough
from domainseg.phantom.heads.tissue import Inside

# Where bleeds within the brain lie, mm, left side: basal ganglia, thalamus, pons, cerebellum, and lobes by chance.
_DEEP = {"ganglia": (26, -4, 4), "thalamus": (12, 9, 5), "pons": (4, 4, -30), "cerebellum": (22, 46, -32)}


@dataclass(frozen=True)
class Bleed:
    """One bleed. kind: one of TYPES. place: which sort of it. centre: mm in the head; side: 1 left, -1 right.

    ml: as planned. size: by kind, mm or a share. axes: of a bleed in the brain, mm. thickness: of a layer along the
    skull, mm, over directions. hu: of the blood.
    """

    kind: str
    place: str
    centre: Point
    side: int
    ml: float
    size: float
    hu: float
    offset: float
    axes: Point = (0, 0, 0)
    thickness: Field | None = None


def draw(rng: np.random.Generator, head: Shape, kind: str, density: str) -> Bleed:
    """A bleed of a type in a head, by chance."""
    side = int(rng.choice([-1, 1]))
    hu = float(rng.uniform(38, 49) if density == "subacute" else rng.uniform(57, 78))
    ml = float(np.exp(rng.uniform(np.log(0.4), np.log(70))))
    base = Bleed(kind, "", (0, 0, 0), side, ml, 0, hu, float(rng.uniform(0, 256)))
    if kind == "intraparenchymal":
        return _in_brain(rng, head, base)
    if kind == "subarachnoid":
        return _in_sulci(rng, head, replace(base, hu=min(hu, 66)))
    if kind == "intraventricular":
        sort = str(rng.choice(["layer", "cast"], p=[0.65, 0.35]))
        return replace(base, place=sort, size=float(rng.uniform(0.1, 0.45)))
    if kind == "subdural":
        sort = str(rng.choice(["convexity", "falx", "tentorium"], p=[0.72, 0.14, 0.14]))
        if sort != "convexity":
            centre = (
                (0.0, float(rng.uniform(-40, 60)), float(rng.uniform(35, 60)))
                if sort == "falx"
                else (25.0 * side, 45.0, 0.0)
            )
            return replace(base, place=sort, centre=centre, size=float(rng.uniform(2.5, 6)), ml=min(ml, 15))
    return _along_skull(rng, head, replace(base, ml=max(ml, 2.0)))


def larger(bleed: Bleed) -> Bleed:
    """The same bleed somewhat larger, for one that fills hardly a voxel."""
    thickness = None if bleed.thickness is None else bleed.thickness * np.float32(1.5)
    axes = tuple(1.4 * axis for axis in bleed.axes)
    return replace(bleed, ml=2.5 * bleed.ml, size=bleed.size * 1.5, axes=axes, thickness=thickness)  # type: ignore[arg-type]


def _in_brain(rng: np.random.Generator, head: Shape, bleed: Bleed) -> Bleed:
    sort = str(rng.choice([*_DEEP, "lobe"], p=[0.33, 0.15, 0.05, 0.09, 0.38]))
    ml = min(bleed.ml, {"pons": 4.0, "cerebellum": 18.0, "thalamus": 20.0}.get(sort, 70.0))
    radius = (3 * ml * 1000 / 4 / np.pi) ** (1 / 3)
    if sort == "lobe":
        direction = np.array([bleed.side * rng.uniform(0.25, 1), rng.normal(0, 0.7), rng.uniform(-0.05, 0.9)])
        direction /= np.linalg.norm(direction)
        centre = direction * (70 * head.scale - radius - rng.uniform(3, 14))
    else:
        centre = np.array(_DEEP[sort], float) * (bleed.side, 1, 1) * head.scale + rng.normal(0, 2, 3)
    stretch = np.exp(rng.normal(0, 0.18, 3))
    axes = radius * stretch / np.cbrt(np.prod(stretch))
    return replace(bleed, place=sort, ml=ml, centre=_point(centre), size=radius, axes=_point(axes))


def _in_sulci(rng: np.random.Generator, head: Shape, bleed: Bleed) -> Bleed:
    sort = str(rng.choice(["cisterns", "sylvian", "sulci"], p=[0.25, 0.3, 0.45]))
    if sort == "cisterns":
        return replace(bleed, place=sort, centre=(0, -6.0, -18.0), size=float(rng.uniform(22, 45)))
    if sort == "sylvian":
        return replace(
            bleed, place=sort, centre=(46.0 * bleed.side * head.scale, -10.0, 0.0), size=float(rng.uniform(16, 32))
        )
    direction = np.array([bleed.side * rng.uniform(0.3, 1), rng.normal(0, 0.8), rng.uniform(0.1, 1.2)])
    centre = direction / np.linalg.norm(direction) * 66 * head.scale
    return replace(bleed, place=sort, centre=_point(centre), size=float(np.exp(rng.uniform(np.log(8), np.log(30)))))


def _along_skull(rng: np.random.Generator, head: Shape, bleed: Bleed) -> Bleed:
    """A crescent or a lens: thickness over directions, of the planned volume."""
    lens = bleed.kind == "epidural"
    azimuth = rng.normal(0, 0.45 if lens else 0.35) + (0 if bleed.side > 0 else np.pi)
    elevation = rng.uniform(-0.1, 0.75) if lens else rng.uniform(0.1, 0.75)
    unit = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    x, y, z = directions()
    # A crescent is longer from front to back than from top to bottom.
    long = np.array([-unit[1], unit[0], 0]) / np.hypot(unit[0], unit[1])
    off = np.stack([x, y, z], -1) - unit.astype(np.float32)
    along = off @ long.astype(np.float32)
    angle = 2 * np.arcsin(np.clip(np.sqrt((off**2).sum(-1) - (0 if lens else 0.55) * along**2) / 2, 0, 1))
    angle = angle * (1 + 0.12 * np.sin(3 * along + bleed.offset))
    peak = (6.2 if lens else 2.9) * bleed.ml ** (1 / 3) * rng.uniform(0.85, 1.15)
    radius = head.walls[..., 0]
    solid = np.sqrt(np.maximum(1 - z**2, 0)) * (np.pi / (len(z) - 1)) ** 2 * (x * bleed.side > 0)

    def thickness(span: float) -> Field:
        profile = np.clip(1 - (angle / span) ** 2, 0, 1)
        return np.asarray(peak * (profile if lens else profile**0.6), np.float32)

    low, high = 0.03, 1.3
    for _ in range(9):
        span = (low + high) / 2
        found = thickness(span)
        volume = float((found * (radius - found / 2) ** 2 * solid).sum()) / 1000
        low, high = (span, high) if volume < bleed.ml else (low, span)
    centre = unit * float(radius[np.unravel_index(np.argmin(angle), angle.shape)])
    return replace(bleed, place="convexity", centre=_point(centre), size=float(peak), thickness=thickness(high))


def _point(values: Field) -> Point:
    return float(values[0]), float(values[1]), float(values[2])


def shifted(bleeds: list[Bleed], place: Place) -> tuple[Place, Field | None]:
    """Places as they were before bleeds pushed the brain aside, and 0..1 how much sulci are pressed shut there.

    A bleed in the brain pushes away from its centre, one at the skull pushes inwards; our choice, after Gaussian falls.
    Negative values open sulci: blood in them takes room.
    """
    x, y, z, press, margin = place.x, place.y, place.z, None, 0.0
    for bleed in bleeds:
        wide = {"intraparenchymal": 1.7 * bleed.size, "subarachnoid": 0.8 * bleed.size}.get(bleed.kind, 42.0)
        if bleed.kind == "intraventricular" or bleed.place in ("falx", "tentorium"):
            continue
        c = [np.float32(value) for value in bleed.centre]
        dx, dy, dz = place.x - c[0], place.y - c[1], place.z - c[2]
        fall = np.exp((dx * dx + dy * dy + dz * dz) * np.float32(-0.5 / wide**2))
        if bleed.kind == "subarachnoid":
            closed = np.float32(-0.9) * fall
        elif bleed.kind == "intraparenchymal":
            k = np.float32(0.35 * min(1.0, bleed.ml / 8)) * fall
            x, y, z = x - dx * k, y - dy * k, z - dz * k
            margin += 0.25 * bleed.size
            closed = np.float32(0.7 * min(1.0, bleed.ml / 12)) * fall
        else:
            push = 0.6 * min(bleed.size, 14.0)
            unit = np.array(bleed.centre) / np.linalg.norm(bleed.centre) * push
            x, y, z = x + np.float32(unit[0]) * fall, y + np.float32(unit[1]) * fall, z + np.float32(unit[2]) * fall
            margin += push
            closed = np.float32(0.8 * min(1.0, bleed.size / 8)) * fall
        press = closed if press is None else press + closed
    return Place(x, y, z, place.to_voxels, margin), None if press is None else np.clip(press, -1, 0.85)


def cover(bleed: Bleed, head: Shape, where: Frame, moved: Place, inner: Inside) -> Field | None:
    """Coverage 0..1 of the voxels by blood; None where the bleed is far."""
    place = where.place
    free = inner.cavity * (1 - inner.falx) * (1 - inner.tent)
    if bleed.kind == "intraparenchymal":
        distance = ellipsoid(place, bleed.centre, bleed.axes)
        if distance.max() < -6:
            return None
        uneven = np.float32(min(0.16 * bleed.size, 3.0))
        distance = distance + uneven * rough(place, max(12.0, 1.6 * bleed.size), bleed.offset)
        return np.asarray(inside(distance) * free * (1 - inner.ventricles) * inside(where.depth - 1))
    if bleed.kind == "intraventricular":
        if inner.ventricles.max() < 0.1:
            return None
        if bleed.place == "layer":
            level = np.float32(head.scale * (36 - 16 * bleed.size) + 1.0)
            return inner.ventricles * inside(moved.y - level - 0.3 * np.abs(moved.x - 20 * bleed.side) * 0.3, 1.2)
        side = inside((moved.x * bleed.side + 1) * (1.0 if bleed.size < 0.36 else 0) + 1, 1.5)
        ends = inside(moved.y - np.float32(-42 + 40 * (0.45 - bleed.size) / 0.35), 3)
        return inner.ventricles * side * ends
    if bleed.kind == "subarachnoid":
        c = bleed.centre
        r = np.sqrt(
            (place.x - np.float32(c[0])) ** 2 + (place.y - np.float32(c[1])) ** 2 + (place.z - np.float32(c[2])) ** 2
        )
        region = inside(np.float32(bleed.size) - r + 4 * rough(place, 25, bleed.offset), 6)
        return inner.sulci * region * (1 - inner.falx) if region.max() > 0 else None
    if bleed.place == "falx":
        away = anatomy.falx_distance(head, moved) * bleed.side
        u, v = (
            (place.y - np.float32(bleed.centre[1])) * np.float32(1 / 32),
            (place.z - np.float32(bleed.centre[2])) * np.float32(1 / 22),
        )
        thick = np.float32(bleed.size) * np.sqrt(np.clip(1 - u * u - v * v, 0, 1))
        reach = anatomy.falx_reach(moved)
        return np.asarray(inside(np.minimum(thick - away, away - 0.2)) * reach * inner.cavity * (thick > 0.6))
    if bleed.place == "tentorium":
        over = anatomy.tentorium(moved)
        u, v = (moved.x - np.float32(bleed.centre[0])) * np.float32(1 / 26), (moved.y - 45) * np.float32(1 / 30)
        thick = np.float32(bleed.size) * np.sqrt(np.clip(1 - u * u - v * v, 0, 1))
        near = (1 - anatomy.notch(place)) * inside(moved.x * bleed.side - 1)
        return np.asarray(inside(np.minimum(thick - over, over - 0.3)) * near * inner.cavity * (thick > 0.6))
    assert bleed.thickness is not None
    thick = look(bleed.thickness, where.azimuth, where.elevation)
    if thick.max() < 0.5:
        return None
    same = inside(anatomy.falx_distance(head, place) * bleed.side - 1)
    above = (1 - inner.low) * inside(where.floor + 1)
    return np.asarray(inside(thick - where.wall) * free * same * above * (thick > 0.6))


def hu(bleed: Bleed, place: Place) -> Field:
    """HU of the blood: uneven, and in collections along the skull denser where it settles, at the back."""
    value = np.float32(bleed.hu) + np.float32(2.5) * rough(place, 12, bleed.offset + 40)
    if bleed.thickness is not None:
        value = value + np.float32(3) * np.tanh((place.y - np.float32(bleed.centre[1])) * np.float32(0.08))
    return np.asarray(value, np.float32)


def oedema(bleed: Bleed, place: Place) -> Field:
    """Coverage of the swollen brain around a bleed, and of the bleed itself."""
    wide = 2.0 + 0.25 * bleed.size
    distance = ellipsoid(place, bleed.centre, tuple(axis + wide for axis in bleed.axes))  # type: ignore[arg-type]
    return inside(distance + np.float32(2) * rough(place, 16, bleed.offset + 80), 3)
