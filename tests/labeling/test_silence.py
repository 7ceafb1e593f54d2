"""Whose zeros are withheld: of reports that say nothing of a label that is only given where something is said."""

from __future__ import annotations

import numpy as np
import pytest

from domainseg.labeling.lexicon import read_lexicons
from domainseg.labeling.reading import read
from domainseg.labeling.silence import notes_of, silence

LEXICON = read_lexicons(["chest"])
TEXTS = [
    "There is a pleural effusion.",
    "No pleural effusion.",
    "The trachea is midline.",
    "The aorta is tortuous.",
] * 20
READ = read(TEXTS, LEXICON)
HAS_TEXT = np.ones(80, bool)
EVERY = np.tile([1.0, 0.0, 0.0, 0.0], 20)
MENTIONED = np.tile([1.0, 0.0, np.nan, np.nan], 20)


@pytest.mark.parametrize(
    ("hand", "zero", "withheld"), [(EVERY, False, 0), (MENTIONED, False, 40), (MENTIONED, True, 0)]
)
def test_silent_reports_lose_their_zero_where_hand_labels_know_none(
    hand: np.ndarray, zero: bool, withheld: int
) -> None:
    found = silence("effusion", hand, READ, HAS_TEXT, 10, zero=zero)
    made = np.tile([1.0, 0.0, 0.0, 0.0], 20)
    assert found.withheld(made).sum() == withheld
    assert not found.withheld(np.ones(80)).any()  # what the words speak for stays
    assert bool(notes_of({"effusion": found})) is bool(withheld)


def test_a_few_silent_ones_among_the_hand_labels_are_no_lesson() -> None:
    hand = MENTIONED.copy()
    hand[[2, 3, 6, 7, 10]] = 0
    found = silence("effusion", hand, READ, HAS_TEXT, 5, zero=False)
    assert (found.known, found.shown, found.learned) == (45, 5, False)  # half of 45 would be usual, a quarter of it 5.6
    hand[[11, 14, 15, 18, 19, 22, 23]] = 0
    assert silence("effusion", hand, READ, HAS_TEXT, 12, zero=False).learned is True
    assert silence("effusion", hand, READ, HAS_TEXT, 13, zero=False).learned is False


def test_a_label_that_no_lexicon_knows_is_named() -> None:
    found = silence("tearing", EVERY, READ, HAS_TEXT, 10, zero=False)
    assert not found.withheld(np.zeros(80)).any()
    assert "No lexicon knows tearing" in notes_of({"tearing": found})[0]
