"""What reports say of findings, against what a reader would say and what CheXpert's labeler says."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest

from domainseg.imaging.chest import FINDINGS
from domainseg.labeling.assertion import assertions
from domainseg.labeling.lexicon import Lexicon, LexiconError, read_lexicons
from domainseg.labeling.mentions import STATUS
from domainseg.labeling.reading import read
from domainseg.labeling.text import words


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return read_lexicons(["chest", "fracture", "head"])


def said(text: str, lexicon: Lexicon) -> dict[str, str]:
    status = read([text], lexicon).status[0]
    return {name: STATUS[int(state)] for name, state in zip(lexicon.findings, status, strict=True) if state}


SIGNS = {"+": 1, "-": 2, "?": 3, "h": 4}


@pytest.mark.parametrize(
    "marked",
    [  # what is asserted (+), denied (-), in doubt (?), in the past (h); other words are not looked at
        "No pleural -effusion or -pneumothorax",
        "No evidence of -pneumothorax , -effusion or focal -consolidation",
        "No focal -consolidation , large -effusion , or -pneumothorax",
        "No -pneumothorax , -pneumonia , -edema",
        "+Cardiomegaly without overt -edema",
        "+airspace disease within the lingula , may reflect ?atelectasis or ?consolidation",
        "Small ?effusion cannot be excluded",
        "Left +opacity , ?atelectasis vs ?pneumonia",
        "No -effusion , mild +cardiomegaly",
        "No -pneumothorax but there is a small +effusion",
        "The -effusion has resolved",
        "The +effusion has not resolved",
        "No change in the +effusion",
        "No significant interval change in small +pneumothorax",
        "-Pneumothorax is no longer seen",
        "Interval resolution of -edema with persistent +effusion",
        "No findings suggestive of -pneumonia",
        "-Pneumothorax : none",
        "Pleural -effusion : no",
        "No -pneumothorax and mild +cardiomegaly",
        "History of hpneumonia",
        "Possible small ?effusion , no -pneumothorax",
        "Neither -effusion nor -pneumothorax",
        "No acute -disease other than +atelectasis",
        "+Hyperexpanded but +clear lungs",
        "rule out ?pneumonia",
        "-Pneumonia is unlikely , +effusion is small",
        "+Atelectasis , less likely ?pneumonia",
        "No -hemorrhage , -mass effect , or midline -shift",
        "No -fracture is identified , old +infarct noted",
        "+consolidation worrisome for ?pneumonia",
        "+Fracture",
    ],
)
def test_scopes(marked: str) -> None:
    marks = [(word[0], word[1:]) if word[0] in SIGNS and len(word) > 4 else ("", word) for word in marked.split()]
    marks = [(sign, word) if sign != "h" or word == "pneumonia" else ("", sign + word) for sign, word in marks]
    found = words(" ".join(word for _, word in marks))
    states = assertions(found)
    assert [states[place] for place, (sign, _) in enumerate(marks) if sign] == [
        SIGNS[sign] for sign, _ in marks if sign
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Heart, XXXX and mediastinum are within normal limits.", {"cardiomegaly": "negative"}),
        ("Borderline cardiomegaly.", {"cardiomegaly": "uncertain"}),
        ("Heart size is mildly enlarged.", {"cardiomegaly": "positive"}),
        ("The heart is not enlarged.", {"cardiomegaly": "negative"}),
        ("Low lung volumes. No large effusion.", {"hypoinflation": "positive", "effusion": "negative"}),
        ("Subcutaneous emphysema.", {"emphysema": "unmentioned"}),
        ("Emphysematous changes. No infiltrates.", {"emphysema": "positive", "infiltration": "negative"}),
        ("Nodular opacity, cannot rule out malignancy.", {"nodule": "positive", "mass": "uncertain"}),
        ("Large hiatal hernia. Pleural thickening.", {"hernia": "positive", "pleural_thickening": "positive"}),
        ("Osseous structures are intact.", {"any_fracture": "negative"}),
        ("Subcapital fracture of the left femoral neck.", {"hip_fracture": "positive", "any_fracture": "positive"}),
        ("Old healed right rib fractures.", {"hip_fracture": "unmentioned", "any_fracture": "positive"}),
        ("Scalp hematoma. No intracranial hemorrhage.", {"hemorrhage": "negative"}),
        ("Acute SDH with 5 mm rightward midline shift.", {"subdural": "positive", "midline_shift": "positive"}),
        ("Extradural HGE", {"epidural": "positive", "hemorrhage": "positive", "subdural": "unmentioned"}),
        ("Gray-white differentiation is preserved.", {"infarct": "negative"}),
        ("Parenchymal hemorrhage with IVH.", {"intraparenchymal": "positive", "intraventricular": "positive"}),
        ("Traumatic subarachnoid blood.", {"subarachnoid": "positive", "hemorrhage": "positive"}),
        ("No hydrocephalus or mass effect.", {"hydrocephalus": "negative", "mass_effect": "negative"}),
        ("HISTORY: pneumonia. FINDINGS: Clear lungs.", {"pneumonia": "unmentioned", "no_finding": "positive"}),
        ("FINDINGS: Effusion. IMPRESSION: No effusion.", {"effusion": "positive", "no_finding": "unmentioned"}),
        ("", {"no_finding": "unmentioned"}),
        ("Patient is status post\nCABG. Small effusion.", {"effusion": "positive"}),
        ("Cardiomegaly which suggests\nCHF.", {"cardiomegaly": "positive"}),
        ("COMPARISON: None.\n\nLarge right subdural hematoma with midline shift.\n\nCRITICAL RESULT: called to Dr X.",
         {"hemorrhage": "positive", "midline_shift": "positive"}),
        ("No pneumothorax, large left pleural effusion.", {"effusion": "positive", "pneumothorax": "negative"}),
        ("No pneumothorax and large left effusion.", {"effusion": "positive", "pneumothorax": "negative"}),
        ("No skull fracture, acute subdural on the left.", {"subdural": "positive", "any_fracture": "negative"}),
        ("No hemorrhage, acute infarct, mass effect.", {"infarct": "negative", "mass_effect": "negative"}),
        ("No dislocation, displaced left femoral neck fracture.", {"hip_fracture": "positive"}),
        ("Left lower lobe consolidation and the heart size is normal.",
         {"consolidation": "positive", "cardiomegaly": "negative"}),
        ("Right pneumothorax and pleural effusion, heart size is normal.",
         {"pneumothorax": "positive", "effusion": "positive", "cardiomegaly": "negative"}),
        ("There is a small right pneumothorax and the chest tube has been removed.", {"pneumothorax": "positive"}),
        ("No substantial interval change in the large right pneumothorax.", {"pneumothorax": "positive"}),
        ("No evidence of progression of the subdural hematoma.", {"subdural": "positive"}),
        ("No enlargement of the known epidural hematoma.", {"epidural": "positive"}),
        ("No enlargement of the heart.", {"cardiomegaly": "negative"}),
        ("Partial resolution of the right pneumothorax.", {"pneumothorax": "positive"}),
        ("Complete resolution of the right pneumothorax.", {"pneumothorax": "negative"}),
        ("Gray-white differentiation is lost in the left MCA territory.", {"infarct": "positive"}),
        ("Facial fractures with subdural hematoma.", {"hemorrhage": "positive"}),
        ("Soft tissue swelling overlying a subarachnoid hemorrhage.", {"hemorrhage": "positive"}),
        ("Facial soft tissue swelling and hematoma.", {"hemorrhage": "unmentioned"}),
        ("Left subdural collection 8 mm.", {"hemorrhage": "positive", "no_finding": "unmentioned"}),
        ("Left lower lobe pneumonia?", {"pneumonia": "uncertain"}),
        ("? left hip fracture.", {"hip_fracture": "uncertain"}),
        ("# left NOF.", {"any_fracture": "positive"}),
        ("Chest tube #2.", {"any_fracture": "unmentioned"}),
        ("S/p fracture fixation.", {"any_fracture": "unmentioned"}),
        ("Atelectasis and/or pneumonia.", {"pneumonia": "uncertain"}),
        ("No pleural effusion and/or pneumothorax.", {"effusion": "negative", "pneumothorax": "negative"}),
        ("INDICATION: Cough? Large right effusion.", {"effusion": "positive"}),
        ("No hemorrhage, mass effect, acute infarct.", {"infarct": "negative"}),
        ("No acute, displaced fracture.", {"any_fracture": "negative"}),
        ("Paged at pager #[**Numeric Identifier**].", {"any_fracture": "unmentioned"}),
        ("## Lungs: clear.", {"any_fracture": "unmentioned"}),
        ("Opacity ? pneumonia.", {"pneumonia": "uncertain"}),
        ("Left base consolidation (pneumonia?).", {"consolidation": "positive", "pneumonia": "uncertain"}),
        ("Scalp swelling/hematoma.", {"hemorrhage": "unmentioned"}),
        ("Scalp swelling with small hematoma.", {"hemorrhage": "unmentioned"}),
        ("Pneumonia or effusion, cannot be excluded.", {"pneumonia": "uncertain", "effusion": "uncertain"}),
    ],
)  # fmt: skip
def test_findings(text: str, expected: dict[str, str], lexicon: Lexicon) -> None:
    found = said(text, lexicon)
    assert {name: found.get(name, "unmentioned") for name in expected} == expected


def test_names_after_titles_and_initials_may_be_names(lexicon: Lexicon) -> None:
    """As they are written, and by the stem that features hold."""
    seen = read(["Discussed with Dr. Schneider and J. Williams. The effusion is small."], lexicon)
    assert all(seen.maybe_name(word) for word in ("schneider", "williams", "william"))
    assert not seen.maybe_name("effusion")


def test_every_named_finding_has_a_lexicon_entry(lexicon: Lexicon) -> None:
    for target, name in FINDINGS.items():
        assert lexicon.of_label(name) == lexicon.of_label(target) == target
    assert lexicon.of_label("Pleural Effusion") == "effusion"
    assert lexicon.of_label("Extra-dural") is None
    types = ("hemorrhage", "intraparenchymal", "subdural", "epidural", "subarachnoid", "intraventricular")
    assert all(lexicon.of_label(name) == name for name in types)


@pytest.mark.real_data
def test_the_rules_say_what_chexperts_labeler_says(shared_data: Path, lexicon: Lexicon) -> None:
    word = {"1.0": "positive", "0.0": "negative", "-1.0": "uncertain", "": "unmentioned"}
    with open(shared_data / "reports/chexpert_labeled_reports.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4
    for row in rows:
        found = said(row.pop("Reports"), lexicon)
        ours = {label: found.get(str(lexicon.of_label(label)), "unmentioned") for label in row}
        assert ours == {label: word[cell] for label, cell in row.items()}


@pytest.mark.real_data
def test_nih_reports_and_the_conditions_of_ct_ich(shared_data: Path, lexicon: Lexicon) -> None:
    films = [said((shared_data / f"reports/nih_{n}.txt").read_text(), lexicon) for n in ("00000086", "00019248")]
    assert (films[0]["pneumothorax"], films[0]["scoliosis"]) == ("negative", "positive")
    assert {name: films[1][name] for name in ("cardiomegaly", "effusion", "infiltration", "pneumothorax")} == {
        "cardiomegaly": "positive", "effusion": "negative", "infiltration": "negative", "pneumothorax": "negative",
    }  # fmt: skip
    bleeds = ("Intraventricular", "Intraparenchymal", "Subarachnoid", "Epidural", "Subdural")
    with open(shared_data / "ct_ich/patients.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 44
    for row in rows:
        bled = said(row["Condition on file"], lexicon).get("hemorrhage") == "positive"
        assert bled == any(row[name] for name in bleeds)


def test_a_lexicon_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("effusion: [water in the chest]\nrash:\n  terms: [rash*]\n  not: [rash decision]\n")
    lexicon = read_lexicons(["chest", str(own)])
    found = said("No effusion. Water in the chest. A rash decision.", lexicon)
    assert found == {"effusion": "positive"}
    assert said("Rashes.", lexicon)["rash"] == "positive"


def test_no_finding_forgets_no_finding(lexicon: Lexicon) -> None:
    """What a shipped lexicon knows is an abnormality or stands here, as CheXpert has it or as chance findings."""
    beside = {"support_devices", "implant", "granuloma", "hyperinflation", "hypoinflation", "scoliosis"}
    beside |= {"degenerative_change", "no_finding"}
    covered = {other for name in lexicon.findings["no_finding"].without for other in _with_parts(lexicon, name)}
    covered |= {name for name, finding in lexicon.findings.items() if set(finding.includes) & covered}
    assert set(lexicon.findings) - covered - beside == {"hip_fracture"}  # any_fracture counts it too
    assert "no_finding" not in said("The left hip is dislocated.", lexicon)


def _with_parts(lexicon: Lexicon, name: str) -> set[str]:
    return {name, *lexicon.findings[name].includes}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[a, b]", "holds no findings"),
        ("rash: {trems: [rash]}", "keys among"),
        ("rash: {terms: rash}", "must be a list"),
        ("rash: {names: [eczema]}", "has no terms"),
        ("rash: [", "not readable as YAML"),
        ("rash: {terms: [rash], includes: [eczema]}", "includes eczema"),
        ("rash: [rash]\nnormal: {without: [rsah]}", "without rsah"),
    ],
)
def test_a_lexicon_that_is_none(content: str, told: str, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(content)
    with pytest.raises(LexiconError, match=told):
        read_lexicons([str(own)])
    with pytest.raises(LexiconError, match="neither a lexicon"):
        read_lexicons(["chset"])


def test_texts_without_an_end_are_read_in_time(lexicon: Lexicon) -> None:
    """A list without a full stop: 3,000 words took a minute when scopes were sought over all of them."""
    begin = time.process_time()
    found = said("no effusion, " * 1000 + "mass", lexicon)
    assert time.process_time() - begin < 20
    assert (found["effusion"], found["mass"]) == ("negative", "negative")
    assert said("FINDINGS: " * 2000 + "\x00 \N{BRAIN} mass", lexicon)["mass"] == "positive"
