"""No byte of a bundle can change without being found, and what was changed on purpose is refused by its kind."""

from __future__ import annotations

import json
import os
import pickle
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from domainseg.bundle import schema, verify
from domainseg.bundle.schema import BundleError
from domainseg.bundle.verify import verify_bundle

from .conftest import HEADS, models, network, resum

Change = Callable[[Callable[[dict[str, Any]], Any]], Path]


def test_an_untouched_bundle_is_whole(bundle: Path) -> None:
    verified = verify_bundle(bundle)
    assert verified.models == models()
    assert [stage["name"] for stage in verified.record["stages"]] == list(HEADS)
    assert set(verified.documents) == {"MODEL_CARD.md", "metrics.json"}


def test_a_thousand_flipped_bytes_are_a_thousand_refusals(own: Path) -> None:
    files = sorted(path for path in own.rglob("*") if path.is_file())
    rng, found = random.Random(0), 0
    for _ in range(1000):
        file = rng.choice(files)
        data = file.read_bytes()
        place = rng.randrange(len(data))
        file.write_bytes(data[:place] + bytes([data[place] ^ rng.randrange(1, 256)]) + data[place + 1 :])
        try:
            verify_bundle(own)
        except BundleError:
            found += 1
        file.write_bytes(data)
    assert found == 1000
    verify_bundle(own)


@pytest.mark.parametrize("name", ["SHA256SUMS", "bundle.json", "metrics.json", "MODEL_CARD.md", "stages/fracture.onnx"])
def test_a_missing_file_is_named(own: Path, name: str) -> None:
    (own / name).unlink()
    with pytest.raises(BundleError, match=name):
        verify_bundle(own)


@pytest.mark.parametrize("name", ["stages/extra.onnx", "run.py", "stages/code.pkl", ".hidden", "stages/deep/x.onnx"])
def test_an_extra_file_is_refused_listed_or_not(own: Path, name: str) -> None:
    (own / name).parent.mkdir(exist_ok=True)
    (own / name).write_bytes(models()["fracture"])
    for _ in range(2):
        with pytest.raises(BundleError, match=Path(name).parts[1 if "deep" in name else -1]):
            verify_bundle(own)
        resum(own)


def test_no_link_is_followed(own: Path, tmp_path: Path) -> None:
    for name in ("metrics.json", "stages/fracture.onnx"):
        data = (own / name).read_bytes()
        (own / name).unlink()
        (tmp_path / "elsewhere").write_bytes(data)
        (own / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(BundleError, match="link"):
            verify_bundle(own)
        (own / name).unlink()
        (own / name).write_bytes(data)
    (own / "stages").rename(tmp_path / "stages")
    (own / "stages").symlink_to(tmp_path / "stages")
    with pytest.raises(BundleError, match="link"):
        verify_bundle(own)


def test_a_pipe_is_not_waited_for(own: Path) -> None:
    (own / "metrics.json").unlink()
    os.mkfifo(own / "metrics.json")
    with pytest.raises(BundleError, match="no plain file"):
        verify_bundle(own)


@pytest.mark.parametrize("swap", ["link", "pipe"])
def test_a_file_that_is_swapped_after_the_look_is_refused(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: str
) -> None:
    real = verify._walk

    def swapped(folder: Path) -> list[str]:
        there = list(real(folder))
        (own / "metrics.json").rename(tmp_path / "metrics.json")
        if swap == "link":
            (own / "metrics.json").symlink_to(tmp_path / "metrics.json")
        else:
            os.mkfifo(own / "metrics.json")
        return there

    monkeypatch.setattr(verify, "_walk", swapped)
    with pytest.raises(BundleError, match="link" if swap == "link" else "no plain file"):
        verify_bundle(own)


@pytest.mark.parametrize(
    "name",
    ["../outside.json", "/etc/passwd", "stages/../../x.onnx", "stages\\x.onnx", "./bundle.json", "stages//x.onnx"],
)
def test_no_path_leads_out_of_the_bundle(own: Path, name: str) -> None:
    sums = own / "SHA256SUMS"
    sums.write_text(sums.read_text() + f"{'0' * 64}  {name}\n")
    with pytest.raises(BundleError, match=r"SHA256SUMS, line 8"):
        verify_bundle(own)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.upper(),
        lambda text: text.replace("  ", " *"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text[:-1],
        lambda text: text + text.splitlines(keepends=True)[0],
        lambda text: text + "\n",
        lambda text: "# made by hand\n" + text,
        lambda text: text.replace("metrics.json", "SHA256SUMS"),
    ],
)
def test_sums_are_read_strictly(own: Path, edit: Callable[[str], str]) -> None:
    sums = own / "SHA256SUMS"
    sums.write_bytes(edit(sums.read_text()).encode())
    with pytest.raises(BundleError, match="SHA256SUMS"):
        verify_bundle(own)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/pwned",)


