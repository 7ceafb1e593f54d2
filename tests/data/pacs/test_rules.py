"""Columns from tags, with the rules that the command ships."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from domainseg.data.pacs.rules import Rules
from domainseg.data.pacs.withhold import Withhold
from domainseg.data.tables import ManifestError


@pytest.fixture(scope="module")
def rules(exported: ModuleType) -> Rules:
    return Rules(exported.settings()["columns"])


@pytest.mark.parametrize(
    ("column", "tags", "cell", "source"),
    [
        ("site", {"InstitutionName": "St. Anna"}, "St. Anna", "InstitutionName (0008,0080)"),
        ("department", {"InstitutionalDepartmentName": "Emergency Dept."}, "emergency", "matches"),
        ("department", {"CurrentPatientLocation": "Ward 7", "InstitutionalDepartmentName": "X"}, "inpatient", "0038"),
        ("department", {"InstitutionalDepartmentName": "Radiology"}, "Radiology", "0008,1040"),
        ("scanner", {"StationName": "DX-3", "ManufacturerModelName": "Ysio"}, "DX-3", "StationName"),
        ("scanner", {"ManufacturerModelName": "Ysio"}, "Ysio", "ManufacturerModelName"),
        ("view", {"ViewPosition": "ap", "SeriesDescription": "lateral"}, "AP", "ViewPosition (0018,5101)"),
        ("view", {"SeriesDescription": "Pelvis a.p."}, "AP", "SeriesDescription"),
        ("view", {"SeriesDescription": "Hip ap and lat"}, "LATERAL", "SeriesDescription"),
        ("view", {"ProtocolName": "CAPSULE"}, "", ""),
        ("portable", {"SeriesDescription": "Pelvis portable"}, "1", "SeriesDescription"),
        ("portable", {"SeriesDescription": "Pelvis NON-PORTABLE"}, "0", "SeriesDescription"),
        ("portable", {"StationName": "A-MOBILE1"}, "1", "StationName"),
        ("portable", {"ManufacturerModelName": "Mobilett XP"}, "1", "ManufacturerModelName"),
        ("portable", {"ManufacturerModelName": "Ysio Max"}, "0", "ManufacturerModelName"),
        ("portable", {"StationName": "AUTOMOBILECLUB"}, "", ""),
        ("laterality", {"ImageLaterality": "R"}, "R", "ImageLaterality"),
        ("laterality", {"SeriesDescription": "Hip left AP"}, "L", "SeriesDescription"),
        ("laterality", {"SeriesDescription": "Hip left and right"}, "", ""),
        ("laterality", {"Laterality": "both"}, "", ""),
        ("body_part", {"StudyDescription": "Becken"}, "PELVIS", "StudyDescription"),
        ("body_part", {"StudyDescription": "whip"}, "", ""),
        ("date", {"StudyDate": "2020.02.29"}, "2020-02-29", "StudyDate (0008,0020)"),
        ("date", {"StudyDate": "20210229", "SeriesDate": "20210301"}, "2021-03-01", "SeriesDate"),
        ("age", {"PatientAge": "018M"}, "1.5", "PatientAge (0010,1010)"),
        ("age", {"PatientBirthDate": "19400301", "StudyDate": "20200229"}, "79", "minus PatientBirthDate"),
        ("age", {"PatientBirthDate": "19400229", "StudyDate": "20200229"}, "80", "minus"),
        ("age", {"PatientAge": "old"}, "", ""),
        ("sex", {"PatientSex": "f"}, "F", "PatientSex"),
        ("sex", {"PatientSex": "female"}, "", ""),
    ],
)
def test_shipped_rules(rules: Rules, column: str, tags: dict[str, str], cell: str, source: str) -> None:
    found, said = rules.apply(tags)[column]
    assert found == cell
    assert source in said
    assert bool(said) == bool(cell)


def test_a_site_by_any_tag_or_by_the_path() -> None:
    rules = Rules({"site": [{"tag": "path", "match": r"^ward_(\w)/", "value": r"site \1"}, {"tag": "0019,10AB"}]})
    assert rules.apply({"path": "ward_b/x.dcm"})["site"] == ("site b", r"path matches ^ward_(\w)/")
    assert rules.apply({"0019,10AB": "C"})["site"] == ("C", "private (0019,10AB)")
    assert rules.tags == ["0019,10AB"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"place": []}, "columns.place"),
        ({"site": [{"tag": "InstitutionNam"}]}, "neither a DICOM keyword"),
        ({"site": [{"tag": "InstitutionName", "match": "("}]}, "regular expression"),
        ({"site": [{"tag": "InstitutionName", "match": "a", "value": r"\1"}]}, "regular expression"),
        ({"site": [{"match": "a"}]}, "tag is missing"),
        ({"site": [{"tag": "path"}]}, "needs a value"),
        ({"site": [{"tag": "InstitutionName", "values": "x"}]}, "values is not known"),
    ],
)
def test_wrong_rules_are_refused_by_name(columns: dict[str, Any], words: str) -> None:
    with pytest.raises(ManifestError, match=words.replace("(", r"\(")):
        Rules(columns)


def test_a_cell_that_names_its_patient_is_withheld() -> None:
    own = {"PatientName": "Mustermann^Erika", "PatientID": "4711-0815", "PatientBirthDate": "19391224"}
    other = {"PatientName": "Doe^Jane", "PatientID": "77"}
    told = ("room of Mustermann", "ERIKA", "ID 4711-0815", "47110815", "24.12.1939", "born 1939-12-24")
    withhold = Withhold()
    for cell in told:
        withhold.see({"scanner": cell, "site": "St. Anna"}, own, "p1")
    withhold.see({"scanner": "DX-3", "site": "St. Anna"}, other, "p2")
    assert withhold.values() == set(told)


def test_a_hospital_that_is_called_like_a_patient_keeps_its_name() -> None:
    withhold = Withhold()
    withhold.see({"site": "St. Mary"}, {"PatientName": "Poppins^Mary"}, "p0")
    for patient in ("p1", "p2"):
        withhold.see({"site": "St. Mary"}, {"PatientName": "Doe^Jane"}, patient)
    assert withhold.values() == {"St. Mary"}
    withhold.see({"site": "St. Mary"}, {"PatientName": "Roe^John"}, "p3")
    assert withhold.values() == frozenset()
