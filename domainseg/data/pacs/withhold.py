"""Cells that would tell who the patient is, because somebody typed a name or a number into a harmless tag."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

_ENOUGH = 3  # patients with other names who share a value: then it is a place, not a person
_IDENTITIES = (
    "PatientID", "OtherPatientIDs", "PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName",
    "PatientBirthDate", "AccessionNumber",
)  # fmt: skip
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})


class Withhold:
    """Collects the text cells of all films, then says which values are withheld.

    A value is withheld when it holds a word of the name, a number or the birth date of a patient who has it, unless
    three patients of whom this is not so have it too: a hospital may be called like a patient.
    """

    def __init__(self) -> None:
        self._named: set[str] = set()
        self._others: dict[str, set[str]] = {}

    def see(self, cells: Mapping[str, str], values: Mapping[str, str], patient: str) -> None:
        """Take notice of one film's text cells. patient: its hash."""
        words = identity_words(values)
        for cell in cells.values():
            if not cell:
                continue
            if tells(cell, words):
                self._named.add(cell)
            elif len(others := self._others.setdefault(cell, set())) < _ENOUGH:
                others.add(patient)

    def values(self) -> frozenset[str]:
        """The values that must not be written."""
        return frozenset(cell for cell in self._named if len(self._others.get(cell, ())) < _ENOUGH)


def identity_words(values: Mapping[str, str]) -> frozenset[str]:
    """Words of three letters or more in names (Müller also as mueller and muller; two letters where a letter is a
    syllable or a word), and numbers and dates of birth of three digits or more, folded."""
    found = set()
    for tag in _IDENTITIES:
        text = unicodedata.normalize("NFC", values.get(tag, "").casefold())
        spelt = " ".join((text, text.translate(_UMLAUTS), _plain(text)))
        found |= {word for word in re.split(r"[^\w]+", spelt) if len(word) >= 3 or (len(word) == 2 and word > "\u2e80")}
        if "name" not in tag.casefold():
            found.add(re.sub(r"[\W_]", "", text))
    born = re.sub(r"\D", "", values.get("PatientBirthDate", ""))
    if len(born) == 8:
        found |= {born[6:] + born[4:6] + born[:4], born[4:6] + born[6:] + born[:4]}
    return frozenset(word for word in found if len(word) >= 3 or word > "\u2e80")


def _plain(text: str) -> str:
    """Letters without their marks."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))


def tells(cell: str, words: frozenset[str]) -> bool:
    """Whether a cell holds one of the words, as a word or, of five letters and more, inside one."""
    folded = unicodedata.normalize("NFC", cell.casefold())
    for spelt in {folded, _plain(folded)}:
        if words & set(re.split(r"[\W_]+", spelt)):
            return True
        squeezed = re.sub(r"[\W_]", "", spelt)
        if any((len(word) >= 5 or word > "\u2e80") and word in squeezed for word in words):
            return True
    return False
