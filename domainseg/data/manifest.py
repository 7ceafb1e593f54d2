"""The manifest: which films there are, and what is known to be true about each part of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from domainseg.data.lesions import polygon_points
from domainseg.data.privacy import PRIVATE
from domainseg.data.tables import (
    IMAGE_COLUMNS,
    OF_FILM,
    SHOWN,
    SPLITS,
    TARGET_COLUMNS,
    ManifestError,
    as_text,
    check,
    is_binary_label,
    is_numeric,
    read_table,
)

__all__ = ["Manifest", "ManifestError", "build_manifest", "first_known", "load_manifest", "truth_table"]

HIPS = ("hip_left", "hip_right")
PATHS = f"{PRIVATE}/paths.parquet"  # image, path; of a manifest that was made from a PACS export


@dataclass(frozen=True)
class Manifest:
    """Two checked tables; docs/manifest.md lists the columns.

    images: one row a film, ``image`` unique; every documented column is there, "" (text) or NaN (age) = unknown.
    targets: rows of (image, part); label columns float64 1, 0 or NaN (text for label_view and label_location), points
        in source pixels; several rows for one (image, part) are several boxes, polygons or masks with equal labels.
    root: the folder that relative paths start from. name: what logs and reports call this data.
    films: image -> absolute path, of a manifest whose paths are private (made from a PACS export); they are in no
        table that is written.
    """

    images: pd.DataFrame
    targets: pd.DataFrame
    root: Path
    name: str
    films: Mapping[str, str] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def _paths(self) -> Mapping[str, str]:
        if self.films is not None:
            return {image: self.films[image] for image in self.images["image"]}
        return dict(zip(self.images["image"], self.images["path"], strict=True))

    def path(self, image: str) -> Path:
        """Where a film lies. Raises ManifestError for an image that is not in the manifest."""
        try:
            return self.root / self._paths[image]
        except KeyError:
            raise ManifestError(f"{self.name}: no image {image!r} in the manifest") from None

    def file(self, cell: str) -> Path:
        """The path that a cell of ``mask`` or ``femur_mask`` names."""
        return self.root / cell

    def split(self, name: str) -> Manifest:
        """The films of one split (train, tune or test) and their targets."""
        if name not in SPLITS:
            raise ManifestError(f"no split {name!r}: a split is one of {', '.join(SPLITS)}")
        return self.where(self.images["split"] == name)

    def where(self, keep: pd.Series) -> Manifest:
        """The films that a boolean column, aligned with ``images``, keeps, and their targets."""
        images = self.images[keep.to_numpy(dtype=bool)].reset_index(drop=True)
        targets = self.targets[self.targets["image"].isin(images["image"])].reset_index(drop=True)
        return replace(self, images=images, targets=targets)

    def with_images(self, **columns: Sequence[str] | pd.Series) -> Manifest:
        """The same manifest with columns of ``images`` set."""
        return replace(self, images=self.images.assign(**columns))

    def hash(self) -> str:
        """SHA-256 over the cells of both tables, whatever the order of rows and columns; the root does not matter."""
        return _hash(self.images, self.targets)

    def identity(self) -> str:
        """SHA-256 of films and patients: the same for the same films, however labelled, divided and described."""
        return _hash(self.images[["image", "patient", "group", "site"]])

    def missing_files(self) -> list[str]:
        """The images whose file is not there, in the order of the table; of an exam, the folder with its slices."""
        return [image for image, path in self._paths.items() if not _is_there(self.root / path)]


def _hash(*tables: pd.DataFrame) -> str:
    digest = hashlib.sha256()
    for table in tables:
        text = as_text(table[sorted(table.columns)])
        filled = text.loc[:, (text != "").any()]
        lines = sorted(filled.to_csv(index=False, header=False).splitlines())
        digest.update("\n".join([",".join(filled.columns), *lines, ""]).encode())
    return digest.hexdigest()


def _is_there(path: Path) -> bool:
    """Whether it is a file, or a folder that holds something."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def load_manifest(
    path: Path | str,
    targets: Path | str | None = None,
    *,
    root: Path | str | None = None,
    check_files: bool = True,
) -> Manifest:
    """Read and check a manifest from CSV or Parquet.

    path: the images table, or one table for both (it then has the targets' columns; part is "whole" when absent).
    targets: the targets table. root: the folder that relative paths start from, by default that of ``path``.
    A table without a column ``path`` beside which private/paths.parquet lies has its paths from there; ``root`` then
    names the DICOM folder, should it have moved.
    check_files: whether a film that is not there is an error (commands that report unreadable films say False).
    Raises ManifestError that names row, column, cell and what is allowed; the first ten wrong cells are shown.
    """
    path = Path(path)
    folder = Path(root) if root is not None else path.parent
    first, second = read_table(path), None if targets is None else read_table(targets)
    sources = (path.name, path.name if targets is None else Path(targets).name)
    films = None
    if "path" not in first.columns and (path.parent / PATHS).is_file():
        films, folder = _private_paths(path.parent / PATHS, root), path.parent
    manifest = _build(first, second, folder, path.stem, sources)
    if films is not None:
        manifest = replace(manifest, films=films)
        if strangers := [image for image in manifest.images["image"] if image not in films]:
            raise ManifestError(
                f"{path.name}: {len(strangers)} images are not in {PATHS}, first {strangers[0]}: table and paths "
                "are of two manifests"
            )
    elif "path" not in first.columns and _hashed(manifest):
        raise ManifestError(
            f"{path.name} was made from a PACS export; the paths of its films are in {path.parent / PATHS}, which is "
            "missing. Put the folder private/ of the export beside the table (mode 700)"
        )
    if check_files and films is not None and (missing := manifest.missing_files()):
        shown = ", ".join(missing[:SHOWN]) + (" ..." if len(missing) > SHOWN else "")
        raise ManifestError(
            f"{path.name}: {len(missing)} of {len(manifest)} films are no longer where {PATHS} says: {shown}. "
            "When the DICOM folder has moved: data.root=NEW_FOLDER"
        )
    if check_files and (missing := manifest.missing_files()):
        shown = ", ".join(missing[:SHOWN])
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise ManifestError(
            f"{path.name}: {len(missing)} of {len(manifest)} films are not there: {shown}{more}. "
            f"Relative paths start from {folder.resolve()}"
        )
    return manifest


