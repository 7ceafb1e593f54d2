"""COVID-19 Image Repository of Hannover Medical School (Winther et al., doi 10.25835/0090041; CC BY 3.0).

The folder holds labels.csv and images/. Every film is of a patient with COVID-19, so label_covid is 1 throughout; which
of the 14 findings of NIH ChestX-ray14 a film shows is not said, and unknown. Several films a patient. Ages are taken
out at the source, and whether a film was taken at the bedside is not said: both are unknown.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from domainseg.data.manifest import Manifest, build_manifest
from domainseg.data.tables import ManifestError
from domainseg.imaging.chest import FINDINGS

SITE = "Hannover"
_OFFSETS = ("admission_offset", "icu_admission_offset", "icu_release_offset", "death_offset")


def load(root: Path | str) -> Manifest:
    """The films of the folder ``root`` with all that the source says. Raises ManifestError.

    images has, beside the usual columns: modality (CR or DX), and admission_offset, icu_admission_offset,
    icu_release_offset, death_offset: days from the film. targets: part=whole with label_covid and label_<finding>.
    """
    root = Path(root)
    try:
        rows = pd.read_csv(root / "labels.csv", dtype=str, keep_default_na=False)
        images = pd.DataFrame(
            {
                "image": rows["image_id"],
                "path": "images/" + rows["file"],
                "patient": rows["patient_id"],
                "site": SITE,
                "view": rows["projection"].str.strip().str.upper(),
                "sex": rows["sex"].str.strip().str.upper().where(lambda sex: sex.isin(["F", "M", "O"]), ""),
                "modality": rows["modality"],
                **{name: rows[name] for name in rows if name in _OFFSETS},
            }
        )
    except (OSError, ValueError, KeyError) as error:
        raise ManifestError(f"data.root={root}: not the COVID-19 Image Repository ({error})") from error
    unknown = {f"label_{target}": "" for target in FINDINGS}
    targets = pd.DataFrame({"image": images["image"], "part": "whole", "label_covid": 1, **unknown})
    manifest = build_manifest(images, targets, root, "hannover")
    if missing := manifest.missing_files():
        raise ManifestError(f"data.root={root}: {len(missing)} films are not there, first {missing[0]}")
    return manifest
