"""What looks like a bleed and is none: calcifications, thick dura, dense sinuses, bright rims; each with its voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domainseg.phantom.heads import anatomy
from domainseg.phantom.heads.anatomy import Frame, Shape
from domainseg.phantom.heads.shapes import Field, Place, Point, ellipsoid, inside, rough
from domainseg.phantom.heads.tissue import Inside


@dataclass(frozen=True)
class Mimic:
    """One look-alike of a head. kind: one of MIMICS. centre, axes: mm in the head. hu: its own, or what it adds."""

    kind: str
    centre: Point
    axes: Point
    hu: float


def draw(rng: np.random.Generator, head: Shape, share: float) -> list[Mimic]:
    """The look-alikes of a head by chance; ``share`` 0..1 scales how frequent they are, 0.5 is about as in life."""
    s, found = head.scale, []
    grown = float(np.clip((head.age - 15) / 45, 0.1, 1.2))

    def often(chance: float) -> bool:
        return bool(rng.random() < min(0.97, 2 * share * chance))

    if often(0.32 * grown):
        for _ in range(int(rng.integers(1, 4))):
            centre = (0.0, float(rng.uniform(-60, 55)) * s, float(rng.uniform(38, 62)) * s)
            axes = (float(rng.uniform(0.9, 2.2)), float(rng.uniform(3, 9)), float(rng.uniform(3, 7)))
            found.append(Mimic("falx_calcification", centre, axes, float(rng.uniform(80, 420))))
    if often(0.3 * grown):
        centre = (0.0, float(rng.uniform(-40, 55)) * s, float(rng.uniform(30, 60)) * s)
        axes = (float(rng.uniform(1.0, 2.2)), float(rng.uniform(15, 40)), float(rng.uniform(12, 25)))
        found.append(Mimic("falx_thickening", centre, axes, float(rng.uniform(56, 70))))
    if often(0.55 * grown):
        for side in (-1, 1):
            if rng.random() < 0.88:
                r = float(rng.uniform(1.3, 4.2))
                centre = (side * 23.0 * s, 36.0 * s + float(rng.normal(0, 1.5)), 8.0 * s)
                found.append(Mimic("choroid_calcification", centre, (r, 1.5 * r, r), float(rng.uniform(70, 380))))
    if often(0.6 * grown):
        r = float(rng.uniform(1.2, 3.4))
        found.append(
            Mimic("pineal_calcification", (0.0, 23.0 * s, 1.0 * s), (r, 1.3 * r, r), float(rng.uniform(80, 400)))
        )
    if often(0.14 * grown):
        for side in (-1, 1):
            r = float(rng.uniform(1.5, 4.5))
            centre = (side * 20.0 * s, -4.0 * s, 1.0 * s)
            found.append(
                Mimic("basal_ganglia_calcification", centre, (r, 1.8 * r, 1.5 * r), float(rng.uniform(52, 110)))
            )
    if often(0.3):
        found.append(Mimic("dense_sinus", (0, 0, 0), (0, 0, 0), float(rng.uniform(60, 76))))
    for _ in range(2):
        if often(0.3):
            unit = rng.normal(0, 1, 3) * (1, 0.7, 0.5) + (0, 0, 0.5)
            at = unit / np.linalg.norm(unit) * 72 * s
            wide = float(rng.uniform(14, 34))
            deep = float(rng.uniform(2.0, 4.5))
            where = (float(at[0]), float(at[1]), float(at[2]))
            found.append(Mimic("beam_hardening", where, (wide, deep, 0), float(rng.uniform(14, 34))))
    return found


def cover(mimic: Mimic, head: Shape, where: Frame, moved: Place, inner: Inside) -> tuple[Field, Field] | None:
    """What to add to the HU, and coverage 0..1 of the voxels that it makes look like a bleed; None when far."""
    place = where.place
    if mimic.kind == "dense_sinus":
        if inner.sinus.max() < 0.2:
            return None
        return (np.float32(mimic.hu) - inner.hu) * inner.sinus, inner.sinus
    reach = max(mimic.axes) + 8
    if moved.window(mimic.centre, reach) is None:
        return None
    if mimic.kind == "beam_hardening":
        c = mimic.centre
        r2 = (place.x - np.float32(c[0])) ** 2 + (place.y - np.float32(c[1])) ** 2 + (place.z - np.float32(c[2])) ** 2
        fall = np.exp(r2 * np.float32(-0.5 / mimic.axes[0] ** 2)) * inner.cavity
        added = np.float32(mimic.hu) * fall * np.exp(np.maximum(where.depth, 0) * np.float32(-1 / mimic.axes[1]))
        return added, inside(added - 8, 1.0)
    if mimic.kind == "falx_thickening":
        u = (moved.y - np.float32(mimic.centre[1])) * np.float32(1 / mimic.axes[1])
        v = (moved.z - np.float32(mimic.centre[2])) * np.float32(1 / mimic.axes[2])
        thick = np.float32(mimic.axes[0]) * np.sqrt(np.clip(1 - u * u - v * v, 0, 1))
        here = inside(thick - np.abs(anatomy.falx_distance(head, moved))) * anatomy.falx_reach(moved) * (thick > 0.3)
        here = here * inner.cavity
        return (np.float32(mimic.hu) - inner.hu) * here, here
    centre = mimic.centre
    if mimic.kind == "falx_calcification":
        bend = head.lean * float(np.sin(centre[1] * 0.03 + head.offset))  # it lies in the falx, which is bent
        centre = (centre[0] + bend, centre[1], centre[2])
    body = ellipsoid(moved, centre, mimic.axes)
    uneven = np.float32(0.2 * min(mimic.axes[1], 4))
    here = inside(body + uneven * rough(place, 8, head.offset + 20)) * inner.cavity * inside(where.depth)
    return (np.float32(mimic.hu) - inner.hu) * here, here