def _private_paths(file: Path, root: Path | str | None) -> dict[str, str]:
    """image -> absolute path from private/paths.parquet, which holds paths relative to the DICOM folder it names."""
    try:
        table = pyarrow.parquet.read_table(file)
        folder = Path(root if root is not None else table.schema.metadata[b"dicom"].decode())
        names, paths = table["image"].to_pylist(), table["path"].to_pylist()
    except (pyarrow.ArrowException, OSError, KeyError, TypeError) as error:
        raise ManifestError(f"{file}: cannot be read ({type(error).__name__}); make the manifest again") from None
    return {image: str(folder / path) for image, path in zip(names, paths, strict=True)}


def _hashed(manifest: Manifest) -> bool:
    """Whether the images are called like those of a PACS manifest and are no files beside the table."""
    names = manifest.images["image"]
    return (
        len(names) > 0
        and all(re.fullmatch("[0-9a-f]{16}", name) for name in names)
        and len(manifest.missing_files()) == len(names)
    )


def build_manifest(images: pd.DataFrame, targets: pd.DataFrame, root: Path | str, name: str) -> Manifest:
    """A checked manifest from two tables in memory, as the sources make it. Raises ManifestError like load_manifest."""
    return _build(as_text(images), as_text(targets), Path(root), name, (f"{name} images", f"{name} targets"))


def _build(
    images: pd.DataFrame, targets: pd.DataFrame | None, root: Path, name: str, sources: tuple[str, str]
) -> Manifest:
    if targets is None:
        images, targets = _divide(images, sources[0])
    elif extra := [column for column in images.columns if _is_target(column)]:
        raise ManifestError(f"{sources[0]}: column {extra[0]} belongs into the targets table, {sources[1]}")
    images = check(images, sources[0], ["image"], unique="image")
    targets = targets if "part" in targets.columns else targets.assign(part="whole")
    targets = check(targets, sources[1], ["image", "part"])
    for column in IMAGE_COLUMNS:
        if column not in images:
            images[column] = np.full(len(images), np.nan) if is_numeric(column) else ""
    images["path"] = images["path"].where(images["path"] != "", images["image"])
    for column in TARGET_COLUMNS:
        if column not in targets:
            targets[column] = np.full(len(targets), np.nan) if is_numeric(column) else ""
    if (marked := targets["part"].isin(HIPS) & targets["x"].notna()).any():  # a hip whose head is marked is in the film
        known = targets.get("label_localizer", pd.Series(np.nan, targets.index))
        said = known.notna() & (targets["part"] == "whole")
        said = targets["image"].isin(targets.loc[said, "image"])
        said |= known.notna().groupby([targets["image"], targets["part"]]).transform("any")
        targets["label_localizer"] = known.mask(marked & ~said, 1.0)
    images = images.astype({column: str for column in images.columns if not is_numeric(column)})
    targets = targets.astype({column: str for column in targets.columns if not is_numeric(column)})
    _check_targets(images, targets, sources)
    return Manifest(images, targets, root, name)


def _is_target(column: str) -> bool:
    return column in TARGET_COLUMNS or column.startswith("label_")


