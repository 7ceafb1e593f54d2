"""What a journal took in survives, exactly; what is not whole or not its own does not get in."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domainseg.bundle.journal import Journal
from domainseg.bundle.schema import BundleError

HEADER = {"bundle": "ab" * 32, "inputs": "cd" * 32, "films": 3}
ROWS = [{"image": "a", "score": 0.1 + 0.2, "n": np.int64(3), "x": np.float64(1e-300), "no": float("nan"), "is": True}]


def test_values_come_back_to_the_last_bit(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", HEADER) as journal:
        journal.add("ä/b", ROWS)
        ((image, (row,)),) = journal.rows()
    assert image == "ä/b"
    assert math.isnan(row.pop("no"))
    assert row == {"image": "a", "score": 0.1 + 0.2, "n": 3, "x": 1e-300, "is": True}
    assert [type(row[key]) for key in ("n", "x", "is")] == [int, float, bool]


def test_goes_on_after_a_cut_at_any_byte(tmp_path: Path) -> None:
    with Journal(tmp_path / "whole", HEADER) as journal:
        journal.add("a", ROWS)
        journal.add("b", [])
    data = (tmp_path / "whole").read_bytes()
    first, second = [k + 1 for k, byte in enumerate(data) if byte == 10][:2]
    for cut in range(len(data) + 1):
        path = tmp_path / "cut"
        path.write_bytes(data[:cut])
        with Journal(path, HEADER) as journal:
            done = {name for name, end in (("a", second), ("b", len(data))) if cut >= end}
            assert journal.done == done
            journal.add("c", [{"k": 1}])
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        assert [line["image"] for line in lines[1:]] == [*sorted(done), "c"]
    assert first < second


@pytest.mark.parametrize("key", ["bundle", "inputs", "films"])
def test_another_prediction_is_refused_by_what_differs(tmp_path: Path, key: str) -> None:
    Journal(tmp_path / "j", HEADER).close()
    with pytest.raises(BundleError, match=f"with other {key} lies there"):
        Journal(tmp_path / "j", {**HEADER, key: "else"})
    Journal(tmp_path / "j", HEADER).close()


def test_a_damaged_line_is_refused_with_its_number(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", HEADER) as journal:
        journal.add("a", [])
        journal.add("b", [])
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    (tmp_path / "j").write_bytes(lines[0] + b'{"image": \n' + lines[2])
    with pytest.raises(BundleError, match="line 2 is damaged"):
        Journal(tmp_path / "j", HEADER)
    (tmp_path / "j").write_bytes(lines[0] + lines[1].replace(b'"image"', b'"imabe"'))
    with pytest.raises(BundleError, match="line 2 is damaged"):
        Journal(tmp_path / "j", HEADER)
    (tmp_path / "j").write_bytes(b"notes of somebody\n")
    with pytest.raises(BundleError, match="line 1 is damaged"):
        Journal(tmp_path / "j", HEADER)
    assert (tmp_path / "j").read_bytes() == b"notes of somebody\n"


def test_no_byte_changes_unseen(tmp_path: Path) -> None:
    """A flipped digit would be a score that nobody gave; where a line's end is hit, its film is predicted again."""
    with Journal(tmp_path / "j", HEADER) as journal:
        journal.add("a", ROWS)
        journal.add("b", [{"image": "b", "score": 0.25}])
    data = (tmp_path / "j").read_bytes()
    for place in range(len(data)):
        (tmp_path / "j").write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            with Journal(tmp_path / "j", HEADER) as journal:
                assert (place, journal.done) == (len(data) - 1, {"a"})
        except BundleError:
            pass


def test_a_folder_without_locks_is_told_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("domainseg.bundle.journal.fcntl.flock", none)
    with Journal(tmp_path / "j", HEADER) as journal:
        journal.add("a", [])
    assert "one process at a time" in caplog.text


def test_two_do_not_write_at_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", HEADER), pytest.raises(BundleError, match="another process"):
        Journal(tmp_path / "j", HEADER)
