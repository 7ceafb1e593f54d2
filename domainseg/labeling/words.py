"""The words that a model goes by, and which of them may be shown: none that could be a name or a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainseg.labeling.features import Features, chunks
from domainseg.labeling.learning import Learned

FEWEST = 10  # patients in whose reports a word must stand to be shown (our choice)
MOST = 12  # words shown on either side

Shown = Mapping[tuple[str, ...], list[str | None]]  # feature set -> name of each column, None where it is not shown


def visible(features: Features, learned: Mapping[str, Learned], patients: NDArray[np.int64]) -> Shown:
    """Names of the columns of the feature sets in use; n-grams of fewer than FEWEST patients have none.

    Also without a name are words with a digit and words that are mostly spelt with a capital inside sentences. The
    patients are counted in the reports outside the hold-out part.
    """
    shown: dict[tuple[str, ...], list[str | None]] = {}
    for views in {own.views for own in learned.values()}:
        names = features.names(views)
        used = np.unique(
            np.concatenate([np.flatnonzero(own.final.weights) for own in learned.values() if own.views == views])
        )
        seen = _patients(features, views, used, patients)
        fine = {
            int(column) for column, count in zip(used, seen, strict=True)
            if ":" in names[column] or (count >= FEWEST and _harmless(features, names[column]))
        }  # fmt: skip
        shown[views] = [name if column in fine else None for column, name in enumerate(names)]
    return shown


def _patients(
    features: Features, views: tuple[str, ...], columns: NDArray[np.intp], patients: NDArray[np.int64]
) -> NDArray[np.int64]:
    """In the reports of how many patients each column is not 0."""
    pairs = []
    for part in chunks(features.rows):
        matrix = features.matrix(views, part)[:, columns].tocoo()
        pairs.append(np.unique(np.stack([matrix.col, patients[part][matrix.row]]), axis=1))
    together = np.unique(np.concatenate(pairs, axis=1), axis=1) if pairs else np.zeros((2, 0), np.int64)
    return np.bincount(together[0], minlength=len(columns))


def _harmless(features: Features, name: str) -> bool:
    words = [word.lstrip("+-?") for word in name.split()]
    return not any(word == "" or any(c.isdigit() for c in word) or features.read.maybe_name(word) for word in words)


def telling(own: Learned, shown: Shown) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """The names with the largest weights for and against the label, largest first."""
    weights, names = own.final.weights, shown[own.views]
    order = [int(column) for column in np.argsort(-np.abs(weights)) if weights[column] and names[column] is not None]
    pairs = [(str(names[column]), float(weights[column])) for column in order]
    return [pair for pair in pairs if pair[1] > 0][:MOST], [pair for pair in pairs if pair[1] < 0][:MOST]


def described(name: str, own: Learned, shown: Shown) -> dict[str, Any]:
    """A model as plain values for models.json: how it was chosen, its decision, and its weights by name."""
    weights, names = own.final.weights, shown[own.views]
    columns = np.flatnonzero(weights)
    return {
        "label": name,
        "features": list(own.views),
        "c": own.c,
        "out_of_fold_log_loss": {" + ".join(views): loss for views, loss in own.losses.items()},
        "decision": own.decision.to_dict(),
        "intercept": own.final.intercept,
        "weights": {str(names[column]): float(weights[column]) for column in columns if names[column] is not None},
        "weights_not_shown": int(sum(names[column] is None for column in columns)),
    }
