"""1,000 flipped bytes in checkpoints, weights, records and cache entries: 1,000 found, and what follows from it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from domainseg.data.cache import Cache
from domainseg.files import DamagedError
from domainseg.tasks.checkpoints import SafeCheckpointIO, checkpoint_path, latest_checkpoint, read_checkpoint
from domainseg.training.stages import RunError, load_stage, new_stage, save_stage

VIEW: dict[str, Any] = {
    "decision": {"_target_": "domainseg.cascade.stages.ViewFilter"},
    "network": {"_target_": "domainseg.networks.ViewNet", "widths": [4, 8]},
    "preprocessing": [{"op": "fit", "size": 32}],
}
KEY = {"source": "a" * 64, "operations": [{"op": "fit", "size": 8}]}
ARRAY = np.arange(600, dtype=np.uint16).reshape(20, 30)
EXTRAS = {"affine": [[1e-05, 0.5, 3.0], [0.0, 1.25, 7.0]], "name": "x"}


def checkpoint_is_refused(path: Path) -> bool:
    newest = checkpoint_path(path.parent, "fit", 10)
    with pytest.raises(DamagedError, match="damaged"):
        read_checkpoint(newest)
    found = latest_checkpoint(path.parent, "fit")
    return found is not None and found[1]["global_step"] == 5


def stage_is_refused(path: Path) -> bool:
    with pytest.raises(RunError, match="damaged"):
        load_stage(path.parent, "cpu")
    return True


def entry_is_built_anew(path: Path) -> bool:
    cache = Cache(path.parent.parent, 10**9)
    array, extras = cache.get(KEY, lambda: (ARRAY, EXTRAS))
    return cache.built == 1 and np.array_equal(array, ARRAY) and extras == EXTRAS


@pytest.mark.slow
def test_a_thousand_flips_are_found(tmp_path: Path) -> None:
    stage = new_stage("view_filter", VIEW, "cpu", seed=0)
    save_stage(stage, VIEW, tmp_path / "stage", samples=3, seconds=1.5)
    for step in (5, 10):
        state = {"global_step": step, "state_dict": {"weight": torch.full((40, 40), float(step))}}
        SafeCheckpointIO().save_checkpoint(state, checkpoint_path(tmp_path / "fits", "fit", step))
    Cache(tmp_path / "cache", 10**9).get(KEY, lambda: (ARRAY, EXTRAS))
    kinds: dict[str, Callable[[Path], bool]] = {
        "fits/fit-0000010.ckpt": checkpoint_is_refused,
        "fits/fit-0000010.ckpt.sha256": checkpoint_is_refused,
        "stage/network.pt": stage_is_refused,
        "stage/stage.json": stage_is_refused,
        "cache/*/*.npy": entry_is_built_anew,
        "cache/*/*.json": entry_is_built_anew,
    }
    whole = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    rng = np.random.default_rng(20)
    logging.disable(logging.WARNING)
    try:
        for number in range(1000):
            pattern = list(kinds)[number % len(kinds)]
            (path,) = tmp_path.glob(pattern)
            data = bytearray(whole[path])
            place, bits = int(rng.integers(len(data))), int(rng.integers(1, 256))
            data[place] ^= bits
            path.write_bytes(data)
            assert kinds[pattern](path), f"{pattern}: byte {place} xor {bits} was not found"
            for file, content in whole.items():
                if not file.is_file() or file.read_bytes() != content:
                    file.write_bytes(content)
    finally:
        logging.disable(logging.NOTSET)
    assert load_stage(tmp_path / "stage", "cpu").name == "view_filter"
    assert Cache(tmp_path / "cache", 10**9).get(KEY, lambda: pytest.fail("not damaged"))[1] == EXTRAS
    assert latest_checkpoint(tmp_path / "fits", "fit")[1]["global_step"] == 10  # type: ignore[index]


def test_every_byte_of_a_record_counts(tmp_path: Path) -> None:
    """Each byte changed in turn, one bit of it and the case: also where the meaning stays the same."""
    save_stage(new_stage("view_filter", VIEW, "cpu", seed=0), VIEW, tmp_path)
    file = tmp_path / "stage.json"
    whole = file.read_bytes()
    for place in range(len(whole)):
        for bits in (0x01, 0x20):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ bits]) + whole[place + 1 :])
            assert stage_is_refused(file), (place, bits)


def test_a_record_from_before_digests_is_taken_as_it_is(tmp_path: Path) -> None:
    save_stage(new_stage("view_filter", VIEW, "cpu", seed=0), VIEW, tmp_path)
    lines = (tmp_path / "stage.json").read_text().splitlines()
    old = [line for line in lines if '"schema"' not in line and '"digest"' not in line]
    (tmp_path / "stage.json").write_text("\n".join(old).replace(",\n}", "\n}"))
    assert load_stage(tmp_path, "cpu").name == "view_filter"


def test_weights_hold_no_pickle(tmp_path: Path) -> None:
    """A checksum that is right does not make a pickle welcome."""

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "run by the pickle",))

    path = checkpoint_path(tmp_path, "fit", 5)
    SafeCheckpointIO().save_checkpoint({"global_step": 5, "trap": Trap()}, path)
    with pytest.raises(Exception, match=r"[Ww]eights"):
        latest_checkpoint(tmp_path, "fit")
    assert not (tmp_path / "run by the pickle").exists()
