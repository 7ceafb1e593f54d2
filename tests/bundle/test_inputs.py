"""What of a folder is a film, and what is passed over."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from domainseg.bundle.command import fingerprint
from domainseg.bundle.inputs import read_input
from domainseg.data.manifest import ManifestError


def test_dicom_files_need_no_ending(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1.2.840.113619.2.55").write_bytes(b"\0" * 128 + b"DICM")
    for name in ("IM0001", "a.PNG", ".DS_Store", "DICOMDIR", "notes.txt"):
        (tmp_path / name).touch()
    with caplog.at_level(logging.WARNING):
        found = read_input(tmp_path)
    assert list(found.images["image"]) == ["1.2.840.113619.2.55", "IM0001", "a.PNG"]
    assert "3 of 6 files" in caplog.text


def test_any_name_leads_to_its_own_file(tmp_path: Path) -> None:
    """Blanks at the ends of a name, bytes that are no UTF-8: cells of a table hold neither, paths do."""
    names = [b"a.dcm", b" a.dcm", b"a.dcm ", b"nan", b"NA", b"007", b"1.0", b"f\xff.dcm", b'a,"b"\n.dcm', b" /x.dcm"]
    names += ["\u00e9.dcm".encode(), "e\u0301.dcm".encode(), b"\xc2\xa0.dcm"]
    for k, name in enumerate(names):
        file = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as stream:
            stream.write(b"%02d" % k + b"\0" * 126 + b"DICM")
    found = read_input(tmp_path)
    assert sorted(found.path(image).read_bytes()[:2] for image in found.images["image"]) == [
        b"%02d" % k for k in range(len(names))
    ]
    assert {r"f\xff.dcm", r"\x20a.dcm", r"a.dcm\x20", r"\x20/x.dcm", "nan", "1.0"} <= set(found.images["image"])
    found.images.to_csv(tmp_path / "table.csv")  # text in UTF-8
    assert len(fingerprint(found)) == 64


def test_what_cannot_be_looked_at_is_not_passed_over_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films/a.dcm").touch()
    (tmp_path / "films/gone.dcm").symlink_to(tmp_path / "nowhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "films/linked").symlink_to(tmp_path / "elsewhere")
    with caplog.at_level(logging.WARNING):
        found = read_input(tmp_path / "films")
    assert list(found.images["image"]) == ["a.dcm", "gone.dcm"]  # the second will be excluded_by = read
    assert "1 linked folders are not entered" in caplog.text
    monkeypatch.setattr(os, "scandir", _denied)
    with pytest.raises(PermissionError):
        read_input(tmp_path / "films")


def test_what_an_earlier_prediction_wrote_is_no_film(tmp_path: Path) -> None:
    (tmp_path / "out/overlays").mkdir(parents=True)
    (tmp_path / "a.dcm").touch()
    (tmp_path / "out/overlays/a.dcm.png").touch()
    assert list(read_input(tmp_path, tmp_path / "out").images["image"]) == ["a.dcm"]
    with pytest.raises(ManifestError, match="folder of the films themselves"):
        read_input(tmp_path, tmp_path)


def test_labels_go_with_a_table_of_films(tmp_path: Path) -> None:
    (tmp_path / "images.csv").write_text("image,path\na,a.dcm\n")
    (tmp_path / "targets.csv").write_text("image,part,label_fracture\na,hip_left,1\n")
    found = read_input(tmp_path / "images.csv", labels=tmp_path / "targets.csv")
    assert list(found.targets["label_fracture"]) == [1.0]
    with pytest.raises(ManifestError, match="go with an images table"):
        read_input(tmp_path, labels=tmp_path / "targets.csv")


def _denied(path: object) -> None:
    raise PermissionError(13, "Permission denied", str(path))
