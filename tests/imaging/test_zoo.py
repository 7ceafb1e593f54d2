"""Real DICOM files of many transfer syntaxes, against the raw values that other decoders found in them."""

from __future__ import annotations

import contextlib
import csv
from pathlib import Path

import pytest

from domainseg.imaging import ImageReadError, read_film, read_pixels

# Lossy JPEG (DCT) depends on the decoder's arithmetic: whole grey levels at the extremes, less in the mean.
LOSSY = {"1.2.840.10008.1.2.4.50": (1, 0.05), "1.2.840.10008.1.2.4.51": (1, 0.05)}
EXACT = (0, 0.001)  # the table has three decimals


@pytest.mark.real_data
def test_raw_pixels(shared_data: Path) -> None:
    folder = shared_data / "dicom_zoo"
    with open(folder / "manifest.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 62
    for row in rows:
        path = folder / row["file"]
        if row["decodes"] == "False":
            with pytest.raises(ImageReadError):
                read_pixels(path)
            continue
        pixels = read_pixels(path)
        extreme, mean = LOSSY.get(row["transfer_syntax"], EXACT)
        assert "x".join(map(str, pixels.shape)) == row["shape"], path
        assert abs(int(pixels.min()) - float(row["min"])) <= extreme, path
        assert abs(int(pixels.max()) - float(row["max"])) <= extreme, path
        assert abs(float(pixels.mean()) - float(row["mean"])) <= mean, path


@pytest.mark.real_data
def test_none_but_the_grey_codec_samples_is_a_film(shared_data: Path) -> None:
    read = set()
    for path in sorted((shared_data / "dicom_zoo").rglob("*.dcm")):
        with contextlib.suppress(ImageReadError):
            read.add(path.name if read_film(path).pixels.size else "")
    assert read == {"JLSL_08_07_0_1F.dcm", "JLSL_16_15_1_1F.dcm"}


@pytest.mark.real_data
def test_exported_films(shared_data: Path) -> None:
    paths = sorted((shared_data / "fracatlas").rglob("*.jpg"))[:40]
    assert paths
    for path in paths:
        film = read_film(path)
        assert 0 <= film.pixels.min() < film.pixels.max() <= 1
