"""From a prediction table to figures with intervals; numpy and scipy only."""

from __future__ import annotations

from domainseg.evaluation.calibration import Platt, calibration, fit_platt
from domainseg.evaluation.compare import Comparison, compare
from domainseg.evaluation.intervals import Metric, bootstrap, proportion, weighted, wilson
from domainseg.evaluation.metrics import evaluate, get
from domainseg.evaluation.operating import RULES, Threshold, choose_threshold
from domainseg.evaluation.roc import auc, difference
from domainseg.evaluation.tables import EvaluationError, films, read_table

__all__ = [
    "RULES",
    "Comparison",
    "EvaluationError",
    "Metric",
    "Platt",
    "Threshold",
    "auc",
    "bootstrap",
    "calibration",
    "choose_threshold",
    "compare",
    "difference",
    "evaluate",
    "films",
    "fit_platt",
    "get",
    "proportion",
    "read_table",
    "weighted",
    "wilson",
]
