"""Hashing against coreutils' known values; files are whole or not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from domainseg.files import (
    DamagedError,
    atomic_path,
    hash_json,
    read_json,
    read_sealed,
    remove_partial,
    sha256_file,
    write_json,
    write_sealed,
)


def test_sha256_of_known_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_hash_of_json_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert hash_json({"a": 1, "b": [1, 2]}) == hash_json({"b": [1, 2], "a": 1})
    assert hash_json([1, 2]) != hash_json([2, 1])
    with pytest.raises(ValueError, match="JSON"):
        hash_json(float("nan"))


def test_atomic_path_replaces_on_success_only(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "table.csv"
    with atomic_path(file) as temporary:
        temporary.write_text("first")
    with pytest.raises(FileNotFoundError), atomic_path(file) as temporary:
        temporary.rename(tmp_path / "gone")
    assert file.read_text() == "first"
    assert [entry.name for entry in file.parent.iterdir()] == ["table.csv"]
    mask = os.umask(0)
    os.umask(mask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~mask


def test_json_has_no_nan_and_takes_numpy(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": float("nan"), "b": (1, float("inf")), 3: np.float32(0.5), "n": np.int64(2)})
    assert read_json(tmp_path / "x.json") == {"a": None, "b": [1, None], "3": 0.5, "n": 2}
    json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail)


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_stays(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from domainseg.files import atomic_path
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    file = tmp_path / "deep" / "table.csv"
    subprocess.run([sys.executable, "-c", code, file], check=False)
    (left,) = file.parent.iterdir()
    assert left.read_text() == "half"
    (tmp_path / "notes.partial-1.csv").write_text("a user's own file")
    with atomic_path(tmp_path / "other.csv") as living:
        assert remove_partial(tmp_path) == 1
        assert living.exists()
        living.write_text("whole")
    assert (tmp_path / "other.csv").read_text() == "whole"
    assert not left.exists()
    assert (tmp_path / "notes.partial-1.csv").exists()


def test_a_sealed_record_comes_back_and_a_changed_one_does_not(tmp_path: Path) -> None:
    record = {"a": [1, 2.5, None, True], "b": {"c": "\u00e9"}, "tiny": 1e-05}
    write_sealed(tmp_path / "r.json", record)
    assert read_sealed(tmp_path / "r.json") == {"schema": 1, **record}
    text = (tmp_path / "r.json").read_text()
    for changed in (text.replace("2.5", "2.6"), text.replace("e-05", "e905"), text + "\n", text[:-3], "[]", ""):
        (tmp_path / "r.json").write_text(changed)
        with pytest.raises(DamagedError, match=r"r\.json: damaged"):
            read_sealed(tmp_path / "r.json")
    (tmp_path / "r.json").write_text('{"name": "from before there were seals"}')
    assert read_sealed(tmp_path / "r.json") == {"name": "from before there were seals"}
