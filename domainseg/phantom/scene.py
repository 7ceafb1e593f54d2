"""A patient on the table: bones, soft tissue, gas and metal of one hip film, as attenuation on the canvas."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from domainseg.phantom import fracture as breaking
from domainseg.phantom import implants, pelvis, tissue
from domainseg.phantom.canvas import Box, Canvas, Map, Points, rotation
from domainseg.phantom.cohort import FilmPlan, HipPlan
from domainseg.phantom.femur import LATERAL, MEDIAL, PROXIMAL, Femur, Patch
from domainseg.phantom.fracture import Fracture
from domainseg.phantom.settings import Settings

MU_SOFT, MU_BONE, MU_STEEL = 0.0185, 0.066, 0.45


@dataclass(frozen=True)
class Hip:
    """One hip as drawn. ``affine`` (2x3) maps the femur's frame to film mm; maps cover ``box`` of the canvas."""

    image_side: int
    side: str
    plan: HipPlan
    affine: Points
    head_mm: float
    box: Box
    dense: Map
    femur: Map
    line: Map
    fracture: Fracture | None

    @property
    def centre(self) -> Points:
        return np.asarray(self.affine[:, 2])


@dataclass
class Scene:
    """What stands in the beam: ``attenuation`` [h, w] on the canvas, and the hips in it."""

    canvas: Canvas
    attenuation: Map
    hips: list[Hip] = field(default_factory=list)


@dataclass(frozen=True)
class Person:
    """A patient's build, the same on all of the patient's films."""

    scale: float
    head: float
    ccd: float
    neck: float
    anteversion: float
    calibre: float
    density: float
    cortex: float
    arthritis: float
    girth: float
    hip_distance: float
    vessels: float
    female: bool
    grain: int

    @staticmethod
    def of(settings: Settings, plan: FilmPlan) -> Person:
        rng = np.random.default_rng([settings.seed, plan.patient_number, 201])
        female = plan.sex == "F"
        thin = float(np.clip((plan.age - 50) / 45 + (0.15 if female else 0.0) + rng.normal(0, 0.22), 0, 1))
        old = float(np.clip((plan.age - 45) / 50, 0, 1))
        return Person(
            scale=float(rng.uniform(1.06, 1.20)),
            head=float(np.clip(rng.normal(22.4 if female else 25.2, 1.2), 19.5, 29)),
            ccd=float(np.clip(rng.normal(127, 5), 114, 142)),
            neck=float(np.clip(rng.normal(49 if female else 54, 3), 41, 62)),
            anteversion=float(rng.normal(12, 6)),
            calibre=float(np.clip(rng.normal(0.94 if female else 1.06, 0.05), 0.8, 1.25)),
            density=float(np.clip(1.05 - 0.62 * thin, 0.35, 1.1)),
            cortex=float(np.clip(1.12 - 0.42 * thin + rng.normal(0, 0.06), 0.55, 1.25)),
            arthritis=float(np.clip(rng.beta(1.1, 4) + 0.45 * old * rng.random(), 0, 1)),
            girth=float(np.clip(rng.normal(1.0, 0.13), 0.72, 1.4)),
            hip_distance=float(rng.normal(88 if female else 90, 3.5)),
            vessels=float(max(0.0, rng.normal(0.2, 0.5) + 0.6 * old - 0.3)),
            female=female,
            grain=int(rng.integers(1 << 30)),
        )


