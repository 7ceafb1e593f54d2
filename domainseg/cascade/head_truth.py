"""What the manifest knows of head CTs: labels of the exam, of its slices, and masks on the voxels of its volume."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.data.manifest import Manifest
from domainseg.imaging import ImageReadError
from domainseg.imaging.hemorrhage import CODES, MIMICS, TYPES, UNKNOWN
from domainseg.imaging.volume import Volume

# Truth that gives an exam its place in subgroups of the results.
TRUTH_COLUMNS = ("size_class", "density", "mimic")
CONTRADICTS = "its mask shows a bleed and its label says that there is none"
INCOMPLETE = "its mask shows less than its labels say"
_PARTS = ("head", "whole")  # a head CT has one part: what is said of the whole is said of the head

Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class HeadTruth:
    """Truth by exam; unknown is NaN, "" or None."""

    manifest: Manifest

    @cached_property
    def _rows(self) -> Mapping[str, list[Mapping[str, Any]]]:
        """The targets of each exam, those of the part ``head`` first."""
        targets = self.manifest.targets
        found: dict[str, list[Mapping[str, Any]]] = {image: [] for image in self.manifest.images["image"]}
        for part in _PARTS:
            for row in targets[targets["part"] == part].to_dict("records"):
                found[str(row["image"])].append({str(key): value for key, value in row.items()})
        return found

    def has(self, image: str) -> bool:
        """Whether anything is known of a head in this exam: a label or a mask."""
        names = ("hemorrhage", *TYPES)
        return any(_number(row.get(f"label_{name}")) in (0, 1) for row in self._rows[image] for name in names) or bool(
            self._masks(image)
        )

    def exam(self, image: str, volume: Volume | None = None) -> Mapping[str, float]:
        """head_filter, hemorrhage and the types: 1, 0 or NaN. No hemorrhage means no type, a type means hemorrhage.

        What no label says, masks do that show all that the labels name: those with codes of all types, those of one
        type (``mask_type``) of that. volume: the exam, where it was read: a mask that does not lie on it says nothing.
        """
        known = {name: self._label(image, name) for name in ("hemorrhage", *TYPES)}
        if any(known[name] == 1 for name in TYPES):
            known["hemorrhage"] = 1.0
        if known["hemorrhage"] == 0:
            known |= dict.fromkeys(TYPES, 0.0)
        if unknown := [name for name in known if np.isnan(known[name])]:
            shown = self._shown(image, volume)
            if shown is not None and _all_shown(shown, known):
                known |= {name: cell for name, cell in _said(shown, self.kinds(image)).items() if name in unknown}
        return {"head_filter": self.is_head(image), **known}

    def is_head(self, image: str) -> float:
        """1, 0 or NaN: whether the exam is a CT of the head; one of which a bleed is said or drawn is."""
        known = self._label(image, "head_filter")
        return 1.0 if np.isnan(known) and self.has(image) else known

    def _shown(self, image: str, volume: Volume | None) -> frozenset[int] | None:
        """The codes in the exam's masks, None where there is none that can be read."""
        key = (image, volume is not None)
        if key not in self._seen:
            grid = (volume or self.grid(image)) if self._masks(image) else None
            try:
                codes = None if grid is None else self.labels(image, grid)
            except ImageReadError:
                codes = None
            self._seen[key] = None if codes is None else codes_in(codes)
        return self._seen[key]

    @cached_property
    def _seen(self) -> dict[tuple[str, bool], frozenset[int] | None]:
        return {}

    def _label(self, image: str, name: str) -> float:
        cells = [_number(row.get(f"label_{name}")) for row in self._rows[image]]
        return next((cell for cell in cells if not np.isnan(cell)), np.nan)

    def text(self, image: str, column: str) -> str:
        """What a column of the targets says of an exam, "" where nothing does."""
        cells = (row.get(column) for row in self._rows[image])
        return next((cell for cell in cells if isinstance(cell, str) and cell), "")

    def number(self, image: str, column: str) -> float:
        """A number of the targets, NaN where there is none."""
        cells = (_number(row.get(column)) for row in self._rows[image])
        return next((cell for cell in cells if not np.isnan(cell)), np.nan)

    def _masks(self, image: str) -> list[tuple[str, str]]:
        return [(str(row["mask"]), str(row.get("mask_type") or "")) for row in self._rows[image] if row.get("mask")]

    def files(self, image: str) -> list[Path]:
        """The files of the exam's masks."""
        return [self.manifest.file(cell) for cell, _ in self._masks(image)]

    def kinds(self, image: str) -> list[str]:
        """The one type that each of these masks shows, "" where its codes tell."""
        return [kind for _, kind in self._masks(image)]

    def labels(self, image: str, volume: Volume) -> Codes | None:
        """Codes on the volume's voxels, uint8 [z, y, x]; zeros where a hemorrhage is known to be absent, else None.

        Raises ImageReadError for a mask that cannot be read or does not fit the source.
        """
        masks = self._masks(image)
        if not masks:
            return np.zeros(volume.shape, np.uint8) if self.exam(image)["hemorrhage"] == 0 else None
        out = np.zeros(volume.source_shape, np.uint8)
        for cell, kind in masks:
            drawn = read_mask(self.manifest.file(cell), volume, only=CODES.get(kind))
            np.copyto(out, drawn, where=drawn > 0)
        return np.asarray(volume.from_source(out), np.uint8)

    def grid(self, image: str) -> Volume | None:
        """Voxels to lay the truth of an exam on that was not read: those of its mask; one where it shows nothing.

        None where no mask can be read. Of several masks the first one's, on which the others must lie.
        """
        if not (files := self.files(image)):
            nothing = Volume(np.zeros((1, 1, 1), np.int16), np.eye(4), source_shape=(1, 1, 1))
            return nothing if self.exam(image)["hemorrhage"] == 0 else None
        from domainseg.imaging.nifti import read_grid

        try:
            return read_grid(files[0])
        except ImageReadError:
            return None

    def outlines(self, image: str, volume: Volume) -> Codes | None:
        """``labels``, None also where a mask cannot be read or shows not what the labels say."""
        try:
            labels = self.labels(image, volume)
        except ImageReadError:
            return None
        return None if labels is None or doubt(labels, self.exam(image, volume)) else labels

    def mimics(self, image: str, volume: Volume) -> Codes | None:
        """What looks like a bleed and is none, as codes on the volume's voxels (0 is none, 1, 2, ... are MIMICS).

        None where nobody drew it: only simulated exams have this. Raises ImageReadError as ``labels`` does.
        """
        cell = self.text(image, "mimics")
        if not cell:
            return None
        drawn = read_mask(self.manifest.file(cell), volume, highest=len(MIMICS))
        return np.asarray(volume.from_source(drawn), np.uint8)

    def slices(self, image: str, volume: Volume) -> NDArray[np.float64]:
        """Labels of the volume's slices [z, 6] (any hemorrhage, the types): 1, 0 or NaN.

        From the masks, or else from what the table says of slices and of the exam. Where masks show less than the
        labels say, the table's word and the slices with blood count; where they contradict, the latter alone.
        """
        labels, exam = self.labels(image, volume), self.exam(image, volume)
        shown = None if labels is None else slices_of(labels)
        why = "" if labels is None else doubt(labels, exam)
        if shown is not None and why != INCOMPLETE:
            return np.where(shown == 1, 1.0, np.nan) if why else shown
        # Axial slices of the source: its own axis that runs along the body, which in NIfTI need not be the third.
        depth = volume.source_shape[2 - volume.source_axes[2][0]]
        known = np.full((depth, 1 + len(TYPES)), np.nan)
        for column, name in enumerate(("hemorrhage", *TYPES)):
            cell = self.text(image, f"slices_{name}")
            if cell:
                known[:, column] = 0
                known[_listed(cell, depth, self.manifest.name, image), column] = 1
            elif exam[name] == 0:
                known[:, column] = 0
        known[(known[:, 1:] == 1).any(axis=1), 0] = 1
        known[known[:, 0] == 0, 1:] = 0
        # Each slice of the volume is what the nearest source slice is, as masks are.
        places = np.arange(depth, dtype=float) if volume.source_z is None else volume.source_z
        nearest = np.abs(places[None] - np.arange(volume.shape[0])[:, None]).argmin(axis=1)
        known = known[nearest]
        return known if shown is None else np.where(shown == 1, 1.0, known)


