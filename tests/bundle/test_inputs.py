"""What of a folder is a film, and what is passed over."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from domainseg.bundle.inputs import read_input


def test_dicom_files_need_no_ending(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1.2.840.113619.2.55").write_bytes(b"\0" * 128 + b"DICM")
    for name in ("IM0001", "a.PNG", ".DS_Store", "DICOMDIR", "notes.txt"):
        (tmp_path / name).touch()
    with caplog.at_level(logging.WARNING):
        found = read_input(tmp_path)
    assert list(found.images["image"]) == ["1.2.840.113619.2.55", "IM0001", "a.PNG"]
    assert "3 of 6 files" in caplog.text