# Protocol 0 is plain text, and nothing but text as the card, which is only ever shown.
@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        *(
            (name, protocol)
            for name in ("stages/fracture.onnx", "bundle.json", "metrics.json")
            for protocol in (0, 2, 5)
        ),
        ("MODEL_CARD.md", 2),
        ("MODEL_CARD.md", 5),
    ],
)
def test_a_pickle_by_another_name_is_refused(own: Path, name: str, protocol: int) -> None:
    (own / name).write_bytes(pickle.dumps(Evil(), protocol))
    resum(own)
    with pytest.raises(BundleError, match=name):
        verify_bundle(own)


def test_sizes_are_bounded_before_files_are_read(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(own / "stages/fracture.onnx", "r+b") as stream:
        stream.truncate(verify.MAX_MODEL_BYTES + 1)  # a hole: it takes no room on the disk
    began = time.process_time()
    with pytest.raises(BundleError, match="larger than"):
        verify_bundle(own)
    assert time.process_time() - began < 5
    monkeypatch.setattr(verify, "MAX_JSON_BYTES", 10)
    with pytest.raises(BundleError, match="larger than 10 bytes"):
        verify_bundle(own)


def test_json_bombs_are_refused(own: Path) -> None:
    for text, reason in [
        ('{"a":' * 40 + "1" + "}" * 40, "nested"),
        ("[" * 100_000 + "]" * 100_000, "nested"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 1e400}', "larger than any number"),
        ('{"a": -1e400}', "larger than any number"),
        (f'{{"a": {"9" * 400}}}', "larger than any whole number"),
        (f'{{"a": {"9" * 5000}}}', "not valid JSON"),
        ("[1]", "mapping"),
    ]:
        (own / "metrics.json").write_text(text)
        resum(own)
        with pytest.raises(BundleError, match=rf"metrics.json.*{reason}"):
            verify_bundle(own)


def test_a_record_and_a_network_that_do_not_fit_are_refused(change_record: Change, own: Path) -> None:
    with pytest.raises(BundleError, match=r"view_filter.outputs.view.*\[None, 4\]"):
        verify_bundle(change_record(lambda record: record["stages"][0]["outputs"].update(view=[4])))
    change_record(lambda record: record["stages"][0]["outputs"].update(view=[3]))
    verify_bundle(own)
    with pytest.raises(BundleError, match="its preprocessing makes"):
        verify_bundle(change_record(lambda record: record["stages"][0]["preprocessing"][0].update(size=32)))


def test_a_stage_of_batch_one_has_a_network_of_batch_one(change_record: Change, own: Path) -> None:
    with pytest.raises(BundleError, match=r"its preprocessing makes \[1, 1, 64, 64\]"):
        verify_bundle(change_record(lambda record: record["stages"][0].update(batch=1)))
    (own / "stages/view_filter.onnx").write_bytes(network(HEADS["view_filter"], batch=1).SerializeToString())
    resum(own)
    verify_bundle(own)


def test_a_newer_schema_is_refused_by_its_number(change_record: Change) -> None:
    with pytest.raises(BundleError, match="schema 2 cannot be read, this program reads 1: update"):
        verify_bundle(change_record(lambda record: record.update(schema=2)))


def test_an_older_schema_is_migrated_step_by_step(change_record: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {
        -1: lambda record: {**record, "schema": 0, "goal": record["aim"]},
        0: lambda record: {**record, "schema": 1, "target": record["goal"]},
    }

    def age(record: dict[str, Any]) -> None:
        record.update(schema=-1, aim=record.pop("target"))

    folder = change_record(age)
    with pytest.raises(BundleError, match="schema -1 cannot be read"):
        verify_bundle(folder)
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    assert verify_bundle(folder).record["target"] == "fracture"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r.pop("schema"), "schema: a whole number"),
        (lambda r: r.update(reader="0"), "reader: made for version 0"),
        (lambda r: r.update(stages=[]), "stages: 0 of them"),
        (lambda r: r.update(stages=r["stages"] * 2), "same name"),
        (lambda r: r.update(envelope=None), "envelope: a mapping"),
        (lambda r: r["stages"][0].update(name="../x"), "no stage name"),
        (lambda r: r["stages"][0].update(file="stages/fracture.onnx"), "must be stages/view_filter.onnx"),
        (lambda r: r["stages"][0].update(batch=2), "must be dynamic or 1"),
        (lambda r: r["stages"][0].update(batch=True), "must be dynamic or 1"),
        (lambda r: r["stages"][0].update(decision={"kind": "os.system"}), "unknown 'os.system'; known: view_filter"),
        (lambda r: r["stages"][0]["decision"].update(target="rm"), "decision.target: must be a number"),
        (
            lambda r: r["stages"][0]["decision"].update(version=0),
            "view_filter of version 0, this program has version 1: it would decide otherwise",
        ),
        (lambda r: r["stages"][0]["decision"].pop("version"), "view_filter of version None"),
        (
            lambda r: r["stages"][0]["preprocessing"][0].update(version=7),
            "fit of version 7, this program has version 1",
        ),
        (lambda r: r["stages"][0]["preprocessing"][0].update(size=10**9), "1 to 8192"),
        (lambda r: r["stages"][0]["preprocessing"].append({"op": "eval"}), "unknown preprocessing operation 'eval'"),
        (lambda r: r["stages"][0].update(outputs={}), "none named"),
        (lambda r: r["stages"][0]["outputs"].update(view=[10**9, 10**9]), "larger than any"),
        (lambda r: r["stages"][0]["frozen"].update(threshold=None), "threshold: a number is needed"),
        (lambda r: r["stages"][0]["frozen"].update(threshold=1.5), "threshold: 1.5 is no probability"),
        (lambda r: r["stages"][0]["frozen"].update(threshold=-0.1), "threshold: -0.1 is no probability"),
        (lambda r: r["stages"][0]["frozen"].update(provisional=1), "provisional: true or false"),
        (lambda r: r["stages"][0]["frozen"].update(code="x"), "unknown 'code'"),
    ],
)
def test_a_record_that_is_not_valid_is_refused_by_field(
    change_record: Change, edit: Callable[[dict[str, Any]], Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        verify_bundle(change_record(edit))


def test_bytes_are_read_once(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was hashed is what is handed on: a file that changes between two readings has no second reading."""
    opened: list[str] = []
    real = os.open

    def spy(path: Any, flags: int, *rest: Any) -> int:
        opened.append(Path(path).name)
        return real(path, flags, *rest)

    monkeypatch.setattr(verify.os, "open", spy)
    assert json.loads(json.dumps(verify_bundle(bundle).record))
    assert len(opened) == len(set(opened)) == 8


def test_the_networks_are_valid_onnx() -> None:
    for data in models().values():
        onnx.checker.check_model(onnx.load_from_string(data), full_check=True)


def test_a_run_in_place_of_a_bundle_is_told(own: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("")
    with pytest.raises(BundleError, match=rf"not finished.*resume=true output={run}"):
        verify_bundle(run)
    (run / "metrics.json").write_text("{}")
    with pytest.raises(BundleError, match=rf"a run without a bundle.*domainseg\.export run={run}"):
        verify_bundle(run)
    own.rename(run / "bundle")
    with pytest.raises(BundleError, match=rf"is a run; its bundle is {run}/bundle"):
        verify_bundle(run)
    (run / "bundle/config.yaml").write_text("")
    with pytest.raises(BundleError, match=r"config\.yaml has no place in a bundle"):
        verify_bundle(run / "bundle")
