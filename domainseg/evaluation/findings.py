"""The mean AUC over findings of the same films, with its interval."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.stats import norm

from domainseg.evaluation.intervals import LEVEL, Metric, codes, empty
from domainseg.evaluation.roc import influence
from domainseg.evaluation.tables import Rows


def mean_auc(rows: Mapping[str, Rows]) -> Metric:
    """Plain mean of the AUCs of all findings that have both classes; n counts films, not labels.

    rows: by finding, those that are judged (labels known, scores without NaN). The variance is that of the mean's
    influence function summed by patient, so that findings which go together are not counted as independent; the
    interval is made on the logit scale. For one finding it is DeLong's but for a factor of about 1 + 1 / n.
    """
    used = {name: part for name, part in rows.items() if len(np.unique(part.label)) == 2}
    if not used:
        return empty("one class only")
    images = np.concatenate([part.table["image"].to_numpy(str) for part in used.values()])
    clusters, k = codes(np.concatenate([part.clusters for part in used.values()]))
    value, error, start = 0.0, np.zeros(k), 0
    for part in used.values():
        members = clusters[start : start + len(part)]
        start += len(part)
        found = influence(part.label, part.score, members, k, part.fold)
        value += found.auc / len(used)
        error += (found.positive + found.negative) / len(used)
    n, method = len(np.unique(images)), f"mean of {len(used)}, by patient logit"
    spread = k / (k - 1) * float(error @ error) if k > 1 else np.nan
    if not 0 < value < 1 or not spread > 0:
        return Metric(value=value, low=np.nan, high=np.nan, n=n, n_clusters=k, method=f"mean of {len(used)}, no spread")
    centre = np.log(value / (1 - value))
    reach = float(norm.ppf((1 + LEVEL) / 2)) * np.sqrt(spread) / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-edge))) for edge in (centre - reach, centre + reach))
    return Metric(value=value, low=low, high=high, n=n, n_clusters=k, method=method)
