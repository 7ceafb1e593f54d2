"""Patients in tables are keyed hashes, and the key stays with its owner."""

from __future__ import annotations

import hashlib
import hmac
import stat

import pandas as pd
import pytest

from domainseg.data.manifest import ManifestError, build_manifest
from domainseg.data.privacy import hash_patient, hash_patients, patient_key


def test_a_fresh_key_is_private_and_kept(tmp_path):
    key = patient_key(None, tmp_path)
    file = tmp_path / "private" / "patient.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert (file.parent / ".gitignore").read_text() == "*\n"
    assert len(key) == 32
    assert patient_key(None, tmp_path) == key
    assert patient_key(file, tmp_path / "other") == key
    assert patient_key(None, tmp_path / "other") != key


def test_hashes_are_hmac_sha256():
    key = bytes(range(32))
    expected = hmac.new(key, b'["patient", "A", "007"]', hashlib.sha256).hexdigest()[:16]
    assert hash_patient("A", "007", key) == expected
    assert hash_patient("A", "007", key[::-1]) != expected
    assert hash_patient("A", "", key) == ""
    assert hash_patient("a", "bc", key) != hash_patient("ab", "c", key)


def test_a_table_shows_no_number_and_keeps_who_is_who():
    images = build_manifest(
        pd.DataFrame(
            {
                "image": list("abcde"),
                "site": ["A", "A", "B", "", ""],
                "patient": ["SMITH", "SMITH", "SMITH", "", ""],
                "group": ["", "", "", "g", ""],
            }
        ),
        pd.DataFrame({"image": []}),
        ".",
        "x",
    ).images
    found = hash_patients(images, bytes(32)).tolist()
    assert found[0] == found[1] != found[2]
    assert len(set(found)) == 4
    assert found[4] == ""
    assert "SMITH" not in "".join(found)


@pytest.mark.parametrize(
    ("content", "words"), [("short", "64 hex digits"), ("ab" * 8, "64 hex digits"), (None, "cannot be read")]
)
def test_keys_that_are_none(tmp_path, content, words):
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
        file.chmod(0o600)
    with pytest.raises(ManifestError, match=words):
        patient_key(file, tmp_path)


def test_a_key_that_others_may_read_is_refused(tmp_path):
    file = tmp_path / "key"
    file.write_text("ab" * 32)
    file.chmod(0o644)
    with pytest.raises(ManifestError, match="chmod 600"):
        patient_key(file, tmp_path)
