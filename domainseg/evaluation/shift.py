"""How an operating point moves: sensitivity and specificity at one frozen threshold, there and elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.evaluation.intervals import RESAMPLES, Array, Metric, apart, proportion


def shift(
    label: NDArray[Any],
    called: NDArray[np.bool_],
    clusters: NDArray[Any],
    place: NDArray[Any],
    reference: str,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Metric]]:
    """place -> sensitivity, specificity, and their differences to the reference place, with intervals.

    label 1 or 0 [n], calls [n] at the frozen threshold, patients [n], place [n]: a site or a split, None left out.
    Places hold different patients, so that a difference has Newcombe's interval. Raises ValueError for a reference
    that is no place.
    """
    names = sorted({name for name in place if name is not None})
    if reference not in names:
        raise ValueError(f"shift: {reference} is none of the places: {', '.join(names)}")
    out: dict[str, dict[str, Metric]] = {}
    for name in [reference, *(n for n in names if n != reference)]:
        here, out[name] = place == name, {}
        for metric, side in (("sensitivity", 1), ("specificity", 0)):
            mask = here & (label == side)
            found = proportion(called[mask] == (side == 1), clusters[mask], resamples=resamples, seed=seed)
            out[name][metric] = found
            if name != reference:
                out[name][f"{metric}_difference"] = apart(found, out[reference][metric])
    return out


def largest(score: Array, place: NDArray[Any]) -> str | None:
    """The place with most scored rows; None where no row has a place."""
    names, counts = np.unique([name for name in place[~np.isnan(score)] if name is not None], return_counts=True)
    return str(names[np.argmax(counts)]) if len(names) else None
