"""One simulated film: the plan drawn, exposed, processed, turned, with everything that is true about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainseg.imaging import geometry
from domainseg.phantom import border, fracture, scene
from domainseg.phantom.canvas import Canvas, Map, Points
from domainseg.phantom.cohort import FilmPlan, plan
from domainseg.phantom.detector import SITE, Site, dressed, expose, process, quantise
from domainseg.phantom.parts import other
from domainseg.phantom.scene import MU_BONE, Hip, Scene
from domainseg.phantom.settings import Settings

#: Size of the film relative to the site's full detector, and whether it stands upright.
FORMATS = {
    "pelvis_ap": (1.0, 1.0, False),
    "frog_leg": (1.0, 1.0, False),
    "hip_ap": (0.80, 0.80, True),
    "hip_lateral": (0.80, 0.80, False),
    "chest": (1.0, 1.0, True),
    "knee": (0.66, 0.62, True),
    "hand": (0.60, 0.62, True),
    "shoulder": (0.72, 0.62, False),
    "spine": (0.85, 0.95, True),
    "skull": (0.72, 0.68, True),
}

#: Region of interest of a hip as the cascade cuts it (conf/pipeline/hip.yaml), in head diameters: shift of its middle
#: from the head's centre to the side and down; its side, with 0.1 at each end for what a localizer errs.
ROI_SHIFT = (0.45, 0.75)
ROI_HEADS = 3.4 + 0.2


@dataclass(frozen=True)
class HipTruth:
    """What is true of one hip; positions and lengths in pixels of the stored film unless named _mm.

    femur and line are bool [H, W] masks of the proximal femur and of the fracture line (None without a fracture).
    """

    part: str
    side: str
    x: float
    y: float
    diameter: float
    femur: NDArray[np.bool_]
    line: NDArray[np.bool_] | None
    implant: str
    fracture_class: str
    place: str
    location: str
    width_mm: float
    displacement_mm: float


@dataclass(frozen=True)
class SimulatedFilm:
    """pixels: uint16 [H, W] as stored (MONOCHROME1 is inverted). hips: those with their centre in the film."""

    plan: FilmPlan
    site: Site
    pixels: NDArray[np.uint16]
    spacing: float
    hips: tuple[HipTruth, ...]


def film(seed: int, index: int, settings: Settings | dict[str, Any] | None = None) -> SimulatedFilm:
    """Simulate film ``index``; the result depends on seed, index and settings only."""
    if settings is None or isinstance(settings, dict):
        settings = Settings.of({**(settings or {}), "seed": seed})
    elif settings.seed != seed:
        settings = Settings.of({**settings.plain(), "seed": seed})
    chosen = plan(settings, index)
    site, around = dressed(SITE[chosen.site], settings.confounder_place)
    rng = np.random.default_rng([settings.seed, index, 301])
    high, wide, standing = FORMATS[chosen.part if chosen.view == "other" else chosen.view]
    rows, columns = round(site.rows * high), round(site.columns * wide)
    if standing:
        rows, columns = columns, rows
    half = 2 * settings.reduction
    canvas = Canvas(rows // half, columns // half, site.spacing * settings.reduction)
    if chosen.view == "other":
        drawn = other(canvas, chosen.part, rng)
    elif chosen.view == "hip_lateral":
        drawn = scene.lateral(canvas, settings, chosen, rng)
    else:
        drawn = scene.frontal(canvas, settings, chosen, rng)
    picture = _picture(drawn, settings, chosen, site, around, rng)
    shape = picture.shape
    stored = quantise(picture, site)
    stored = np.ascontiguousarray(np.rot90(stored, -chosen.turns))
    to_source = np.asarray(np.linalg.inv(geometry.quarter_turns(shape, -chosen.turns % 4)), np.float64)
    hips = tuple(_truth(hip, canvas, shape, chosen.turns, to_source) for hip in drawn.hips)
    return SimulatedFilm(chosen, site, stored, canvas.spacing, hips)


def _picture(
    drawn: Scene, settings: Settings, chosen: FilmPlan, site: Site, around: Site, rng: np.random.Generator
) -> Map:
    canvas = drawn.canvas
    shape = (2 * canvas.height, 2 * canvas.width)
    attenuation = np.asarray(cv2.resize(drawn.attenuation, shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    for hip in drawn.hips:
        if hip.fracture is not None and hip.fracture.depth:
            _cut(attenuation, canvas, hip, hip.fracture, chosen.patient_number)
    portable_out = chosen.portable and settings.confounder_place != "inside"
    frame = border.Border.of(around, chosen, shape, canvas.spacing, rng, portable=portable_out)
    if settings.confounder_place != "outside":
        return _exposed(attenuation, frame, canvas.spacing, site, rng, portable=chosen.portable)
    # The same exposure with and without what surrounds the anatomy: not even scatter of a letter reaches a ROI.
    seed = [settings.seed, chosen.index, 302]
    bare, picture = (
        _exposed(attenuation.copy(), each, canvas.spacing, site, np.random.default_rng(seed), portable=False)
        for each in (None, frame)
    )
    for hip in drawn.hips:
        top, bottom, left, right = _around(hip, canvas.spacing)
        picture[top:bottom, left:right] = bare[top:bottom, left:right]
    return picture


def _exposed(
    attenuation: Map,
    frame: border.Border | None,
    spacing: float,
    site: Site,
    rng: np.random.Generator,
    *,
    portable: bool,
) -> Map:
    """The picture of what is in the beam, with lead and text of ``frame``, or without."""
    if frame is not None:
        frame.lead(attenuation)
    log, slow = expose(attenuation, spacing, site, rng, portable=portable)
    field = np.ones(slow.shape, np.bool_) if frame is None else frame.field(slow.shape)
    picture = process(log, slow, spacing, site, field, rng.normal(0, 0.09, 3))
    if frame is not None:
        frame.annotate(picture)
    return picture


def _around(hip: Hip, spacing: float) -> tuple[int, int, int, int]:
    """Rows from and to, columns from and to of a hip's region of interest in the upright picture, with its margin."""
    middle = hip.centre + hip.head_mm * np.array([hip.image_side * ROI_SHIFT[0], ROI_SHIFT[1]])
    low, high = ((middle + side * hip.head_mm * ROI_HEADS / 2) / spacing for side in (-1, 1))
    left, top, right, bottom = (max(0, round(value)) for value in (*low, *high))
    return top, bottom, left, right


