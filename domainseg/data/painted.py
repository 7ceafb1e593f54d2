"""Further training exams from normal ones: the same patients with bleeds painted in, of known outline and type."""

from __future__ import annotations

import logging
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from domainseg.data.manifest import Manifest, build_manifest
from domainseg.data.tables import ManifestError
from domainseg.files import read_json, write_json
from domainseg.imaging import ImageReadError
from domainseg.imaging.hemorrhage import TYPES
from domainseg.phantom.simulate import PAINTED

log = logging.getLogger(__name__)


def with_painted(train: Manifest, folder: Path, *, copies: int, alone: bool, seed: int) -> Manifest:
    """The exams of a training part, and of each that is known to be without hemorrhage ``copies`` with bleeds.

    A painted exam has its patient's columns (patient, group, site, ...) and names the exam it was made of in the column
    ``painted_of`` of images. Nothing outside ``train`` is painted into, so that no patient of another part comes back.
    alone: exams that are known to bleed themselves are left out. folder: for the painted exams, which depend on the
    seed, the base exam and the number of the copy only; what lies there complete is reused. An exam in which no brain
    is found is not painted into. Raises ManifestError when there is none that can be.
    """
    bleeding = _bleeding(train)
    normal = list(bleeding.index[bleeding == 0])
    made = [one for image in normal for copy in range(copies) if (one := _made(train, image, copy, folder, seed))]
    if not made:
        raise ManifestError(
            f"{train.name}: bleeds are painted into exams with label_hemorrhage = 0 that show a brain in a closed "
            f"skull; of the {len(train)} exams of the training part {len(normal)} have that label, none shows that"
        )
    log.info("painted: %d exams from %d of the training part", len(made), len({one["base"] for one in made}))
    kept = train.where(~train.images["image"].map(bleeding).eq(1)) if alone else train
    of = train.images.set_index("image", drop=False)
    rows = [{**of.loc[one["base"]], **one["image"], "painted_of": one["base"]} for one in made]
    images = pd.concat([kept.images, pd.DataFrame(rows)], ignore_index=True).astype(object).fillna("")
    targets = pd.concat([kept.targets, pd.DataFrame([row for one in made for row in one["targets"]])])
    painted = build_manifest(images, targets.astype(object).fillna(""), train.root, train.name)
    if train.films is None:
        return painted
    paths = {one["image"]["image"]: one["image"]["path"] for one in made}
    return Manifest(painted.images, painted.targets, train.root, train.name, {**train.films, **paths})


def _bleeding(train: Manifest) -> pd.Series:
    """1, 0 or NaN for each exam: whether a hemorrhage, or a type of it, is known to be there or not."""
    names = [name for name in ("hemorrhage", *TYPES) if f"label_{name}" in train.targets]
    known = train.targets.groupby("image")[[f"label_{name}" for name in names]].max().reindex(train.images["image"])
    found = known.get("label_hemorrhage", pd.Series(float("nan"), index=known.index))
    return found.mask((known == 1).any(axis=1), 1.0)


def _made(train: Manifest, image: str, copy: int, folder: Path, seed: int) -> dict[str, Any] | None:
    """The rows of one painted exam, whose files lie in the folder; None where it cannot be painted."""
    from domainseg.phantom.heads import painted  # late: scipy
    from domainseg.phantom.heads.settings import HeadSettings

    token = sha256(f"{image}/{copy}".encode()).hexdigest()
    record = folder / "rows" / f"{token[:16]}.json"
    wanted = {"seed": seed, "version": PAINTED}
    if record.is_file() and (found := read_json(record))["wanted"] == wanted:
        return dict(found) if found["targets"] else None
    settings = HeadSettings(seed=seed, bleed=1.0, other=0.0)
    try:
        rows = painted.into(train.path(image), settings, int(token[:8], 16), folder, token[:16])
        reason = "no brain inside a closed skull found"
    except ImageReadError as error:
        rows, reason = None, error.reason
    if rows is None:
        log.warning("%s: nothing painted in: %s", image, reason)
        rows = {"image": {}, "targets": []}
    else:
        name = f"{image}+{copy}"
        rows["image"] = {"image": name, "path": str((folder / rows["image"]["path"]).absolute())}
        for row in rows["targets"]:
            row["image"] = name
            if "mask" in row:
                row["mask"] = str((folder / row["mask"]).absolute())
    rows |= {"base": image, "wanted": wanted}
    write_json(record, rows)
    return rows if rows["targets"] else None
