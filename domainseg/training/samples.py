"""What each stage trains on: cases that the earlier, already trained stages let through, as cached samples."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.progress import track

from domainseg.cascade.cascade import Cascade, read_ahead
from domainseg.cascade.case import Case, Exclusion, roi_corners
from domainseg.cascade.operations import fit_frame, preprocess, versioned
from domainseg.cascade.reads import FILMS, Reading
from domainseg.cascade.stages import LOCATIONS, PARTS, Localizer, Stage
from domainseg.cascade.truth import Truth
from domainseg.data.cache import Cache, cache_key
from domainseg.data.manifest import Manifest
from domainseg.files import hash_json, sha256_file
from domainseg.imaging import Film, ImageReadError
from domainseg.imaging.geometry import inverse, quarter_turns, step, transform
from domainseg.imaging.volume import Volume
from domainseg.tasks import ranks
from domainseg.tasks.fracture import LESION
from domainseg.tasks.items import Item, as_uint16
from domainseg.tasks.localizer import FEMURS
from domainseg.tasks.view import VIEWS
from domainseg.training.gathered import in_order
from domainseg.training.stages import RunError

log = logging.getLogger(__name__)

Head = tuple[NDArray[np.float64], float]  # centre (x, y) and diameter in source pixels


@dataclass
class Films:
    """Reads films (or volumes) of a manifest; keeps the one at hand, so that several samples of it decode it once."""

    manifest: Manifest
    workers: int = 2
    reading: Reading = FILMS
    _held: tuple[str, Film | Volume] | None = field(default=None, repr=False)
    _hashes: dict[Path, str] = field(default_factory=dict, repr=False)

    def get(self, image: str) -> Film | Volume:
        """The film or volume. Raises ImageReadError."""
        if self._held is None or self._held[0] != image:
            self._held = (image, self.reading.read(self.manifest.path(image), None))
        return self._held[1]

    def sha256(self, image: str) -> str:
        """Hash of the film's file, or of the files of an exam's folder."""
        path = self.manifest.path(image)
        if not path.is_dir():
            return self.file_sha256(path)
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return hash_json([[file.relative_to(path).as_posix(), self.file_sha256(file)] for file in files])

    def file_sha256(self, path: Path) -> str:
        """Hash of a file. Raises ImageReadError when it is not there."""
        if path not in self._hashes:
            try:
                self._hashes[path] = sha256_file(path)
            except FileNotFoundError:
                raise ImageReadError(path, "the file does not exist") from None
        return self._hashes[path]

    def each(
        self, what: str, images: Sequence[str] | None = None, *, share: bool = True
    ) -> Iterator[tuple[str, Film | Volume | ImageReadError]]:
        """This process's share of the films (all, without ``share``) in order, read ahead, with a progress bar."""
        names = list(self.manifest.images["image"]) if images is None else list(images)
        files = [(name, self.manifest.path(name)) for name in (ranks.share(names) if share else names)]
        for image, film in read_ahead(track(files, description=what), self.workers, self.reading):
            if not isinstance(film, ImageReadError):
                self._held = (image, film)
            yield image, film
            del film  # before the next one is read: one volume is in memory at a time
            self._held = None


