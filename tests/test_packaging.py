"""The wheel holds the package and its configuration, and runs without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built and unpacked: what pip would put into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(ROOT)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
def test_wheel_holds_package_and_configuration_and_nothing_else(unpacked: Path) -> None:
    assert {entry.name for entry in unpacked.iterdir() if not entry.name.endswith(".dist-info")} == {"domainseg"}
    for name in ("py.typed", "imaging/film.py", "conf/train.yaml", "conf/pipeline/hip.yaml"):
        assert (unpacked / "domainseg" / name).is_file()
    in_checkout = {file.relative_to(ROOT / "conf") for file in (ROOT / "conf").rglob("*.yaml")}
    assert {file.relative_to(unpacked / "domainseg/conf") for file in unpacked.rglob("conf/**/*.yaml")} == in_checkout


@pytest.mark.slow
def test_commands_find_the_configuration_in_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    code = "import domainseg.config as c; print(c.conf_folder()); print(c.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [str(unpacked / "domainseg/conf"), str(unpacked / "domainseg/config.py")]
    argv = [sys.executable, "-m", "domainseg.train", "+pipeline=hop"]
    refused = subprocess.run(argv, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
    assert (refused.returncode, refused.stderr.splitlines()[0][:20]) == (2, "error: pipeline=hop:")
