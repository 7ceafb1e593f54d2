"""A PACS export becomes a manifest: images, targets, sources, what was left out, and the private tables."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet

from domainseg.data.manifest import PATHS, load_manifest
from domainseg.data.pacs.films import REASONS, Films, derive
from domainseg.data.pacs.reports import Reports, read_reports
from domainseg.data.pacs.rules import FIXED_TAGS, Rules
from domainseg.data.pacs.scan import Scan, scan
from domainseg.data.privacy import patient_key, private_folder, private_path
from domainseg.data.tables import ManifestError
from domainseg.files import atomic_path, write_json
from domainseg.imaging.header import KIND_TAGS

log = logging.getLogger(__name__)

NO_FILM = "no_film"


def build(cfg: Mapping[str, Any], output: Path) -> None:
    """Write the manifest of the DICOM files below ``dicom`` into ``output``; docs/manifest.md says what lies where.

    cfg: the keys of conf/manifest.yaml. The same call again reads only files that are new or changed. Raises
    ManifestError; its texts, the log and the progress name no file below ``dicom`` and no value of a header.
    """
    output, folder = Path(output), Path(cfg["dicom"])
    if output.resolve().is_relative_to(folder.resolve()):
        raise ManifestError(f"output={output}: lies inside the DICOM folder, which is only read; name one outside")
    rules = Rules(cfg["columns"])
    private = private_folder(output)
    key = patient_key(cfg["key"], output)
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
    if cfg["reports"] is not None:
        reports = read_reports(Path(cfg["reports"]), cfg["report_columns"], key, cfg["ignore_leading_zeros"])
        images["report"], summary["reports"] = _join(images, reports, found, key, cfg["ignore_leading_zeros"])
        lonely = sorted(set(reports.table["report"]) - set(images["accession"]))
        left_out.append(pd.DataFrame({"what": "report", "name": lonely, "image": "", "reason": NO_FILM}, dtype=object))
        _write(reports.table, private / "reports.parquet", private=True)
    targets = pd.DataFrame({"image": [], "part": []}, dtype=str)
    _write_private(films, folder, private)
    _write(images, output / "images.parquet")
    _write(targets, output / "targets.parquet")
    _write(films.sources, output / "sources.parquet")
    with atomic_path(output / "left_out.csv") as temporary:
        pd.concat(left_out).to_csv(temporary, index=False, lineterminator="\n")
    load_manifest(output / "images.parquet", output / "targets.parquet")
    write_json(output / "summary.json", summary)
    log.info("%d films of %d patients; left out: %s", summary["films"], summary["patients"], _reasons(films))


def _join(
    images: pd.DataFrame, reports: Reports, found: Scan, key: bytes, ignored: bool
) -> tuple[pd.Series, dict[str, int]]:
    """The column report, and what fits together; counts also what only leading zeros keep apart."""
    known = set(reports.table["report"])
    joined = images["accession"].where(images["accession"].isin(known), "")
    counts = reports.counts | {
        "films_with_report": int((joined != "").sum()),
        "films_without_report": int((joined == "").sum()),
        "films_without_accession": int((images["accession"] == "").sum()),
        "reports_without_film": len(known - set(images["accession"])),
    }
    return joined, counts


def _write_private(films: Films, folder: Path, private: Path) -> None:
    table = pyarrow.Table.from_pandas(films.paths, preserve_index=False)
    with private_path(private / Path(PATHS).name) as temporary:
        pyarrow.parquet.write_table(table.replace_schema_metadata({"dicom": str(folder.resolve())}), temporary)
    _write(films.left_out, private / "left_out.parquet", private=True)


def _write(table: pd.DataFrame, path: Path, *, private: bool = False) -> None:
    with (private_path if private else atomic_path)(path) as temporary:
        table.to_parquet(temporary, index=False)


def _counts(cells: pd.Series) -> dict[str, int]:
    """How often each value stands there, most frequent first; an empty one is "unknown"."""
    counts = cells.replace("", "unknown").value_counts()
    return {str(value): int(count) for value, count in counts.items()}


def _reasons(films: Films) -> str:
    counts = _counts(films.left_out["reason"])
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "nothing"
