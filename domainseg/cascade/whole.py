"""The row of a film that is judged whole, and what the manifest knows of such a film.

Without pandas: a bundle that reads one film has no time to import it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.rows import described
from domainseg.imaging.film import Film, ImageReadError

if TYPE_CHECKING:
    from domainseg.data.manifest import Manifest

WHOLE = "whole"


@dataclass(frozen=True)
class WholeTruth:
    """Labels of whole films: 1, 0 or NaN where unknown."""

    manifest: Manifest

    @cached_property
    def _films(self) -> Mapping[str, Mapping[str, float]]:
        from domainseg.data.tables import is_binary_label  # late: pandas

        targets = self.manifest.targets
        columns = [str(name) for name in targets if is_binary_label(str(name))]
        first = targets[targets["part"] == WHOLE].groupby("image", sort=False)[columns].first().to_dict("index")
        found: dict[str, dict[str, float]] = {}
        for image in self.manifest.images["image"]:
            labels = first.get(image, {})
            found[image] = {name.removeprefix("label_"): float(labels.get(name, np.nan)) for name in columns}
        return found

    def film(self, image: str) -> Mapping[str, float]:
        """Target -> label of one film, for every target that the manifest has a column of."""
        return self._films[image]


def whole_rows(
    image: str, film: Film | ImageReadError, results: Sequence[Case | Exclusion], truth: WholeTruth | None
) -> list[dict[str, Any]]:
    """The row of one film, part "whole": its scores or the reason for its exclusion, and the labels beside them."""
    row: dict[str, Any] = {"image": image, "part": WHOLE, **described(film)}
    for result in results:  # one: nothing is cut out of the film
        row |= result.values
        if isinstance(result, Exclusion):
            row |= {"excluded_by": result.excluded_by, "exclusion_reason": result.reason}
    if truth is not None:
        row |= {f"label_{name}": label for name, label in truth.film(image).items()}
    return [row]
