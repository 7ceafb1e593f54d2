"""Lessons of the head CT cascade: what becomes of masks, which numbers are kept, and one volume at a time."""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from domainseg.cascade.cascade import Cascade
from domainseg.cascade.head import HemorrhageDetector
from domainseg.cascade.head_truth import HeadTruth
from domainseg.cascade.reads import VOLUMES
from domainseg.cascade.stages import Stage
from domainseg.data.cache import Cache
from domainseg.data.manifest import Manifest, build_manifest
from domainseg.imaging.hemorrhage import CODES
from domainseg.imaging.volume import Volume
from domainseg.training import heads
from domainseg.training.heads import Heads, HeadSampler
from domainseg.training.runner import Remembering, TorchNetwork
from domainseg.training.samples import Films

SHAPE = (4, 16, 16)
SLABS = [{"op": "slabs", "size": 16, "slices": 3, "thickness": 5}, {"op": "window", "low": 0, "high": 80}]
read: list[weakref.ref[Volume]] = []


def one_at_a_time(path: Path, memory: Any) -> Volume:
    assert not [old for old in read if old() is not None]
    made = Volume(np.full(SHAPE, 30, np.int16), np.diag([1.0, 1.0, 5.0, 1.0]), source_shape=SHAPE)
    read.append(weakref.ref(made))
    return made


ONE = replace(VOLUMES, read=one_at_a_time)


def exams(folder: Path, kinds: list[str], **columns: Any) -> Manifest:
    """An exam for each kind of mask; its mask is binary. "missing": its file is not there."""
    images, targets = [], []
    for number, kind in enumerate(kinds):
        (folder / f"e{number}.nii").write_bytes(f"exam {number}".encode())
        images.append({"image": f"e{number}", "path": f"e{number}.nii", "patient": str(number), "split": "train"})
        row = {"image": f"e{number}", "part": "head", "label_hemorrhage": 1, **columns}
        if kind:
            row |= {"mask": f"m{number}.nii.gz", "mask_type": kind if kind in CODES else ""}
            if kind != "missing":
                drawn = np.zeros(SHAPE[::-1], np.uint8)
                drawn[4:9, 4:9, 1:3] = 1
                image = nibabel.Nifti1Image(drawn, np.eye(4))  # type: ignore[no-untyped-call]
                nibabel.save(image, folder / f"m{number}.nii.gz")
        targets.append(row)
    return build_manifest(pd.DataFrame(images), pd.DataFrame(targets, dtype=object).fillna(""), folder, "mine")


def blind(pictures: np.ndarray) -> dict[str, np.ndarray]:
    return {"mask": np.full((len(pictures), 6, 16, 16), -5, np.float32)}


STAGE = Stage("hemorrhage", SLABS, HemorrhageDetector(), blind)


@pytest.fixture(autouse=True)
def reading(monkeypatch: pytest.MonkeyPatch) -> None:
    read.clear()
    monkeypatch.setattr(heads, "VOLUMES", ONE)


def sampler(manifest: Manifest, folder: Path) -> HeadSampler:
    return HeadSampler(Films(manifest, reading=ONE), HeadTruth(manifest), Cache(folder / "cache", 10**8))


def test_a_mask_that_is_said_to_show_another_type_is_drawn_anew(tmp_path: Path) -> None:
    for kind in ("subdural", "epidural"):
        (exam,) = sampler(exams(tmp_path, [kind]), tmp_path).exams(STAGE, Cascade([]), Counter())
        assert set(np.unique(exam.planes()[1])) == {0, CODES[kind]}


def test_a_mask_that_cannot_be_read_costs_its_exam_and_not_the_run(tmp_path: Path) -> None:
    report: Counter[str] = Counter()
    found = sampler(exams(tmp_path, ["subdural", "missing", ""]), tmp_path).exams(STAGE, Cascade([]), report)
    assert [exam.image for exam in found] == ["e0", "e2"]
    assert report == {"used_label_1": 2, "mask_unreadable": 1}


def lessons(tune: Manifest, folder: Path, **typed: Any) -> Heads:
    decision = {"_target_": "domainseg.cascade.head.HemorrhageDetector", **typed}
    cfg = {"seed": 0, "stage": {"hemorrhage": {"rule": "sensitivity_0.95", "decision": decision}}}
    return Heads(SimpleNamespace(cfg=cfg, tune=tune, cache=Cache(folder / "cache", 10**8)))  # type: ignore[arg-type]


def test_painted_exams_are_learned_from_where_the_stage_asks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, two = exams(tmp_path, ["subdural"]), exams(tmp_path, ["subdural", "epidural"])
    asked: list[Any] = []

    def paint(manifest: Manifest, folder: Path, **settings: Any) -> Manifest:
        asked.append((manifest, folder, settings))
        return two.with_images(painted_of=["", "e0"])

    monkeypatch.setattr(heads, "with_painted", paint)
    wanted = {"copies": 2, "alone": True}
    for painted, names in ((None, ["e0"]), (wanted, ["e0", "e1"])):
        cfg = {"seed": 3, "output": str(tmp_path / "run"), "stage": {"hemorrhage": {"painted": painted}}}
        builder = SimpleNamespace(cfg=cfg, train=train, folder=tmp_path, cache=Cache(tmp_path / "cache", 10**8))
        report: Counter[str] = Counter()
        found = Heads(builder).items(STAGE, [], report)  # type: ignore[arg-type]
        assert [exam.image for exam in found] == names
    assert asked == [(train, tmp_path / "run/painted", {**wanted, "seed": 3})]
    assert report["painted"] == 1
    assert pd.read_csv(tmp_path / "painted.csv").to_dict("list") == {"image": ["e1"], "painted_of": ["e0"]}


