"""Manifests: what is read, what is refused and in which words, and which truth a part has."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from domainseg.data.manifest import ManifestError, build_manifest, load_manifest, truth_table
from domainseg.data.tables import IMAGE_COLUMNS, RULES, TARGET_COLUMNS


def write(path, text):
    path.write_text(text.strip().replace(" ", "") + "\n", encoding="utf-8")
    return path


def read(tmp_path, text, targets=None, **settings):
    second = None if targets is None else write(tmp_path / "targets.csv", targets)
    return load_manifest(write(tmp_path / "films.csv", text), second, **({"check_files": False} | settings))


def refused(tmp_path, text, targets=None, **settings):
    with pytest.raises(ManifestError) as error:
        read(tmp_path, text, targets, **settings)
    return str(error.value)


def test_ids_keep_their_zeros_and_unknown_is_empty(tmp_path):
    manifest = read(tmp_path, "image,patient,site,age,portable\n007,01,1e3,,1\nNA,nan,null,82.5,")
    assert manifest.images["image"].tolist() == ["007", "NA"]
    assert manifest.images["patient"].tolist() == ["01", "nan"]
    assert manifest.images["site"].tolist() == ["1e3", "null"]
    assert manifest.images["portable"].tolist() == ["1", ""]
    assert np.isnan(manifest.images["age"][0])
    assert manifest.images["age"][1] == 82.5
    assert manifest.images["split"].tolist() == ["", ""]
    assert manifest.name == "films"


def test_only_image_is_required_and_is_the_path_by_default(tmp_path):
    manifest = read(tmp_path, "image,path\na.dcm,\nb,/elsewhere/b.png\nc,sub/c.png")
    assert manifest.path("a.dcm") == tmp_path / "a.dcm"
    assert str(manifest.path("b")) == "/elsewhere/b.png"
    assert manifest.path("c") == tmp_path / "sub" / "c.png"
    assert len(manifest.targets) == 0
    with pytest.raises(ManifestError, match="no image 'd'"):
        manifest.path("d")


def test_labels_are_1_0_or_unknown(tmp_path):
    manifest = read(
        tmp_path, "image,part,label_fracture,label_location\na,hip_left,1.0,intra\nb,hip_left,,\nc,head,0,none"
    )
    assert manifest.targets["label_fracture"].tolist()[::2] == [1.0, 0.0]
    assert np.isnan(manifest.targets["label_fracture"][1])
    assert manifest.targets["label_location"].tolist() == ["intra", "", "none"]


@pytest.mark.parametrize(
    ("column", "cell", "allowed"),
    [
        ("label_fracture", "yes", "1, 0 or empty"),
        ("label_fracture", "2", "1, 0 or empty"),
        ("label_fracture", "True", "1, 0 or empty"),
        ("label_location", "neck", "none, intra, extra or empty"),
        ("label_view", "hip", "hip_frontal, hip_other, other or empty"),
        ("label_turn", "90", "0, 1, 2, 3 or empty"),
        ("part", "left", "hip_left, hip_right, head, whole"),
        ("split", "validation", "train, tune, test or empty"),
        ("portable", "no", "1, 0 or empty"),
        ("sex", "female", "F, M, O or empty"),
        ("age", "082Y", "a number of years"),
        ("age", "-1", "a number of years"),
        ("date", "20240131", "YYYY-MM-DD"),
        ("date", "2024-02-30", "YYYY-MM-DD"),
        ("x", "inf", "source pixels"),
        ("y", "12px", "source pixels"),
        ("diameter", "0", "above 0"),
        ("box", '"1,2,3"', "x,y,width,height"),
        ("box", '"1,2,0,4"', "x,y,width,height"),
        ("fracture_width_mm", "-1", "0 or above"),
    ],
)
def test_a_wrong_cell_is_named_by_row_column_and_rule(tmp_path, column, cell, allowed):
    parts = "" if column == "part" else ",part"
    text = f"image,{column}{parts}\na,{',whole' if parts else 'whole'}\nb,{cell}{',whole' if parts else ''}"
    message = refused(tmp_path, text)
    assert f"row 3, column {column}: '{cell.strip(chr(34))}'" in message
    assert allowed in message
    assert "1 cell is wrong" in message


def test_all_wrong_cells_are_counted_and_ten_shown(tmp_path):
    rows = "\n".join(f"i{number},maybe,{number}" for number in range(12))
    message = refused(tmp_path, f"image,label_fracture,x\n,1,q\n{rows}")
    assert "14 cells are wrong" in message
    assert message.count("\n  row ") == 10
    assert "row 2, column image: (empty); must not be empty" in message
    assert "row 2, column x: 'q'" in message
    assert "and 4 more" in message


def test_blank_lines_do_not_shift_the_row_numbers(tmp_path):
    assert "row 5, column split" in refused(tmp_path, "image,split\na,\n\n,\nb,x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("film\na", "column image is missing; found: film"),
        ("image,site,site\na,1,2", "column site stands there twice"),
        ("image,site\na", "row 2 has 1 cells, the header has 2"),
        ("image;site\na;1", "semicolons"),
        ('"image";"site"\n"a";"1"', "semicolons"),
        ('image\n"a', "not a readable CSV"),
    ],
)
def test_tables_that_are_none(tmp_path, text, words):
    assert words in refused(tmp_path, text)


def test_files_that_are_none(tmp_path):
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "latin.csv").write_bytes("image\nfränzi".encode("latin-1"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    for name, words in [
        ("empty.csv", "empty"),
        ("latin.csv", "UTF-8"),
        ("bad.parquet", "Parquet"),
        ("films.xlsx", "no such file"),
    ]:
        with pytest.raises(ManifestError, match=words):
            load_manifest(tmp_path / name)
    (tmp_path / "films.xlsx").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"\.csv or \.parquet"):
        load_manifest(tmp_path / "films.xlsx")


def test_an_image_twice_is_refused(tmp_path):
    message = refused(tmp_path, "image\na\nb\na", "image,part\na,whole")
    assert "row 4, column image: 'a'; stands there already" in message


def test_targets_of_unknown_images_are_refused(tmp_path):
    assert "1 images are not in films.csv: z" in refused(tmp_path, "image\na", "image,part\nz,whole")
    assert "belongs into the targets table" in refused(tmp_path, "image,x\na,1", "image,part\na,whole")


def test_missing_films_are_counted_and_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    message = refused(tmp_path, "image\na.png\nb.png\nc.png", check_files=True)
    assert "2 of 3 films are not there: b.png, c.png" in message
    assert str(tmp_path) in message
    assert read(tmp_path, "image\na.png", check_files=True).missing_files() == []


def test_one_table_for_both(tmp_path):
    text = """image,patient,comment,part,label_fracture,mask
    a,p,left,hip_left,1,m1.png
    a,p,left too,hip_left,1,m2.png
    a,p,right,hip_right,0,
    b,p,none,,,"""
    message = refused(tmp_path, text)
    assert "row 5, column part: (empty); must not be empty" in message
    manifest = read(tmp_path, text.replace("none,,,", "none,whole,,"))
    assert manifest.images["image"].tolist() == ["a", "b"]
    assert manifest.targets["comment"].tolist() == ["left", "lefttoo", "right", "none"]
    assert manifest.targets["mask"].tolist() == ["m1.png", "m2.png", "", ""]
    assert "column patient differs" in refused(tmp_path, "image,patient,x\na,p,1\na,q,2")


def test_rows_of_one_part_have_equal_labels(tmp_path):
    text = "image,part,label_fracture\na,hip_left,1\na,hip_left,0"
    assert "image a, part hip_left: rows with different label_fracture" in refused(tmp_path, text)
    read(tmp_path, "image,part,label_fracture\na,hip_left,1\na,hip_left,")


def test_a_film_without_and_its_hip_with_is_a_contradiction(tmp_path):
    text = "image,part,label_fracture\na,whole,0\na,hip_left,1"
    assert "label_fracture is 0 for the whole film and 1 for hip_left" in refused(tmp_path, text)


def test_csv_and_parquet_say_the_same(tmp_path):
    text = "image,patient,age,part,label_fracture,x,box\n007,01,80,hip_left,1,10.25,\n008,02,,hip_left,,3,"
    from_csv = read(tmp_path, text)
    images = pd.DataFrame({"image": ["007", "008"], "patient": ["01", "02"], "age": [80, None]})
    targets = pd.DataFrame(
        {
            "image": ["007", "008"],
            "part": "hip_left",
            "label_fracture": [1, None],
            "x": [10.25, 3],
            "box": [None, None],
        }
    )
    images.to_parquet(tmp_path / "i.parquet")
    targets.to_parquet(tmp_path / "t.parquet")
    from_parquet = load_manifest(tmp_path / "i.parquet", tmp_path / "t.parquet", check_files=False)
    assert from_parquet.hash() == from_csv.hash() == build_manifest(images, targets, tmp_path, "x").hash()
    pd.testing.assert_frame_equal(from_parquet.images, from_csv.images, check_like=True)
    with pytest.raises(ManifestError, match=r"row 3, column label_fracture: '0\.5'"):
        build_manifest(images, targets.assign(label_fracture=[1, 0.5]), tmp_path, "x")


def test_the_hash_knows_cells_and_not_their_order(tmp_path):
    text = ["image,part,label_fracture", "a,whole,1", "b,whole,0", "c,whole,"]
    base = read(tmp_path, "\n".join(text)).hash()
    assert read(tmp_path, "\n".join([text[0], *text[:0:-1]])).hash() == base
    assert read(tmp_path, "\n".join(text).replace("c,whole,", "c,whole,0")).hash() != base
    assert read(tmp_path, "\n".join(text).replace("c,", "d,")).hash() != base


def test_split_and_where_take_the_targets_along(tmp_path):
    manifest = read(tmp_path, "image,split,part,label_fracture\na,train,whole,1\nb,test,whole,0\nc,,whole,0")
    assert manifest.split("test").images["image"].tolist() == ["b"]
    assert manifest.split("test").targets["image"].tolist() == ["b"]
    assert len(manifest.split("tune")) == 0
    assert manifest.where(manifest.images["image"] != "b").targets["image"].tolist() == ["a", "c"]
    with pytest.raises(ManifestError, match="train, tune, test"):
        manifest.split("validation")


def test_truth_of_parts(tmp_path):
    text = """image,part,label_fracture,label_location,label_view_filter,label_view,label_implant_filter
    positive,whole,1,,1,hip_frontal,1
    negative,whole,0,,1,hip_frontal,0
    mixed,hip_left,1,intra,,,
    mixed,hip_right,0,,,,
    mixed,whole,1,,1,hip_frontal,
    unknown,whole,,,0,other,"""
    truth = truth_table(read(tmp_path, text)).set_index(["image", "part"])
    assert len(truth) == 8

    def column(name):
        return [None if cell != cell else cell for cell in truth[name]]

    assert column("label_fracture") == [None, None, 0, 0, 1, 0, None, None]
    assert column("label_location") == ["", "", "none", "none", "intra", "none", "", ""]
    assert column("label_implant_filter") == [None, None, 0, 0, None, None, None, None]
    assert column("label_view_filter") == [1, 1, 1, 1, 1, 1, 0, 0]
    assert column("label_view")[-1] == "other"


def test_truth_gathers_boxes_masks_and_polygons(tmp_path):
    text = """image,part,label_fracture,x,box,mask,polygon
    a,hip_left,1,5,"1,2,3,4",m1.png,
    a,hip_left,1,,"5,6,7,8",m2.png,
    a,hip_right,0,,,,"""
    truth = truth_table(read(tmp_path, text)).set_index("part")
    assert truth.at["hip_left", "boxes"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert truth.at["hip_left", "masks"] == ["m1.png", "m2.png"]
    assert truth.at["hip_left", "x"] == 5
    assert truth.at["hip_right", "boxes"].shape == (0, 4)
    assert truth.at["hip_right", "polygons"] == []


PAGE = Path(__file__).parents[2] / "docs" / "manifest.md"


def test_the_page_names_every_column():
    rows = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named >= {*IMAGE_COLUMNS, *TARGET_COLUMNS, *RULES}


def test_the_examples_of_the_page_load(tmp_path):
    blocks = re.findall(r"(?:^    .+\n)+", PAGE.read_text(), re.MULTILINE)
    both, images, targets = (re.sub("^    ", "", block, flags=re.MULTILINE) for block in blocks if "image," in block)
    assert len(read(tmp_path, both).targets) == 3
    assert truth_table(read(tmp_path, images, targets))["label_fracture"].tolist()[:2] == [1, 0]


def test_an_exam_is_a_folder_that_holds_something(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "1.dcm").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    text = "image,path,part,label_hemorrhage\n1,full,head,1\n"
    assert read(tmp_path, text, check_files=True).missing_files() == []
    with pytest.raises(ManifestError, match="1 of 2 films are not there: 2"):
        read(tmp_path, text + "2,empty,head,0\n", check_files=True)


def test_what_is_known_of_heads_is_checked(tmp_path):
    head = "image,part,label_hemorrhage,mask,mask_type,slices_hemorrhage,slices_subdural,density,true_ml\n"
    # Several masks of one head, each of a type; blanks between slice numbers stand in real tables.
    good = head + "1,head,1,a.nii.gz,subdural,3,none,fresh,4.5\n1,head,1,b.nii.gz,epidural,3,none,fresh,4.5\n"
    targets = read(tmp_path, "image\n1\n", good).targets
    assert targets["mask_type"].tolist() == ["subdural", "epidural"]
    assert targets["true_ml"].tolist() == [4.5, 4.5]
    for row, column in (
        ("1,head,1,a.nii.gz,extradural,,,,", "mask_type"),
        ("1,head,1,,,-1,,,", "slices_hemorrhage"),
        ("1,head,1,,,,all,,", "slices_subdural"),
        ("1,head,1,,,,,old,", "density"),
        ("1,head,1,,,,,,-2", "true_ml"),
    ):
        with pytest.raises(ManifestError, match=f"column {column}"):
            read(tmp_path, "image\n1\n", head + row + "\n")


def test_the_head_filter_is_of_the_whole_exam_and_no_bleed_means_none_of_any_type(tmp_path):
    targets = "image,part,label_head_filter,label_hemorrhage,label_subdural\n1,whole,1,0,0\n1,head,,,\n"
    table = truth_table(read(tmp_path, "image\n1\n", targets), ("head",))
    assert table.loc[0, ["label_head_filter", "label_hemorrhage", "label_subdural"]].tolist() == [1, 0, 0]
