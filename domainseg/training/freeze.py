"""Numbers chosen on tune and then frozen: calibration and threshold of a stage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.cascade.findings import Findings
from domainseg.cascade.stages import Frozen, Stage
from domainseg.evaluation.calibration import fit_platt, logit
from domainseg.evaluation.operating import Threshold, choose_threshold, excludes_above


def freeze(labels: NDArray[Any], logits: NDArray[Any], rule: str) -> tuple[Frozen, dict[str, Any]]:
    """Calibration on the scored tune cases, threshold by ``rule`` on all eligible ones; and what to write down.

    labels: 1, 0 or NaN [n]. logits: raw network logits [n]; -inf for an excluded positive, +inf for an excluded
    negative, so that the rule is judged on intention.
    """
    scored = np.isfinite(logits)
    platt = fit_platt(labels[scored], logits[scored])
    scores = np.where(scored, platt(np.where(scored, logits, 0.0)), logits)
    threshold = choose_threshold(labels, scores, rule)
    if (scored & (labels == 1)).any():
        threshold = middle_of_gap(threshold, scores[scored])
    frozen = Frozen(
        threshold=threshold.value,
        slope=platt.slope,
        intercept=platt.intercept,
        rule=rule,
        provisional=threshold.provisional,
    )
    return frozen, {**threshold.to_dict(), "calibration": platt.to_dict()}


def answered(stage: Stage, target: str) -> Frozen | None:
    """The numbers with which a stage answers ``target``; None where it has none: those of another target are no use."""
    decision = stage.decision
    if decision.target == target:
        return stage.frozen
    if isinstance(decision, Findings) and "threshold" in decision.numbers.get(target, {}):
        return replace(decision.frozen(target, stage.frozen), rule=stage.frozen.rule)
    return None


def on_tune(table: pd.DataFrame, target: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Labels and logits of a target for ``freeze``, from the rows of a tune table whose scores are not calibrated."""
    labels = table[f"label_{target}"].to_numpy(float) if len(table) else np.zeros(0)
    scores = table[f"score_{target}"].to_numpy(float) if len(table) else np.zeros(0)
    with np.errstate(divide="ignore"):
        logits = np.log(scores) - np.log1p(-np.minimum(scores, 1 - 1e-16))
    return labels, np.where(np.isnan(scores), np.where(labels == 1, -np.inf, np.inf), logits)


def middle_of_gap(threshold: Threshold, scores: NDArray[np.float64]) -> Threshold:
    """Move a threshold halfway (in log-odds) down to the next lower tune score: no call on tune changes.

    The rule's threshold is the score of one tune case; a case of the same kind that scores a hair lower would fall.
    Our choice.
    """
    lower = scores[scores < threshold.value]
    if len(lower) == 0:  # a hair lower, so that the lowest case is kept however its score is rounded
        return replace(threshold, value=min(threshold.value * (1 - 1e-9), 0.5))
    middle = float((logit(np.array([threshold.value])) + logit(np.array([lower.max()])))[0] / 2)
    value = 1 / (1 + np.exp(-middle))
    return replace(threshold, value=float(value)) if lower.max() < value <= threshold.value else threshold


def doubts(frozen: Frozen, labels: NDArray[Any], logits: NDArray[Any]) -> list[str]:
    """What to warn of: a threshold that no positive gave, a filter that takes away most of the negatives of tune.

    labels and logits as for ``freeze``.
    """
    scored = np.isfinite(logits)
    called = np.array([frozen.probability(logit) >= frozen.threshold for logit in logits[scored]], bool)
    positive, negative = labels[scored] == 1, labels[scored] == 0
    counts = f"{positive.sum()} scored positive and {negative.sum()} scored negative cases on tune"
    catches, said = excludes_above(frozen.rule), []
    if not positive.any():
        if catches and not called.any():
            meaning = "lies above the scores of tune: nothing is taken away there, what should be caught goes through"
        elif not catches and called.all():
            meaning = "lies below the scores of tune: every case there is kept"
        else:
            meaning = f"{'takes away' if catches else 'keeps'} {called.sum()} of the {len(called)} cases there"
        said.append(
            f"{counts}: {frozen.rule} cannot be judged; the threshold {frozen.threshold:.4g} is provisional and "
            f"{meaning}. Add positive cases to the tune split"
        )
    taken = int((called & negative).sum())
    if catches and 2 * taken > negative.sum():
        said.append(
            f"{counts}: the threshold {frozen.threshold:.4g} takes away {taken} of the {negative.sum()} negatives, "
            "which should go on; later stages learn from and answer for the rest only"
        )
    return said
