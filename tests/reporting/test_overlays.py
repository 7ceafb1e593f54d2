"""Overlays of different images never share a file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domainseg.reporting.overlays import overlay_name


def test_plain_names_stay_and_folders_do_not_collide() -> None:
    assert overlay_name("1.2.840-55.dcm") == "1.2.840-55.dcm.png"
    assert overlay_name("Hüfte_1") == "Hüfte_1.png"
    names = ["a/b", "a_b", "a%2Fb", "a\\b", "a b", "a/./b", "..", "../a", "x" * 300 + "1", "x" * 300 + "2"]
    assert len({overlay_name(name) for name in names}) == len(names)


@given(st.lists(st.text(min_size=1, max_size=300), min_size=2, max_size=2, unique=True))
def test_any_two_images_have_two_files_of_the_folder(names: list[str]) -> None:
    one, other = (overlay_name(name) for name in names)
    assert one != other
    assert not set(one) & set("/\\\0:")
    assert len(one.encode()) <= 255