def frontal(canvas: Canvas, settings: Settings, plan: FilmPlan, rng: np.random.Generator) -> Scene:
    """AP pelvis, AP single hip, or frog-leg."""
    person = Person.of(settings, plan)
    width, height = canvas.size
    frog = plan.view == "frog_leg"
    image_side = -1 if plan.side == "R" else 1
    half = person.hip_distance * person.scale
    if plan.view == "hip_ap":
        centre = (
            width * rng.uniform(0.44, 0.54) - image_side * half,
            height * rng.uniform(0.36, 0.46),
        )
    else:
        centre = (width * rng.normal(0.5, 0.018), height * float(np.clip(rng.normal(0.60, 0.04), 0.48, 0.70)))
    unrest = 1.5 if plan.department == "emergency" else 1.0
    ring = pelvis.Pelvis(
        centre=centre,
        scale=person.scale,
        turn=float(rng.normal(0, 1.6 * unrest)),
        rotation=float(np.clip(rng.normal(0, 2.2 * unrest), -8, 8)),
        tilt=float(rng.normal(0, 4)),
        female=person.female,
        hip_distance=person.hip_distance,
        head=person.head,
        density=person.density,
        arthritis=person.arthritis,
        grain=person.grain,
    )
    bone = pelvis.draw(canvas, ring)
    steel = canvas.zeros()
    hips = []
    for side in (-1, 1):
        name = "R" if side < 0 else "L"
        centre_mm = ring.hip(side)
        if not (-25 < centre_mm[0] < width + 25):
            continue
        hip_rng = np.random.default_rng([settings.seed, plan.patient_number, 203, side + 1])
        pose = {"rotation": float(np.clip(rng.normal(6, 11), -18, 42)), "lean": float(rng.normal(-1.5, 4))}
        if frog:
            pose = {"rotation": float(rng.uniform(40, 58)), "lean": float(rng.uniform(38, 62))}
        hip = _hip(canvas, settings, plan, person, name, side, centre_mm, pose, hip_rng, steel)
        y0, y1, x0, x1 = hip.box
        bone[y0:y1, x0:x1] += hip.dense
        if 6 < centre_mm[0] < width - 6:
            hips.append(hip)
    soft = tissue.trunk(canvas, ring, person.girth, rng, frog=frog)
    tissue.mimics(canvas, soft, bone, ring, person.vessels, settings.mimics, rng)
    return Scene(canvas, MU_SOFT * soft + MU_BONE * bone + MU_STEEL * steel, hips)


def lateral(canvas: Canvas, settings: Settings, plan: FilmPlan, rng: np.random.Generator) -> Scene:
    """Cross-table lateral hip: neck and shaft nearly in line, the ischium below, a thick wedge of soft tissue."""
    person = Person.of(settings, plan)
    width, height = canvas.size
    side = -1 if plan.side == "R" else 1
    centre = np.array([width * (0.5 - side * rng.uniform(0.12, 0.22)), height * rng.uniform(0.36, 0.48)])
    person = replace(person, ccd=float(rng.uniform(158, 170)), anteversion=0.0)
    steel = canvas.zeros()
    pose = {"rotation": float(rng.uniform(-8, 8)), "lean": float(rng.uniform(58, 80))}
    hip_rng = np.random.default_rng([settings.seed, plan.patient_number, 203, side + 1])
    hip = _hip(canvas, settings, plan, person, plan.side, side, centre, pose, hip_rng, steel)
    bone = canvas.zeros()
    y0, y1, x0, x1 = hip.box
    bone[y0:y1, x0:x1] += hip.dense
    k = person.scale
    angle = np.deg2rad(np.linspace(-150, 80, 60) * -side - 90 + 90 * side)
    cup = centre + (person.head + 4) * k * np.stack([-side * np.cos(angle), np.sin(angle)], -1)
    canvas.stroke(bone, cup, 3.0, 5.0, soft=0.8)
    for dx, dy, rx, ry, thick in ((-34, 40, 22, 46, 6.0), (-50, -8, 36, 32, 5.0), (-32, 96, 20, 30, 6.0)):
        turn = np.linspace(0, 2 * np.pi, 60)
        blob = np.stack([rx * np.cos(turn), ry * np.sin(turn)], -1) @ rotation(18 * side).T
        blob = np.add(blob, (dx * side, dy)) * k + centre
        pelvis.plate(canvas, bone, blob, thick * (0.5 + 0.5 * person.density), 16.0, 1.2)
    soft = tissue.wedge(canvas, side, rng)
    return Scene(canvas, MU_SOFT * soft + MU_BONE * bone + MU_STEEL * steel, [hip])


