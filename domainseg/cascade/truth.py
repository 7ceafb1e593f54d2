"""What the manifest knows of films and hips, in the form that training and the prediction table ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.cascade.case import Case
from domainseg.cascade.stages import PARTS
from domainseg.data.lesions import draw_polygons, lesion_to_part, polygon_points
from domainseg.data.manifest import Manifest, first_known, truth_table
from domainseg.data.tables import is_binary_label
from domainseg.imaging.geometry import Affine, inverse, transform, warp

_FILM_LABELS = ("label_view_filter", "label_view", "label_turn", "label_fracture", "label_implant_filter")


@dataclass(frozen=True)
class Truth:
    """Truth by film and by (film, part); unknown is NaN or ""."""

    manifest: Manifest

    @cached_property
    def _parts(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        table = truth_table(self.manifest, PARTS)
        for column in ("label_view", "label_location"):
            if column not in table:
                table[column] = ""
        for column in ("label_view_filter", "label_localizer", "label_implant_filter", "label_fracture", "label_turn"):
            if column not in table:
                table[column] = np.nan
        return {(row["image"], row["part"]): _named(row) for row in table.to_dict("records")}

    @cached_property
    def _films(self) -> Mapping[str, Mapping[str, Any]]:
        whole = self.manifest.targets[self.manifest.targets["part"] == "whole"]
        columns = [name for name in _FILM_LABELS if name in whole]
        first = first_known(whole[["image", *columns]], ["image"]).to_dict("index")
        missing = {name: ("" if name == "label_view" else np.nan) for name in _FILM_LABELS}
        return {image: missing | _named(first.get(image, {})) for image in self.manifest.images["image"]}

    @cached_property
    def _named_hips(self) -> frozenset[tuple[str, str]]:
        """Hips with a head or a label of their own; what the film's negative label says of both is none."""
        targets = self.manifest.targets
        labels = [name for name in targets if name == "x" or is_binary_label(str(name))]
        known = targets[targets["part"].isin(PARTS) & targets[labels].notna().any(axis=1)]
        return frozenset(zip(known["image"], known["part"], strict=True))

    @cached_property
    def _polygons(self) -> Mapping[tuple[str, str], list[NDArray[np.float64]]]:
        found: dict[tuple[str, str], list[NDArray[np.float64]]] = {}
        outlined = self.manifest.targets[self.manifest.targets["polygon"] != ""]
        for image, part, cell in zip(outlined["image"], outlined["part"], outlined["polygon"], strict=True):
            found.setdefault((image, part), []).append(polygon_points(cell))
        return found

    def polygons(self, image: str, part: str) -> list[NDArray[np.float64]]:
        """Outlines [N, 2] in source pixels of this hip's lesions: its own, or else those of the whole film."""
        return self._polygons.get((image, part)) or self._polygons.get((image, "whole"), [])

    def film(self, image: str) -> Mapping[str, Any]:
        """Labels of the whole film."""
        return self._films[image]

    def part(self, image: str, part: str) -> Mapping[str, Any]:
        """Labels, points and masks of one hip."""
        return self._parts[image, part]

    def has(self, image: str, part: str) -> bool:
        """Whether the manifest knows of this hip: that it is in the film, or a label of its own."""
        return (image, part) in self._named_hips and self.part(image, part)["label_localizer"] != 0

    def label(self, target: str, image: str, part: str, roi: NDArray[np.float64] | None = None) -> float:
        """1, 0 or NaN for a hip; ``roi``: the corners of its ROI, [4, 2] in source pixels, once it is localised.

        A positive label of the whole film is no label of its hips, but where the lesion is outlined the hip whose ROI
        it meets is positive (``lesion_to_part``); the other one stays unknown. The same holds for metal, which the
        films concerned show at the broken bone (our choice).
        """
        known = float(self.part(image, part)[f"label_{target}"])
        film = float(self.film(image).get(f"label_{target}", np.nan))
        if roi is None or not np.isnan(known) or film != 1:
            return known
        return lesion_to_part(roi, self.polygons(image, part), film)[0]

    def lesions(self, hip: Case) -> list[Any]:
        """What outlines the hip's lesion: mask files of its own, or else the film's polygons, in source pixels."""
        files = list(self.part(hip.image, hip.part)["masks"])
        return files or [polygon.tolist() for polygon in self.polygons(hip.image, hip.part)]

    def draw(
        self, sources: Sequence[Any], affine: Affine, shape: Sequence[int], film: tuple[int, int]
    ) -> NDArray[np.bool_]:
        """Masks (files, as the manifest names them) and polygons (source pixels) on a frame, as one mask.

        A line thinner than a pixel of the frame is kept: a pixel counts when a tenth of it is covered. film: height and
        width of the film. Raises ImageReadError for a mask file that cannot be read or has another size than the film.
        """
        from domainseg.imaging.pictures import picture_mask  # late: pillow

        drawn = np.zeros(tuple(shape), dtype=bool)
        to_frame = inverse(affine)
        for source in sources:
            if isinstance(source, str):
                mask = picture_mask(self.manifest.file(source), film)
                drawn |= warp(mask.astype(np.float32), affine, shape) > 0.1
            else:
                drawn |= draw_polygons([transform(to_frame, source)], shape)
        return drawn


def _named(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(column): value for column, value in row.items()}
