"""Stages in a row: films or volumes in, cases and exclusions out, nothing dropped in silence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from domainseg.cascade.case import Case, Exclusion
from domainseg.cascade.operations import preprocess
from domainseg.cascade.reads import FILMS, Reading
from domainseg.cascade.stages import Stage
from domainseg.imaging import Film, ImageReadError
from domainseg.imaging.volume import Volume


@dataclass(frozen=True)
class Cascade:
    """Stages in the order in which a film or a volume passes them."""

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


def read_ahead(
    files: Iterable[tuple[str, Path]], workers: int = 2, reading: Reading = FILMS
) -> Iterator[tuple[str, Film | Volume | ImageReadError]]:
    """Read films on threads a few ahead of their use, in order; an unreadable one comes back as its error.

    As many are ahead as ``reading`` allows: none of volumes, so that one of them is in memory, not several.
    """

    def load(path: Path) -> Film | Volume | ImageReadError:
        try:
            return reading.read(path, None)
        except ImageReadError as error:
            return error

    if not reading.ahead:
        for image, path in files:
            yield image, load(path)
        return
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        waiting: list[tuple[str, Future[Film | Volume | ImageReadError]]] = []
        for image, path in files:
            waiting.append((image, pool.submit(load, path)))
            if len(waiting) > max(workers, reading.ahead):
                name, future = waiting.pop(0)
                yield name, future.result()
        for name, future in waiting:
            yield name, future.result()
