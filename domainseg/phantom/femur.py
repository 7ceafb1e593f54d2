"""The proximal femur as depth intervals: a head, a neck and a shaft with its trochanters, cortex and trabeculae.

Every part is a solid with a front and a back surface over the picture plane, outer (periosteal) and inner (endosteal).
Their union is again an interval, so thickness of cortex = outer minus inner, as x-rays see it. The frame is the
femur's own: origin in the head's centre, u lateral, v distal along the shaft, mm on the detector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from domainseg.phantom.canvas import Map, noise_tile, ridge_tile, sample

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
    for window, centre, outer, inner in (_head(u, v, femur), _stem(u, v, ju, jv, femur), _crest(u, v, ju, jv, femur)):
        for half, high, low in ((outer, front[window], back[window]), (inner, inner_front[window], inner_back[window])):
            inside = half > 0
            np.maximum(high, centre + half, out=high, where=inside)
            np.minimum(low, centre - half, out=low, where=inside)
    outer = np.maximum(front - back, 0)
    inner = np.minimum(np.maximum(inner_front - inner_back, 0), outer)
    dense = (outer - inner) * (0.78 + 0.22 * femur.density) + inner * _trabeculae(patch, femur)
    return Bone(np.asarray(outer * k, np.float32), np.asarray(dense * k, np.float32))


def _window(u: Map, v: Map, box: tuple[float, float, float, float]) -> tuple[slice, slice]:
    u0, u1 = np.searchsorted(u[0], box[:2])
    v0, v1 = np.searchsorted(v[:, 0], box[2:])
    return slice(int(v0), int(v1)), slice(int(u0), int(u1))


def _root(squared: Map) -> Map:
    return np.sqrt(np.maximum(squared, 0))


Solid = tuple[tuple[slice, slice], Map, Map, Map]


def _head(u: Map, v: Map, femur: Femur) -> Solid:
    r = femur.head
    window = _window(u, v, (-r - 4, r + 4, -r - 4, r + 4))
    uu, vv = u[:, window[1]], v[window[0]]
    d2 = np.asarray(uu**2 + (vv * 1.02) ** 2, np.float32)
    shell = 0.30 * (0.4 + 0.6 * femur.cortex)
    return window, np.zeros_like(d2), _root(r * r - d2), _root((r - shell) ** 2 - d2)


def _profile(t: Map, stations: ArrayLike, values: ArrayLike) -> Map:
    """Smoothed piecewise linear profile, read through a table (np.interp on a map is slow)."""
    known = np.asarray(stations, float)
    places = np.linspace(known[0], known[-1], 1200)
    table = np.interp(places, known, np.asarray(values, float)).astype(np.float32)
    smooth = np.convolve(np.pad(table, 20, mode="edge"), np.ones(41, np.float32) / 41, mode="valid")
    scale = np.float32(1199 / (known[-1] - known[0]))
    index = np.clip((t - np.float32(known[0])) * scale, 0, 1199).astype(np.int32)
    return np.asarray(smooth[index], np.float32)


def _tube(d: Map, up: Map, low: Map, flat: float) -> Map:
    """Square of the half depth of a tube whose silhouette lies at d = up and d = -low; negative outside."""
    radius, middle = (up + low) / 2, (up - low) / 2
    return np.asarray(flat**2 * (radius * np.abs(radius) - (d - middle) ** 2), np.float32)


def _stem(u: Map, v: Map, ju: float, jv: float, femur: Femur) -> Solid:
    """Neck, trochanters and shaft, joined smoothly (fillets at the calcar and at the fossa above the neck)."""
    window = _window(u, v, (-30, ju + 48, -44, 1e6))
    uu, vv = u[:, window[1]], v[window[0]]
    c = femur.cortex
    depth_at_junction = np.float32(femur.neck * np.sin(np.deg2rad(femur.ccd)) * np.sin(femur.twist))
    # The shaft: t down from the junction, d lateral from its bowed axis.
    t = vv - np.float32(jv)
    d = uu - np.float32(ju) - 0.00012 * np.maximum(t, 0) ** 2
    facing = float(np.clip(np.cos(femur.twist - 0.2), 0.2, 1))  # the greater trochanter turns behind the neck
    tips = np.array([-31, -28, -22, -15, -6, 3, 12, 24, 40, 70, 120, 420], float)
    lateral = np.array([-10, 8, 17, 23, 26.5, 26.5, 24, 20.5, 17.5, 15.5, 14.8, 16.0]) * femur.calibre
    medial = np.array([4, -2, -1, 4, 12, 18, 20.5, 19.5, 17.0, 15.0, 14.2, 15.5]) * femur.calibre
    lateral[1:6] *= 0.75 + 0.25 * facing
    up, low = _profile(t, tips, lateral), _profile(t, tips, medial)
    # The lesser trochanter, in profile as far as the leg is turned outwards; its crest runs on upwards.
    out = float(np.clip(np.sin(femur.twist + 0.1), 0, 1))
    bump = np.exp(-(np.abs((t - 25) / np.where(t < 25, 12, 9)) ** 2.2))
    low = np.asarray(low + (1.0 + 8.0 * out) * femur.calibre * bump, np.float32)
    wall_up = _profile(t, tips, np.array([0.5, 0.5, 0.6, 0.7, 0.9, 1.3, 2.0, 3.2, 4.8, 6.6, 7.4, 7.6]) * c)
    wall_low = _profile(t, tips, np.array([0.5, 0.5, 0.5, 0.6, 1.0, 2.4, 3.8, 4.8, 5.6, 6.8, 7.2, 7.4]) * c)
    shaft, shaft_in = _tube(d, up, low, 0.80), _tube(d, up - wall_up, low - wall_low, 0.80)
    behind = depth_at_junction - 8 * np.exp(-(((t + 14) / 14) ** 2)) + 0 * d
    # The neck: t from 0 in the head to 1 at the junction, d upwards and lateral.
    length = float(np.hypot(ju, jv))
    eu, ev = ju / length, jv / length
    near = slice(0, int(np.searchsorted(vv[:, 0], jv + 45)))
    t = (uu * eu + vv[near] * ev) * np.float32(1 / length)
    d = uu * ev - vv[near] * eu
    r = femur.head
    stations = (-0.15, 0.0, 0.22, 0.42, 0.58, 0.75, 0.95, 1.12, 1.3)
    up = _profile(t, stations, [r * f for f in (-1.0, 0.80, 0.82, 0.75, 0.67, 0.68, 0.74, 0.50, -1.0)])
    low = _profile(t, stations, [r * f for f in (-1.0, 0.80, 0.84, 0.77, 0.71, 0.78, 0.96, 0.90, -1.0)])
    lip = np.float32(femur.osteophytes * 2.2) * np.exp(-(((t * length - r * 0.80) / 4.5) ** 2))
    up, low = up + lip, low + lip
    wall_up = _profile(t, stations, [c * f for f in (0.4, 0.4, 0.5, 0.9, 1.4, 1.5, 1.2, 1.0, 1.0)])
    wall_low = _profile(t, stations, [c * f for f in (0.4, 0.4, 0.7, 1.6, 2.8, 4.0, 5.0, 5.0, 4.0)])
    neck, neck_in = _tube(d, up, low, 0.84), _tube(d, up - wall_up, low - wall_low, 0.84)
    depth = behind.copy()
    share = np.clip((neck - shaft[near]) / 120, -1, 1) * 0.5 + 0.5
    depth[near] += share * (np.clip(t, 0, 1) * depth_at_junction - depth[near])
    for whole, part in ((shaft, neck), (shaft_in, neck_in)):
        blend = np.maximum(160 - np.abs(whole[near] - part), 0) ** 2 * np.float32(1 / 640)
        whole[near] = np.maximum(whole[near], part) + blend
    return window, depth, _root(shaft), _root(shaft_in)


def _crest(u: Map, v: Map, ju: float, jv: float, femur: Femur) -> Solid:
    """The crest of the greater trochanter: a thin shell on the back of the stem."""
    k, depth = femur.calibre, float(femur.neck * np.sin(np.deg2rad(femur.ccd)) * np.sin(femur.twist))
    facing = float(np.clip(np.cos(femur.twist - 0.2), 0.2, 1))
    du, dt, ru, rt, wall = 5.0 + 9 * facing, -13.0, 12.0 * k, 13.0, 0.25
    place = _window(u, v, (ju + du - ru - 2, ju + du + ru + 2, jv + dt - rt - 2, jv + dt + rt + 2))
    rows, columns = v[place[0]] - np.float32(jv + dt), u[:, place[1]] - np.float32(ju + du)
    q = 1 - (columns / ru) ** 2 - (rows / rt) ** 2
    q_in = 1 - (columns / (ru - wall)) ** 2 - (rows / (rt - wall)) ** 2
    return place, np.full(q.shape, depth - 12, np.float32), 10 * _root(q), 9.7 * _root(q_in)


def _trabeculae(patch: Patch, femur: Femur) -> Map:
    """Dense bone a mm of marrow space, 0..1: principal compressive and tensile trabeculae, Ward's triangle, canal."""
    u, v = patch.u, patch.v
    ju, jv = femur.junction
    k = femur.scale
    r = femur.head * k
    rng = np.random.default_rng([femur.grain, 11])
    streaks = ridge_tile(2.0, 5.0)
    # Compressive: a fan from the calcar to the top of the head; across = angle about a point far down the shaft.
    du, dv = u - (ju - 2 * k), v - (jv + 105 * k)
    along = np.sqrt(du**2 + dv**2)
    across = np.arctan2(du, -dv) * (105 * k)
    shift = rng.uniform(0, 1000, 6).tolist()
    fan = sample(streaks, across * 4.2 + shift[0], along * 4.2 + shift[1])
    middle = (r * -0.02 - (ju - 2 * k)) / 130 * 105
    compressive = np.exp(-(((across - middle) / (0.52 * r)) ** 2)) * (v < jv + 25 * k)
    # Tensile: arches from the lateral cortex over the neck into the lower head.
    cu, cv = ju - 30 * k, jv + 52 * k
    radius = np.sqrt((u - cu) ** 2 + (v - cv) ** 2)
    turn = np.arctan2(u - cu, cv - v) * (60 * k)
    arch = sample(streaks, radius * 4.2 + shift[2], turn * 4.2 + shift[3])
    tensile = np.exp(-(((radius - 62 * k) / (11 * k)) ** 2))
    mottle = sample(
        noise_tile(1.6),
        np.broadcast_to(u / 0.45 + shift[4], patch.shape).astype(np.float32),
        np.broadcast_to(v / 0.45 + shift[5], patch.shape).astype(np.float32),
    )
    ward = np.exp(-(((u - 0.66 * ju) / (9 * k)) ** 2) - (((v - (jv + 2 * k)) / (11 * k)) ** 2))
    canal = 1 / (1 + np.exp(-(v - (jv + 34 * k)) / (8 * k)))
    loss = 1 - femur.density  # osteoporosis takes the tensile group and Ward's triangle first
    head = np.exp(-(((u**2 + v**2) / (r * r)) ** 3))
    level = (
        (0.115 + 0.045 * compressive) * (1 - 0.28 * head)
        + np.maximum(0.05 - 0.10 * loss, 0.01) * tensile
        - (0.04 + 0.08 * loss) * ward
    )
    rough = 1 + (0.20 * compressive * fan + 0.20 * tensile * arch + 0.15 * mottle + 0.14 * (fan + arch)) * (
        1 - 0.35 * head
    )
    level = np.maximum(level * (0.45 + 0.55 * femur.density), 0.02) * np.maximum(rough, 0.1)
    return np.asarray(level * (1 - canal) + 0.025 * canal * (1 + 0.3 * mottle), np.float32)
