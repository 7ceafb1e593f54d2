"""The cache: what goes in comes out, damage and crashes are noticed, processes share it, its size is capped."""

from __future__ import annotations

import logging
import multiprocessing
import os
import stat

import numpy as np
import pytest

from domainseg.data.cache import Cache, cache_key
from domainseg.imaging import geometry

BIG = 10**9


def key(number=0):
    return cache_key(f"{number:064x}", reader="1", lut_policy="voi", operations=[{"name": "resize", "version": 1}])


def array(number=0, shape=(64, 48)):
    return np.random.default_rng(number).integers(0, 65536, shape).astype(np.uint16)


def refuse():
    raise AssertionError("the entry should have been reused")


def files(folder, suffix):
    return sorted(folder.glob(f"??/*{suffix}"))


def test_reused_by_another_cache_and_read_only(tmp_path):
    affine = geometry.square((10.5, 20.25), 300.7, 1024).tolist()
    first, extras = Cache(tmp_path, BIG).get(key(), lambda: (array(), {"affine": affine}))
    cache = Cache(tmp_path, BIG)
    second, again = cache.get(key(), refuse)
    assert np.array_equal(first, array())
    assert np.array_equal(second, array())
    assert extras == again == {"affine": affine}
    assert isinstance(second, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        second[0, 0] = 1
    assert (cache.built, cache.reused) == (0, 1)


def test_every_part_of_the_key_matters(tmp_path):
    cache = Cache(tmp_path, BIG)
    base = {"source_sha256": "a", "reader": "1", "lut_policy": "voi", "operations": [{"name": "r", "size": 8}]}
    changes = [
        {"source_sha256": "b"},
        {"reader": "2"},
        {"lut_policy": "minmax"},
        {"operations": [{"name": "r", "size": 9}]},
        {"operations": []},
        {"affine": np.eye(3)},
        {"affine": geometry.mirror(8)},
    ]
    for number, change in enumerate([{}, *changes]):
        cache.get(cache_key(**(base | change)), lambda number=number: (array(number), {}))
    assert cache.built == len(changes) + 1
    assert len(files(tmp_path, ".npy")) == len(changes) + 1


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "record", "no array", "no record", "old record"])
def test_a_damaged_entry_is_built_anew_and_told(tmp_path, caplog, damage):
    Cache(tmp_path, BIG).get(key(), lambda: (array(), {"n": 1}))
    [data], [record] = files(tmp_path, ".npy"), files(tmp_path, ".json")
    content = bytearray(data.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    elif damage == "truncate":
        data.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        data.write_bytes(b"")
    elif damage == "record":
        record.write_text("{")
    elif damage == "no array":
        data.unlink()
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text("[]")
    cache = Cache(tmp_path, BIG)
    with caplog.at_level(logging.WARNING, "domainseg"):
        found, extras = cache.get(key(), lambda: (array(), {"n": 1}))
    assert np.array_equal(found, array())
    assert extras == {"n": 1}
    assert cache.built == 1
    assert ("damaged" in caplog.text) == (damage not in ("no array", "no record"))
    assert np.array_equal(Cache(tmp_path, BIG).get(key(), refuse)[0], array())


def test_a_failed_build_leaves_nothing(tmp_path):
    cache = Cache(tmp_path, BIG)
    with pytest.raises(ZeroDivisionError):
        cache.get(key(), lambda: (1 // 0, {}))
    with pytest.raises(TypeError, match="uint16"):
        cache.get(key(), lambda: (np.zeros((2, 2), np.float32), {}))
    with pytest.raises(ValueError, match="JSON"):
        cache.get(key(), lambda: (array(), {"spacing": float("nan")}))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_size_is_capped_and_the_oldest_go_first(tmp_path, caplog):
    size = array().nbytes + 128
    cache = Cache(tmp_path, 5 * size)
    for number in range(5):
        cache.get(key(number), lambda number=number: (array(number), {}))
    for age, path in enumerate(sorted(files(tmp_path, ".npy"), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(path, (1000 + age, 1000 + age))
    fresh = Cache(tmp_path, 5 * size)
    fresh.get(key(0), refuse)  # opened now: no longer the oldest
    with caplog.at_level(logging.INFO, "domainseg"):
        fresh.get(key(5), lambda: (array(5), {}))
    assert sum(path.stat().st_size for path in files(tmp_path, ".npy")) <= 5 * size
    assert "2 arrays removed" in caplog.text
    assert len(files(tmp_path, ".json")) == len(files(tmp_path, ".npy")) == 4
    for number in (0, 3, 4, 5):
        Cache(tmp_path, 5 * size).get(key(number), refuse)


def test_an_open_map_outlives_its_removal_and_a_small_cache_says_so(tmp_path, caplog):
    cache = Cache(tmp_path, array().nbytes + 200)
    first, _ = cache.get(key(0), lambda: (array(0), {}))
    with caplog.at_level(logging.WARNING, "domainseg"):
        second, _ = cache.get(key(1), lambda: (array(1), {}))
    assert np.array_equal(first, array(0))
    assert np.array_equal(second, array(1))
    assert "too small" in caplog.text
    assert np.array_equal(cache.get(key(0), lambda: (array(0), {}))[0], array(0))


def work(folder):
    cache = Cache(folder, 12 * (array().nbytes + 128))
    order = np.random.default_rng(os.getpid()).integers(0, 16, 60)
    for number in order:
        found, extras = cache.get(key(int(number)), lambda number=number: (array(int(number)), {"n": int(number)}))
        if not np.array_equal(found, array(int(number))) or extras != {"n": int(number)}:
            return f"wrong content for {number}"
    return ""


def test_processes_share_a_folder_that_is_too_small(tmp_path):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(work, [tmp_path] * 3, chunksize=1) == ["", "", ""]
    assert not [path for path in tmp_path.rglob(".*") if path.is_file() and path.name != ".lock"]


def test_files_have_the_rights_that_the_umask_gives(tmp_path):
    Cache(tmp_path, BIG).get(key(), lambda: (array(), {}))
    mask = os.umask(0)
    os.umask(mask)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(tmp_path, "")} == {0o666 & ~mask}
