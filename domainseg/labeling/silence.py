"""Reports that never mention a finding: no 0 from a model that hand labels have not shown what silence means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainseg.labeling.reading import Read

SHOWN = 0.25  # of the silent reports that hand labels would hold if they were given regardless of mentions (our choice)


@dataclass(frozen=True)
class Silence:
    """Of one label. silent [n]: whether a report with a text never mentions it; None where no lexicon knows the label.

    known: hand labels, shown: those of silent reports. learned: whether they are enough to take a model's word for it.
    """

    silent: NDArray[np.bool_] | None
    known: int
    shown: int
    learned: bool

    def withheld(self, made: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of a model's labels [n] (1, 0 or NaN) are zeros that it may not give."""
        if self.silent is None or self.learned:
            return np.zeros(len(made), bool)
        return np.asarray(self.silent & (made == 0))


def silence(
    name: str, hand: NDArray[np.float64], understood: Read, texts: NDArray[np.bool_], least: int, *, zero: bool
) -> Silence:
    """What hand labels [n] (1, 0 or NaN) say of reports that never mention the label ``name``.

    Who labels only what a report mentions leaves the others empty: a model of these labels has seen no silent report.
    texts [n]: whether a report has a text. least: fewest silent reports with a hand label. zero: the user says that
    what is not mentioned is not there.
    """
    known = ~np.isnan(hand)
    finding = understood.lexicon.of_label(name)
    if finding is None:
        return Silence(None, int(known.sum()), 0, learned=zero)
    silent = (understood.status[:, list(understood.lexicon.findings).index(finding)] == 0) & texts
    shown = int((silent & known).sum())
    expected = known.sum() * silent.sum() / max(int(texts.sum()), 1)
    return Silence(silent, int(known.sum()), shown, zero or bool(shown >= max(least, SHOWN * expected)))


def notes_of(found: Mapping[str, Silence]) -> list[str]:
    """What a reader should know of silent reports, in sentences; ``found``: the labels that were learned."""
    told = [
        f"{name}: of {own.known} hand labels {own.shown} are of reports that never mention it, too few to learn what "
        "silence means: where such a report would get a 0 it is unknown (unmentioned=0 gives the 0)."
        for name, own in found.items()
        if own.silent is not None and not own.learned
    ]
    if strange := [name for name, own in found.items() if own.silent is None and not own.learned]:
        told.append(
            f"No lexicon knows {', '.join(strange)}: a report that never mentions it may get a 0. Write its phrases "
            "into a YAML file and add it to terms=."
        )
    return told