def codes_in(labels: Codes) -> frozenset[int]:
    """The codes of bleeds in a mask."""
    return frozenset(np.unique(labels).tolist()) - {0}


def doubt(labels: Codes, known: Mapping[str, float]) -> str:
    """CONTRADICTS or INCOMPLETE where a mask is not taken for all that an exam with these labels shows, else ""."""
    shown = codes_in(labels)
    if (known["hemorrhage"] == 0 and shown) or any(known[name] == 0 and CODES[name] in shown for name in TYPES):
        return CONTRADICTS
    nothing = not shown and np.isnan(known["hemorrhage"])  # of one type, and there may be another
    return "" if _all_shown(shown, known) and not nothing else INCOMPLETE


def _all_shown(shown: Collection[int], known: Mapping[str, float]) -> bool:
    """Whether codes in a mask are all that its exam is labelled with; one of unknown type may be any."""
    if known["hemorrhage"] == 1 and not shown:
        return False
    return UNKNOWN in shown or all(CODES[name] in shown for name in TYPES if known[name] == 1)


def _said(shown: Collection[int], kinds: Collection[str]) -> dict[str, float]:
    """hemorrhage and the types by the codes in masks of these kinds: 1 or 0; NaN where nothing tells.

    One of unknown type may be any; a mask of one type tells of no other.
    """
    asked = {name for name in TYPES if "" in kinds or name in kinds}
    absent = {name: 0.0 if name in asked and UNKNOWN not in shown else np.nan for name in TYPES}
    types = {name: 1.0 if CODES[name] in shown else absent[name] for name in TYPES}
    nothing = 0.0 if len(asked) == len(TYPES) else np.nan
    return {"hemorrhage": 1.0 if shown else nothing, **types}


