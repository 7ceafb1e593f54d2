"""The exams as all networks get them: the head on the grid of the pipeline's slabs, in HU, with its label volume."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from domainseg.cascade import volumes
from domainseg.cascade.case import Case
from domainseg.cascade.head_box import head_frame
from domainseg.cascade.head_truth import HeadTruth
from domainseg.config import plain
from domainseg.files import DomainsegError, atomic_path, hash_json, read_json, write_json
from domainseg.imaging.volume import Volume
from domainseg.imaging.volumes import read_volume
from domainseg.overrides import compose, conf_folder, parse
from domainseg.training.run import load_data

RECORD = "exams.json"
SPLITS = ("train", "tune", "test")


@dataclass(frozen=True)
class Prepared:
    """An exam on disk: hu int16 and codes uint8 (0 none, then the types), both [Z, H, W], and mm of (x, y, z)."""

    image: str
    file: Path

    def load(self) -> tuple[NDArray[np.int16], NDArray[np.uint8], tuple[float, float, float]]:
        """Voxels, codes and spacing."""
        with np.load(self.file) as held:
            return held["hu"], held["codes"], tuple(held["spacing"].tolist())


@dataclass(frozen=True)
class Sets:
    """Exams by split, the folder that they lie in, and the pipeline's settings."""

    splits: dict[str, list[Prepared]]
    folder: Path
    settings: dict[str, object]


def prepare(output: Path, typed: list[str]) -> Sets:
    """Simulate and prepare the exams, or find them prepared. Raises DomainsegError where `output` holds others."""
    folders = [conf_folder()]
    cfg = plain(compose("train", parse(["+pipeline=hemorrhage", *typed], folders)[0], folders))
    slabs = cfg["stage"]["hemorrhage"]["preprocessing"][0]
    folder, wanted = output / "exams", hash_json({"data": cfg["data"], "slabs": slabs, "seed": cfg["seed"]})
    if (folder / RECORD).is_file():
        record = read_json(folder / RECORD)
        if record["wanted"] != wanted:
            raise DomainsegError(f"{output}: holds cells of other exams; name another --output")
    else:
        record = {"wanted": wanted, "splits": _prepare(cfg, folder, int(slabs["size"]), float(slabs["thickness"]))}
        write_json(folder / RECORD, record)
    splits = {s: [Prepared(image, folder / name) for image, name in record["splits"][s]] for s in SPLITS}
    return Sets(splits, folder, cfg)


def _prepare(cfg: dict[str, object], folder: Path, size: int, thickness: float) -> dict[str, list[tuple[str, str]]]:
    manifest = load_data(cfg)
    truth = HeadTruth(manifest)
    found: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    rows = manifest.images[["image", "split"]].itertuples(index=False)
    for number, (image, split) in enumerate(track(list(rows), description="exams")):
        if truth.exam(image)["head_filter"] == 0:
            continue
        volume = read_volume(manifest.path(image))
        assert isinstance(volume, Volume)
        frame = head_frame(volume)
        case = replace(Case.of(image, volume), part="head", affine=frame.affine, shape=frame.shape)
        voxels, affine = volumes.grid(case, size, thickness)
        labels = truth.labels(image, volume)
        assert labels is not None, "simulated exams have masks"
        spacing = np.linalg.norm((volume.affine @ affine)[:3, :3], axis=0)
        name = f"{number:04d}.npz"
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / name) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream,
                hu=np.rint(voxels).astype(np.int16),
                codes=volumes.on_grid(case, labels, size, thickness),
                spacing=spacing,
            )
        found[split].append((image, name))
    return found
