"""Stages in a row: films or volumes in, cases and exclusions out, nothing dropped in silence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.operations import preprocess
from domainseg.cascade.stages import Stage
from domainseg.imaging import Film, ImageReadError, read_film


@dataclass(frozen=True)
class Cascade:
    """Stages in the order in which a film passes them."""

    stages: Sequence[Stage]

    def run(self, case: Case) -> list[Case | Exclusion]:
        """Pass one film or volume through all stages; all that is found in it ends as a case or an exclusion."""
        going: list[Case] = [case]
        ended: list[Case | Exclusion] = []
        for stage in self.stages:
            if not going:
                break
            samples = [preprocess(item, stage.preprocessing) for item in going]
            outputs = stage.network(np.concatenate([sample.pictures for sample in samples]))
            passed: list[Case] = []
            start = 0
            for item, sample in zip(going, samples, strict=True):
                one = {name: sample.own(array[start : start + sample.count]) for name, array in outputs.items()}
                start += sample.count
                result = stage.decision.decide(item, sample, one, stage.frozen)
                if isinstance(result, Exclusion):
                    ended.append(result)
                else:
                    passed.extend(result)
            going = passed
        return [*going, *ended]


def read_ahead(files: Sequence[tuple[str, Path]], workers: int = 2) -> Iterator[tuple[str, Film | ImageReadError]]:
    """Read films on threads a few ahead of their use, in order; an unreadable film comes back as its error."""

    def load(path: Path) -> Film | ImageReadError:
        try:
            return read_film(path)
        except ImageReadError as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        waiting: list[tuple[str, Future[Film | ImageReadError]]] = []
        for image, path in files:
            waiting.append((image, pool.submit(load, path)))
            if len(waiting) > 2 * workers:
                name, future = waiting.pop(0)
                yield name, future.result()
        for name, future in waiting:
            yield name, future.result()
