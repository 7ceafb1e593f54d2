"""What a network of chest findings learns from: films judged whole, and the tune films that choose its numbers."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from domainseg.cascade.case import Case
from domainseg.cascade.findings import Findings
from domainseg.cascade.stages import Frozen, Stage
from domainseg.cascade.whole import WholeTruth
from domainseg.data.manifest import Manifest
from domainseg.files import sha256_file
from domainseg.imaging import ImageReadError
from domainseg.networks import WholeFilmDenseNet121
from domainseg.tasks.findings import taught
from domainseg.tasks.items import Item
from domainseg.training.builder import FEW
from domainseg.training.freeze import answered, freeze, on_tune
from domainseg.training.gathered import predict_together
from domainseg.training.samples import Films, Sampler
from domainseg.training.stages import RunError, module_of

if TYPE_CHECKING:
    from domainseg.training.builder import Builder

log = logging.getLogger(__name__)


@dataclass
class Chest:
    """Lessons of films judged whole (see ``Lessons`` in domainseg/training/builder.py)."""

    builder: Builder
    _base_rates: dict[str, float] = field(default_factory=dict)

    def items(self, stage: Stage, before: Sequence[Stage], report: Counter[str]) -> list[Item]:
        """Every readable film with a known label of one of the network's findings."""
        items = self._items(self.builder.train, stage, report, "samples")
        log.info("%s: weights %s", stage.name, self._weights(stage))
        if self.builder.keeps_weights(items):
            return items  # its findings stay as well, see ``tuned``
        targets = _targets(stage)
        self._base_rates = taught(items, targets)
        if left := [name for name in targets if name not in self._base_rates]:
            log.warning(
                "%s: not learned and not scored, train has no film with them or none known to be without: %s",
                stage.name,
                ", ".join(left),
            )
        target = stage.decision.target
        if items and target not in self._base_rates:
            there = ", ".join(self._base_rates) or "none"
            raise RunError(
                f"target={target}: train has no film with it, or none known to be without; choose another with "
                f"target=NAME, of: {there}"
            )
        return items

    def watched(self, stage: Stage, before: Sequence[Stage]) -> list[Item]:
        """The tune films, whose loss decides on the learning rate, the end and the best weights."""
        return self._items(self.builder.tune, stage, Counter(), "tune films")

    def _items(self, manifest: Manifest, stage: Stage, report: Counter[str], what: str) -> list[Item]:
        films = Films(manifest, workers=max(2, int(self.builder.cfg["trainer"]["workers"])))
        truth = WholeTruth(manifest)
        sampler = Sampler(films, truth, self.builder.cache, int(self.builder.cfg["seed"]))
        items = []
        for image, film in films.each(f"{stage.name}: {what}"):
            labels = {name: value for name, value in truth.film(image).items() if name in _targets(stage)}
            if isinstance(film, ImageReadError):
                report["unreadable"] += 1
            elif np.isnan(list(labels.values())).all():
                report["without_label"] += 1
            else:
                report["used"] += 1
                items.append(sampler.item(Case.of(image, film), stage, labels))
        return sampler.all_of(items, report)

    def positives(self, items: Sequence[Item]) -> int:
        """How many films show a finding."""
        return sum(1.0 in item.truth.values() for item in items)

    def tuned(self, stage: Stage, before: Sequence[Stage], previous: Stage | None) -> tuple[Stage, dict[str, Any]]:
        """The decision with calibration and threshold of each finding but the target, whose are the stage's."""
        decision = stage.decision
        assert isinstance(decision, Findings)
        known = previous.decision.numbers if previous and isinstance(previous.decision, Findings) else {}
        # Where the weights of init_from have stayed (``Builder.keeps_weights``), so do its findings.
        rates = self._base_rates or {name: own["base_rate"] for name, own in known.items()}
        if decision.target not in rates:
            raise RunError(
                f"target={decision.target}: init_from has not learned it, and train has too few films with a finding; "
                f"choose another with target=NAME, of: {', '.join(rates) or 'none'}"
            )
        bare = {name: {"base_rate": rate} for name, rate in rates.items()}
        stage = replace(stage, decision=replace(decision, numbers=bare))
        truth = WholeTruth(self.builder.tune)
        table, _ = predict_together([*before, stage], self.builder.tune, truth, None, what="findings: numbers on tune")
        rule = str(self.builder.cfg["stage"][stage.name]["rule"])
        numbers: dict[str, dict[str, float]] = {}
        record: dict[str, Any] = {}
        for name, own in bare.items():
            numbers[name] = dict(own)
            if name == decision.target:
                continue
            labels, logits = on_tune(self.asked(name, table), name)
            kept = None if previous is None or (labels == 1).sum() >= FEW else answered(previous, name)
            if kept is not None:
                log.warning("%s: fewer than %d positive films on tune, the numbers of init_from are kept", name, FEW)
                frozen = kept
            else:
                frozen, record[name] = freeze(labels, logits, rule)
            numbers[name] |= {key: getattr(frozen, key) for key in ("threshold", "slope", "intercept")}
        chosen = {
            "target": decision.target,
            "findings": record,
            "base_rates": rates,
            "weights": self._weights(stage),
        }
        return replace(stage, decision=replace(decision, numbers=numbers), frozen=Frozen()), chosen

    def asked(self, target: str, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of a tune table, made with an open threshold, that choose the threshold of ``target``."""
        return table[table[f"eligible_{target}"].astype(bool)] if f"eligible_{target}" in table else table.iloc[:0]

    def _weights(self, stage: Stage) -> str:
        """Where training began, in words."""
        if self.builder.cfg["init_from"] is not None:
            return f"of the run {Path(self.builder.cfg['init_from']).name}"
        file = self.builder.cfg["stage"][stage.name]["network"].get("weights")
        return "from scratch" if file is None else f"from the file {Path(file).name} (SHA-256 {sha256_file(file)[:12]})"


def _targets(stage: Stage) -> Sequence[str]:
    network = module_of(stage)
    assert isinstance(network, WholeFilmDenseNet121)
    return network.targets
