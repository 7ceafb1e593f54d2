"""A PACS export becomes a manifest: images, targets, sources, what was left out, and the private tables."""

from __future__ import annotations

import fcntl
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet

from domainseg.data.annotations import find_annotations, read_annotations
from domainseg.data.manifest import PATHS, load_manifest
from domainseg.data.pacs.films import REASONS, Films, derive
from domainseg.data.pacs.match import AMBIGUOUS, FILM_LEFT_OUT, LEVELS, NOT_FOUND, match
from domainseg.data.pacs.place import IMAGES, LEFT_OUT, SOURCES, SUMMARY, TARGETS, check_place
from domainseg.data.pacs.reports import Reports, read_reports
from domainseg.data.pacs.rules import FIXED_TAGS, Rules
from domainseg.data.pacs.scan import Scan, scan
from domainseg.data.pacs.targets import REASONS as SHAPE_REASONS
from domainseg.data.pacs.targets import Category, Gatherer, categories, check_meaning, write_targets
from domainseg.data.pacs.unknown import unknown_categories
from domainseg.data.privacy import keyed_hash, patient_key, private_folder, private_path
from domainseg.data.tables import ManifestError
from domainseg.files import atomic_path, write_json
from domainseg.imaging.header import KIND_TAGS

log = logging.getLogger(__name__)

NO_FILM, SEVERAL_PATIENTS = "no_film", "several_patients"
REPORT_REASONS = {
    NO_FILM: "no film has its accession number",
    SEVERAL_PATIENTS: "films of several patients have its accession number; whose report it is cannot be known",
}
NOTE_REASONS = SHAPE_REASONS | {
    NOT_FOUND: "no film has this UID, path or file name",
    AMBIGUOUS: "several films are called so; name the film by its path or SOPInstanceUID",
    FILM_LEFT_OUT: "its film is left out",
}


