"""The proximal femur as depth intervals: a head, a neck and a shaft with its trochanters, cortex and trabeculae.

Every part is a solid with a front and a back surface over the picture plane, outer (periosteal) and inner (endosteal).
Their union is again an interval, so thickness of cortex = outer minus inner, as x-rays see it. The frame is the
femur's own: origin in the head's centre, u lateral, v distal along the shaft, mm on the detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domainseg.phantom.canvas import Map, noise_tile, sample

#: The patch around the hip in mm from the head's centre: medial, lateral, proximal (distal is up to the film's edge).
MEDIAL, LATERAL, PROXIMAL = 62.0, 104.0, 66.0


@dataclass(frozen=True)
class Femur:
    """Shape of one proximal femur; lengths in mm in the patient, angles in degrees.

    ``rotation`` is external rotation of the leg; it and the anteversion foreshorten the neck and turn the lesser
    trochanter into profile. ``scale`` is the magnification on the detector. ``density`` 1 is a healthy adult's.
    """

    head: float = 24.0
    ccd: float = 127.0
    neck: float = 52.0
    anteversion: float = 12.0
    rotation: float = 5.0
    calibre: float = 1.0
    cortex: float = 1.0
    density: float = 1.0
    osteophytes: float = 0.0
    scale: float = 1.15
    grain: int = 0

    @property
    def twist(self) -> float:
        """Angle of the neck out of the picture plane, radians."""
        return float(np.deg2rad(np.clip(self.anteversion + self.rotation, -35, 88)))

    @property
    def junction(self) -> tuple[float, float]:
        """(u, v) where the neck's axis meets the shaft's, mm on the detector."""
        angle = np.deg2rad(self.ccd)
        return (
            float(self.neck * np.sin(angle) * np.cos(self.twist) * self.scale),
            float(-self.neck * np.cos(angle) * self.scale),
        )


@dataclass(frozen=True)
class Patch:
    """Raster of the femur's frame; u [1, w], v [h, 1] in mm on the detector."""

    u: Map
    v: Map
    step: float

    @staticmethod
    def of(step: float, distal: float) -> Patch:
        u = np.arange(-MEDIAL, LATERAL, step, dtype=np.float32)[None, :]
        v = np.arange(-PROXIMAL, distal, step, dtype=np.float32)[:, None]
        return Patch(u, v, step)

    @property
    def shape(self) -> tuple[int, int]:
        return self.v.shape[0], self.u.shape[1]


@dataclass(frozen=True)
class Bone:
    """Thickness maps in mm [h, w]: ``outer`` all of it, ``dense`` as solid cortical bone that attenuates as much."""

    outer: Map
    dense: Map


def build(patch: Patch, femur: Femur) -> Bone:
    """Thickness of a whole, unbroken femur on a patch."""
    k = femur.scale
    u, v = patch.u / k, patch.v / k
    ju, jv = (value / k for value in femur.junction)
    front = np.full(patch.shape, -500, np.float32)
    back = np.full(patch.shape, 500, np.float32)
    inner_front, inner_back = front.copy(), back.copy()

    def add(window: tuple[slice, slice], centre: Map, outer: Map, inner: Map) -> None:
        for half, high, low in ((outer, front[window], back[window]), (inner, inner_front[window], inner_back[window])):
            inside = half > 0
            np.maximum(high, centre + half, out=high, where=inside)
            np.minimum(low, centre - half, out=low, where=inside)

    for solid in (_head(u, v, femur), _neck(u, v, ju, jv, femur), *_shaft(u, v, ju, jv, femur)):
        add(*solid)
    outer = np.maximum(front - back, 0)
    inner = np.minimum(np.maximum(inner_front - inner_back, 0), outer)
    dense = (outer - inner) * (0.78 + 0.22 * femur.density) + inner * _trabeculae(patch, femur)
    return Bone(np.asarray(outer * k, np.float32), np.asarray(dense * k, np.float32))


def _window(u: Map, v: Map, box: tuple[float, float, float, float]) -> tuple[slice, slice]:
    u0, u1 = np.searchsorted(u[0], box[:2])
    v0, v1 = np.searchsorted(v[:, 0], box[2:])
    return slice(int(v0), int(v1)), slice(int(u0), int(u1))


def _round(radius_squared: Map) -> Map:
    return np.sqrt(np.maximum(radius_squared, 0))


Solid = tuple[tuple[slice, slice], Map, Map, Map]


