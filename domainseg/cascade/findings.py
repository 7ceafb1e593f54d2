"""The decision of a chest film judged whole: one film, many findings, each with numbers of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.operations import Sample
from domainseg.cascade.stages import Frozen, Outputs

CALLED = "called"
MAP = "map_"


@dataclass(frozen=True)
class Findings:
    """Scores every finding of a film; none is excluded here.

    Outputs, of each finding: <finding> [] logit and map_<finding> [h, w] logits by cell.
    target: the finding that the stage's frozen threshold and calibration belong to, and that the run is for.
    numbers: finding -> threshold, slope and intercept (of ``Frozen``, chosen on tune; the target's are the stage's) and
    base_rate, the share of the training films of known label that have it. What is not in it is not scored, so that a
    finding that nothing was learned of has no score.

    arrays of the case: map_<finding> [h, w], see ``against_base_rate``, and called, the names of the called findings.
    """

    target: str
    numbers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reads: ClassVar[str] = "film"
    version: ClassVar[int] = 1
    part: ClassVar[str] = "whole"

    def frozen(self, finding: str, frozen: Frozen) -> Frozen:
        """The numbers of a finding; ``frozen``: those of the stage."""
        if finding == self.target:
            return frozen
        own, none = self.numbers[finding], Frozen()
        return Frozen(
            threshold=float(own.get("threshold", none.threshold)),
            slope=float(own.get("slope", none.slope)),
            intercept=float(own.get("intercept", none.intercept)),
        )

    def thresholds(self, frozen: Frozen) -> dict[str, float]:
        """From which score on each finding is called."""
        return {name: self.frozen(name, frozen).threshold for name in self.scored}

    @property
    def scored(self) -> list[str]:
        """The findings that have a score."""
        return list(self.numbers) if self.target in self.numbers else [self.target, *self.numbers]

    def logits(self, outputs: Outputs) -> dict[str, float]:
        """Logit of P(target) before calibration."""
        return {"": float(outputs[self.target])}

    def decide(self, case: Case, sample: Sample, outputs: Outputs, frozen: Frozen) -> list[Case] | Exclusion:
        """The film with its scores and maps."""
        scores, maps, called = {}, {}, []
        for name in self.scored:
            numbers = self.frozen(name, frozen)
            scores[f"score_{name}"] = score = numbers.probability(float(outputs[name]))
            called += [name] if score >= numbers.threshold else []
            if (cells := outputs.get(f"{MAP}{name}")) is not None:
                base_rate = self.numbers.get(name, {}).get("base_rate", 0.5)
                maps[f"{MAP}{name}"] = against_base_rate(cells, float(base_rate))
        arrays = {**case.arrays, **maps, CALLED: np.array(called, dtype=np.str_)}
        return [replace(case.with_values(**scores), arrays=arrays)]


def against_base_rate(cells: NDArray[np.float32], base_rate: float) -> NDArray[np.float32]:
    """Map logits [h, w] -> log(sigmoid / base rate): 0 says no more than the base rate, above raises, below lowers.

    The scaling of jrzech/reproduce-chexnet (visualize_prediction), on logits before calibration. Raises ValueError for
    a base rate that is none.
    """
    if not 0 < base_rate <= 1:
        raise ValueError(f"a base rate of {base_rate:g}")
    probability = 1 / (1 + np.exp(-np.clip(cells.astype(np.float64), -60, 60)))
    return np.log(probability / base_rate).astype(np.float32)
