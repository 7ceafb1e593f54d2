"""Figures that others printed for hemorrhage on head CT, to stand beside ours; each says whether it was read there."""

from __future__ import annotations

from dataclasses import dataclass

CHANG = "Chang et al. 2018, AJNR 39:1609 (PMC6128745)"
INSTANCE = "INSTANCE 2022 challenge"
NVAUTO = "NVAUTO at INSTANCE 2022 (arXiv 2209.10648)"

PROSPECTIVE = "862 emergency exams of one month after the training data, 82 with hemorrhage"
CROSS_VALIDATED = "10,159 exams, 901 with hemorrhage, cross-validated"
EITHER = "which of both sets is not verified"
CHALLENGE = "70 exams, all with hemorrhage, one class"

#: What differs from our exams, wherever these figures are shown.
DIFFERS = (
    "Chang's exams are consecutive ones of a hospital, few of them with a bleed: PPV and NPV depend on that.",
    "The printed PPV 0.829 does not fit 82 bleeds at the printed sensitivity and specificity, which give 0.788.",
    "INSTANCE's exams all have a bleed, so that its Dice knows no missed exam among normal ones; its types are one.",
    "Ours are simulated unless a table says otherwise.",
)


@dataclass(frozen=True)
class Printed:
    """One figure. target and metric: as in metrics.json. verified: read in the source, or recalled and not verified."""

    source: str
    exams: str
    target: str
    metric: str
    value: float
    verified: bool = True

    @property
    def status(self) -> str:
        """What must stand beside the figure, "" where nothing must."""
        return "" if self.verified else "recalled, not verified"


def _chang(exams: str, *values: float) -> tuple[Printed, ...]:
    names = ("accuracy", "auc", "sensitivity", "specificity", "ppv", "npv")
    return tuple(Printed(CHANG, exams, "hemorrhage", name, v) for name, v in zip(names, values, strict=True))


PRINTED: tuple[Printed, ...] = (
    *_chang(PROSPECTIVE, 0.970, 0.981, 0.951, 0.973, 0.829, 0.993),
    *_chang(CROSS_VALIDATED, 0.975, 0.983, 0.971, 0.975, 0.793, 0.997),
    Printed(CHANG, EITHER, "intraparenchymal", "dice", 0.931, verified=False),
    Printed(CHANG, EITHER, "extra_axial", "dice", 0.863, verified=False),
    Printed(CHANG, EITHER, "subarachnoid", "dice", 0.772, verified=False),
    Printed(CHANG, EITHER, "intraparenchymal", "volume_r", 0.999, verified=False),
    Printed(CHANG, EITHER, "extra_axial", "volume_r", 0.987, verified=False),
    Printed(CHANG, EITHER, "subarachnoid", "volume_r", 0.953, verified=False),
    Printed(INSTANCE, CHALLENGE, "hemorrhage", "dice", 0.6925),
    Printed(NVAUTO, CHALLENGE, "hemorrhage", "dice", 0.721),
)
