"""Columns of the images table from header values, by rules that are data; each cell knows the rule it came from."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import keyword_for_tag

from domainseg.data.tables import ManifestError
from domainseg.imaging.header import tag_of

#: Columns that rules may fill, and what a cell of them may hold ("" = any text).
COLUMNS = {
    "site": "",
    "department": "",
    "scanner": "",
    "view": "",
    "portable": "0|1",
    "laterality": "L|R|B|U",
    "body_part": "",
}
#: Tags that are read whatever the rules are: identity, dates, age, sex, and what annotations need.
FIXED_TAGS = (
    "PatientID", "IssuerOfPatientID", "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber",
    "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "PatientAge", "PatientBirthDate", "PatientSex",
    "PatientName", "OtherPatientIDs", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName",
    "ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing", "PatientOrientation", "ViewPosition",
)  # fmt: skip
PATH = "path"  # as a rule's tag: the file's path below the DICOM folder
_LONGEST = 64  # letters of a text cell


@dataclass(frozen=True)
class Rule:
    """``tags`` are asked in turn; the first non-empty value in which ``match`` is found gives ``value``.

    match: regular expression, found anywhere, upper and lower case alike; None: any value. value: what the cell holds,
    with \\1, \\2 for groups of the match; None: the tag's value as it is.
    """

    tags: tuple[str, ...]
    match: re.Pattern[str] | None
    value: str | None

    def apply(self, values: Mapping[str, str]) -> tuple[str, str]:
        """The cell and its source in words; ("", "") when the rule says nothing."""
        for tag in self.tags:
            text = values.get(tag, "")
            if not text:
                continue
            if self.match is None:
                return (text if self.value is None else self.value), tag_name(tag)
            if found := self.match.search(text):
                cell = text if self.value is None else found.expand(self.value)
                return cell, f"{tag_name(tag)} matches {self.match.pattern}"
        return "", ""


class Rules:
    """The checked rules of every column, in the order in which they are tried. Raises ManifestError for a wrong one."""

    def __init__(self, columns: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        unknown = sorted(set(columns) - set(COLUMNS))
        if unknown:
            raise ManifestError(f"columns.{unknown[0]}: rules fill {', '.join(COLUMNS)}")
        self.rules = {
            name: [_rule(f"columns.{name}[{number}]", rule) for number, rule in enumerate(rules or [])]
            for name, rules in columns.items()
        }

    @property
    def tags(self) -> list[str]:
        """Every tag that the rules ask for, in order, without the path."""
        asked = [tag for rules in self.rules.values() for rule in rules for tag in rule.tags if tag != PATH]
        return list(dict.fromkeys(asked))

    def apply(self, values: Mapping[str, str]) -> dict[str, tuple[str, str]]:
        """column -> (cell, source) for the columns of the rules and for date, age and sex; empty = unknown."""
        cells = {"date": _date(values), "age": _age(values), "sex": _sex(values)}
        for column, rules in self.rules.items():
            cells[column] = next((found for rule in rules if (found := rule.apply(values))[0]), ("", ""))
            cell, source = cells[column]
            if COLUMNS[column] and not re.fullmatch(COLUMNS[column], cell.upper()):
                cells[column] = ("", "")
            else:
                cells[column] = (cell.upper() if column in ("view", "laterality") else cell)[:_LONGEST], source
        return cells


def tag_name(tag: str) -> str:
    """``StationName (0008,1010)``, as a person looks it up."""
    if tag == PATH:
        return "path"
    number = tag_of(tag)
    return f"{keyword_for_tag(number) or 'private'} ({number.group:04X},{number.element:04X})"


def _rule(where: str, rule: Mapping[str, Any]) -> Rule:
    if unknown := sorted(set(rule) - {"tag", "match", "value"}):
        raise ManifestError(f"{where}: {unknown[0]} is not known; a rule has tag, match and value")
    tags = rule.get("tag") or []
    tags = (tags,) if isinstance(tags, str) else tuple(tags)
    if not tags:
        raise ManifestError(f"{where}: tag is missing")
    for tag in tags:
        try:
            tag == PATH or tag_of(tag)
        except ValueError as error:
            raise ManifestError(f"{where}: {error}") from None
    if PATH in tags and rule.get("value") is None:
        raise ManifestError(f"{where}: a rule on the path needs a value: paths may hold names")
    match = rule.get("match")
    try:
        pattern = None if match is None else re.compile(str(match), re.IGNORECASE)
        if pattern is not None and rule.get("value") is not None:
            re.sub(pattern, str(rule["value"]), "")  # a value that names a group which is not there
    except (re.error, IndexError) as error:
        raise ManifestError(f"{where}: not a regular expression with its value: {error}") from None
    return Rule(tags, pattern, None if rule.get("value") is None else str(rule["value"]))


def parse_date(text: str) -> datetime.date | None:
    """A DICOM date: 20230531 or, as it was long ago, 2023.05.31."""
    match = re.fullmatch(r"(\d{4})\.?(\d{2})\.?(\d{2})", text.strip())
    try:
        return datetime.date(*(int(part) for part in match.groups())) if match else None
    except ValueError:
        return None


def _date(values: Mapping[str, str]) -> tuple[str, str]:
    for tag in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        if (day := parse_date(values.get(tag, ""))) is not None:
            return day.isoformat(), tag_name(tag)
    return "", ""


def _age(values: Mapping[str, str]) -> tuple[str, str]:
    """Years: PatientAge, or the years between birth and film."""
    if match := re.fullmatch(r"(\d{3})([DWMY])", values.get("PatientAge", "").strip()):
        years = int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12, "Y": 1}[match[2]]
        return (f"{years:.2f}".rstrip("0").rstrip("."), tag_name("PatientAge")) if years <= 130 else ("", "")
    born, day = parse_date(values.get("PatientBirthDate", "")), _date(values)
    if born is None or not day[0]:
        return "", ""
    film = datetime.date.fromisoformat(day[0])
    age = film.year - born.year - ((film.month, film.day) < (born.month, born.day))
    return (str(age), f"{day[1]} minus {tag_name('PatientBirthDate')}") if 0 <= age <= 130 else ("", "")


def _sex(values: Mapping[str, str]) -> tuple[str, str]:
    sex = values.get("PatientSex", "").strip().upper()
    return (sex, tag_name("PatientSex")) if sex in ("F", "M", "O") else ("", "")