def _head(u: Map, v: Map, femur: Femur) -> Solid:
    r = femur.head
    window = _window(u, v, (-r - 4, r + 4, -r - 4, r + 4))
    uu, vv = u[:, window[1]], v[window[0]]
    d2 = uu**2 + (vv * 1.02) ** 2
    shell = 1.1 * (0.6 + 0.4 * femur.cortex)
    return window, np.zeros_like(d2), _round(r * r - d2), _round((r - shell) ** 2 - d2)


def _profile(t: Map, stations: Sequence[float], values: Sequence[float]) -> Map:
    """Piecewise linear profile read through a table with 0.25 mm steps (np.interp on a map is slow)."""
    table = np.interp(np.arange(stations[0], stations[-1], 0.25), stations, values).astype(np.float32)
    kernel = np.ones(13, np.float32) / 13
    smooth = np.convolve(np.pad(table, 6, mode="edge"), kernel, mode="valid")
    index = np.clip((t - np.float32(stations[0])) * 4, 0, len(smooth) - 1).astype(np.int32)
    return np.asarray(smooth[index], np.float32)


def _tube(t: Map, d: Map, up: Map, low: Map, wall: tuple[Map, Map], flat: float) -> tuple[Map, Map]:
    """Half depths (outer, inner) of a tube whose silhouette lies at d = up and d = -low."""
    radius, middle = (up + low) / 2, (up - low) / 2
    outer = flat * _round(np.where(radius > 0, radius, 0) ** 2 - (d - middle) ** 2)
    up_in, low_in = up - wall[0], low - wall[1]
    radius, middle = (up_in + low_in) / 2, (up_in - low_in) / 2
    inner = flat * _round(np.where(radius > 0, radius, 0) ** 2 - (d - middle) ** 2)
    return outer, inner


def _neck(u: Map, v: Map, ju: float, jv: float, femur: Femur) -> Solid:
    window = _window(u, v, (-32, ju + 30, -36, jv + 42))
    uu, vv = u[:, window[1]], v[window[0]]
    length = float(np.hypot(ju, jv))
    eu, ev = ju / length, jv / length
    t = (uu * eu + vv * ev) * np.float32(1 / length)  # 0 in the head, 1 at the junction
    d = uu * ev - vv * eu  # > 0 is superior, lateral
    r, c = femur.head, femur.cortex
    stations = (0.0, 0.22, 0.42, 0.58, 0.75, 0.95, 1.12, 1.3)
    up = _profile(t, stations, [r * f for f in (0.86, 0.85, 0.74, 0.66, 0.68, 0.80, 0.60, 0.2)])
    low = _profile(t, stations, [r * f for f in (0.86, 0.87, 0.76, 0.70, 0.82, 1.06, 1.05, 0.4)])
    lip = femur.osteophytes * 2.5 * np.exp(-(((t * length - r * 0.86) / 2.6) ** 2))
    up, low = up + lip, low + lip
    wall_up = _profile(t, stations, [c * f for f in (0.9, 0.9, 1.2, 1.6, 1.6, 1.2, 1.0, 1.0)])
    wall_low = _profile(t, stations, [c * f for f in (0.9, 1.0, 1.8, 2.8, 4.0, 5.0, 5.0, 4.0)])
    outer, inner = _tube(t, d, up, low, (wall_up, wall_low), 0.86)
    inside = (t > -0.1) & (t < 1.25)
    depth = t * np.float32(femur.neck * np.sin(np.deg2rad(femur.ccd)) * np.sin(femur.twist))
    return window, depth, np.where(inside, outer, 0), np.where(inside, inner, 0)