def _divide(table: pd.DataFrame, source: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One table for both, taken apart: what is known of the film must be the same in each of its rows."""
    if "image" not in table.columns:
        check(table, source, ["image"])
    wanted = [column for column in table.columns if _is_target(column)]
    if not wanted:
        return table, pd.DataFrame({"image": [], "part": []}, dtype=object)
    per_image = table.groupby("image", sort=False)
    own, shared = wanted, []
    for column in table.columns:
        if column == "image" or column in wanted:
            continue
        differs = per_image[column].nunique() > 1
        if not differs.any():
            shared.append(column)
        elif column in IMAGE_COLUMNS:
            image = str(differs.idxmax())
            rows = ", ".join(str(row) for row in table.index[table["image"] == image][:SHOWN])
            raise ManifestError(f"{source}: image {image}: column {column} differs between its rows ({rows})")
        else:
            own = [*own, column]
    check(table, source, ["image"])  # before repeats are dropped, so that every wrong cell is named by its own row
    return table[["image", *shared]].drop_duplicates("image"), table[["image", *own]]


def _check_targets(images: pd.DataFrame, targets: pd.DataFrame, sources: tuple[str, str]) -> None:
    unknown = targets.loc[~targets["image"].isin(images["image"]), "image"].drop_duplicates()
    if len(unknown):
        names = ", ".join(unknown[:SHOWN])
        raise ManifestError(f"{sources[1]}: {len(unknown)} images are not in {sources[0]}: {names}")
    labels = [column for column in targets.columns if column.startswith("label_") and column != "label_origin"]
    for column in labels:
        known = targets[targets[column].notna() & (targets[column] != "")]
        values = known.groupby(["image", "part"], sort=False)[column].nunique()
        if (values > 1).any():
            image, part = values.index[int(np.argmax(values.to_numpy() > 1))]
            raise ManifestError(
                f"{sources[1]}: image {image}, part {part}: rows with different {column}; several rows of a part "
                "are several boxes or masks with the same labels"
            )
        if is_binary_label(column):
            absent = known.loc[(known["part"] == "whole") & (known[column] == 0), "image"]
            clash = known[known["image"].isin(absent) & (known["part"] != "whole") & (known[column] == 1)]
            if len(clash):
                first = clash.iloc[0]
                raise ManifestError(
                    f"{sources[1]}: image {first['image']}: {column} is 0 for the whole film and 1 for {first['part']}"
                )


def truth_table(manifest: Manifest, parts: Sequence[str] = HIPS) -> pd.DataFrame:
    """What is known of every (image, part) of the manifest: one row each, in the order of the images.

    Columns: image, part, every label column, every other column of the targets (the first row's cell), and lists:
    boxes (array [N, 4] as x, y, width, height), masks (list of paths as written in the table), polygons (list of
    arrays [N, 2]); of a hip and of the whole film apart: a lesion of the film stands in the rows of parts=("whole",).
    Labels of a part: its own if known; otherwise 0 (none for label_location) where the whole film's label is 0;
    otherwise unknown. A positive label of the whole film is never copied. label_location is "none" where
    label_fracture is 0. Labels that only exist of a film (label_view_filter, label_view, label_turn) are repeated
    on each of its parts.
    """
    images = manifest.images["image"]
    index = pd.MultiIndex.from_product([images, parts], names=["image", "part"])
    targets = manifest.targets
    rows = targets.groupby(["image", "part"], sort=False)
    merged = first_known(targets, ["image", "part"])
    table = merged.reindex(index)
    whole = merged[merged.index.get_level_values("part") == "whole"].droplevel("part").reindex(images)
    film = whole.loc[index.get_level_values("image")].set_axis(index)
    for column in targets.columns:
        if not is_numeric(column) and column not in ("image", "part"):
            table[column] = table[column].fillna("").astype(str)
            film[column] = film[column].fillna("").astype(str)
    for column in targets.columns:
        if column in OF_FILM:
            table[column] = film[column]
        elif is_binary_label(column):
            table[column] = table[column].where(table[column].notna() | (film[column] != 0), 0.0)
    if "label_location" in targets.columns:
        none = film["label_location"] == "none"
        if "label_fracture" in targets.columns:
            none |= table["label_fracture"] == 0
        table["label_location"] = table["label_location"].where((table["label_location"] != "") | ~none, "none")
    boxes = {key: [_box(cell) for cell in cells if cell] for key, cells in rows["box"]}
    masks = {key: [cell for cell in cells if cell] for key, cells in rows["mask"]}
    polygons = {key: [polygon_points(cell) for cell in cells if cell] for key, cells in rows["polygon"]}
    table["boxes"] = pd.Series([np.array(boxes.get(key, [])).reshape(-1, 4) for key in index], index, dtype=object)
    table["masks"] = pd.Series([masks.get(key, []) for key in index], index, dtype=object)
    table["polygons"] = pd.Series([polygons.get(key, []) for key in index], index, dtype=object)
    return table.drop(columns=["box", "mask", "polygon"]).reset_index()


def first_known(targets: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Of each group of rows the first cell that is known, per column; "" or NaN where none is."""
    text = [column for column in targets.columns if not is_numeric(column) and column not in keys]
    return (
        targets.assign(**{column: targets[column].where(targets[column] != "") for column in text})
        .groupby(keys, sort=False)
        .first()
        .fillna(dict.fromkeys(text, ""))
    )


def _box(cell: str) -> list[float]:
    return [float(number) for number in cell.split(",")]
