"""bf16 against fp32 on labelled films: what a bundle must show before it may run in bf16."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from domainseg.bundle.load import BF16_AUC_CHANGE, BF16_ENOUGH, BF16_FLIPPED
from domainseg.bundle.predict import predict_manifest
from domainseg.bundle.schema import BundleError
from domainseg.cascade.case import Case, Exclusion, roi_corners
from domainseg.cascade.operations import Sample
from domainseg.cascade.reads import VOLUMES, reading_of
from domainseg.cascade.stages import Decision, Frozen, Network, Outputs, Stage
from domainseg.data.manifest import Manifest
from domainseg.evaluation import auc
from domainseg.evaluation.tables import rows_of
from domainseg.files import DomainsegError
from domainseg.training.environment import processor
from domainseg.training.onnx_model import OnnxModel, opened

log = logging.getLogger(__name__)

_FAST = "bf16 "  # in front of the names of bf16 outputs


class Bf16Error(DomainsegError):
    """bf16 was not passed, or cannot be had here; the message names stage, numbers and limit."""


@dataclass
class Both:
    """A network in fp32 with the answers of bf16 beside its own."""

    exact: Network
    fast: Network

    def __call__(self, pictures: Any) -> Outputs:
        fast = {_FAST + name: value for name, value in self.fast(pictures).items()}
        return {**self.exact(pictures), **fast}


@dataclass
class Judge:
    """Decides as the stage does in fp32, and notes for every case what bf16 would have said.

    notes: rows (label, logit in fp32, logit in bf16); the label is NaN where it is unknown.
    """

    decision: Decision
    truth: Any
    notes: list[tuple[float, float, float]] = field(default_factory=list)
    target: str = ""
    reads: str = ""
    version: int = 0
    part: str = ""

    def __post_init__(self) -> None:
        self.target, self.reads, self.version = self.decision.target, self.decision.reads, self.decision.version
        self.part = getattr(self.decision, "part", "")

    def thresholds(self, frozen: Frozen) -> dict[str, float]:
        """Those of the decision: it may answer for more than its own target."""
        more = getattr(self.decision, "thresholds", None)
        return dict(more(frozen)) if more else {}

    def logits(self, outputs: Outputs) -> dict[str, float]:
        """Those of fp32."""
        return self.decision.logits(_exact(outputs))

    def decide(self, case: Case, sample: Sample, outputs: Outputs, frozen: Frozen) -> list[Case] | Exclusion:
        """The decision in fp32."""
        exact = _exact(outputs)
        fast = self.decision.logits({name: outputs[_FAST + name] for name in exact})
        for part, logit in self.decision.logits(exact).items():
            self.notes.append((self._label(case, part), logit, fast[part]))
        return self.decision.decide(case, sample, exact, frozen)

    def _label(self, case: Case, part: str) -> float:
        if self.reads == VOLUMES.name:
            return float(self.truth.exam(case.image, case.film)[self.target])
        if not (part or case.part):
            known = self.truth.film(case.image)
            return float(known.get(f"label_{self.target}", known.get(self.target, np.nan)))
        if case.part:
            return float(self.truth.label(self.target, case.image, case.part, roi_corners(case)))
        return float(self.truth.part(case.image, part)[f"label_{self.target}"])


def check_bf16(
    stages: Sequence[Stage], models: Mapping[str, OnnxModel], manifest: Manifest, threads: int | None
) -> dict[str, Any]:
    """Compare OpenVINO in bf16 with fp32 on labelled films, by stage and for the whole cascade.

    Returns stage name -> its figures, and ``cascade`` -> those of the cascade with all stages in bf16: n (cases),
    auc_change (of a stage null where the films hold one class only), flipped (share of decisions), processor, films,
    films_sha256. Raises Bf16Error when a limit is passed, when the processor has no bf16, or when there are too few
    cases, or none of one class.
    """
    truth = reading_of(stages).truth(manifest)
    try:
        exact, fast = (
            opened(stages, models, backend="openvino", precision=precision, threads=threads)
            for precision in ("fp32", "bf16")
        )
    except BundleError as error:
        raise Bf16Error(f"check=bf16: {error}. The bundle is written without bf16") from error
    judged = [
        replace(one, network=Both(one.network, other.network), decision=Judge(one.decision, truth))
        for one, other in zip(exact, fast, strict=True)
    ]
    told = {"processor": processor(), "films": len(manifest), "films_sha256": manifest.hash()}
    wanted = predict_manifest(judged, manifest, truth, None, what="bf16 against fp32")
    found = {}
    for stage in judged:
        assert isinstance(stage.decision, Judge)
        found[stage.name] = {**judge_stage(stage.name, stage.decision.notes, stage.frozen), **told}
    got = predict_manifest(fast, manifest, truth, None, what="the cascade in bf16")
    target, *others = stages[-1].thresholds
    found["cascade"] = {**judge_cascade(wanted, got, target), **told}
    for other in others:  # each is called by a threshold of its own
        judge_cascade(wanted, got, other, main=False)
    return found


def judge_stage(name: str, notes: Sequence[tuple[float, float, float]], frozen: Frozen) -> dict[str, Any]:
    """n, auc_change and flipped of one stage from (label, fp32 logit, bf16 logit). Raises Bf16Error past a limit."""
    table = np.array(notes, dtype=np.float64).reshape(-1, 3)
    label, exact, fast = table.T
    calls = [np.array([frozen.probability(x) >= frozen.threshold for x in logits]) for logits in (exact, fast)]
    known = ~np.isnan(label)
    return _passed(f"stage {name}", len(table), _auc_change(label[known], exact[known], fast[known]), *calls)


def judge_cascade(wanted: pd.DataFrame, got: pd.DataFrame, target: str, *, main: bool = True) -> dict[str, Any]:
    """n, auc_change (on intention) and flipped of the whole cascade. Raises Bf16Error past a limit.

    main: whether it is what the cascade is for, of which both classes must be there. Of others only decisions count: of
    a rare one the AUC moves by more than is allowed when two cases change places. A case is decided otherwise when it
    is called otherwise, or excluded by another stage, or not found.
    """
    decided = []
    for table in (wanted, got):
        called = (table[f"score_{target}"] >= table[f"threshold_{target}"]).map({True: "called", False: "clear"})
        ended = called.where(table["excluded_by"] == "", table["excluded_by"])
        decided.append(pd.Series(ended.to_numpy(), index=pd.MultiIndex.from_frame(table[["image", "part"]])))
    one, other = decided[0].align(decided[1])
    areas = []
    for table in (wanted, got):
        judged = rows_of(table, target).judged()
        areas.append(auc(judged.label, judged.score, judged.clusters)["value"])
    if main and any(np.isnan(area) for area in areas):
        raise Bf16Error(f"check=bf16: the films do not hold cases of both classes of {target}: name others with data=")
    change = float(areas[1] - areas[0]) if main else None
    what = "the whole cascade" if main else f"the whole cascade, {target}"
    return _passed(what, len(one), change, one.to_numpy(), other.to_numpy())


def _passed(what: str, n: int, change: float | None, one: Any, other: Any) -> dict[str, Any]:
    flipped = int((one != other).sum())
    if n < BF16_ENOUGH:
        raise Bf16Error(
            f"check=bf16: {what}: {n} cases are too few to judge it, {BF16_ENOUGH} are needed; name more films"
        )
    if change is not None and abs(change) > BF16_AUC_CHANGE:
        raise Bf16Error(
            f"check=bf16: {what}: the AUC changes by {change:+.4f} on {n} cases, at most {BF16_AUC_CHANGE} is allowed. "
            "The bundle is written without bf16"
        )
    if flipped / n > BF16_FLIPPED:
        raise Bf16Error(
            f"check=bf16: {what}: {flipped} of {n} decisions turn out otherwise ({100 * flipped / n:.1f} %), at most "
            f"{100 * BF16_FLIPPED:.1f} % is allowed. The bundle is written without bf16"
        )
    shown = "of one class only" if change is None else f"{change:+.5f}"
    log.info("%s in bf16: %d of %d decisions otherwise, change of AUC %s", what, flipped, n, shown)
    return {"n": n, "auc_change": change, "flipped": flipped / n, "passed": True}


def _auc_change(label: Any, exact: Any, fast: Any) -> float | None:
    if len(np.unique(label)) < 2:
        return None
    alone = np.arange(len(label)).astype(str)
    return float(auc(label, fast, alone)["value"] - auc(label, exact, alone)["value"])


def _exact(outputs: Outputs) -> Outputs:
    return {name: value for name, value in outputs.items() if not name.startswith(_FAST)}
