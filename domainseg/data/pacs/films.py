"""From the rows of a scan to the images table: hashes for who and what, columns by rules, what is left out and why."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from domainseg.data.pacs.duplicates import IDENTICAL, OTHER_HEADER, OTHER_PIXELS, find_duplicates
from domainseg.data.pacs.rules import COLUMNS, Rules
from domainseg.data.pacs.scan import Scan
from domainseg.data.pacs.withhold import Withhold
from domainseg.data.privacy import keyed_hash
from domainseg.imaging.header import PROBLEMS

REASONS = {
    **PROBLEMS,
    "name_not_unicode": "the file's name is not valid text; rename it",
    "linked_folder": "a link to a folder, which is not followed; put the folder itself there",
    "burned_in": "BurnedInAnnotation = YES: names may stand in the picture (keep_burned_in=true keeps them)",
    IDENTICAL: "the same film is there already, byte for byte",
    OTHER_HEADER: "a film with this UID and these pixels is there already; its header differs",
    OTHER_PIXELS: "another film with the same UID is there already: one of the two is wrong",
}
HASHED = ("image", "patient", "group", "study", "series", "accession")
DERIVED = ("site", "department", "scanner", "view", "portable", "laterality", "body_part", "date", "age", "sex")
WITHHELD = "withheld: holds a name or number of the patient"


@dataclass
class Films:
    """What became of the files of a scan.

    images: the table, sorted by image. sources: image and, per derived column, the tag or rule of its cell.
    paths: image, path (private). left_out: file (hash of the path), image (hash of the UID, or ""), reason, and path
    (private). replaced: path of a duplicate with the same pixels -> path of the
    film that is kept. withheld: column -> cells emptied.
    """

    images: pd.DataFrame
    sources: pd.DataFrame
    paths: pd.DataFrame
    left_out: pd.DataFrame
    replaced: dict[str, str]
    withheld: dict[str, int] = field(default_factory=dict)


def accession_number(text: str, ignore_leading_zeros: bool) -> str:
    """An accession number as it is compared: without blanks around it, inner ones single, letters capital."""
    number = " ".join(text.split()).upper()
    return number.lstrip("0") or number[-1:] if ignore_leading_zeros else number


def derive(scan: Scan, rules: Rules, key: bytes, settings: Mapping[str, Any]) -> Films:
    """The tables of a scan. settings: keep_burned_in, unknown_patient, ignore_leading_zeros (conf/manifest.yaml)."""
    duplicates = find_duplicates(scan)
    columns: dict[str, list[str]] = {name: [] for name in (*HASHED, *DERIVED, "path")}
    sources: dict[str, list[str]] = {name: [] for name in DERIVED}
    out: dict[str, list[str]] = {name: [] for name in ("file", "image", "reason", "path")}
    replaced, withhold = {}, Withhold()
    links: list[tuple[str, str, str]] = []
    burned = set() if settings["keep_burned_in"] else _burned_in(scan)
    nobody = re.compile(str(settings["unknown_patient"]), re.IGNORECASE)
    for row in scan.rows():
        path, values = row["path"], row["values"]
        problem = row["problem"]
        if not problem and values["SOPInstanceUID"] in burned:
            problem = "burned_in"
        if not problem and path in duplicates:
            problem, first = duplicates[path]
            if problem != OTHER_PIXELS:
                replaced[path] = first
        uid = keyed_hash(key, "image", values.get("SOPInstanceUID", ""))
        number = values.get("PatientID", "")
        number = "" if nobody.fullmatch(number) else number.upper()
        # the number alone: some films say who issued it and others do not
        group = keyed_hash(key, "patient", "", number)
        study = keyed_hash(key, "study", values.get("StudyInstanceUID", ""))
        if problem in (IDENTICAL, OTHER_HEADER, "burned_in"):  # left out, it still says who is one patient
            links.append((group, study, uid))
        if problem:
            for name, cell in zip(out, (keyed_hash(key, "file", path), uid, problem, path), strict=True):
                out[name].append(sys.intern(cell) if name == "reason" else cell)
            continue
        patient = keyed_hash(key, "patient", values.get("IssuerOfPatientID", "").upper(), number)
        accession = accession_number(values.get("AccessionNumber", ""), settings["ignore_leading_zeros"])
        hashed = {
            "image": uid,
            "patient": patient,
            "group": group,
            "study": study,
            "series": keyed_hash(key, "series", values.get("SeriesInstanceUID", "")),
            "accession": keyed_hash(key, "accession", accession),
        }
        cells = rules.apply({**values, "path": path})
        text = {name: cells[name][0] for name in COLUMNS if not COLUMNS[name] and name in cells}
        withhold.see(text, values, hashed["group"] or study or uid)
        for name, cell in hashed.items():
            columns[name].append(cell)
        for name in DERIVED:
            cell, source = cells.get(name, ("", ""))
            columns[name].append(sys.intern(cell))
            sources[name].append(sys.intern(source))
        columns["path"].append(path)
    films = list(zip(columns["group"], columns["study"], columns["image"], strict=True))
    columns["group"] = _groups([*films, *links])[: len(films)]
    images = pd.DataFrame({name: columns[name] for name in (*HASHED, *DERIVED)}, dtype=object)
    said = pd.DataFrame({"image": columns["image"], **sources}, dtype=object)
    withheld = {}
    for name in (name for name in COLUMNS if not COLUMNS[name]):
        hidden = images[name].isin(withhold.values())
        if hidden.any():
            withheld[name] = int(hidden.sum())
            images.loc[hidden, name], said.loc[hidden, name] = "", WITHHELD
    order = images["image"].argsort(kind="stable")
    return Films(
        images=images.iloc[order].reset_index(drop=True),
        sources=said.iloc[order].reset_index(drop=True),
        paths=pd.DataFrame({"image": columns["image"], "path": columns["path"]}, dtype=object).iloc[order],
        left_out=pd.DataFrame(out, dtype=object).sort_values(["reason", "file"], ignore_index=True),
        replaced=replaced,
        withheld=withheld,
    )


def _groups(films: list[tuple[str, str, str]]) -> list[str]:
    """Who must stay together: films (number, study, image) in a chain of shared patient numbers, studies and images.

    A study is of one patient, so it joins films whose number was corrected, or is missing, with the others. The group
    is called like the first number of the chain, otherwise like its first study, otherwise like the film.
    """
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while (higher := above.setdefault(name, name)) != name:
            above[name] = name = above[higher]
        return name

    names = [[f"{kind} {name}" for kind, name in enumerate(film) if name] for film in films]
    for known in names:
        first, *others = sorted({top(name) for name in known})
        for other in others:
            above[other] = first
    return [top(known[0])[2:] for known in names]


def _burned_in(scan: Scan) -> set[str]:
    """UIDs of films that say that names may stand in their pixels, in any of the files that claim to be them."""
    films = (row["values"] for row in scan.rows() if not row["problem"])
    return {values["SOPInstanceUID"] for values in films if values.get("BurnedInAnnotation", "").upper() == "YES"}
