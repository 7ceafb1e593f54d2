"""One label's models: the feature set and penalty chosen on the training part, measured once on the hold-out part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainseg.labeling import lasso
from domainseg.labeling.decision import Decision, decide
from domainseg.labeling.features import REFERENCE, Matrices


@dataclass(frozen=True)
class Known:
    """Where a label is known: rows among the labelled reports, which reports these are, labels 1 or 0, sides, folds."""

    rows: NDArray[np.intp]
    reports: NDArray[np.intp]
    label: NDArray[np.float64]
    side: NDArray[np.object_]
    fold: NDArray[np.int64]

    def of(self, side: str) -> NDArray[np.bool_]:
        """Which of the rows are on a side."""
        return np.asarray(self.side == side, dtype=bool)


@dataclass(frozen=True)
class Learned:
    """A feature set's model of one label.

    losses: out-of-fold negative log loss of each set that was tried. score [known rows]: the probability from a model
    that has not seen the report: out of fold for training, the measured model for all others. final: refitted on all
    known labels, for reports without one.
    """

    views: tuple[str, ...]
    c: float
    losses: Mapping[tuple[str, ...], float]
    decision: Decision
    score: NDArray[np.float64]
    final: lasso.Lasso


def learn(
    known: Known, matrices: Matrices, sets: Sequence[tuple[str, ...]], *, rule: str, certainty: float, seed: int
) -> Learned:
    """Choose among feature sets by out-of-fold log loss, then fit, decide and refit."""
    training = known.of("train")
    label, fold = known.label[training], known.fold[training]
    found = {views: lasso.search(matrices.of(views, known.rows[training]), label, fold, seed) for views in sets}
    views = min(found, key=lambda name: found[name].loss)
    best, matrix = found[views], matrices.of(views, known.rows)
    measured = lasso.fit(matrix[training], label, best.c, seed)
    score = lasso.probability(measured.log_odds(matrix))
    score[training] = lasso.probability(best.log_odds)
    return Learned(
        views=views,
        c=best.c,
        losses={name: searched.loss for name, searched in found.items()},
        decision=decide(label, score[training], rule, certainty),
        score=score,
        final=measured if views == REFERENCE else lasso.fit(matrix, known.label, best.c, seed),
    )