def _cut(attenuation: Map, canvas: Canvas, hip: Hip, broken: fracture.Fracture, seed: int) -> None:
    """Take the bone out of a thin fracture gap, at the film's own resolution."""
    linear, centre = hip.affine[:, :2], hip.affine[:, 2]
    middle = linear @ broken.centre + centre
    near = canvas.box([middle], 62.0)
    y0, x0 = max(near[0], hip.box[0]), max(near[2], hip.box[2])
    y1, x1 = min(near[1], hip.box[1]), min(near[3], hip.box[3])
    if y1 <= y0 or x1 <= x0:
        return
    dense = hip.dense[y0 - hip.box[0] : y1 - hip.box[0], x0 - hip.box[2] : x1 - hip.box[2]]
    fine = cv2.resize(dense, (2 * (x1 - x0), 2 * (y1 - y0)), interpolation=cv2.INTER_LINEAR)
    x = np.arange(2 * x0, 2 * x1, dtype=np.float32)[None, :] * np.float32(canvas.spacing) - np.float32(centre[0])
    y = np.arange(2 * y0, 2 * y1, dtype=np.float32)[:, None] * np.float32(canvas.spacing) - np.float32(centre[1])
    inverse = np.linalg.inv(linear).astype(np.float32)
    u, v = inverse[0, 0] * x + inverse[0, 1] * y, inverse[1, 0] * x + inverse[1, 1] * y
    # The plane of the break is 15 to 20 degrees off the beam: a ray cannot run in the gap for long.
    longest = np.float32(3.2 * broken.width)
    missing = np.tanh(fracture.gap(broken, u, v, seed) * fine / longest) * longest
    attenuation[2 * y0 : 2 * y1, 2 * x0 : 2 * x1] -= MU_BONE * missing


def _truth(hip: Hip, canvas: Canvas, shape: tuple[int, int], turns: int, to_source: Points) -> HipTruth:
    upright = hip.centre / canvas.spacing
    x, y = geometry.transform(to_source, upright)

    def whole(local: Map) -> NDArray[np.bool_]:
        y0, y1, x0, x1 = hip.box
        mask = np.zeros(shape, np.bool_)
        mask[2 * y0 : 2 * y1, 2 * x0 : 2 * x1] = np.repeat(np.repeat(local > 0.5, 2, 0), 2, 1)
        return np.ascontiguousarray(np.rot90(mask, -turns))

    broken = hip.fracture
    line = whole(hip.line) if broken is not None else None
    return HipTruth(
        part="hip_left" if hip.image_side < 0 else "hip_right",
        side=hip.side,
        x=float(x),
        y=float(y),
        diameter=hip.head_mm / canvas.spacing,
        femur=whole(hip.femur),
        line=line,
        implant=hip.plan.implant,
        fracture_class=broken.kind if broken is not None else "",
        place=broken.place if broken is not None else "",
        location=broken.location if broken is not None else "none",
        width_mm=broken.visible_width if broken is not None else float("nan"),
        displacement_mm=broken.displacement if broken is not None else float("nan"),
    )
