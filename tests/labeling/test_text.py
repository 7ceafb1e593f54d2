"""Sections, sentences and words of reports as they are really written."""

from __future__ import annotations

import pytest

from domainseg.labeling.text import clean, normalised, sections, sentences, stem, words


def parts(text: str) -> list[tuple[str, list[str]]]:
    return [(kind, list(sentences(body))) for kind, body in sections(clean(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \r\n ", []),
        ("Heart size normal. No effusion", [("findings", ["Heart size normal", "No effusion"])]),
        (
            "COMPARISON: None. INDICATION: Chest pain. FINDINGS: Clear lungs. IMPRESSION: 1. No disease. 2. Scar.",
            [
                ("comparison", ["None"]),
                ("history", ["Chest pain"]),
                ("findings", ["Clear lungs"]),
                ("impression", ["No disease", "Scar"]),
            ],
        ),
        (
            "CT HEAD WITHOUT CONTRAST\n\nHISTORY\nFall.\nFINDINGS\nNo fracture.\nIMPRESSION\nNormal",
            [
                ("technique", ["CT HEAD WITHOUT CONTRAST"]),
                ("history", ["Fall"]),
                ("findings", ["No fracture"]),
                ("impression", ["Normal"]),
            ],
        ),
        (
            "INDICATION: chest pain.\n\nThe heart is enlarged.\nNo effusion\n\nIMPRESSION:\n1. Cardiomegaly",
            [
                ("history", ["chest pain"]),
                ("findings", ["The heart is enlarged", "No effusion"]),
                ("impression", ["Cardiomegaly"]),
            ],
        ),
        ("History: cough. The heart is big.", [("history", ["cough"]), ("findings", ["The heart is big"])]),
        ("**FINDINGS:** Clear.\n## Impression\nNormal.", [("findings", ["** Clear"]), ("impression", ["Normal"])]),
        ("Findings: Lungs: clear. Heart: enlarged.", [("findings", ["Lungs: clear", "Heart: enlarged"])]),
        ("IMPRESSION: THERE IS NO\nEFFUSION.", [("impression", ["THERE IS NO EFFUSION"])]),
        ("impression: seen on the study: one mass", [("impression", ["seen on the study: one mass"])]),
    ],
)
def test_sections(text: str, expected: list[tuple[str, list[str]]]) -> None:
    assert parts(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A 1.5 cm nodule per Dr. Smith. No change.", ["A 1.5 cm nodule per Dr. Smith", "No change"]),
        ("1. Effusion.  2. Mass, 3 x 2.5 cm. 3) Clear", ["Effusion", "Mass, 3 x 2.5 cm", "Clear"]),
        ("- Effusion\n- Mass\n* Clear", ["Effusion", "Mass", "Clear"]),
        ("Atelectasis vs. pneumonia; clear otherwise", ["Atelectasis vs. pneumonia", "clear otherwise"]),
        ("there is no\neffusion. heart\nnormal", ["there is no effusion", "heart normal"]),
        ("No effusion\nHeart normal", ["No effusion", "Heart normal"]),
        ("No effusion,\nXXXX or mass", ["No effusion, XXXX or mass"]),
        ("Seen at 7:34 p.m.. heart stable", ["Seen at 7:34 p.m", "heart stable"]),
        ("Is there a fracture? No.", ["Is there a fracture ?", "No"]),
        ("? Fracture", ["? Fracture"]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert list(sentences(text)) == expected


def test_replaced_names_and_signatures() -> None:
    text = "Seen by [**Name 12**] on ___. <NAME> XXXXX\nElectronically signed by Jane Doe, MD\nClear."
    assert "Doe" not in clean(text)
    assert clean(text).count("XXXX") == 4
    assert normalised("XXXX-year-old, 12.5 cm  Mass!") == normalised("[**Age**]-Year-old\n9 CM mass")


def test_words_and_stems() -> None:
    assert words("R/O PNA, w/o 2.5-cm mass?") == ["rule", "out", "pna", ",", "without", "2.5", "cm", "mass", "?"]
    plural = "effusions opacities masses metastases diagnoses abscesses lungs pus is atelectasis bases"
    assert [stem(word) for word in plural.split()] == [
        "effusion", "opacity", "mass", "metastasis", "diagnosis", "abscess", "lung", "pus", "is", "atelectasis", "base",
    ]  # fmt: skip
