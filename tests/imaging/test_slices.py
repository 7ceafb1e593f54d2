"""What headers say of a CT image: why it is left out, or that it may be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainseg.imaging.slices import Image, left_out, of_head, sharp


@pytest.mark.parametrize(
    ("kernels", "is_sharp"),
    [
        (("STD+", "STANDARD", "SOFT", "H31s", "J30s\\3", "Hr38f", "Br40d", "B30f", "UB", "B", "FC26", "FC64"), False),
        (("BONE", "BONEPLUS", "EDGE", "LUNG", "H60s", "J70h\\2", "Hr59h", "B70f", "YD", "D", "FC30", "FC81"), True),
    ],
)  # fmt: skip
def test_kernels(kernels: tuple[str, ...], is_sharp: bool) -> None:
    assert [sharp(kernel) for kernel in kernels] == [is_sharp] * len(kernels)


@pytest.mark.parametrize(
    ("reason", "descriptions"),
    [
        ("", ("HEAD 5.0 H31s", "Routine brain W/O CONTRAST", "Axial non-contrast", "sans contraste", "WO IV CONTRAST",
              "sans injection", "HEAD_W/O_CE", "HEAD+C-SPINE 5.0", "AIDR 3D STD",
              "Kopf ohne Kontrastmittel", "HEAD W/ C-SPINE", "HEAD W/O C-SPINE")),
        ("contrast", ("CTA HEAD", "Head C+", "Brain WITH CONTRAST", "CT Angio 0.6", "Schaedel KM", "Perfusion 4D",
                      "CTA_HEAD_0.6", "Kopf_KM", "HEAD +C", "Head post IV", "AVEC INJECTION", "cranio con mdc",
                      "CECT HEAD 5.0", "BRAIN W/C", "Brain W/ Gd", "HEAD POST C", "Kopf mit Kontrast", "HEAD W/ C")),
        ("bone", ("HEAD BONE", "Knochen 1.0", "Head_sharp")),
        ("localizer", ("Scout", "Topogram 0.6", "Surview", "Localizer")),
        ("derived", ("MIP axial", "VRT Skull", "MinIP", "MIP_axial", "Iodine map", "Head VNC")),
        ("capture", ("Dose Report", "Patient Protocol", "Screen Save")),
    ],
)  # fmt: skip
def test_descriptions(reason: str, descriptions: tuple[str, ...]) -> None:
    for description in descriptions:
        values = {"Rows": "512", "Columns": "512", "Modality": "CT", "SeriesDescription": description}
        assert left_out(Image(Path("a"), "", values)) == reason, description


@pytest.mark.parametrize(
    ("reason", "header"),
    [
        ("contrast", {"ContrastBolusAgent": "Iomeron 400"}),
        ("contrast", {"ContrastBolusAgent": "APPLIED"}),
        ("contrast", {"ContrastBolusVolume": "100", "ContrastBolusRoute": "IV"}),
        ("contrast", {"ContrastBolusIngredient": "IODINE"}),
        ("contrast", {"ContrastBolusStartTime": "101500"}),
        ("", {"ContrastBolusAgent": "NO CONTRAST"}),
        ("", {"ContrastBolusAgent": "Without"}),
        ("", {"ContrastBolusAgent": "N/A"}),
        ("", {"ContrastBolusAgent": "none", "ContrastBolusRoute": "IV"}),
        ("", {"ContrastBolusVolume": "0.0", "ContrastBolusTotalDose": "0"}),
    ],
)
def test_contrast_by_the_header(reason: str, header: dict[str, str]) -> None:
    """De-identification may have emptied the agent and left volume and route."""
    values = {"Rows": "512", "Columns": "512", "Modality": "CT", **header}
    assert left_out(Image(Path("a"), "", values)) == reason


def test_parts_of_the_body() -> None:
    assert of_head({"SeriesDescription": "Brain 5mm"}) == of_head({"BodyPartExamined": "HEAD"}) == 0
    assert of_head({"SeriesDescription": "5mm"}) == 1
    assert of_head({"SeriesDescription": "C-Spine 2.0", "BodyPartExamined": "HEAD"}) == 2
