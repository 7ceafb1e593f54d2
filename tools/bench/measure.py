"""A measured row, and the one way to measure: all ways in turn, round after round, and the ratios of each round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Skipped(Exception):
    """A topic that cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Options:
    """What a run measures: ``size`` of the fracture network's input, how often and on how many films."""

    scratch: Path
    run: Path | None = None
    short: bool = False
    size: int = 1024
    rounds: int = 9
    films: int = 200
    slope_films: int = 1000
    cases: int = 30_000
    resamples: int = 2000
    commands: tuple[str, ...] = ("train", "evaluate", "predict", "export", "manifest", "phantom", "bundle")


@dataclass(frozen=True)
class Target:
    """A limit for a ratio: at least ``limit``, or at most when ``most``."""

    limit: float
    most: bool = False

    def eased(self) -> Target:
        """The target with half its margin: half the gain it asks for, twice the excess over 1 that it allows."""
        margin = self.limit - 1
        return Target(1 + margin * (2 if self.most and margin > 0 else 0.5), self.most)

    def met(self, ratio: float) -> bool:
        """Whether a ratio reaches it."""
        return bool(ratio <= self.limit if self.most else ratio >= self.limit)

    def __str__(self) -> str:
        return f"{'≤' if self.most else '≥'} {self.limit:.4g}"


@dataclass(frozen=True)
class Row:
    """What was measured against which baseline: the median ratio of n rounds with its quartiles, and the target."""

    what: str
    baseline: str
    ratio: float
    low: float
    high: float
    n: int
    target: Target | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        return None if self.target is None else self.target.met(self.ratio)

    def plain(self) -> dict[str, Any]:
        """The row as JSON has it."""
        kept = {key: value for key, value in vars(self).items() if key != "target"}
        return {**kept, "target": None if self.target is None else str(self.target), "met": self.met}


@dataclass(frozen=True)
class Section:
    """A topic's rows, and what was measured with which weights, threads and sizes."""

    about: str
    rows: list[Row]


def interleave(ways: Mapping[str, Callable[[], object]], rounds: int, warm: int = 1) -> dict[str, list[float]]:
    """Seconds of each way in each round; every round runs all ways, in an order that goes round with it."""
    names = list(ways)
    for name in names * warm:
        ways[name]()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            start = time.perf_counter()
            ways[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio_row(
    what: str,
    baseline: str,
    above: Sequence[float],
    below: Sequence[float],
    target: Target | None = None,
    note: str = "",
) -> Row:
    """The row of the ratios ``above[k] / below[k]`` of the rounds; a speed is the baseline's seconds above its own."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Row(what, baseline, middle, low, high, len(ratios), target, note)


def speed_rows(
    seconds: Mapping[str, Sequence[float]],
    baseline: str,
    targets: Mapping[str, Target] | None = None,
    notes: Mapping[str, str] | None = None,
) -> list[Row]:
    """A row for each way: how many times as fast as ``baseline`` it is; the note begins with its median time."""
    rows = []
    for name, own in seconds.items():
        note = duration(statistics.median(own)) + (f", {notes[name]}" if notes and name in notes else "")
        against = "itself" if name == baseline else baseline
        rows.append(ratio_row(name, against, seconds[baseline], own, (targets or {}).get(name), note))
    return rows


def duration(seconds: float) -> str:
    """Seconds with three digits, in a unit that fits."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 0.95:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"