def test_a_threshold_that_is_kept_keeps_its_numbers(tmp_path: Path) -> None:
    previous = replace(STAGE, decision=HemorrhageDetector(level=0.15, presence=0.5, threshold_subdural=0.07))
    few = lessons(exams(tmp_path, ["subdural"] * 2), tmp_path)
    stage, record = few.tuned(STAGE, [], previous)
    assert stage.decision == previous.decision
    assert "init_from" in record["kept"]
    assert not read  # nothing is read for it
    stage = replace(STAGE, decision=HemorrhageDetector(overlap=0.3))  # as typed
    stage, _ = lessons(few.builder.tune, tmp_path, overlap=0.3).tuned(stage, [], previous)
    assert stage.decision == replace(previous.decision, overlap=0.3)
    # Many of one kind choose a threshold and no numbers: those of init_from stay.
    many = lessons(exams(tmp_path, ["subdural"] * 12), tmp_path)
    stage, record = many.tuned(STAGE, [], previous)
    assert stage.decision == previous.decision
    assert record["exams"] == 12


def test_numbers_are_chosen_on_the_exams_that_choose_the_threshold(tmp_path: Path) -> None:
    other = lessons(exams(tmp_path, ["subdural", "missing"], label_head_filter=0), tmp_path)
    assert other.tuned(STAGE, [], None)[1]["exams"] == 0
    some = lessons(exams(tmp_path, ["subdural", "missing"]), tmp_path)
    assert some.tuned(STAGE, [], None)[1]["exams"] == 2


def test_an_exam_of_which_only_a_type_is_known_to_be_absent_teaches_nothing(tmp_path: Path) -> None:
    report: Counter[str] = Counter()
    manifest = exams(tmp_path, [""], label_hemorrhage="", label_subdural=0, slices_subdural="none")
    assert sampler(manifest, tmp_path).exams(STAGE, Cascade([]), report) == []
    assert report == {"without_truth": 1}


def test_an_exam_of_tune_goes_through_the_network_once(tmp_path: Path) -> None:
    class Counting(nn.Module):
        asked = 0

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            self.asked += 1
            return {"mask": x[:, :1].repeat(1, 6, 1, 1) - 5}

    network = Counting()
    once = Remembering(TorchNetwork(network), room=2 * 3 * 6 * 16 * 16 * 4)
    pictures = np.random.default_rng(0).random((4, 3, 8, 16, 16), np.float32)
    for picture in (*pictures, *pictures):
        np.testing.assert_array_equal(once(picture)["mask"], picture[:, :1].repeat(6, 1) - 5)
    assert network.asked == 6  # two found room, two were asked again
    stage = replace(STAGE, network=TorchNetwork(network))
    tuned, _ = lessons(exams(tmp_path, ["subdural"]), tmp_path).tuned(stage, [], None)
    assert isinstance(tuned.network, Remembering)


def test_a_mask_that_shows_only_some_of_the_bleeds_outlines_nothing(tmp_path: Path) -> None:
    """The other bleed's voxels and slices would be taught as free of blood."""
    report: Counter[str] = Counter()
    manifest = exams(tmp_path, ["subdural", "subdural"], label_subdural=1)
    manifest.targets["label_intraparenchymal"] = np.where(manifest.targets["image"] == "e0", 1.0, 0.0)
    found = sampler(manifest, tmp_path).exams(STAGE, Cascade([]), report)
    assert [exam.has_mask for exam in found] == [False, True]
    assert set(np.unique(found[0].slices[~np.isnan(found[0].slices)])) == {1}
    assert (found[0].slices[:, 0] == 1).sum() == (found[1].slices[:, 0] == 1).sum() == 2
    assert report == {"used_label_1": 2, "mask_incomplete": 1}
    # Once its label is right, the mask is learned from: what the cache has is the blank that stood in for it.
    manifest.targets["label_intraparenchymal"] = 0.0
    for exam in sampler(manifest, tmp_path).exams(STAGE, Cascade([]), report):
        assert exam.has_mask
        assert set(np.unique(exam.planes()[1])) == {0, CODES["subdural"]}


def test_a_mask_with_blood_in_an_exam_without_a_bleed_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report: Counter[str] = Counter()
    manifest = exams(tmp_path, ["subdural"], label_hemorrhage=0)
    assert sampler(manifest, tmp_path).exams(STAGE, Cascade([]), report) == []
    assert report == {"mask_contradicts_label": 1}
    assert "its label says that there is none" in caplog.text