def slices_of(labels: Codes) -> NDArray[np.float64]:
    """Labels of slices [z, 6] from codes [z, y, x]; a type is unknown in a slice with a bleed of unknown type."""
    counts = np.stack([np.bincount(plane.ravel(), minlength=UNKNOWN + 1) for plane in labels])
    known = np.concatenate([counts[:, 1:].any(axis=1, keepdims=True), counts[:, 1:UNKNOWN] > 0], axis=1).astype(float)
    unsure = (counts[:, UNKNOWN] > 0)[:, None] & (known[:, 1:] == 0)
    known[:, 1:][unsure] = np.nan
    return np.asarray(known, np.float64)


def read_mask(path: Path, volume: Volume, *, highest: int = UNKNOWN, only: int | None = None) -> Codes:
    """A mask from NIfTI in the order of the volume's source, uint8 of ``source_shape``, codes 0 to ``highest``; with
    ``only`` that, where it is above 0.

    Raises ImageReadError, also for a mask whose header says that it does not lie on the source.
    """
    from domainseg.imaging.nifti import read_labels, source_affine

    if not path.is_file():
        raise ImageReadError(path, "the mask is not there")
    place = None if volume.affine is None else source_affine(volume)[0]
    return read_labels(path, volume.source_shape, highest=highest, only=only, place=place)


def _listed(cell: str, depth: int, source: str, image: str) -> list[int]:
    """Slice numbers out of a cell such as ``3 4 5`` or ``none``."""
    from domainseg.data.tables import ManifestError

    numbers = [] if cell.strip() == "none" else [int(word) for word in cell.split()]
    if odd := [number for number in numbers if not 0 <= number < depth]:
        raise ManifestError(
            f"{source}: image {image}: slices_*: slice {odd[0]}, but the exam ends with slice {depth - 1}"
        )
    return numbers


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else np.nan
