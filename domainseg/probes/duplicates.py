"""Films that stand in the data twice: the same pixels, or nearly the same picture, above all in two splits.

  python -m domainseg.audit +probe=duplicates data=manifest data.path=films.csv output=DIR

A copy of a training film in the test is a question whose answer is known. Copies often have other names and other
patients, so that no split by patient keeps them together.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from domainseg.data.manifest import Manifest
from domainseg.evaluation.intervals import empty, proportion
from domainseg.evaluation.tables import clusters_of
from domainseg.files import atomic_path
from domainseg.imaging import ImageReadError
from domainseg.probes.common import ProbeError, all_films, load_films, write_results
from domainseg.probes.thumbnails import SIDE, near_pairs, thumbnail
from domainseg.reporting.page import Figure, Page, Section, Table
from domainseg.reporting.words import interval, several

log = logging.getLogger(__name__)

MOST = 1_000_000  # near pairs that are kept
SHOWN = 6  # groups in the gallery
LISTED = 200  # groups in the report; all of them are in duplicates.csv
KINDS = ("same pixels", "nearly the same", "mirrored")
LEARNED = ("train", "tune")


def run(cfg: dict[str, Any], output: Path, *, level: float = 0.88) -> dict[str, Any]:
    """Write duplicates.json, duplicates.csv (an image a row, with its group) and duplicates.html; returns the record.

    level: correlation from which on two small pictures are nearly the same. Raises ProbeError and ManifestError.
    """
    if not 0.5 <= float(level) <= 1:
        raise ProbeError(f"probe.level={level}: a correlation from 0.5 to 1; below it, films of two patients are alike")
    manifest, said = _divided(cfg)
    digests, units, unread = read_thumbnails(manifest)
    if not len(units):
        raise ProbeError(f"none of {len(manifest)} films could be read")
    pairs = find_pairs(digests, units, level)
    if unread:
        said.append(f"{several(unread, 'film', 'films')} could not be read and may be copies all the same.")
    if len(pairs) >= MOST:
        said.append(f"More than {MOST} pairs: the search stopped there. Raise probe.level, or remove blank films.")
    read = manifest.images[manifest.images["image"].isin(set(digests))].set_index("image").loc[list(digests)]
    table = groups_of(read, pairs)
    record = {**summary(read, table, pairs), "level": level, "unread": unread, "said": said}
    with atomic_path(output / "duplicates.csv") as temporary:
        table.drop(columns="who").to_csv(temporary, index=False, lineterminator="\n")
    write_results(output, "duplicates", record, page_of(record, table, manifest), _counts(record))
    return record


def read_thumbnails(manifest: Manifest) -> tuple[dict[str, bytes], NDArray[np.float16], int]:
    """SHA-256 of decoded pixels by image, thumbnails [n, SIDE * SIDE] in the same order, and how many were unread."""
    from rich.progress import track

    from domainseg.cascade.cascade import read_ahead

    files = [(image, manifest.path(image)) for image in manifest.images["image"]]
    units = np.empty((len(files), SIDE * SIDE), np.float16)
    digests: dict[str, bytes] = {}
    for image, film in read_ahead(track(files, description="reading films")):
        if isinstance(film, ImageReadError):
            log.warning("%s: not read: %s", image, film.reason)
            continue
        pixels = film.pixels  # type: ignore[union-attr]
        units[len(digests)] = thumbnail(pixels)
        grey = np.ascontiguousarray((pixels * 65535).round().astype(np.uint16))
        digests[image] = hashlib.sha256(f"{grey.shape}".encode() + grey.tobytes()).digest()
    return digests, units[: len(digests)], len(files) - len(digests)


def find_pairs(digests: Mapping[str, bytes], units: NDArray[Any], level: float) -> list[tuple[int, int, float, str]]:
    """Pairs (i, j, correlation, kind) with i < j, numbers in the order of ``digests``.

    Films of the same pixels are paired with the first of them only, and searched once.
    """
    first: dict[bytes, int] = {}
    pairs, alone = [], []
    for number, digest in enumerate(digests.values()):
        if (before := first.setdefault(digest, number)) != number:
            pairs.append((before, number, 1.0, KINDS[0]))
        else:
            alone.append(number)
    place, known = np.array(alone), set[tuple[int, int]]()
    for kind, mirror in ((KINDS[1], False), (KINDS[2], True)):
        for i, j, found in near_pairs(units[place], level, mirror=mirror):
            if len(pairs) >= MOST:
                return pairs
            if (i, j) not in known:
                known.add((i, j))
                pairs.append((int(place[i]), int(place[j]), found, kind))
    return pairs


def groups_of(images: pd.DataFrame, pairs: Iterable[tuple[int, int, float, str]]) -> pd.DataFrame:
    """The films that have a copy: group, image, split, site, kind and correlation of the nearest one, who (a patient).

    images: the images table, its index the image, in the order that the pairs number. A group is joined by chains.
    """
    parent = list(range(len(images)))

    def find(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    nearest: dict[int, tuple[float, str]] = {}
    for i, j, found, kind in pairs:
        low, high = sorted((find(i), find(j)))
        parent[high] = low
        for one in (i, j):
            nearest[one] = max(nearest.get(one, (-1.0, "")), (found, kind))
    members = sorted(nearest, key=lambda one: (find(one), one))
    numbers = {root: k + 1 for k, root in enumerate(dict.fromkeys(find(one) for one in members))}
    rows = images.iloc[members]
    return pd.DataFrame(
        {
            "group": [numbers[find(one)] for one in members],
            "image": rows.index,
            "split": rows["split"].to_numpy(),
            "site": rows["site"].to_numpy(),
            "kind": [nearest[one][1] for one in members],
            "correlation": [round(nearest[one][0], 4) for one in members],
            "who": [
                f"{site}/{patient}" if patient else ""
                for site, patient in zip(rows["site"], rows["patient"], strict=True)
            ],
        }
    )


def summary(images: pd.DataFrame, table: pd.DataFrame, pairs: Sequence[tuple[int, int, float, str]]) -> dict[str, Any]:
    """Counts, the share of test films that have a copy among the films learned from, and the groups by image."""
    groups = [_group(number, part) for number, part in table.groupby("group", sort=True)]
    test = images.index[images["split"] == "test"]
    leaking = {
        image
        for _, part in table.groupby("group")
        if part["split"].isin(LEARNED).any()
        for image in part.loc[part["split"] == "test", "image"]
    }
    hit = np.array([image in leaking for image in test], dtype=bool)
    patients = clusters_of(images.loc[test].reset_index())
    seen = proportion(hit, patients) if len(test) else empty("no test split")
    across = [group for group in groups if group["across_splits"]]
    record: dict[str, Any] = {
        "n": len(images),
        "pairs": {kind: sum(pair[3] == kind for pair in pairs) for kind in KINDS},
        "films_with_a_copy": len(table),
        "groups": groups,
        "groups_across_splits": len(across),
        "of_one_patient": sum(group["patients"] == "one" for group in groups),
        "of_several_patients": sum(group["patients"] == "several" for group in groups),
        "test_films_seen_before": seen,
    }
    return record | {"verdict": _verdict(record)}


def _group(number: Any, part: pd.DataFrame) -> dict[str, Any]:
    who = set(part["who"])
    return {
        "group": int(number),
        "images": list(part["image"]),
        "splits": sorted(set(part["split"]) - {""}),
        "across_splits": len(set(part["split"]) - {""}) > 1,
        "patients": "unknown" if "" in who else "one" if len(who) == 1 else "several",
        "least_correlation": float(part["correlation"].min()),
        "kind": max(part["kind"], key=KINDS.index),
    }


def _verdict(record: Mapping[str, Any]) -> str:
    if not record["groups"]:
        return f"No copies among {several(record['n'], 'film', 'films')}."
    line = f"{record['films_with_a_copy']} of {record['n']} films have a copy, in {len(record['groups'])} groups"
    if record["of_several_patients"]:
        line += f", {record['of_several_patients']} of which go by several patients"
    if not record["groups_across_splits"]:
        return f"{line}. None lies in two splits."
    seen = record["test_films_seen_before"]
    return (
        f"{line}. {record['groups_across_splits']} groups lie in two splits: {interval(seen)} of {seen['n']} test "
        "films were seen in training or tuning. Put each group into one split (column group of the images table)."
    )


def _divided(cfg: Mapping[str, Any]) -> tuple[Manifest, list[str]]:
    """The films with their splits, where they have any or training would make them."""
    manifest = all_films(cfg)
    images = manifest.images
    if (images["split"] != "").any():
        return manifest, []
    if ((images["patient"] == "") & (images["group"] == "")).any():
        return manifest, ["There are no splits, and films without patient and group: copies are listed, leaks unknown."]
    return load_films(cfg), ["The table has no splits: they are those that training would make with this seed."]


def _counts(record: Mapping[str, Any]) -> Table:
    rows = [(kind.capitalize(), str(count)) for kind, count in record["pairs"].items()]
    rows += [
        ("Groups", str(len(record["groups"]))),
        ("Groups across splits", str(record["groups_across_splits"])),
        ("Groups of one patient", str(record["of_one_patient"])),
        ("Groups that go by several patients", str(record["of_several_patients"])),
        ("Share of test films seen before", interval(record["test_films_seen_before"])),
    ]
    return Table(("Pairs of films, by kind", ""), rows, f"Copies among {record['n']} films", numeric=(1,))


METHOD = (
    "Same pixels: equal after decoding, whatever the file. Nearly the same: the correlation of two pictures of 48 x 48 "
    "pixels with local contrast, as they are or mirrored. It finds copies of another size, compression, noise, grey "
    "scale or with a mark added; it does not find copies that were cropped by a few percent, or turned."
)


def page_of(record: Mapping[str, Any], table: pd.DataFrame, manifest: Manifest) -> Page:
    """The report; groups across splits come first."""
    groups = sorted(record["groups"], key=lambda group: (not group["across_splits"], group["group"]))
    rows = [
        (
            str(group["group"]),
            ", ".join(group["images"][:6]) + (" …" if len(group["images"]) > 6 else ""),
            " and ".join(group["splits"]) or "–",
            group["patients"],
            group["kind"],
            f"{group['least_correlation']:.3f}",
        )
        for group in groups[:LISTED]
    ]
    heads = ("Group", "Images", "Splits", "Patients", "Kind", "Least correlation")
    note = f"The first {LISTED}; all are in duplicates.csv." if len(groups) > LISTED else ""
    return Page(
        title="Duplicates",
        subtitle=f"{record['n']} films, level {record['level']:g}.",
        brief=[record["verdict"]],
        warnings=record["said"],
        sections=[
            Section("What was found", text=[METHOD], tables=[_counts(record)]),
            Section(
                "Groups", tables=[Table(heads, rows, note=note, numeric=(0, 5))], gallery=_gallery(groups, manifest)
            ),
        ],
    )


def _gallery(groups: Sequence[Mapping[str, Any]], manifest: Manifest) -> list[Figure]:
    """The first two films of some groups, side by side."""
    from domainseg.imaging import read_film

    figures = []
    for group in groups[:SHOWN]:
        pictures = []
        for image in group["images"][:2]:
            pixels = read_film(manifest.path(image)).pixels
            small = cv2.resize(
                pixels, (240, round(240 * pixels.shape[0] / pixels.shape[1])), interpolation=cv2.INTER_AREA
            )
            pictures.append(np.pad(small, ((0, max(0, 400 - len(small))), (2, 2)))[:400])
        coded = cv2.imencode(".jpg", (np.hstack(pictures) * 255).astype(np.uint8))[1]
        figures.append(Figure(coded.tobytes(), f"Group {group['group']}: {' and '.join(group['images'][:2])}"))
    return figures
