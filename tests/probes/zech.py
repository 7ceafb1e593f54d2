"""Prediction tables with the AUCs and prevalences of Table 3 of Zech et al. 2018, made of binormal scores by site."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata

# Test films, and positives from the prevalences that Table 3 implies: MSH 0.357, NIH 0.0119, IU 39.
SIZES = {"NIH": (22_062, 263), "MSH": (8_388, 2_994), "IU": (3_807, 39)}
NIH, MSH, IU, TWO, ALL = "NIH", "MSH", "IU", "MSH+NIH", "IU+MSH+NIH"
# (trained on, tested on) -> kind, AUC, specificity, PPV, NPV as published.
TABLE = {
    (NIH, NIH): ("internal", 0.750, 0.247, 0.015, 0.998),
    (NIH, MSH): ("external", 0.695, 0.212, 0.401, 0.884),
    (NIH, IU): ("external", 0.725, 0.182, 0.012, 0.999),
    (NIH, TWO): ("superset", 0.773, 0.403, 0.160, 0.985),
    (NIH, ALL): ("superset", 0.787, 0.418, 0.148, 0.987),
    (MSH, MSH): ("internal", 0.802, 0.432, 0.482, 0.940),
    (MSH, NIH): ("external", 0.717, 0.175, 0.014, 0.997),
    (MSH, IU): ("external", 0.756, 0.090, 0.011, 0.997),
    (MSH, TWO): ("superset", 0.862, 0.516, 0.190, 0.989),
    (MSH, ALL): ("superset", 0.871, 0.537, 0.180, 0.990),
    (TWO, TWO): ("internal", 0.931, 0.706, 0.279, 0.992),
    (TWO, NIH): ("subset", 0.733, 0.234, 0.015, 0.997),
    (TWO, MSH): ("subset", 0.805, 0.451, 0.491, 0.942),
    (TWO, IU): ("external", 0.815, 0.230, 0.013, 0.999),
    (TWO, ALL): ("superset", 0.934, 0.709, 0.258, 0.993),
}
SENSITIVITY = 0.95


def table(scale: int = 1) -> pd.DataFrame:
    """The three models on all test films in long form; scale: one film for so many, with their proportions."""
    rng = np.random.default_rng(0)
    sizes = {site: (n // scale, max(2, round(k / scale))) for site, (n, k) in SIZES.items()}
    hidden = {site: (rng.normal(size=k), rng.normal(size=n - k)) for site, (n, k) in sizes.items()}
    parts = []
    for trained in (NIH, MSH, TWO):
        alone = {site: _one_site(*TABLE[trained, site][1:3], *hidden[site], rng) for site in sizes}
        msh = _bisect(lambda by, a=alone: _auc({NIH: a[NIH], MSH: _moved(a[MSH], by)}), TABLE[trained, TWO][1], 0, 9)
        two = {NIH: alone[NIH], MSH: _moved(alone[MSH], msh)}
        iu = _bisect(lambda by, a=alone, t=two: _auc({**t, IU: _moved(a[IU], -by)}), TABLE[trained, ALL][1], 0, 1)
        for site, scores in {**two, IU: _moved(alone[IU], -iu)}.items():
            for label, score in ((1, scores[0]), (0, scores[1])):
                image = [f"{site}{label}{number}" for number in range(len(score))]
                part = pd.DataFrame({"image": image, "site": site, "label_pneumonia": label, "score_pneumonia": score})
                parts.append(part.assign(trained_on=trained))
    return pd.concat(parts, ignore_index=True)


Scores = tuple[np.ndarray, np.ndarray]


def _one_site(auc: float, specificity: float, high: np.ndarray, low: np.ndarray, rng: np.random.Generator) -> Scores:
    """Quantiles of N(mean, spread) and N(0, 1) with this AUC, and this specificity at 95 % sensitivity.

    Where the quantiles are dealt depends on ``high`` and ``low``, so that models agree on what is hard.
    """
    cut = norm.ppf(specificity)
    caught = np.ceil(SENSITIVITY * len(high)) - 0.5
    back = -norm.ppf(1 - caught / len(high))

    def area(spread: float) -> float:
        return float(norm.cdf((cut + back * spread) / np.hypot(1, spread)))

    spread = _bisect(area, auc, 0.05, 1.6)
    mean = cut + back * spread
    return mean + spread * _quantiles(high, rng), _quantiles(low, rng)


def _quantiles(hidden: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return norm.ppf((rankdata(hidden + rng.normal(size=len(hidden))) - 0.5) / len(hidden))


def _moved(scores: Scores, by: float) -> Scores:
    return scores[0] + by, scores[1] + by


def _auc(sites: dict[str, Scores]) -> float:
    high = np.concatenate([scores[0] for scores in sites.values()])
    low = np.sort(np.concatenate([scores[1] for scores in sites.values()]))
    return float(np.searchsorted(low, high).mean() / len(low))


def _bisect(of: Callable[[float], float], wanted: float, low: float, high: float) -> float:
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if of(middle) < wanted else (low, middle)
    return (low + high) / 2
