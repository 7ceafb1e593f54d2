"""L1 logistic regression: the penalty chosen by cross-validation, from the paper's grid."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

# From the strongest penalty to the weakest: Zech et al. 2018.
GRID = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
PATIENCE = 2  # weaker penalties in a row that are worse than the best one end the search (our choice)
_L1: dict[str, Any] = (
    {"l1_ratio": 1.0} if tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 8) else {"penalty": "l1"}
)

Matrix = csr_matrix


@dataclass(frozen=True)
class Lasso:
    """A fitted model: log-odds = matrix @ weights + intercept."""

    weights: NDArray[np.float64]
    intercept: float

    def log_odds(self, matrix: Matrix) -> NDArray[np.float64]:
        """Log-odds of the label for each row."""
        return np.asarray(matrix @ self.weights).ravel() + self.intercept


@dataclass(frozen=True)
class Searched:
    """The penalty that cross-validation chose: C, its mean negative log loss, and out-of-fold log-odds [n]."""

    c: float
    loss: float
    log_odds: NDArray[np.float64]


def fit(matrix: Matrix, label: NDArray[Any], c: float, seed: int = 0) -> Lasso:
    """Fit the model; label 1 or 0 [n], both present. A fit that has not converged is good enough to predict with."""
    model = LogisticRegression(
        C=c, solver="liblinear", intercept_scaling=10.0, tol=1e-3, max_iter=100, random_state=seed, **_L1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(matrix, label)
    return Lasso(np.asarray(model.coef_[0], np.float64), float(model.intercept_[0]))


def search(matrix: Matrix, label: NDArray[Any], fold: NDArray[Any], seed: int = 0) -> Searched:
    """Choose C by the mean negative log loss of out-of-fold predictions, from the strongest penalty on.

    The loss falls and then rises along the grid: the search ends when it has risen PATIENCE times in a row. A fold
    whose rest has one class only predicts the rest's frequency.
    """
    best: Searched | None = None
    worse = 0
    for c in GRID:
        log_odds = out_of_fold(matrix, label, fold, c, seed)
        loss = log_loss(label, log_odds)
        if best is None or loss < best.loss - 1e-9:
            best, worse = Searched(c, loss, log_odds), 0
        else:
            worse += 1
        if worse >= PATIENCE and best.loss < log_loss(label, _base(label)) - 1e-6:
            break
    assert best is not None
    return best


def out_of_fold(
    matrix: Matrix, label: NDArray[Any], fold: NDArray[Any], c: float, seed: int = 0
) -> NDArray[np.float64]:
    """Log-odds [n] of each row from the model that was fitted on the other folds."""
    out = np.zeros(len(label))
    for part in np.unique(fold):
        out_of, rest = fold == part, fold != part
        if len(np.unique(label[rest])) < 2:
            out[out_of] = _base(label[rest])[0] if rest.any() else 0.0
            continue
        out[out_of] = fit(matrix[rest], label[rest], c, seed).log_odds(matrix[out_of])
    return out


def log_loss(label: NDArray[Any], log_odds: NDArray[np.float64]) -> float:
    """Mean negative log likelihood of labels 1 or 0."""
    return float(np.mean(np.logaddexp(0, np.where(label == 1, -log_odds, log_odds))))


def probability(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities from log-odds."""
    return np.asarray(expit(log_odds), np.float64)


def _base(label: NDArray[Any]) -> NDArray[np.float64]:
    rate = (label.sum() + 0.5) / (len(label) + 1)
    return np.full(len(label), float(np.log(rate / (1 - rate))))
