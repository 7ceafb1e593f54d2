"""CT-ICH as its SOURCE.md describes it: labels by slice, some pictures missing."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
import pytest

from domainseg.data.manifest import ManifestError
from domainseg.data.sources import ct_ich
from domainseg.imaging.hemorrhage import TYPES

COLUMNS = ["PatientNumber", "SliceNumber", *(kind.capitalize() for kind in TYPES), "No_Hemorrhage", "file"]


def folder(path, slices, extra=()):
    """A patient 7 with pictures of these slice numbers; slice 11 has a subdural bleed, slice 9 two kinds."""
    (path / "brain" / "007").mkdir(parents=True)
    rows = []
    for number in slices:
        kinds = {11: {"Subdural"}, 9: {"Subdural", "Epidural"}}.get(number, set())
        flags = ["1" if kind.capitalize() in kinds else "0" for kind in TYPES]
        rows.append(["7", str(number), *flags, "0" if kinds else "1", f"brain/007/{number:02d}.jpg"])
    for number in (*slices, *extra):
        cv2.imwrite(str(path / "brain" / "007" / f"{number:02d}.jpg"), np.full((8, 8), number * 8, np.uint8))
    pd.DataFrame(rows, columns=COLUMNS).to_csv(path / "slice_labels.csv", index=False)
    pd.DataFrame({"Patient Number": ["7"], "Age (years)": ["0.6"], "Gender": ["Female"]}).to_csv(
        path / "patients.csv", index=False
    )
    return path


def test_slices_are_counted_among_the_pictures_that_are_there(tmp_path):
    manifest = ct_ich.load(folder(tmp_path, [2, 3, 9, 10, 11, 30]))
    head = manifest.targets[manifest.targets["part"] == "head"].iloc[0]
    assert head["slices_subdural"] == "2 4"
    assert head["slices_epidural"] == "2"
    assert head["slices_hemorrhage"] == "2 4"
    assert head["slices_intraventricular"] == "none"
    assert (head["label_subdural"], head["label_epidural"], head["label_intraventricular"]) == (1, 1, 0)
    assert manifest.images.loc[0, ["image", "age", "sex"]].tolist() == ["007", 0.6, "F"]
    assert manifest.path("007").is_dir()


def test_a_cell_that_is_no_label_is_not_read_as_absent(tmp_path):
    root = folder(tmp_path, [2, 3, 9, 10, 11])
    table = pd.read_csv(root / "slice_labels.csv", dtype=str)
    table.loc[4, "Subdural"] = "1.0"
    table.to_csv(root / "slice_labels.csv", index=False)
    with pytest.raises(ManifestError, match=r"Subdural holds '1\.0', which is neither 0 nor 1"):
        ct_ich.load(root)


def test_what_file_browsers_leave_beside_pictures_changes_nothing(tmp_path):
    root = folder(tmp_path, [2, 3, 9, 10, 11])
    for name in (".DS_Store", "Thumbs.db"):
        (root / "brain" / "007" / name).write_bytes(b"x")
    targets = ct_ich.load(root).targets
    assert targets[targets["part"] == "head"].iloc[0]["slices_subdural"] == "2 4"


def test_a_picture_without_a_row_leaves_the_slices_unknown(tmp_path):
    targets = ct_ich.load(folder(tmp_path, [2, 11], extra=[5])).targets
    head = targets[targets["part"] == "head"].iloc[0]
    assert head["slices_subdural"] == ""
    assert head["label_subdural"] == 1


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="not a CT-ICH folder"):
        ct_ich.load(tmp_path)


@pytest.mark.real_data
def test_the_positions_lead_back_to_the_rows_of_the_table(shared_data):
    """Each slice by name, from the position in the order in which the volume is read."""
    from domainseg.imaging.volumes import read_volume

    root = shared_data / "ct_ich"
    manifest = ct_ich.load(root)
    table = pd.read_csv(root / "slice_labels.csv").set_index("file")
    heads = manifest.targets[manifest.targets["part"] == "head"].set_index("image")
    assert (len(manifest), int(heads["label_hemorrhage"].sum())) == (44, 24)
    assert sum(len(cell.split()) for cell in heads["slices_hemorrhage"] if cell != "none") == 213
    for image in ("052", "071", "104"):  # pictures are missing in these
        files = [f"brain/{image}/{file.name}" for file in read_volume(manifest.path(image)).files]
        for kind in TYPES:
            cell = heads.loc[image, f"slices_{kind}"]
            named = {files[int(k)] for k in cell.split()} if cell != "none" else set()
            own = table.loc[files, kind.capitalize()]
            assert named == set(own.index[own == 1]), (image, kind)
