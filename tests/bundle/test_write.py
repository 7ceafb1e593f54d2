"""A bundle is written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domainseg.bundle import write
from domainseg.bundle.schema import BundleError
from domainseg.bundle.verify import verify_bundle

MakeBundle = Callable[..., str]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_sums_list_every_other_file_and_name_the_bundle(tmp_path: Path, make_bundle: MakeBundle) -> None:
    sha256 = make_bundle(tmp_path / "b")
    files = content(tmp_path / "b")
    lines = files.pop("SHA256SUMS").decode().splitlines()
    assert {line[66:]: line[:64] for line in lines} == {k: hashlib.sha256(v).hexdigest() for k, v in files.items()}
    assert set(files) == {
        *("bundle.json", "MODEL_CARD.md", "metrics.json"),
        *(f"stages/{name}.onnx" for name in ("view_filter", "localizer", "implant_filter", "fracture")),
    }
    assert sha256 == hashlib.sha256((tmp_path / "b/SHA256SUMS").read_bytes()).hexdigest()


@pytest.mark.skipif(sys.platform == "win32", reason="sha256sum is a program of Unix")
def test_sha256sum_agrees(bundle: Path) -> None:
    done = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=bundle, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_same_parts_have_the_same_sha256(tmp_path: Path, make_bundle: MakeBundle) -> None:
    assert make_bundle(tmp_path / "a") == make_bundle(tmp_path / "b")
    assert make_bundle(tmp_path / "a", documents={"MODEL_CARD.md": "# Else\n", "metrics.json": "{}"}) != make_bundle(
        tmp_path / "b"
    )


@pytest.mark.parametrize("exchanged", [True, False])
def test_an_older_bundle_is_replaced(
    exchanged: bool, tmp_path: Path, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanged:
        monkeypatch.setattr(write, "_exchange", lambda one, other: False)
    make_bundle(tmp_path / "b")
    sha256 = make_bundle(tmp_path / "b", documents={"MODEL_CARD.md": "# New\n", "metrics.json": "{}"})
    assert verify_bundle(tmp_path / "b").sha256 == sha256
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_write_that_fails_at_any_step_leaves_the_old_bundle(
    tmp_path: Path, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = make_bundle(tmp_path / "b")
    real, steps = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal steps
        steps -= 1
        if steps < 0:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    for allowed in range(10):
        steps = allowed
        with pytest.raises(OSError, match="No space"):
            make_bundle(tmp_path / "b", documents={"MODEL_CARD.md": "# New\n", "metrics.json": "{}"})
        assert verify_bundle(tmp_path / "b").sha256 == sha256
        assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_a_killed_write_left_beside_is_removed(tmp_path: Path, make_bundle: MakeBundle) -> None:
    (tmp_path / ".b.writing.abc").mkdir()
    make_bundle(tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_folder_with_anything_else_is_left_alone(tmp_path: Path, make_bundle: MakeBundle) -> None:
    make_bundle(tmp_path / "b")
    (tmp_path / "b/thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="something else"):
        make_bundle(tmp_path / "b")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(BundleError, match="no folder"):
        make_bundle(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    make_bundle(tmp_path / "empty")


def test_parts_that_do_not_fit_are_refused(tmp_path: Path, make_bundle: MakeBundle, record: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="networks are given for"):
        make_bundle(tmp_path / "b", models={})
    with pytest.raises(BundleError, match=r"MODEL_CARD.md and metrics.json"):
        make_bundle(tmp_path / "b", documents={})
    record["stages"][0]["frozen"]["threshold"] = "high"
    with pytest.raises(BundleError, match=r"stages.view_filter.frozen.threshold"):
        make_bundle(tmp_path / "b", record=record)
    assert not (tmp_path / "b").exists()