@dataclass
class Sampler:
    """Makes the training items of each stage from the films of one split.

    ``heads`` says where the ROIs of the training hips lie: (image, part) -> one or more heads in source pixels. The
    processes of a run each read and cache their share of the films; all of them get all items, in the films' order.
    """

    films: Films
    truth: Any  # of what the films are: Truth, or HeadTruth
    cache: Cache
    seed: int = 0

    def view(self, stage: Stage) -> list[Item]:
        """Every readable film whose view is known: by label_view, or as frontal by label_view_filter."""
        items, unnamed = [], 0
        for image, film in self.films.each("view filter: samples"):
            row = self.truth.film(image)
            view = row["label_view"] or (VIEWS[0] if row["label_view_filter"] == 1 else "")
            if isinstance(film, ImageReadError) or view not in VIEWS:
                unnamed += row["label_view_filter"] == 0 and view not in VIEWS
                continue
            turn = -1 if np.isnan(row["label_turn"]) else int(row["label_turn"])
            items.append(self.item(Case.of(image, film), stage, {"view": VIEWS.index(view), "turn": turn}))
        if unnamed:
            log.warning(
                "view_filter: %d films that are not frontal teach nothing: their label_view does not say which "
                "view they are (hip_other or other)",
                unnamed,
            )
        return self.all_of(items)

    def localizer(self, stage: Stage, before: Cascade, report: Counter[str]) -> list[Item]:
        """Films that the view filter lets through and that have a femoral head marked or are known to hold none."""
        items = []
        for image, film in self.films.each("localizer: samples"):
            rows = [self.truth.part(image, part) for part in PARTS]
            known = [not np.isnan(row["label_localizer"]) for row in rows]
            if not any(known) or (case := self._upright(image, film, before, report)) is None:
                continue
            affine = inverse(fit_frame(case, int(stage.preprocessing[0]["size"]))[0])
            heads = np.full((2, 3), np.nan)
            masks = {}
            for k, row in enumerate(rows):
                if row["label_localizer"] == 1 and not np.isnan(row["x"]):
                    heads[k, :2] = transform(affine, [row["x"], row["y"]])
                    heads[k, 2] = row["diameter"] * step(affine)
                elif row["label_localizer"] == 1:
                    known[k] = False
                if row.get("femur_mask"):
                    masks[FEMURS[k]] = [row["femur_mask"]]
            if any(known):
                items.append(self.item(case, stage, {"heads": heads.tolist(), "known": known}, masks))
        return self.all_of(items, report)

    def hips(
        self,
        stage: Stage,
        before: Cascade,
        heads: Mapping[tuple[str, str], Sequence[Head]],
        report: Counter[str],
    ) -> list[Item]:
        """Hips whose label for this stage is known, cut out at ``heads``, that the earlier stages let through."""
        target = stage.decision.target
        localizer = next(s.decision for s in before.stages if isinstance(s.decision, Localizer))
        views = Cascade([s for s in before.stages if s.name == "view_filter"])
        names = [s.name for s in before.stages]
        filters = Cascade(before.stages[names.index("localizer") + 1 :])
        items = []
        wanted = {image for image, _ in heads}
        images = [image for image in self.films.manifest.images["image"] if image in wanted]
        for image, film in self.films.each(f"{stage.name}: samples", images):
            case = self._upright(image, film, views, report)
            if case is None:
                continue
            for part in PARTS:
                label = self.truth.label(target, image, part)
                if (image, part) not in heads and self.truth.has(image, part) and not np.isnan(label):
                    report[f"head_unknown_label_{int(label)}"] += 1
                for center, diameter in heads.get((image, part), ()):
                    hip = localizer.roi(case, part, center, diameter)
                    label = self.truth.label(target, image, part, roi_corners(hip))
                    if np.isnan(label):
                        continue
                    if stopped := [result for result in filters.run(hip) if isinstance(result, Exclusion)]:
                        report[f"excluded_by_{stopped[0].excluded_by}_label_{int(label)}"] += 1
                        continue
                    report[f"used_label_{int(label)}"] += 1
                    items.append(self._hip(stage, hip, target, int(label)))
        return self.all_of(items, report)

    def all_of(self, mine: Sequence[Any], report: Counter[str] | None = None) -> list[Any]:
        """The items of all processes, in the films' order; what each has counted in ``report`` is added up."""
        if ranks.size() == 1:
            return list(mine)
        if report is not None:
            counts = ranks.gather(dict(report))
            report.clear()
            for part in counts:
                report.update(part)
        items = in_order(mine, list(self.films.manifest.images["image"]), lambda item: item.image)
        for item in items:
            item.planes.sampler = self
        return items

    def _hip(self, stage: Stage, hip: Case, target: str, label: int) -> Item:
        if target != "fracture":
            return self.item(hip, stage, {"label": label})
        location = self.truth.part(hip.image, hip.part)["label_location"] if label else "none"
        known = LOCATIONS.index(location) if location in LOCATIONS else -1
        lesions = self.truth.lesions(hip) if label else {}
        return self.item(hip, stage, {"fracture": label, "location": known}, {LESION: lesions} if lesions else {})

    def item(self, case: Case, stage: Stage, truth: Mapping[str, Any], masks: Mapping[str, Any] | None = None) -> Item:
        """A cached sample of a case; ``masks`` name -> list of mask files, or of polygons in source pixels."""
        masks = dict(masks or {})
        affine, shape = fit_frame(case, int(stage.preprocessing[0]["size"]))
        key = cache_key(
            self.films.sha256(case.image),
            reader=FILMS.version,
            lut_policy="presentation",
            operations=versioned(stage.preprocessing),
            affine=affine,
        )
        key["masks"] = json.loads(json.dumps(masks))
        files = [source for sources in masks.values() for source in sources if isinstance(source, str)]
        key["mask_files"] = [self.films.file_sha256(self.films.manifest.file(name)) for name in files]
        frame = replace(case, film=_NO_FILM, values={}, arrays={})
        planes = Planes(self, key, frame, stage.preprocessing, masks, affine, shape)
        planes()
        return Item(
            image=case.image,
            part=case.part,
            planes=planes,
            affine=affine,
            truth=truth,
            masks=tuple(masks),
        )

    def _upright(
        self, image: str, film: Film | Volume | ImageReadError, views: Cascade, report: Counter[str]
    ) -> Case | None:
        """The film as the view filter lets it through, turned by its true turn where that is known."""
        if isinstance(film, ImageReadError):
            report["unreadable"] += 1
            return None
        (result,) = views.run(Case.of(image, film))
        if isinstance(result, Exclusion):
            label = self.truth.film(image)["label_view_filter"]
            report[f"excluded_by_view_filter_label_{'unknown' if np.isnan(label) else int(label)}"] += 1
            return None
        return turned(result, self.truth)


def turned(case: Case, truth: Truth) -> Case:
    """A film's case by its true turn where that is known: what is called left there must be left everywhere."""
    turn = truth.film(case.image)["label_turn"]
    if np.isnan(turn):
        return case
    assert isinstance(case.film, Film)
    shape = case.film.shape if int(turn) % 2 == 0 else case.film.shape[::-1]
    return replace(case, affine=case.film.geometry @ quarter_turns(case.film.shape, int(turn)), shape=shape)