def _shaft(u: Map, v: Map, ju: float, jv: float, femur: Femur) -> list[Solid]:
    window = _window(u, v, (ju - 48, ju + 48, jv - 42, 1e6))
    t = v[window[0]] - np.float32(jv)
    bow = 0.00012 * np.maximum(t, 0) ** 2
    d = u[:, window[1]] - np.float32(ju) - bow
    k, c = femur.calibre, femur.cortex
    facing = float(np.clip(np.cos(femur.twist - 0.2), 0.2, 1))  # the greater trochanter turns behind the neck
    tips = np.array([-33, -30, -25, -18, -8, 2, 12, 24, 40, 70, 120, 420], float)
    lateral = np.array([-8, 9, 18, 24.5, 27.5, 27, 24, 20.5, 17.5, 15.5, 14.8, 16.0]) * k
    medial = np.array([2, -3, -3, 1, 8, 17, 21.5, 20.5, 17.5, 15.0, 14.2, 15.5]) * k
    lateral[1:6] *= 0.75 + 0.25 * facing
    up, low = _profile(t, tips, lateral), _profile(t, tips, medial)
    wall_up = _profile(t, tips, np.array([0.8, 0.8, 0.9, 1.0, 1.1, 1.4, 2.0, 3.2, 4.8, 6.6, 7.4, 7.6]) * c)
    wall_low = _profile(t, tips, np.array([0.8, 0.8, 0.8, 0.9, 1.2, 2.4, 3.8, 4.8, 5.6, 6.8, 7.2, 7.4]) * c)
    outer, inner = _tube(t, d, up, low, (wall_up, wall_low), 0.80)
    depth = np.full_like(d, femur.neck * np.sin(np.deg2rad(femur.ccd)) * np.sin(femur.twist))
    behind = depth - 8 * np.exp(-(((t + 14) / 14) ** 2))
    solids = [(window, behind, outer, inner)]
    # The crest of the greater trochanter and the lesser trochanter are knobs on the back of that tube.
    knobs = (
        (4.0 + 9 * facing, -20.0, 13.0 * k, 15.0, -12.0, 1.0),
        (-13.0 * k - 7.5 * float(np.clip(np.sin(femur.twist + 0.1), 0, 1)), 25.0, 8.5, 12.0, -9.0, 1.3),
    )
    for du, dt, ru, rt, dz, wall in knobs:
        place = _window(u, v, (ju + du - ru - 2, ju + du + ru + 2, jv + dt - rt - 2, jv + dt + rt + 2))
        rows, columns = v[place[0]] - np.float32(jv + dt), u[:, place[1]] - np.float32(ju + du)
        q = 1 - (columns / ru) ** 2 - (rows / rt) ** 2
        q_in = 1 - (columns / (ru - wall * c)) ** 2 - (rows / (rt - wall * c)) ** 2
        centre = np.full(q.shape, float(depth[0, 0]) + dz if depth.size else dz, np.float32)
        solids.append((place, centre, 11 * _round(q), 9.5 * _round(q_in)))
    return solids


def _trabeculae(patch: Patch, femur: Femur) -> Map:
    """Dense bone a mm of marrow space, 0..1: principal compressive and tensile trabeculae, Ward's triangle, canal."""
    u, v = patch.u, patch.v
    ju, jv = femur.junction
    k = femur.scale
    r = femur.head * k
    rng = np.random.default_rng([femur.grain, 11])
    streaks = noise_tile(1.2, 9.0)
    # Compressive: a fan from the calcar to the top of the head; across = angle about a point far down the shaft.
    du, dv = u - (ju - 2 * k), v - (jv + 105 * k)
    along = np.sqrt(du**2 + dv**2)
    across = np.arctan2(du, -dv) * (105 * k)
    shift = rng.uniform(0, 1000, 6).tolist()
    fan = sample(streaks, across * 1.7 / 0.6 + shift[0], along * 1.7 / 0.6 + shift[1])
    middle = (r * -0.02 - (ju - 2 * k)) / 130 * 105
    compressive = np.exp(-(((across - middle) / (0.52 * r)) ** 2)) * (v < jv + 25 * k)
    # Tensile: arches from the lateral cortex over the neck into the lower head.
    cu, cv = ju - 30 * k, jv + 52 * k
    radius = np.sqrt((u - cu) ** 2 + (v - cv) ** 2)
    turn = np.arctan2(u - cu, cv - v) * (60 * k)
    arch = sample(streaks, radius * 1.7 / 0.6 + shift[2], turn * 1.7 / 0.6 + shift[3])
    tensile = np.exp(-(((radius - 62 * k) / (11 * k)) ** 2))
    mottle = sample(
        noise_tile(1.6),
        np.broadcast_to(u / 0.45 + shift[4], patch.shape).astype(np.float32),
        np.broadcast_to(v / 0.45 + shift[5], patch.shape).astype(np.float32),
    )
    ward = np.exp(-(((u - 0.66 * ju) / (9 * k)) ** 2) - (((v - (jv + 2 * k)) / (11 * k)) ** 2))
    canal = 1 / (1 + np.exp(-(v - (jv + 34 * k)) / (8 * k)))
    loss = 1 - femur.density  # osteoporosis takes the tensile group and Ward's triangle first
    level = 0.105 + 0.105 * compressive + np.maximum(0.05 - 0.12 * loss, 0.01) * tensile - (0.05 + 0.10 * loss) * ward
    rough = 1 + 0.20 * compressive * fan + 0.16 * tensile * arch + 0.14 * mottle + 0.06 * (fan + arch)
    level = np.maximum(level * (0.45 + 0.55 * femur.density), 0.02) * np.maximum(rough, 0.1)
    return np.asarray(level * (1 - canal) + 0.025 * canal * (1 + 0.3 * mottle), np.float32)
