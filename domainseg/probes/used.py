"""Does the score move with an attribute among cases of one label, and does the AUC live on it?

Shift: within each label the score's ranks are compared between groups, as by van Elteren (1960), strata weighted by
n_group n_rest / (n + 1); but each label counts alike, through division by its number of cases: as evidence for the
label an attribute moves both labels the same way, while one that moves them apart or together changes how well they are
told apart (``uneven``). The effect is an AUC: how often a case of the group outscores one of the others that has the
same label; 0.5 is no shift.
Fall: the AUC as it is minus the AUC on the same cases, weighted so that the attribute is independent of the label. A
score that is independent of the attribute within each label falls by nothing, whatever the prevalences.
With bands of severity the strata are label and band: what patients of different severity explain drops out of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainseg.evaluation.intervals import Array, Metric, empty
from domainseg.probes.effects import Codes, Test, against_rest, metric, patients_in, stretch, wald

WITHIN = "ranks within label, clustered by patient"
MATCHED = "reweighted, linearised by patient"


@dataclass(frozen=True)
class Cases:
    """Cases of one target and one attribute, all of length n: label 1 or 0, score, group number, patient number, and
    stratum: the band of severity, 0 where there is none. ``groups`` counts the attribute's groups."""

    label: Array
    score: Array
    group: Codes
    patient: Codes
    stratum: Codes
    groups: int

    def take(self, mask: NDArray[np.bool_]) -> Cases:
        """The cases where ``mask`` [n] is true; patients keep their numbers."""
        names = ("label", "score", "group", "patient", "stratum")
        return Cases(**{name: getattr(self, name)[mask] for name in names}, groups=self.groups)

    @property
    def cell(self) -> Codes:
        """Number of each case's (label, stratum, group)."""
        return np.asarray((self.label.astype(np.intp) + 2 * self.stratum) * self.groups + self.group)

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Shift:
    """theta: of each group the AUC against the others of the same label (None where too few); p: of no shift at all."""

    theta: list[Metric | None]
    test: Test
    n: int

    @property
    def largest(self) -> float:
        """The largest distance of a group's AUC from 0.5."""
        found = [abs(record["value"] - 0.5) for record in self.theta if record is not None]
        return max(found) if found else np.nan


@dataclass(frozen=True)
class Fall:
    """AUC as it is, matched, and their difference with its p; ``groups``: numbers of the groups that take part."""

    as_is: float
    matched: float
    difference: Metric
    p: float
    groups: list[int]


def well_filled(cases: Cases, least: int) -> Cases:
    """The cases in cells of at least ``least`` patients."""
    if not len(cases):
        return cases
    large = [cell for cell, count in patients_in(cases.cell, cases.patient).items() if count >= least]
    return cases.take(np.isin(cases.cell, large))


def shift(cases: Cases, least: int) -> Shift:
    """Test of no shift, over the strata in which two groups or more have ``least`` patients of the same label.

    Of groups with both labels where there are two of them: a group that has one label can move one only.
    """
    cases = well_filled(cases, least)
    if len(both := _with_both_labels(cases)) >= 2:
        cases = cases.take(np.isin(cases.group, both))
    layer = 2 * cases.stratum + cases.label.astype(np.intp)
    of_label = np.bincount(cases.label.astype(np.intp), minlength=2)
    sums, weights = np.zeros(cases.groups), np.zeros(cases.groups)
    influence = np.zeros((len(cases), cases.groups))
    for name in np.unique(layer):
        members = np.flatnonzero(layer == name)
        here = np.unique(cases.group[members])
        if len(here) < 2:
            continue  # nobody to compare with
        for g in here:
            own = cases.group[members] == g
            weight = own.sum() * (~own).sum() / (len(members) + 1) / of_label[name % 2]
            value, parts = against_rest(cases.score[members], own)
            sums[g] += weight * (value - 0.5)
            weights[g] += weight
            influence[members, g] = weight * parts
    used = weights > 0
    if not used.any():
        return Shift([None] * cases.groups, Test(np.nan, 0, 0, np.nan), 0)
    influence *= stretch(cases.cell, cases.patient)[:, None]
    count = patients_in(cases.group, cases.patient)
    below = min(count[g] for g in np.flatnonzero(used).tolist()) - 1
    theta: list[Metric | None] = [None] * cases.groups
    for g in np.flatnonzero(used):
        theta[g], _ = metric(0.5 + sums[g] / weights[g], influence[:, g] / weights[g], cases.patient, below, WITHIN)
    # Rank sums of all groups add up to 0, so that one of them is left out.
    kept = np.flatnonzero(used)[:-1]
    return Shift(theta, wald(sums[kept], influence[:, kept], cases.patient, below), len(cases))


