"""Figures that others printed, to stand beside ours: of hemorrhage on head CT and of findings on chest films.

Each says whether it was read in its source.
"""

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


#: AUC of findings on test films of NIH ChestX-ray14, as the README of jrzech/reproduce-chexnet lists them.
CHEST_COLUMNS = ("Zech 2018", "Zech 2022", "CheXNet")
CHEST_AUC: dict[str, tuple[float, float, float]] = {
    "atelectasis": (0.8161, 0.8180, 0.8094),
    "cardiomegaly": (0.9105, 0.9090, 0.9248),
    "effusion": (0.8839, 0.8827, 0.8638),
    "infiltration": (0.7077, 0.7156, 0.7345),
    "mass": (0.8308, 0.8377, 0.8676),
    "nodule": (0.7748, 0.7756, 0.7802),
    "pneumonia": (0.7651, 0.7617, 0.7680),
    "pneumothorax": (0.8739, 0.8776, 0.8887),
    "consolidation": (0.8008, 0.8002, 0.7901),
    "edema": (0.8979, 0.8945, 0.8878),
    "emphysema": (0.9227, 0.9316, 0.9371),
    "fibrosis": (0.8293, 0.8251, 0.8047),
    "pleural_thickening": (0.7860, 0.7889, 0.8062),
    "hernia": (0.9010, 0.9175, 0.9164),
}

#: Share of the films with each finding that reproduce-chexnet scales its maps with.
CHEST_BASE_RATES = {
    "atelectasis": 0.103,
    "cardiomegaly": 0.025,
    "effusion": 0.119,
    "infiltration": 0.177,
    "mass": 0.051,
    "nodule": 0.056,
    "pneumonia": 0.012,
    "pneumothorax": 0.047,
    "consolidation": 0.042,
    "edema": 0.021,
    "emphysema": 0.022,
    "fibrosis": 0.015,
    "pleural_thickening": 0.030,
    "hernia": 0.002,
}

#: What differs from our films, wherever these figures are shown.
CHEST_DIFFERS = (
    "Printed: NIH ChestX-ray14, 112,120 films, labels mined from reports, each figure on a split of its own.",
    "Zech: two retrainings of reproduce-chexnet. All three began with ImageNet weights; ours says above where it did.",
    "Ours: the films, labels and split of this run; simulated films unless the data below say otherwise.",
    "The base rate is that of the run's training films and scales its maps; that of NIH is the one printed.",
)