def build(cfg: Mapping[str, Any], output: Path) -> None:
    """Write the manifest of the DICOM files below ``dicom`` into ``output``; docs/manifest.md says what lies where.

    cfg: the keys of conf/manifest.yaml. The same call again reads only files that are new or changed. Raises
    ManifestError; its texts, the log and the progress name no file below ``dicom`` and no value of a header.
    """
    output, folder = Path(output), Path(cfg["dicom"])
    if output.resolve().is_relative_to(folder.resolve()):
        raise ManifestError(f"output={output}: lies inside the DICOM folder, which is only read; name one outside")
    check_place(output)
    rules, rules_of_names = Rules(cfg["columns"]), categories(cfg["categories"])
    check_meaning(cfg["annotation_sides"])
    with _alone(private_folder(output)) as private:
        _build(cfg, output, folder, private, rules, rules_of_names)


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """Hold a folder as long as this process lives; two that write one journal would spoil it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ManifestError(
            f"{folder.parent}: another process is making this manifest; wait until it is done"
        ) from None
    except OSError:  # a file system without locks
        pass
    try:
        yield folder
    finally:
        os.close(handle)


def _build(
    cfg: Mapping[str, Any],
    output: Path,
    folder: Path,
    private: Path,
    rules: Rules,
    rules_of_names: Sequence[Category],
) -> None:
    key = patient_key(cfg["key"], output)
    # Reports and annotations come before the headers: what is wrong with them shows at once, not after hours.
    reports = None
    if cfg["reports"] is not None:
        reports = read_reports(Path(cfg["reports"]), cfg["report_columns"], key, cfg["ignore_leading_zeros"])
    if cfg["annotations"] is not None:
        for _ in read_annotations(Path(cfg["annotations"])):
            pass
    tags = list(dict.fromkeys([*KIND_TAGS, *FIXED_TAGS, *rules.tags, *cfg["slicer_spacing"]]))
    found = scan(folder, private / "headers.jsonl", tags, cfg["workers"])
    films = derive(found, rules, key, cfg)
    if films.images.empty:
        raise ManifestError(f"dicom={folder}: no film among {len(found.present)} files: {_reasons(films)}")
    summary: dict[str, Any] = {
        "files": len(found.present),
        "films": len(films.images),
        "patients": films.images["group"].nunique(),
        "left_out": _counts(films.left_out["reason"]),
        "reasons": {reason: REASONS[reason] for reason in sorted(set(films.left_out["reason"]))},
        "withheld": films.withheld,
        "sources": {name: _counts(films.sources[name]) for name in films.sources.columns if name != "image"},
    }
    left_out = [films.left_out.assign(what="film", name=films.left_out["file"])[["what", "name", "image", "reason"]]]
    images = films.images.assign(report="")
    if reports is not None:
        images["report"], unused, summary["reports"] = _join(images, reports)
        left_out.append(unused)
        summary["reasons"] |= {reason: REPORT_REASONS[reason] for reason in sorted(set(unused["reason"]))}
        _write(reports.table, private / "reports.parquet", private=True)
    targets = pd.DataFrame({"image": [], "part": []}, dtype=str)
    notes, unknown = pd.DataFrame(), ""
    if cfg["annotations"] is not None:
        gathered = _gather(Path(cfg["annotations"]), rules_of_names, found, films, cfg)
        targets = write_targets(gathered, output, key)
        notes = _notes_out(gathered, key)
        left_out.append(notes[["what", "name", "image", "reason"]])
        files, others = find_annotations(Path(cfg["annotations"]))
        summary["annotations"] = {"files": len(files), "files_of_other_kinds": others}
        summary["annotations"] |= _count_notes(gathered, targets)
        unknown = unknown_categories(gathered, found, films)
        summary["reasons"] |= {reason: NOTE_REASONS[reason] for reason in sorted(set(notes["reason"]))}
    _write_private(films, notes, folder, private)
    _write(images, output / IMAGES)
    _write(targets, output / TARGETS)
    _write(films.sources, output / SOURCES)
    with atomic_path(output / LEFT_OUT) as temporary:
        pd.concat(left_out).to_csv(temporary, index=False, lineterminator="\n")
    load_manifest(output / IMAGES, output / TARGETS)
    write_json(output / SUMMARY, summary)
    log.info("%d films of %d patients; left out: %s", summary["films"], summary["patients"], _reasons(films))
    _tell(summary, unknown)


def _tell(summary: Mapping[str, Any], unknown: str) -> None:
    """A line of the reports and one of the annotations. unknown: see ``unknown_categories``."""
    if (reports := summary.get("reports")) is not None:
        log.info(
            "%d reports: %d joined with %d films, %d without film, %d of several patients",
            *(reports[name] for name in ("reports", "reports_with_film", "films_with_report", "reports_without_film")),
            reports["reports_of_several_patients"],
        )
    if (notes := summary.get("annotations")) is not None:
        log.info(
            "%d annotations used; left out: %s; %d films with targets; labels known: %s",
            notes["used"], _listed(notes["left_out"]), notes["films_with_targets"], _listed(notes["known"]),
        )  # fmt: skip
    if unknown:
        log.warning("left out, categories that no rule fits (`categories` in conf/manifest.yaml): %s", unknown)


def _join(images: pd.DataFrame, reports: Reports) -> tuple[pd.Series, pd.DataFrame, dict[str, int]]:
    """The column report, the reports that no film has and why, and counts of what fits together."""
    known = set(reports.table["report"])
    patients = images.groupby("accession")["group"].nunique()
    several = set(patients.index[patients > 1])
    joined = images["accession"].where(images["accession"].isin(known - several), "")
    reasons = dict.fromkeys(known - set(images["accession"]), NO_FILM)
    reasons |= dict.fromkeys(known & several, SEVERAL_PATIENTS)
    names = sorted(reasons)
    unused = pd.DataFrame(
        {"what": "report", "name": names, "image": "", "reason": [reasons[name] for name in names]}, dtype=object
    )
    counts = reports.counts | {
        "reports_with_film": len(known) - len(unused),
        "films_with_report": int((joined != "").sum()),
        "films_without_report": int((joined == "").sum()),
        "films_without_accession": int((images["accession"] == "").sum()),
        "reports_without_film": int((unused["reason"] == NO_FILM).sum()),
        "reports_of_several_patients": int((unused["reason"] == SEVERAL_PATIENTS).sum()),
    }
    return joined, unused, counts


def _gather(path: Path, rules: Sequence[Category], found: Scan, films: Films, cfg: Mapping[str, Any]) -> Gatherer:
    """The annotations are read twice: for the films that they name, and for what they say of them."""
    names = {name for shape in read_annotations(path) for name in shape.films}
    gathered = Gatherer(rules, match(names, found, films, cfg["slicer_spacing"]), cfg["annotation_sides"])
    for shape in read_annotations(path):
        gathered.add(shape)
    gathered.finish()
    return gathered


def _notes_out(gathered: Gatherer, key: bytes) -> pd.DataFrame:
    """What annotations were left out; ``path`` is what they call their film, and private."""
    rows = [
        ("annotation", keyed_hash(key, "annotation", shape.films[0]), image, reason, shape.films[0], shape.name)
        for shape, image, reason in gathered.out
    ]
    table = pd.DataFrame(rows, columns=["what", "name", "image", "reason", "path", "category"], dtype=object)
    return table.sort_values(["reason", "name"], kind="stable", ignore_index=True)


def _count_notes(gathered: Gatherer, targets: pd.DataFrame) -> dict[str, Any]:
    levels = Counter(film.level for film in gathered.info.values())
    return {
        "used": sum(part.shapes for part in gathered.parts.values()),
        "left_out": dict(Counter(reason for _, _, reason in gathered.out).most_common()),
        "films": len(gathered.info),
        "films_with_targets": int(targets["image"].nunique()),
        "films_found_by": {level: levels[level] for level in LEVELS if levels[level]},
        "rows": len(targets),
        "known": {
            str(name): int((targets[name].notna() & (targets[name] != "")).sum())
            for name in targets
            if str(name).startswith("label_")
        },
    }


def _write_private(films: Films, notes: pd.DataFrame, folder: Path, private: Path) -> None:
    paths = pyarrow.Table.from_pandas(films.paths, preserve_index=False)
    with private_path(private / Path(PATHS).name) as temporary:
        pyarrow.parquet.write_table(paths.replace_schema_metadata({"dicom": str(folder.resolve())}), temporary)
    files = films.left_out.assign(what="film").rename(columns={"file": "name"})
    table = pd.concat([files, notes], ignore_index=True).fillna("")
    # names that are not valid text, as \\xfc
    table = table.map(lambda cell: str(cell).encode("utf-8", "backslashreplace").decode())
    _write(table, private / "left_out.parquet", private=True)


def _write(table: pd.DataFrame, path: Path, *, private: bool = False) -> None:
    with (private_path if private else atomic_path)(path) as temporary:
        table.to_parquet(temporary, index=False)


def _counts(cells: pd.Series) -> dict[str, int]:
    """How often each value stands there, most frequent first; an empty one is "unknown"."""
    counts = cells.replace("", "unknown").value_counts()
    return {str(value): int(count) for value, count in counts.items()}


def _reasons(films: Films) -> str:
    return _listed(_counts(films.left_out["reason"]))


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing"