def fall(cases: Cases, least: int) -> Fall:
    """AUC as it is minus matched, on groups with ``least`` patients of both labels, in bands that hold all of them.

    The weight of a case is q_group n_stratum / n_cell, q being the group's share of all these cases (held fixed): in
    each stratum (label and band) the groups then have the same shares, and each stratum keeps its own.
    """
    cases = _overlap(well_filled(cases, least))
    n = len(cases)
    here = np.unique(cases.group)
    if len(here) < 2:
        return Fall(np.nan, np.nan, empty("no two groups have both labels", n), np.nan, [])
    share = np.bincount(cases.group, minlength=cases.groups) / n
    layer = 2 * cases.stratum + cases.label.astype(np.intp)
    layers, cells = np.bincount(layer), np.bincount(cases.cell)
    weight = share[cases.group] * layers[layer] / cells[cases.cell]
    positive = cases.label == 1
    as_is, matched = (_placements(cases, w) for w in (np.ones(n), weight))
    values = [float((w * p)[positive].sum() / w[positive].sum()) for w, p in ((np.ones(n), as_is), (weight, matched))]
    size = np.where(positive, positive.sum(), (~positive).sum())
    # The matched AUC moves with a case's place in its cell, and with the share of its stratum among its label.
    in_cell = (np.bincount(cases.cell, matched) / np.maximum(cells, 1))[cases.cell]
    in_layer = (np.bincount(layer, weight * matched) / np.maximum(layers, 1))[layer]
    parts = (as_is - values[0]) - weight * (matched - in_cell) - (in_layer - values[1])
    influence = parts / size * stretch(cases.cell, cases.patient)
    below = min(patients_in(cases.cell, cases.patient).values()) - 1
    difference, p = metric(values[0] - values[1], influence, cases.patient, below, MATCHED, bounds=(-1, 1))
    difference["n"], difference["n_clusters"] = n, len(np.unique(cases.patient))
    return Fall(values[0], values[1], difference, p, [int(g) for g in here])


def uneven(cases: Cases, least: int) -> tuple[float, Test, list[int]]:
    """Largest minus smallest AUC within groups, the test that all are equal, and which were compared: those with both
    labels. NaN and none where there are not two."""
    cases = _overlap(well_filled(cases, least))
    here = np.unique(cases.group)
    if len(here) < 2:
        return np.nan, Test(np.nan, 0, 0, np.nan), []
    values, influence = np.zeros(len(here)), np.zeros((len(cases), len(here)))
    for column, g in enumerate(here):
        members = np.flatnonzero(cases.group == g)
        values[column], influence[members, column] = against_rest(cases.score[members], cases.label[members] == 1)
    influence *= stretch(cases.cell, cases.patient)[:, None]
    below = min(patients_in(cases.cell, cases.patient).values()) - 1
    against = values[1:] - values[0], influence[:, 1:] - influence[:, :1]
    return float(np.ptp(values)), wald(*against, cases.patient, below), [int(g) for g in here]


def _overlap(cases: Cases) -> Cases:
    """The cases of groups with both labels, in those bands of either label that hold all of these groups."""
    both = _with_both_labels(cases)
    cases = cases.take(np.isin(cases.group, both))
    layer = 2 * cases.stratum + cases.label.astype(np.intp)
    full = [name for name in np.unique(layer) if len(np.unique(cases.group[layer == name])) == len(both)]
    kept = cases.take(np.isin(layer, full))
    return kept if len(np.unique(kept.label)) == 2 else kept.take(np.zeros(len(kept), dtype=bool))


def _with_both_labels(cases: Cases) -> list[int]:
    return [int(g) for g in np.unique(cases.group) if len(np.unique(cases.label[cases.group == g])) == 2]


def _placements(cases: Cases, weight: Array) -> Array:
    """Of each positive the weighted share of negatives below it, of each negative that of positives above it."""
    out = np.empty(len(cases))
    positive = cases.label == 1
    for side, sign in ((positive, 1.0), (~positive, -1.0)):
        others = ~side
        order = np.argsort(sign * cases.score[others], kind="stable")
        ranked = (sign * cases.score[others])[order]
        total = np.concatenate([[0.0], np.cumsum(weight[others][order])])
        own = sign * cases.score[side]
        below = total[np.searchsorted(ranked, own, "left")] + total[np.searchsorted(ranked, own, "right")]
        out[side] = below / (2 * total[-1])
    return out