@dataclass
class CachedPlanes:
    """The planes of a sample, uint16: from the cache, or built anew when they are no longer there.

    They travel between processes without their sampler (films, truth and cache), which the other process has as well.
    """

    sampler: Any
    key: dict[str, Any]

    def __call__(self) -> NDArray[np.uint16]:
        planes: NDArray[np.uint16] = self.sampler.cache.get(self.key, self._build)[0]
        return planes

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "sampler": None}

    def _build(self) -> tuple[NDArray[np.uint16], dict[str, Any]]:
        raise NotImplementedError


@dataclass
class Planes(CachedPlanes):
    """A film's frame [1 + masks, H, W]: the preprocessed picture and its masks."""

    frame: Case
    preprocessing: Sequence[Mapping[str, Any]]
    masks: Mapping[str, Any]
    affine: NDArray[np.float64]
    shape: tuple[int, int]

    def _build(self) -> tuple[NDArray[np.uint16], dict[str, Any]]:
        film = self.sampler.films.get(self.frame.image)
        pixels = preprocess(replace(self.frame, film=film), self.preprocessing).pixels
        if not np.isfinite(pixels).all():  # as integers they would be some grey, and nobody would notice
            raise RunError(f"film {self.frame.image}: not all pixels are finite after preprocessing; leave it out")
        planes = [as_uint16(pixels)]
        for sources in self.masks.values():
            planes.append(
                self.sampler.truth.draw(sources, self.affine, self.shape, film.shape).astype(np.uint16) * 65535
            )
        return np.stack(planes), {}


def true_heads(truth: Truth, images: Sequence[str]) -> dict[tuple[str, str], list[Head]]:
    """Where the manifest says that the femoral heads are."""
    found: dict[tuple[str, str], list[Head]] = {}
    for image in images:
        for part in PARTS:
            row = truth.part(image, part)
            if row["label_localizer"] == 1 and not np.isnan(row["x"]) and not np.isnan(row["diameter"]):
                found[image, part] = [(np.array([row["x"], row["y"]]), float(row["diameter"]))]
    return found


def jittered_heads(
    heads: Mapping[tuple[str, str], Sequence[Head]], errors: pd.DataFrame, *, variants: int, seed: int
) -> dict[tuple[str, str], list[Head]]:
    """True heads moved and resized as the localizer errs on films it has not seen.

    errors: columns dx, dy (in head diameters) and log_diameter, one row a head of the tune split; rows are drawn whole,
    so that errors keep their tails. Without any row a spread of 3 % of the diameter is assumed.
    """
    rng = np.random.default_rng((seed, 7))
    table = errors[["dx", "dy", "log_diameter"]].to_numpy(float) if len(errors) else rng.normal(0, 0.03, (100, 3))
    moved: dict[tuple[str, str], list[Head]] = {}
    for key, (head, *_) in heads.items():
        center, diameter = head
        draws = table[rng.integers(len(table), size=variants)]
        moved[key] = [(center + diameter * draw[:2], diameter * float(np.exp(draw[2]))) for draw in draws]
    return moved


def found_heads(
    films: Films, cascade: Cascade, what: str, images: Sequence[str] | None = None
) -> dict[tuple[str, str], list[Head]]:
    """Heads as a cascade that ends with the localizer finds them; the processes of a run share the films.

    Films lie as ``turned`` has them, as where the hips are cut out.
    """
    views, localizer, truth = Cascade(cascade.stages[:-1]), Cascade(cascade.stages[-1:]), Truth(films.manifest)
    mine: list[tuple[tuple[str, str], list[Head]]] = []
    for image, film in films.each(what, images):
        if isinstance(film, ImageReadError):
            continue
        seen = [turned(case, truth) for case in views.run(Case.of(image, film)) if isinstance(case, Case)]
        for result in [hip for case in seen for hip in localizer.run(case)]:
            if isinstance(result, Case):
                values = result.values
                center = np.array([values["head_x"], values["head_y"]])
                mine.append(((image, result.part), [(center, float(values["head_diameter"]))]))
    return dict(in_order(mine, list(films.manifest.images["image"]), lambda found: found[0][0]))


def head_errors(
    found: Mapping[tuple[str, str], Sequence[Head]], true: Mapping[tuple[str, str], Sequence[Head]]
) -> pd.DataFrame:
    """Errors of found against true heads, in head diameters; gross misses (over half a diameter) are no jitter."""
    rows = []
    for key in sorted(found.keys() & true.keys()):  # a set's order differs from one process to the next
        (center, diameter), (wanted, size) = found[key][0], true[key][0]
        dx, dy = (center - wanted) / size
        if np.hypot(dx, dy) < 0.5:
            rows.append({"dx": dx, "dy": dy, "log_diameter": float(np.log(diameter / size))})
    return pd.DataFrame(rows, columns=["dx", "dy", "log_diameter"])


_NO_FILM = Film(pixels=np.zeros((1, 1), np.float32))
