"""A head in millimetres: what each patient's looks like, and what lies at each place of it.

The origin lies between the thalami; x runs to the patient's left, y to the back, z to the vertex. The cavity of the
skull is a surface over directions from the origin, cut from below by a floor; sulci are sheets that run towards the
origin. All sizes are our choice, after textbook anatomy and real series.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from domainseg.phantom.heads.shapes import AZIMUTHS, Field, Place, Window, directions, inside, look, over_directions

FLOOR = 256  # cells of the map of the skull's floor, 1 mm each, the origin in the middle
_FAR_FLOOR = np.array([-60, 8], np.float32)
SPREAD = 40.0  # mm: sulci are no farther than this from any place, in their map


@dataclass(frozen=True)
class Shape:
    """What is decided about a head before it is drawn: numbers in mm, and maps over directions and over the floor."""

    age: int
    atrophy: float
    ventricles: float
    lean: float
    walls: Field  # [.., 4]: radius of the cavity, cosine of its slope, thickness of the skull, thickness of the scalp
    folds: Field  # [.., 3]: mm to the nearest sulcus at the surface, its depth, thickness of the fluid
    floor: Field  # [FLOOR, FLOOR, 2]: z of the skull's floor, thickness of the bone below
    medial: Field  # [FLOOR, FLOOR, 2]: mm to the nearest sulcus of the medial surface over (y, z), its depth
    air: float
    offset: float
    scale: float


def shape(rng: np.random.Generator, age: int, sex: str) -> Shape:
    """A head of that age (years) and sex, drawn by chance."""
    size = float(rng.normal(1.0 if sex == "M" else 0.965, 0.025)) * (0.86 + 0.14 * min(age, 12) / 12)
    a, b, up = 67 * size * rng.normal(1, 0.025), 85 * size * rng.normal(1, 0.025), 80 * size * rng.normal(1, 0.02)
    x, y, z = directions()
    wide = a * (1 + 0.07 * y - 0.03 * np.abs(x))
    c = np.where(z > 0, up, 76 * size)
    radius = 1 / np.sqrt((x / wide) ** 2 + (y / b) ** 2 + (z / c) ** 2)
    # Squarer than an ellipsoid, and a little uneven, the same on both sides but for a rest.
    even = over_directions(rng, 75)
    mirrored = np.roll(even[:, ::-1], AZIMUTHS // 2 + 1, axis=1)
    radius *= 1 + 0.055 * (x * y) ** 2 * 4 + 0.04 * (z > 0) * z**2 * (1 - z**2) * 4
    radius += 0.8 * (even + mirrored) + 0.8 * over_directions(rng, 60)
    slope_v, slope_u = np.gradient(cv2.GaussianBlur(radius, (0, 0), 2))
    step = np.pi / (len(radius) - 1)
    level = np.maximum(np.sqrt(1 - z**2), 0.05)
    cosine = 1 / np.sqrt(1 + ((slope_v / step) ** 2 + (slope_u / step / level) ** 2) / radius**2)
    child = min(1.0, 0.35 + age / 25)
    side, low = np.abs(x), 1 / (1 + np.exp((z - 0.25) * 12))
    skull = (rng.uniform(5.0, 7.0) + 1.2 * y * low + 0.8 * z + 0.7 * over_directions(rng, 40)) * child
    scalp = rng.uniform(4.5, 8.5) + 0.8 * over_directions(rng, 60) + 1.5 * low * side + 1.5 * np.maximum(y, 0) ** 2
    walls = np.stack([radius, cosine, np.maximum(skull, 2.0), np.maximum(scalp, 3.0)], -1)
    atrophy = float(np.clip((age - 35) / 50 + rng.normal(0, 0.25), 0, 1.3))
    noise = over_directions(rng, 27)
    near = distance_to_zero(noise, radius * step, level)
    # Deep and shallow sulci, and stretches where a sulcus closes.
    depth = np.clip(13 + 6 * over_directions(rng, 30), 2, 24)
    fluid = np.clip(0.3 + 2.1 * atrophy + (0.4 + 0.4 * atrophy) * over_directions(rng, 45) + 0.5 * (z > 0.6), 0.2, 7)
    folds = np.stack([near, depth, fluid], -1)
    return Shape(
        age=age,
        atrophy=atrophy,
        ventricles=float(np.clip(0.72 + 0.45 * atrophy + rng.normal(0, 0.12), 0.55, 1.7)),
        lean=float(rng.normal(0, 0.8)),
        walls=np.ascontiguousarray(walls, np.float32),
        folds=np.ascontiguousarray(folds, np.float32),
        floor=_floor(rng, size),
        medial=_medial(rng),
        air=float(rng.uniform(-0.4, 0.8)),
        offset=float(rng.uniform(0, 256)),
        scale=size,
    )


def distance_to_zero(noise: Field, row: Field | float, level: Field | float) -> Field:
    """About the distance in mm to the zero crossings of a map; ``row`` is mm a row, ``level`` columns over rows."""
    down, across = np.gradient(noise)
    rate = np.sqrt((down / row) ** 2 + (across / row / level) ** 2)
    rate = cv2.blur(rate.astype(np.float32), (7, 7))
    return np.asarray(np.minimum(np.abs(noise) / np.maximum(rate, 0.01), SPREAD), np.float32)


def _floor(rng: np.random.Generator, size: float) -> Field:
    x, y = np.meshgrid(np.arange(FLOOR) - FLOOR / 2, np.arange(FLOOR) - FLOOR / 2)
    x, y = np.abs(x / size), y / size
    front = -22 + 11 * np.exp(-(((x - 27) / 14) ** 2)) * np.exp(-(((y + 60) / 30) ** 2)) - 4 * np.exp(-((x / 6) ** 2))
    middle = -41 + 19 * np.exp(-((x / 15) ** 4)) + 0.004 * (y + 5) ** 2
    back = -60 + 4 * np.exp(-((x / 7) ** 2)) + 0.006 * ((y - 35) ** 2 + 0.5 * x**2)
    wing, ridge = -34 + 0.012 * (x - 33) ** 2, -1 + 0.66 * (x - 12) + 1.5 * np.sin(x / 5)
    z = np.where(y < wing, front, np.where(y < ridge, middle, back))
    clivus = -20 - (y + 8) * 1.35
    z = np.where((x < 15) & (y > -8) & (y < 26), np.maximum(clivus, z * (y > 20) - 99 * (y <= 20)), z)
    along = np.abs(y - ridge) * 0.83
    petrous = np.where(x > 9, -21 - 0.06 * (x - 12) - 1.9 * np.maximum(along - 1.5, 0), -99)
    z = np.maximum(z, petrous)
    sella = (x < 8) & (np.abs(y + 13) < 6)
    z = np.where(sella, -27, z)
    bone = np.where(y < wing, 4.5, np.where(y < ridge, 7.0, 8.0))
    bone = np.where((along < 14) & (x > 8), 24, bone)
    bone = np.where((x < 17) & (y > -26) & (y < 24), 17, bone)
    z = cv2.GaussianBlur(z.astype(np.float32) * np.float32(size), (0, 0), 1.6) + np.float32(rng.normal(0, 1.5))
    bone = cv2.GaussianBlur(bone.astype(np.float32), (0, 0), 2)
    hole = (x / 14) ** 2 + ((y - 33) / 17) ** 2 < 1
    z[hole], bone[hole] = -200, 0
    return np.stack([z, bone], -1)


def _medial(rng: np.random.Generator) -> Field:
    """The medial surface is flat: its sulci are a map over (y, z), a row z, a column y, 1 mm each."""
    noise = cv2.GaussianBlur(rng.standard_normal((FLOOR, FLOOR)).astype(np.float32), (0, 0), 5)
    noise = noise - cv2.GaussianBlur(noise, (0, 0), 10)
    near = distance_to_zero(noise / noise.std(), 1.0, 1.0)
    depth = cv2.GaussianBlur(rng.standard_normal((FLOOR, FLOOR)).astype(np.float32), (0, 0), 10)
    return np.stack([near, np.clip(7 + 4 * depth / depth.std(), 0, 16)], -1)


@dataclass
class Frame:
    """Where a piece of a scan lies with respect to the skull; all fields have its shape, in mm unless said.

    place: as scanned. wall, floor: depth inside the skull's wall and above its floor. depth: the smaller of the two.
    skull, scalp: their thickness here. radius: of the cavity in this direction; far: from the origin.
    azimuth, elevation: the direction, radians.
    """

    place: Place
    azimuth: Field
    elevation: Field
    far: Field
    radius: Field
    wall: Field
    floor: Field
    under: Field
    skull: Field
    scalp: Field
    depth: Field = field(init=False)

    def __post_init__(self) -> None:
        self.depth = np.minimum(self.wall, self.floor)

    def cut(self, window: Window) -> Frame:
        """A part of it."""
        names = ("azimuth", "elevation", "far", "radius", "wall", "floor", "under", "skull", "scalp")
        return Frame(place=self.place.cut(window), **{name: getattr(self, name)[window] for name in names})


def angles(place: Place) -> tuple[Field, Field, Field]:
    """Azimuth and elevation in radians and the distance from the origin in mm."""
    flat = (-1, place.x.shape[-1])
    level, azimuth = cv2.cartToPolar(place.x.reshape(flat), place.y.reshape(flat))
    far, elevation = cv2.cartToPolar(level, place.z.reshape(flat))
    elevation = np.where(elevation > np.pi, elevation - np.float32(2 * np.pi), elevation)
    return tuple(np.asarray(part, np.float32).reshape(place.x.shape) for part in (azimuth, elevation, far))  # type: ignore[return-value]


def frame(head: Shape, place: Place) -> Frame:
    """Where these voxels lie with respect to the skull."""
    azimuth, elevation, far = angles(place)
    radius, cosine, skull, scalp = np.moveaxis(look(head.walls, azimuth, elevation), -1, 0)
    low = bool(place.z.min() < 10)  # higher up the floor is far, wherever it is
    floor = read_map(head.floor, place.x, place.y) if low else np.broadcast_to(_FAR_FLOOR, (*place.x.shape, 2))
    return Frame(
        place=place,
        azimuth=azimuth,
        elevation=elevation,
        far=far,
        radius=radius,
        wall=(radius - far) * cosine,
        floor=place.z - floor[..., 0],
        under=floor[..., 1],
        skull=skull,
        scalp=scalp,
    )


def read_map(table: Field, column: Field, row: Field) -> Field:
    """Read a map of 1 mm cells, the origin in its middle, at places in mm."""
    flat = (-1, column.shape[-1])
    half = np.float32(FLOOR / 2)
    found = cv2.remap(
        table, column.reshape(flat) + half, row.reshape(flat) + half, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(found, np.float32).reshape(*column.shape, *table.shape[2:])


def tentorium(place: Place) -> Field:
    """Height in mm above the tentorium; only meant behind the petrous ridges."""
    x = np.abs(place.x)
    sheet = np.float32(14) - np.float32(0.42) * x - np.float32(0.22) * np.maximum(place.y - 40, 0)
    return np.asarray(place.z - sheet)


def notch(place: Place) -> Field:
    """Coverage of the tentorium's opening, through which the brainstem passes."""
    u, v = place.x * np.float32(1 / 19), (place.y - 2) * np.float32(1 / 29)
    return inside((1 - np.sqrt(u * u + v * v)) * np.float32(22), 3)


def falx_distance(head: Shape, place: Place) -> Field:
    """Signed mm from the falx' plane, positive on the left; it is bent a little."""
    bend = np.sin(place.y * np.float32(0.03) + np.float32(head.offset))
    return np.asarray(place.x - np.float32(head.lean) * bend)


def falx_reach(place: Place) -> Field:
    """Coverage of the falx within its plane: above the corpus callosum, in front less deep."""
    u, v = (place.y - 5) * np.float32(1 / 58), (place.z - 2) * np.float32(1 / 36)
    ring = (np.sqrt(u * u + v * v) - 1) * np.float32(40)
    return inside(np.minimum(ring, np.where(place.y > 20, tentorium(place), place.z + 12)), 2)