def _hip(
    canvas: Canvas,
    settings: Settings,
    plan: FilmPlan,
    person: Person,
    name: str,
    side: int,
    centre: Points,
    pose: dict[str, float],
    rng: np.random.Generator,
    steel: Map,
) -> Hip:
    hip_plan = plan.hips[name]
    # The same leg in several films: its make is drawn before anything that depends on the film.
    femur = Femur(
        head=person.head,
        ccd=person.ccd + float(rng.normal(0, 1.2)),
        neck=person.neck + float(rng.normal(0, 0.8)),
        anteversion=person.anteversion + float(rng.normal(0, 2)),
        rotation=pose["rotation"],
        calibre=person.calibre,
        cortex=person.cortex,
        density=person.density,
        osteophytes=float(np.clip(person.arthritis * 1.5 + rng.normal(-0.2, 0.2), 0, 1.4)),
        scale=person.scale,
        grain=int(rng.integers(1 << 30)),
    )
    broken = None
    if hip_plan.fracture:
        broken = breaking.draw(rng, femur, hip_plan.fracture, hip_plan.place, settings.fracture_contrast)
    turn = rotation(-pose["lean"])
    linear = np.array([[side, 0], [0, 1]]) @ turn
    affine = np.concatenate([linear, centre[:, None]], 1)
    corners = np.array([[-MEDIAL, -PROXIMAL], [LATERAL, -PROXIMAL], [-MEDIAL, 420.0], [LATERAL, 420.0]])
    box = canvas.box(corners @ linear.T + centre)
    y0, y1, x0, x1 = box
    # How far down the shaft the film can see.
    film = np.array([[0, 0], [canvas.size[0], 0], [0, canvas.size[1]], list(canvas.size)])
    distal = float(np.clip(((film - centre) @ np.linalg.inv(linear).T)[:, 1].max() + 25, 90, 420))
    patch = Patch.of(canvas.step, distal)
    bone, line = breaking.break_femur(patch, femur, broken)
    dense = bone.dense
    inside = bone.outer > 1
    marks = np.zeros(patch.shape, np.float32)
    tissue.ridges(marks, patch.step, (MEDIAL, PROXIMAL), femur, settings.mimics, rng)
    dense = np.maximum(dense + marks * inside, 0.2 * dense)
    metal = None
    replaced = hip_plan.implant in implants.REPLACEMENTS
    if hip_plan.implant:
        metal = implants.draw(patch, femur, hip_plan.implant, rng)
        if replaced:
            ju, jv = femur.junction
            below = patch.u * 0.72 + (patch.v - jv - 8 * femur.scale) * 0.69 - (ju - 17 * femur.scale) * 0.72
            dense = dense * np.clip(0.5 + below / 1.0, 0, 1)
            dense = dense * np.where(metal > 0.5, 0.35, 1.0)

    to_canvas = np.eye(3)
    to_canvas[:2] = affine
    pixel = np.array([[patch.step, 0, -MEDIAL], [0, patch.step, -PROXIMAL], [0, 0, 1]])
    into = np.array([[1 / canvas.step, 0, -0.25 - x0], [0, 1 / canvas.step, -0.25 - y0], [0, 0, 1]])
    matrix = (into @ to_canvas @ pixel)[:2]

    def warp(image: Map) -> Map:
        return np.asarray(cv2.warpAffine(image, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR), np.float32)

    if metal is not None:
        steel[y0:y1, x0:x1] += warp(metal)
    near = (patch.v < femur.junction[1] + 85 * femur.scale).astype(np.float32)
    return Hip(
        image_side=side,
        side=name,
        plan=hip_plan,
        affine=affine,
        head_mm=2 * femur.head * femur.scale,
        box=box,
        dense=warp(dense),
        femur=warp((bone.outer > 0) * near),
        line=warp(line),
        fracture=broken,
    )
