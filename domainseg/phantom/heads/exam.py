"""One simulated exam: the head as the scanner of its site shows it, with the voxels of every bleed and look-alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainseg.imaging.hemorrhage import CODES, MIMICS, TYPES
from domainseg.phantom.heads import anatomy, bleeds, face, mimics, others, scanner, tissue
from domainseg.phantom.heads.anatomy import Shape
from domainseg.phantom.heads.bleeds import Bleed
from domainseg.phantom.heads.cohort import ExamPlan, plan
from domainseg.phantom.heads.mimics import Mimic
from domainseg.phantom.heads.scan import Scan, scan
from domainseg.phantom.heads.settings import HeadSettings
from domainseg.phantom.heads.shapes import Field, Place, Window

SIZE = 256  # rows and columns of a slice
LARGEST = 3.4  # mm of a pixel, of wide fields too: readers take coarser ones for slices that are not axial
SMALLEST_ML = 0.1  # a bleed that fills less is made larger, or left out: nobody would see it
MIMIC_CODES = {name: code for code, name in enumerate(MIMICS, start=1)}
# Covered by at least this share, a voxel is blood: thin layers in sulci are outlined by readers as they are seen.
_LEAST = {"subarachnoid": 0.35}


@dataclass(frozen=True)
class SimulatedExam:
    """voxels: int16 [slices, rows, columns] in HU, from the feet to the head. labels: uint8 of the same shape, CODES
    of TYPES. mimics: uint8, 1 + position in MIMICS. kinds: look-alikes that this head was given."""

    plan: ExamPlan
    scan: Scan
    voxels: NDArray[np.int16]
    labels: NDArray[np.uint8]
    mimics: NDArray[np.uint8]
    kinds: tuple[str, ...]

    def ml(self, kind: str | None = None) -> float:
        """Millilitres of a type of bleed, or of all."""
        mask = self.labels > 0 if kind is None else self.labels == CODES[kind]
        return float(mask.sum()) * self.scan.voxel_ml

    @property
    def types(self) -> tuple[str, ...]:
        """The types that have a voxel."""
        return tuple(name for name in TYPES if (self.labels == CODES[name]).any())


def exam(settings: HeadSettings, index: int) -> SimulatedExam:
    """The exam of that index: same settings and index, same voxels."""
    planned = plan(settings, index)
    rng = np.random.default_rng([settings.seed, index, 402])
    site = scanner.SITES[planned.site]
    size = round(SIZE / settings.reduction)
    field_mm = rng.uniform(*site.field_mm) * (1.6 if planned.other in ("trunk", "legs") else 1)
    pixel = min(round(field_mm / size, 4), LARGEST)
    bottom, top = others.REACH[planned.other] if planned.other else (rng.uniform(-78, -58), rng.uniform(86, 96))
    scanned = scan(
        pixel=pixel,
        distance=planned.distance,
        size=size,
        bottom=bottom,
        top=top,
        tilt=planned.tilt,
        # The gantry is tilted to the patient's base of skull: the tilt is mostly made up for by the head.
        angles=(rng.normal(0, 4) + 0.5 * planned.tilt, rng.normal(0, 3), rng.normal(0, 4)),
        shift=(rng.normal(0, 4), rng.normal(2, 4)),
        subs=max(1, min(4, round(planned.distance / 2.5))),
    )
    if planned.other:
        clean = others.draw(rng, planned.other, scanned)
        labels = found = np.zeros(scanned.shape, np.uint8)
        kinds: tuple[str, ...] = ()
        artefacts = Artefacts((), None)
    else:
        head = anatomy.shape(rng, planned.age, planned.sex)
        blood = [bleeds.draw(rng, head, kind, planned.density) for kind in planned.bleeds]
        alike = mimics.draw(rng, head, settings.mimics)
        artefacts = _artefacts(rng, settings, scanned)
        clean, labels, found, kinds = draw_head(head, scanned, blood, alike)
        kinds = (*kinds, *(("motion",) if artefacts.motion else ()), *(("metal",) if artefacts.metal else ()))
    voxels = _scanned(rng, site, scanned, planned, clean, labels, found, artefacts)
    return SimulatedExam(planned, scanned, voxels, labels, found, tuple(dict.fromkeys(kinds)))


@dataclass(frozen=True)
class Artefacts:
    """motion: slices during which the patient moved. metal: where a clip lies (x, y, z of the head, mm) or None."""

    motion: tuple[int, ...]
    metal: tuple[float, float, float] | None


def _artefacts(rng: np.random.Generator, settings: HeadSettings, scanned: Scan) -> Artefacts:
    motion: tuple[int, ...] = ()
    if rng.random() < settings.motion:
        count = int(rng.integers(2, 6))
        first = int(rng.integers(0, max(1, scanned.shape[0] - count)))
        motion = tuple(range(first, first + count))
    clip = None
    if rng.random() < settings.metal:
        side = float(rng.choice([-1, 1]))
        clip = (side * float(rng.uniform(5, 45)), float(rng.uniform(-25, 10)), float(rng.uniform(-18, 5)))
    return Artefacts(motion, clip)


def draw_head(
    head: Shape, scanned: Scan, blood: list[Bleed], alike: list[Mimic]
) -> tuple[Field, NDArray[np.uint8], NDArray[np.uint8], tuple[str, ...]]:
    """Slices without noise, codes of bleeds and of look-alikes, and which look-alikes there are.

    A bleed that hardly fills a voxel is made larger and drawn again, and left out when that does not help.
    """
    for attempt in range(3):
        drawn = [_slice(head, scanned.place(k), scanned.place(k, 8), blood, alike) for k in range(scanned.shape[0])]
        labels = np.stack([part.labels for part in drawn])
        ml = [float(np.sum([part.filled[n] for part in drawn])) * scanned.voxel_ml for n in range(len(blood))]
        if all(value >= SMALLEST_ML for value in ml):
            break
        small = {n for n, value in enumerate(ml) if value < SMALLEST_ML}
        if attempt == 0:
            blood = [bleeds.larger(bleed) if n in small else bleed for n, bleed in enumerate(blood)]
        else:
            blood = [bleed for n, bleed in enumerate(blood) if n not in small]
    found = np.stack([part.mimics for part in drawn])
    kinds = tuple(dict.fromkeys(mimic.kind for mimic in alike))
    return np.stack([part.hu for part in drawn]), labels, found, kinds


@dataclass(frozen=True)
class _Drawn:
    """A slice: HU float32, codes of bleeds and look-alikes uint8 [rows, columns]; voxels that each bleed fills."""

    hu: Field
    labels: NDArray[np.uint8]
    mimics: NDArray[np.uint8]
    filled: list[int]


def _slice(head: Shape, place: Place, coarse: Place, blood: list[Bleed], alike: list[Mimic]) -> _Drawn:
    shape = place.x.shape[1:]
    hu = np.full(shape, tissue.AIR, np.float32)
    labels, found = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    filled = [0] * len(blood)
    outline = face.outline(head, anatomy.frame(head, coarse)) > -9
    window = _box(np.kron(outline, np.ones((1, 8, 8), bool))[:, : shape[0], : shape[1]], 2)
    if window is None:
        return _Drawn(hu, labels, found, filled)
    where = anatomy.frame(head, place.cut(window))
    body = face.outside(head, where, face.outline(head, where))
    bone, dense = tissue.skull(head, where)
    if (hollow := face.frontal_sinus(head, where)) is not None:
        dense += (tissue.AIR - dense) * hollow
    body += (dense - body) * bone
    if (core := _box(where.depth > -1.5, 1)) is not None:
        inner, codes, looks, filled = _brain(head, where.cut(core), blood, alike)
        body[core] += (inner.hu - body[core]) * inner.cavity
        # Where a slice cuts bone and brain at a slant, their mean looks like blood.
        skull = bone[core] * (1 - inner.cavity)
        share = skull.mean(0)
        mixed = (share > 0.02) & (share < 0.12) & (skull.min(0) < 0.005) & (inner.cavity.mean(0) > 0.8)
        looks[mixed & (looks == 0)] = MIMIC_CODES["partial_volume"]
        codes[share > 0.25] = 0  # bone outshines the blood that shares a voxel with it
        looks[codes > 0] = 0
        rows, columns = (slice(core[n].start + window[n].start, core[n].stop + window[n].start) for n in (1, 2))
        labels[rows, columns], found[rows, columns] = codes, looks
    hu[window[1:]] = body.mean(0)
    return _Drawn(hu, labels, found, filled)


def _brain(
    head: Shape, where: anatomy.Frame, blood: list[Bleed], alike: list[Mimic]
) -> tuple[tissue.Inside, NDArray[np.uint8], NDArray[np.uint8], list[int]]:
    moved, press = bleeds.shifted(blood, where.place)
    inner = tissue.interior(head, where, moved, press)
    shape = where.depth.shape[1:]
    looks, best = np.zeros(shape, np.uint8), np.full(shape, 0.4, np.float32)
    for mimic in alike:
        if (painted := mimics.cover(mimic, head, where, moved, inner)) is not None:
            added, here = painted
            inner.hu[:] += added
            share = here.mean(0)
            looks[share > best] = MIMIC_CODES[mimic.kind]
            best = np.maximum(best, share)
    codes, most, filled = np.zeros(shape, np.uint8), np.zeros(shape, np.float32), []
    for bleed in blood:
        blooded = bleeds.cover(bleed, head, where, moved, inner)
        if blooded is None:
            filled.append(0)
            continue
        if bleed.kind == "intraparenchymal" and bleed.ml > 1.5:  # fluid around it
            ring = bleeds.oedema(bleed, where.place) * inner.brain
            inner.hu[:] -= np.float32(7) * ring
        inner.hu[:] += (bleeds.hu(bleed, where.place) - inner.hu) * blooded
        share = blooded.mean(0)
        own = (share >= _LEAST.get(bleed.kind, 0.5)) & (share > most)
        codes[own] = CODES[bleed.kind]
        most = np.maximum(most, share)
        filled.append(int(own.sum()))
    return inner, codes, looks, filled


def _box(mask: NDArray[np.bool_], margin: int) -> Window | None:
    rows, columns = np.flatnonzero(mask.any((0, 2))), np.flatnonzero(mask.any((0, 1)))
    if not len(rows):
        return None
    return (
        slice(None),
        slice(max(0, int(rows[0]) - margin), min(mask.shape[1], int(rows[-1]) + margin + 1)),
        slice(max(0, int(columns[0]) - margin), min(mask.shape[2], int(columns[-1]) + margin + 1)),
    )


def _scanned(
    rng: np.random.Generator,
    site: scanner.Site,
    scanned: Scan,
    planned: ExamPlan,
    clean: Field,
    labels: NDArray[np.uint8],
    found: NDArray[np.uint8],
    artefacts: Artefacts,
) -> NDArray[np.int16]:
    """What the scanner stores; ``found`` gets the voxels that its artefacts make look like a bleed."""
    rows = scanned.shape[1]
    middle = (np.arange(rows, dtype=np.float32) - (rows - 1) / 2) * np.float32(scanned.pixel)
    x, y = middle[None, :] + 0 * middle[:, None], middle[:, None] + 0 * middle[None, :]
    rest = scanner.rest(site, x, y)
    outside = x * x + y * y > (middle[-1] + scanned.pixel / 2) ** 2
    voxels = np.empty(scanned.shape, np.int16)
    clip = None
    if artefacts.metal is not None:
        lps = np.linalg.inv(scanned.turn) @ np.array(artefacts.metal) + scanned.centre
        clip = np.linalg.inv(scanned.affine) @ [*lps, 1]
    for k, picture in enumerate(clean):
        picture = np.maximum(picture, rest)
        if k in artefacts.motion:
            picture = scanner.moved(rng, picture, scanned.pixel)
        picture = picture + scanner.streaks(rng, picture, scanned.pixel)
        if clip is not None and abs(clip[2] - k) * planned.distance < 6:
            added = scanner.metal(picture, clip[1], clip[0], scanned.pixel, 90.0, planned.index)
            picture = picture + added
            found[k][(added > 8) & (clean[k] > -50) & (clean[k] < 150) & (labels[k] == 0)] = MIMIC_CODES["metal"]
        if k in artefacts.motion:
            found[k][(found[k] == 0) & (labels[k] == 0) & (clean[k] > 0) & (clean[k] < 120)] = MIMIC_CODES["motion"]
        picture = scanner.sharpness(site, picture, scanned.pixel)
        picture = picture + scanner.noise(rng, site, picture, scanned.pixel, planned.distance)
        stored = np.clip(np.rint(picture), -1024, 3071).astype(np.int16)
        if site.padding is not None:
            stored[outside] = site.padding
        voxels[k] = stored
    return voxels
