"""One simulated chest film: the plan drawn, exposed, processed, with the boxes of its findings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainseg.phantom.canvas import Canvas, Map
from domainseg.phantom.chest import bones, findings, thorax
from domainseg.phantom.chest.border import border, devices
from domainseg.phantom.chest.cohort import ChestPlan, plan
from domainseg.phantom.chest.settings import ChestSettings
from domainseg.phantom.chest.sites import SITE, dressed
from domainseg.phantom.chest.thorax import Build, Chest, Pose
from domainseg.phantom.detector import Site, expose, process, quantise
from domainseg.phantom.scene import MU_STEEL

MU_WATER, MU_BONE = 0.0175, 0.048  # a mm, at the higher voltage of chest films
LUNG = 0.76  # share by which a lung is lighter than water
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class SimulatedChest:
    """pixels: uint16 [H, W] as stored (MONOCHROME1 is inverted). boxes: finding -> x, y, width, height in pixels.
    ratio: heart over thorax, as drawn."""

    plan: ChestPlan
    site: Site
    pixels: NDArray[np.uint16]
    spacing: float
    boxes: dict[str, Box]
    ratio: float


def film(settings: ChestSettings, index: int) -> SimulatedChest:
    """Simulate film ``index``; the result depends on the settings and the index only."""
    chosen = plan(settings, index)
    site, around = dressed(SITE[chosen.site], settings.confounder_place)
    spacing = site.spacing * settings.reduction
    shape = (round(site.rows / settings.reduction), round(site.columns / settings.reduction))
    inside = chosen.portable and settings.confounder_place != "outside"
    outside = chosen.portable and settings.confounder_place != "inside"
    rng = np.random.default_rng([settings.seed, index, 701])
    chest, boxes = _scene(settings, chosen, shape, spacing, rng, portable=inside)
    water = np.maximum(chest.body - LUNG * chest.air + chest.vessel + chest.soft, 0)
    attenuation = np.asarray(MU_WATER * water + MU_BONE * chest.bone + MU_STEEL * chest.metal, np.float32)
    own = np.random.default_rng([settings.seed, index, 702])
    around_it = np.random.default_rng([settings.seed, index, 703])
    frame = border(around, chosen, shape, spacing, around_it, portable=outside)
    frame.lead(attenuation)
    ends = own.normal((-0.10, -0.35, 0.0), (0.07, 0.09, 0.08))
    log, slow = expose(attenuation, spacing, site, own, portable=inside)
    picture = process(log, slow, spacing, site, frame.field(slow.shape), ends, _chest_of(slow.shape, spacing))
    frame.annotate(picture)
    return SimulatedChest(chosen, site, quantise(picture, site), spacing, boxes, chest.pose.ratio)


def _chest_of(shape: tuple[int, ...], spacing: float) -> NDArray[np.bool_]:
    """The middle of a film on a raster of 8 x 8 pixels each: film size and collimation do not move its grey scale."""
    step = 8 * spacing
    x, y = ((np.arange(size) + 0.5 - at * size) * step for size, at in ((shape[1], 0.5), (shape[0], 0.46)))
    return np.asarray((np.abs(x)[None, :] < 140) & (np.abs(y)[:, None] < 150))


def _scene(
    settings: ChestSettings,
    chosen: ChestPlan,
    shape: tuple[int, int],
    spacing: float,
    rng: np.random.Generator,
    *,
    portable: bool,
) -> tuple[Chest, dict[str, Box]]:
    # Drawn at the film's own resolution: a canvas pixel is two of half the size.
    canvas = Canvas(*shape, spacing / 2)
    width, height = canvas.size
    build = Build.of(settings.seed, chosen)
    near = chosen.view == "AP" and settings.confounder_place != "outside"
    lift = float(rng.normal(16, 7)) if portable else float(rng.normal(2, 5))
    pose = Pose(
        lift={-1: lift + 3, 1: lift - 3},
        flat=0.0,
        ratio=build.ratio * (1.10 if near else 1.0),
        turn=float(rng.normal(0, 2.2 if portable else 0.8)),
        spin=float(rng.normal(0, 6 if portable else 2.5)),
        magnification=float(rng.normal(1.06 if near else 1.03, 0.015)),
        centre=(width * 0.5 + float(rng.normal(0, 7)), height * 0.46 + float(rng.normal(0, 8))),
    )
    found = {name: min(1.0, severity * settings.severity) for name, severity in chosen.findings.items()}
    sides = findings.sides_of(found, rng)
    chest = thorax.draw(canvas, build, findings.shape(pose, found, sides))
    bones.draw(chest, portable=portable)
    seen = findings.paint(chest, found, sides, rng)
    if portable:
        devices(chest, rng)
    return chest, {name: _box(where) for name, where in seen.items() if where.any()}


def _box(where: Map) -> Box:
    rows, columns = np.flatnonzero((where > 0).any(1)), np.flatnonzero((where > 0).any(0))
    x, y = float(columns[0]), float(rows[0])
    return x, y, float(columns[-1]) + 1 - x, float(rows[-1]) + 1 - y
