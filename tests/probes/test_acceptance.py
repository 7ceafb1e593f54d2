"""Acceptance: shift of the operating point, cases needed, and the local threshold in a new bundle."""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.special import expit
from scipy.stats import norm

from domainseg.bundle.__main__ import diff, inspect
from domainseg.bundle.load import bf16_passed, load_bundle
from domainseg.bundle.model import bundle_model
from domainseg.bundle.override import override_threshold, threshold_of
from domainseg.bundle.schema import BundleError, check_record
from domainseg.bundle.verify import verify_bundle
from domainseg.evaluation.intervals import Metric, wilson
from domainseg.evaluation.operating import choose_threshold
from domainseg.files import write_json
from domainseg.probes import acceptance
from domainseg.probes.acceptance import positives_needed, shifted
from domainseg.probes.common import ProbeError
from domainseg.reporting.evaluate import evaluate_command


def _toys() -> ModuleType:
    """The toy bundle of tests/bundle."""
    if "toy_bundle" not in sys.modules:
        spec = spec_from_file_location("toy_bundle", Path(__file__).parents[1] / "bundle" / "conftest.py")
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        sys.modules["toy_bundle"] = module
        spec.loader.exec_module(module)
    return sys.modules["toy_bundle"]


toys = _toys()


def metric(value: float, n: int) -> dict[str, Any]:
    """A proportion as metrics.json has it."""
    low, high = wilson(round(value * n), n)
    return {"value": value, "low": low, "high": high, "n": n, "n_clusters": n, "method": "wilson"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A toy whose test found sensitivity 0.95 and specificity 0.8."""
    found = {"sensitivity": metric(0.95, 400), "specificity": metric(0.8, 1000)}
    metrics = {"test": {"fracture": {**found, "auc": metric(0.95, 1400), "intention": found}}}
    documents = {**toys.DOCUMENTS, "metrics.json": json.dumps(metrics)}
    toys.write_bundle(tmp_path / "toys", toys.RECORD, toys.models(), documents)
    return tmp_path / "toys"


def local(moved: float, positives: int = 200, negatives: int = 600, seed: int = 0) -> pd.DataFrame:
    """Cases on which 0.5 has sensitivity 0.95 and specificity 0.8 where nothing has moved; ``moved`` in log-odds."""
    rng = np.random.default_rng(seed)
    logits = np.r_[rng.normal(norm.ppf(0.95), 1, positives), rng.normal(norm.ppf(0.2), 1, negatives)] - moved
    return pd.DataFrame(
        {
            "image": [f"i{k}" for k in range(len(logits))],
            "label_fracture": np.r_[np.ones(positives, int), np.zeros(negatives, int)],
            "score_fracture": expit(logits),
            "threshold_fracture": 0.5,
        }
    )


def cfg(path: Path | None, bundle: Path | None) -> dict[str, Any]:
    """The settings of the command."""
    return {
        "predictions": path and str(path),
        "bundle": bundle and str(bundle),
        "columns": {},
        "target": None,
        "data": None,
        "resamples": 50,
    }


def of(table: pd.DataFrame, bundle: Path) -> pd.DataFrame:
    """The table as predicted with the bundle."""
    return table.assign(bundle_sha256=verify_bundle(bundle).sha256)


def accept(table: pd.DataFrame, bundle: Path | None, output: Path, **settings: Any) -> dict[str, Any]:
    """Run the probe on a table."""
    table.to_csv(output / "local.csv", index=False)
    return acceptance.run(cfg(output / "local.csv", bundle), output / "out", **settings)


def test_shift_is_found_and_its_absence_is_not(bundle: Path, tmp_path: Path) -> None:
    """One logit lower and sensitivity falls; where nothing has moved nothing is said to have."""
    found = accept(local(1.0), bundle, tmp_path)
    assert found["verdict"].startswith("The operating point has shifted: sensitivity is lower here")
    truth = norm.cdf(norm.ppf(0.95) - 1) - 0.95
    assert found["shift"]["sensitivity"]["low"] < truth < found["shift"]["sensitivity"]["high"]
    still = accept(local(0.0), bundle, tmp_path)
    assert still["verdict"].startswith("No shift of the operating point is shown")
    assert "Acceptance" in (tmp_path / "out" / "acceptance.html").read_text()


def test_few_alarms_without_a_shift() -> None:
    """Where nothing has moved, about 5 % of 400 tests raise an alarm (within 3.5 standard errors)."""
    rng, alarms = np.random.default_rng(7), 0
    for _ in range(200):
        for share, here, there in ((0.95, 200, 400), (0.8, 600, 1000)):
            local, own = (Metric(**metric(rng.binomial(n, share) / n, n)) for n in (here, there))
            alarms += shifted(local, own)["p"] < 0.05
    assert 5 <= alarms <= 35


def test_difference_against_newcombe() -> None:
    """56/70 - 48/80 = 0.2 with 95 % interval 0.0524 to 0.3339 (Newcombe 1998, method 10, his example a)."""
    one, two = (Metric(**metric(hits / n, n)) for hits, n in ((56, 70), (48, 80)))
    found = shifted(one, two)
    assert (found["value"], found["low"], found["high"]) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    assert found["p"] < 0.05
    assert shifted(two, one)["p"] == pytest.approx(found["p"])


@pytest.mark.parametrize("precision", [0.05, 0.03])
def test_cases_needed_against_simulation(precision: float) -> None:
    """With so many positives 95 % of local thresholds keep their promise, with half of them not."""
    n = positives_needed("sensitivity_0.95", precision)
    assert n is not None
    kept = {}
    for size in (n, n // 2):
        rng = np.random.default_rng(0)
        thresholds = [
            choose_threshold(np.ones(size), expit(rng.normal(size=size)), "sensitivity_0.95").value for _ in range(4000)
        ]
        future = norm.sf(np.log(np.array(thresholds) / (1 - np.array(thresholds))))
        kept[size] = np.mean(np.abs(future - 0.95) <= precision)
    assert kept[n] >= 0.94
    assert kept[n // 2] < 0.95


def test_override_is_written_used_and_shown(bundle: Path, tmp_path: Path) -> None:
    """The new bundle has the local threshold and says who set it; the old one stays as it was."""
    before = verify_bundle(bundle)
    found = accept(of(local(1.0), bundle), bundle, tmp_path, override=True, by=" A. Name ")
    made = verify_bundle(tmp_path / "out" / "bundle")
    table = local(1.0)
    wanted = choose_threshold(
        table["label_fracture"].to_numpy(), table["score_fracture"].to_numpy(), "sensitivity_0.95"
    )
    stage = made.record["stages"][-1]
    assert stage["frozen"]["threshold"] == pytest.approx(wanted.value)
    (entry,) = stage["overrides"]
    assert entry["was"] == 0.5
    assert (entry["by"], entry["n_positive"], entry["base"]) == ("A. Name", 200, before.sha256)
    assert found["override"]["sha256"] == made.sha256 != before.sha256
    assert verify_bundle(bundle).sha256 == before.sha256
    # predict calls with it
    film = tmp_path / "film.png"
    toys.cv2.imwrite(str(film), np.full((90, 90), 100, np.uint8))
    rows = load_bundle(tmp_path / "out" / "bundle").predict(film)
    assert {row["threshold_fracture"] for row in rows} == {stage["frozen"]["threshold"]}
    # inspect, diff and the card show it
    console = Console(record=True, width=200)
    inspect(made, console)
    assert "by A. Name" in console.export_text()
    console = Console(record=True, width=300)
    assert diff(before, made, console) == 1
    said = console.export_text()
    assert "fracture: overrides" in said
    assert "fracture: frozen.threshold" in said
    card = made.documents["MODEL_CARD.md"].decode()
    assert card.index("## Local threshold") < card.index("The card as it was")
    # once more, from the changed bundle: both changes stand there, and its test figures are not taken for its own
    moved = of(local(2.0).assign(threshold_fracture=wanted.value), tmp_path / "out" / "bundle")
    again = accept(moved, tmp_path / "out" / "bundle", tmp_path)
    assert again["verdict"].startswith("The bundle's test figures are those of an earlier threshold")
    acceptance.run(
        cfg(tmp_path / "local.csv", tmp_path / "out" / "bundle"), tmp_path / "more", override=True, by="B. Other"
    )
    # what bf16 was checked for was the threshold before
    checked = deepcopy(before.record) | {"bf16": {"passed": True}}
    checked["stages"] = [each | {"bf16": {"passed": True}} for each in checked["stages"]]
    kept = {key: value for key, value in entry.items() if key not in ("target", "was", "made", "base")}
    override_threshold(replace(before, record=checked), "fracture", kept, tmp_path / "unchecked")
    record = verify_bundle(tmp_path / "unchecked").record
    assert not any(bf16_passed(part) or part.get("bf16") for part in (record, *record["stages"]))
    with pytest.raises(BundleError, match="holds a bundle"):
        accept(moved, tmp_path / "out" / "bundle", tmp_path, override=True, by="C. Third")
    last = verify_bundle(tmp_path / "more" / "bundle")
    assert [entry["by"] for entry in last.record["stages"][-1]["overrides"]] == ["A. Name", "B. Other"]
    assert last.documents["MODEL_CARD.md"].decode().count("## Local threshold") == 1


def test_predict_and_evaluate_say_that_a_threshold_was_set_anew(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"backend": "onnxruntime", "precision": "fp32", "threads": 1, "workers": 1}
    assert "overrides" not in bundle_model(settings | {"bundle": bundle}).identity
    table = of(local(1.0), bundle)
    accept(table, bundle, tmp_path, override=True, by="A. Name")
    identity = bundle_model(settings | {"bundle": tmp_path / "out" / "bundle"}).identity
    assert "threshold set anew on local cases: fracture: 0." in caplog.text
    table.to_csv(tmp_path / "predictions.csv", index=False)
    write_json(tmp_path / "predictions.json", identity)  # as predict writes it beside its table
    evaluate_command({"predictions": str(tmp_path / "predictions.csv"), "resamples": 20}, tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Threshold of the bundle set anew on local cases: fracture: 0." in page
    assert "by A. Name" in page


def test_tune_chooses_and_test_judges(bundle: Path, tmp_path: Path) -> None:
    """Where the local table is divided, no threshold is chosen on what judges it."""
    table = local(1.0)
    table["split"] = np.where(np.arange(len(table)) % 2 == 0, "tune", "test")
    found = accept(table, bundle, tmp_path)
    tune = table[table["split"] == "tune"]
    wanted = choose_threshold(tune["label_fracture"].to_numpy(), tune["score_fracture"].to_numpy(), "sensitivity_0.95")
    assert found["threshold"]["value"] == pytest.approx(wanted.value)
    assert found["n"] == (table["split"] == "test").sum()
    assert "test split" in found["threshold"]["judged_on"]


@pytest.mark.parametrize("empty", [slice(None), slice(0, 700)])
def test_empty_thresholds_are_the_bundles(bundle: Path, tmp_path: Path, empty: slice) -> None:
    """A threshold column that is empty, or in part, is filled: no case counts as not called for want of one."""
    table = local(0.0)
    table.loc[table.index[empty], "threshold_fracture"] = np.nan
    found, full = accept(table, bundle, tmp_path), accept(local(0.0), bundle, tmp_path)
    assert found["local"] == full["local"]
    assert found["frozen_threshold"] == 0.5
    assert found["verdict"].startswith("No shift")


def test_folds_are_models_of_their_own(tmp_path: Path) -> None:
    """Cross-validated: cases are compared within the fold only."""
    table = local(0.0).assign(fold=np.arange(800) % 2)
    moved = table.assign(score_fracture=(table["score_fracture"] + table["fold"]) / 2)
    aucs = [accept(one, None, tmp_path)["local"]["auc"] for one in (table, moved)]
    assert aucs[0] == aucs[1]
    assert aucs[0]["method"].endswith("within 2 folds")


def test_films_in(bundle: Path, tmp_path: Path) -> None:
    """From films and labels alone: the bundle predicts them; too few cases get no verdict."""
    films = []
    for k in range(8):
        toys.cv2.imwrite(str(tmp_path / f"f{k}.png"), np.full((90, 90), 30 * k, np.uint8))
        films += [{"image": f"f{k}", "path": f"f{k}.png", "patient": f"p{k}", "part": part, "label_localizer": 1,
                   "label_fracture": int(k > 3)} for part in ("hip_left", "hip_right")]  # fmt: skip
    pd.DataFrame(films).to_csv(tmp_path / "films.csv", index=False)
    data = {"_target_": "domainseg.data.sources.manifest.load", "path": str(tmp_path / "films.csv")}
    found = acceptance.run({**cfg(None, bundle), "data": data}, tmp_path / "out")
    assert found["n"] == 16
    assert found["verdict"].startswith("Too few local cases")
    assert (tmp_path / "out" / "predictions.csv").is_file()
    assert "p3" not in set(pd.read_csv(tmp_path / "out" / "predictions.csv")["patient"])


def test_what_is_wrong_is_named(bundle: Path, tmp_path: Path) -> None:
    """One error for people, and no bundle."""
    table = local(0.0)
    some, lost = of(table, bundle), of(table, bundle)
    some.loc[0, "bundle_sha256"] = None
    lost.loc[:19, ["score_fracture", "excluded_by"]] = [np.nan, "localizer"]  # 20 of 200 positives
    wrong: list[tuple[pd.DataFrame, Path | None, dict[str, Any], str]] = [
        (table.drop(columns="threshold_fracture"), None, {}, "no frozen threshold"),
        (table.assign(threshold_fracture=0.4), bundle, {}, "of another model"),
        (table.assign(bundle_sha256="abc"), bundle, {}, "another bundle"),
        (table.assign(label_fracture=1), bundle, {}, "one class only"),
        (table, bundle, {"rule": "best"}, "known are sensitivity_0.95"),
        (table, bundle, {"precision": 5}, "precision=5"),
        (table, bundle, {"override": True}, "who decides"),
        (table, None, {"override": True, "by": "x"}, "bundle=DIR"),
        (of(local(0, 5, 100), bundle), bundle, {"override": True, "by": "x"}, "too few for a threshold"),
        (table, bundle, {"override": True, "by": "x"}, "800 of 800 scored rows do not name this bundle"),
        (some, bundle, {"override": True, "by": "x"}, "1 of 800 scored rows .* domainseg.predict bundle="),
        (lost, bundle, {"override": True, "by": "x"}, "no threshold reaches it .* 0.900 of the positives"),
        (table.assign(threshold_fracture=np.nan), None, {}, "empty in 800 of 800 scored cases"),
        (table.assign(threshold_fracture=[np.nan] + [0.5] * 799), None, {}, "empty in 1 of 800 scored cases"),
    ]
    for given, model, settings, told in wrong:
        with pytest.raises(ProbeError, match=told):
            accept(given, model, tmp_path, **settings)
    assert not (tmp_path / "out" / "bundle").exists()
    with pytest.raises(ProbeError, match="local cases are needed"):
        acceptance.run(cfg(None, bundle), tmp_path)


@pytest.mark.parametrize(
    ("entry", "told"),
    [({}, "overrides.target"), ({"target": "fracture", "was": 2.0}, "overrides"), ("yes", "a mapping is needed")],
)
def test_damaged_override_is_refused(record: Any, entry: Any, told: str) -> None:
    """What stands in bundle.json is checked on load."""
    record["stages"][-1]["overrides"] = [entry]
    with pytest.raises(BundleError, match=told):
        check_record(json.dumps(record).encode())


@pytest.fixture
def record() -> Any:
    """bundle.json of the toys."""
    return json.loads(json.dumps(toys.RECORD))


def test_a_finding_has_a_threshold_of_its_own() -> None:
    """Where one stage answers for many targets: the main one's is the stage's, the others' stand in the decision."""
    numbers = {"effusion": {"base_rate": 0.1}, "edema": {"threshold": 0.3}}
    stage = {"name": "findings", "target": "effusion", "decision": {"numbers": numbers}, "frozen": {"threshold": 0.2}}
    assert threshold_of({"stages": [stage]}, "effusion") == 0.2
    assert threshold_of({"stages": [stage]}, "edema") == 0.3
    with pytest.raises(BundleError, match="target=mass: no stage"):
        threshold_of({"stages": [stage]}, "mass")
