"""The audit's statistics against closed forms, scipy, sklearn and statsmodels, and what it says of known dependence."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency, entropy, mannwhitneyu
from sklearn.metrics import mutual_info_score, roc_auc_score
from statsmodels.stats.multitest import multipletests

from domainseg.evaluation.tables import EvaluationError, repaired
from domainseg.probes.associated import association, equal_prevalence, utility
from domainseg.probes.attributes import attribute, severity_bands
from domainseg.probes.audit import audit
from domainseg.probes.audit_page import page
from domainseg.probes.detectable import dealt, detection, of_scores
from domainseg.probes.effects import holm
from domainseg.probes.material import Material
from domainseg.probes.used import Cases, fall, shift, uneven

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def simulated() -> Iterator[Any]:
    """tools/bench/audit.py, which makes tables whose dependence is known."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        yield importlib.import_module("bench.audit")
    finally:
        sys.path.remove(str(ROOT / "tools"))


@pytest.fixture(scope="module")
def ask(simulated: Any) -> Callable[..., dict[str, Any]]:
    """Audits a table with the settings of conf/audit.yaml, but for those named."""

    def audited(table: pd.DataFrame, **settings: Any) -> dict[str, Any]:
        mended, said = repaired(table)
        return audit(Material(mended, "simulated", scored=True, said=said), {**simulated.SETTINGS, **settings})

    return audited


def cases(
    n: int, seed: int, *, moved: float = 0.0, prevalences: tuple[float, ...] = (0.1, 0.4), rows: int = 1
) -> Cases:
    """n cases, ``rows`` a patient, in as many groups as prevalences; the score moves by the group's number."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n // rows), rows)
    group = rng.integers(len(prevalences), size=n // rows)[patient]
    label = (rng.random(n) < np.array(prevalences)[group]).astype(float)
    shared = rng.normal(size=n // rows)[patient]
    score = label + 0.7 * shared + 0.7 * rng.normal(size=n) + moved * group
    return Cases(label, score, group, patient, np.zeros(n, np.intp), len(prevalences))


def verdict(found: dict[str, Any], target: str, name: str) -> str:
    return str({each["attribute"]: each["verdict"] for each in found["targets"][target]["attributes"]}[name])


def test_settings_of_the_simulation_are_those_of_the_command(simulated: Any) -> None:
    import yaml

    given = yaml.safe_load((ROOT / "conf" / "audit.yaml").read_text())
    assert simulated.SETTINGS["alarm"] == given["alarm"]
    assert simulated.SETTINGS["least"] == given["least"]


def test_shift_among_one_label_is_mann_whitneys() -> None:
    given = cases(400, 1, moved=0.3)
    one = given.take(given.label == 0)
    found = shift(one, 10)
    second = one.group == 1
    u, p = mannwhitneyu(one.score[second], one.score[~second], alternative="two-sided")
    theta = found.theta[1]
    assert theta is not None
    assert theta["value"] == pytest.approx(u / (second.sum() * (~second).sum()))
    assert np.log10(found.test.p) == pytest.approx(np.log10(p), rel=0.1)
    assert found.theta[0]["value"] == pytest.approx(1 - theta["value"])  # type: ignore[index]


def test_matched_auc_is_sklearns_with_the_weights() -> None:
    given = cases(900, 2, moved=0.5, prevalences=(0.1, 0.2, 0.5))
    found = fall(given, 10)
    share = np.bincount(given.group) / len(given)
    weight = np.zeros(len(given))
    for label in (0, 1):
        for g in range(3):
            cell = (given.label == label) & (given.group == g)
            weight[cell] = share[g] * (given.label == label).sum() / cell.sum()
    assert found.as_is == pytest.approx(roc_auc_score(given.label, given.score))
    assert found.matched == pytest.approx(roc_auc_score(given.label, given.score, sample_weight=weight))
    assert found.difference["low"] < found.as_is - found.matched < found.difference["high"]
    assert found.difference["low"] > 0


@pytest.mark.parametrize("rows", [1, 3])
def test_error_of_the_fall_is_the_bootstraps(rows: int) -> None:
    given = cases(900, 3, moved=0.4, rows=rows)
    found = fall(given, 10)
    rng = np.random.default_rng(0)
    by_patient = [np.flatnonzero(given.patient == k) for k in range(900 // rows)]
    values = []
    for _ in range(150):
        picked = rng.integers(len(by_patient), size=len(by_patient))
        members = np.concatenate([by_patient[k] for k in picked])
        again = Cases(
            given.label[members], given.score[members], given.group[members],
            np.repeat(np.arange(len(picked)), rows), given.stratum[members], 2,
        )  # fmt: skip
        drawn = fall(again, 2)
        values.append(drawn.as_is - drawn.matched)
    width = found.difference["high"] - found.difference["low"]
    assert width / 2 / 1.99 == pytest.approx(np.std(values), rel=0.2)


def test_what_is_read_without_an_error_is_read() -> None:
    """Three sites that the features name: an AUC of 1 has no spread, and is detectable all the same."""
    group = np.tile([0, 1, 2], 30)
    found = detection(np.eye(3)[group] * 10, group, np.arange(90), 3)
    assert (found.auc["value"], found.auc["method"]) == (1, "degenerate")
    assert found.auc["low"] > 0.8
    assert found.p < 0.05


def test_a_small_group_does_not_switch_a_test_off() -> None:
    """Twelve groups, the smallest of ten patients, whose prevalence goes from 0.05 to 0.8."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(12), [*[200] * 11, 10])
    label = (rng.random(len(group)) < np.linspace(0.05, 0.8, 12)[group]).astype(float)
    assert equal_prevalence(label, group, np.arange(len(group)), 12).p < 1e-4
    none = [(rng.random(len(group)) < 0.3).astype(float) for _ in range(100)]
    p = np.array([equal_prevalence(one, group, np.arange(len(group)), 12).p for one in none])
    assert (p < 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)


def test_unevenness_names_groups_that_were_compared() -> None:
    given = cases(900, 1, prevalences=(0.3, 0.3, 0.005))
    assert uneven(given, 10)[2] == [0, 1]


def test_no_test_rejects_too_often_where_nothing_is() -> None:
    found = [cases(300, seed, prevalences=(0.2, 0.5), rows=2) for seed in range(150)]
    p = np.array([(shift(one, 10).test.p, fall(one, 10).p, uneven(one, 10)[1].p) for one in found])
    assert (p < 0.05).mean(axis=0).max() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)
    assert (p < 0.5).mean(axis=0).min() > 0.3  # and not too seldom


def test_equal_prevalence_is_pearsons_chi_squared() -> None:
    given = cases(800, 4, prevalences=(0.2, 0.25, 0.3))
    table = [[int(((given.group == g) & (given.label == y)).sum()) for g in range(3)] for y in (0, 1)]
    expected = chi2_contingency(table, correction=False)
    found = equal_prevalence(given.label, given.group, given.patient, 3)
    assert found.df == expected.dof
    assert found.statistic == pytest.approx(expected.statistic, rel=0.06)


def test_zechs_ranking_by_site_alone() -> None:
    """Implied prevalences and sizes of NIH and MSH in Zech et al. 2018: 0.861 (0.855 to 0.866)."""
    site = np.repeat([0, 1], [22062, 8388])
    label = np.zeros(len(site))
    label[: round(0.0119 * 22062)] = 1
    label[22062 : 22062 + round(0.357 * 8388)] = 1
    found = association(label, site, np.arange(len(site)), 2)
    assert found.auc["value"] == pytest.approx(0.861, abs=0.002)
    assert (found.auc["low"], found.auc["high"]) == pytest.approx((0.855, 0.866), abs=0.002)


def test_utility_is_0_of_nothing_and_1_of_the_label_itself() -> None:
    rng = np.random.default_rng(0)
    label = (rng.random(4000) < 0.3).astype(float)
    patient = np.arange(4000)
    itself = utility(label, label.astype(np.intp), patient)
    assert itself["value"] == pytest.approx(1, abs=0.001)
    assert np.isnan(itself["low"])  # no resample can differ
    assert itself["method"] == "degenerate"
    found = [utility(label, rng.integers(5, size=4000), patient) for _ in range(40)]
    assert np.mean([each["value"] for each in found]) < 0.0005
    assert all(each["low"] == 0 for each in found)


def test_interval_of_the_utility_covers_the_true_one() -> None:
    """Prevalences of 10, 20 and 30 % in groups of one size; half of the patients have two cases that are one."""
    true = mutual_info_score(None, None, contingency=np.array([[90, 80, 70], [10, 20, 30]])) / entropy([0.8, 0.2])
    rng = np.random.default_rng(5)
    patient, covered = np.repeat(np.arange(400), 2), []
    for _ in range(120):
        group, shared = rng.integers(3, size=400)[patient], (rng.random(400) < 0.5)[patient]
        drawn = np.where(shared, rng.random(400)[patient], rng.random(800))
        label = (drawn < np.array([0.1, 0.2, 0.3])[group]).astype(float)
        found = utility(label, group, patient)
        assert found["low"] <= found["value"] <= found["high"]
        covered.append(found["low"] <= true <= found["high"])
    assert 0.88 <= np.mean(covered) <= 0.995  # 0.95, give or take 4 of its standard errors


def test_holm_is_statsmodels() -> None:
    p = [0.01, 0.04, 0.03, 0.005, 0.2]
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm([0.01, np.nan]) == [0.02, 1.0]


def test_a_probe_reads_what_is_there_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(200), 2)
    group = rng.integers(3, size=200)[patient]
    features = rng.normal(size=(400, 20))
    nothing = detection(features, group, patient, 3)
    assert nothing.auc["low"] < 0.5 < nothing.auc["high"]
    features[:, 0] += 2.0 * (group == 2)
    there = detection(features, group, patient, 3)
    assert there.by_group[2]["value"] == pytest.approx(0.92, abs=0.04)  # of 2 SD: Phi(2 / sqrt 2) = 0.921
    assert there.p < 1e-6
    assert np.isnan(detection(features[:3], np.array([0, 0, 1]), np.arange(3), 2).auc["value"])


def test_a_patient_is_in_one_fold_and_each_group_in_all() -> None:
    rng = np.random.default_rng(1)
    patient = rng.integers(90, size=300)
    group = (rng.random(300) < 0.2).astype(np.intp)
    fold = dealt(group, patient, 5, 0)
    assert all(len(set(fold[patient == k])) == 1 for k in set(patient.tolist()))
    assert set(fold[group == 1]) == set(range(5))


def test_missing_scores_are_no_feature() -> None:
    found = of_scores(np.array([[0.1, np.nan], [0.2, 0.5], [0.9, np.nan]]), np.zeros(3))
    assert found[:, 0].tolist() == sorted(found[:, 0].tolist())
    assert found[[0, 2], 1].tolist() == [0.0, 0.0]


def test_columns_become_groups() -> None:
    table = pd.DataFrame(
        {
            "site": ["A", "a ", "B", None] * 20,
            "age": [10, 30, 50, 80] * 20,
            "width": np.arange(80) * 10.0,
            "sex": "F",
        }
    )
    patient = np.arange(80)
    site = attribute(table, "site", patient, 10)
    assert site.names == ["A", "B"]
    assert np.bincount(site.group + 1).tolist() == [20, 40, 20]
    assert any("differ by case or blanks" in note for note in site.notes)
    assert attribute(table, "age", patient, 10).names == ["under 18", "18 to 39", "40 to 59", "75 and over"]
    width = attribute(table, "width", patient, 10)
    assert width.names == ["0 to 190", "200 to 390", "400 to 590", "600 to 790"]
    assert np.bincount(width.group).tolist() == [20, 20, 20, 20]
    assert attribute(table, "sex", patient, 10).skipped == "all cases are F"
    assert attribute(table, "ward", patient, 10).skipped == "no such column in the table"
    assert "too few" in (attribute(table, "age", patient, 30).skipped or "")


def test_bands_of_severity_are_cut_within_each_label() -> None:
    table = pd.DataFrame({"mm": np.arange(400.0), "ward": ["w", "v"] * 200})
    label = (np.arange(400) >= 200).astype(float)
    band = severity_bands(table, ["mm"], label)
    assert [len(set(band[label == side])) for side in (0, 1)] == [4, 4]
    assert len(set(severity_bands(table, ["mm", "ward"], label)[label == 0])) == 8


def test_what_is_not_there_raises_no_alarm_and_a_severe_confounder_does(simulated: Any, ask: Any) -> None:
    off = ask(simulated.table("off", 1500, 5))
    assert off["alarms"] == []
    site = off["targets"]["other"]["attributes"][0]
    assert site["detectable"]["score"]["auc"]["low"] > 0.6  # the site can be read from the scores all the same
    assert site["verdict"] == "moves"
    severe = ask(simulated.table("severe", 1500, 5))
    assert {"target": "finding", "attribute": "site"} in severe["alarms"]
    record = severe["targets"]["finding"]["attributes"][0]
    assert record["used"]["fall"]["difference"]["low"] > 0.01
    assert record["auc_within"]["value"] < record["auc"]["value"]
    assert "case mix within the label" in " ".join(record["said"])
    shown = page(severe)
    assert "site for finding" in shown.brief[0]
    assert any("Not ruled out" in text for section in shown.sections for text in section.text)


def test_patients_who_differ_are_case_mix_where_their_severity_is_known(simulated: Any, ask: Any) -> None:
    table = simulated.table("case_mix", 3000, 2)
    known = ask(table, severity=["severity"], target="finding")
    assert verdict(known, "finding", "site") == "case mix"
    hidden = ask(table.drop(columns="severity"), target="finding")
    assert verdict(hidden, "finding", "site") == "alarm"  # a table cannot tell, and its words say so
    clean = ask(simulated.table("prevalence", 2000, 3), target="finding")
    assert verdict(clean, "finding", "site") == "case mix"


def test_no_verdict_where_the_groups_share_no_label(ask: Any) -> None:
    """A ranks by its site, all of whose patients are ill: B against C shows nothing of that, and is no case mix."""
    rng = np.random.default_rng(0)
    site = rng.choice(["A", "B", "C"], 400)
    label = rng.random(400) < np.where(site == "A", 0.97, 0.02)
    score = 1 / (1 + np.exp(-3.0 * (site == "A") - rng.normal(size=400)))
    table = pd.DataFrame({"image": np.arange(400), "patient": np.arange(400), "site": site})
    found = ask(table.assign(label_finding=label.astype(int), score_finding=score))
    record = found["targets"]["finding"]["attributes"][0]
    assert (record["attribute"], record["verdict"]) == ("site", "undecided")
    assert "no two groups have enough patients of both labels" in record["said"][0]
    assert any("could not be decided" in line for line in page(found).brief)


def test_site_and_label_one_and_the_same(simulated: Any, ask: Any) -> None:
    table = simulated.table("off", 600, 1)
    table["label_finding"] = (table["site"] == "A").astype(float)
    found = ask(table, target="finding")
    assert verdict(found, "finding", "site") == "inseparable"
    assert page(found).brief[0].startswith("Cannot be told apart from the label: site for finding")


def test_few_cases_get_no_verdict(simulated: Any, ask: Any) -> None:
    found = ask(simulated.table("severe", 60, 1), target="finding")
    assert found["alarms"] == []
    assert verdict(found, "finding", "scanner") in ("too few", "skipped")


def test_slips_are_put_right_and_said(simulated: Any, ask: Any) -> None:
    table = simulated.table("severe", 1000, 2)
    whole = ask(table, target="finding", attributes=["site", "ward"])
    slips = table.assign(site=[f" {site.lower()}" if k % 9 == 0 else site for k, site in enumerate(table["site"])])
    again = ask(pd.concat([slips, slips.iloc[:50]]), target="finding", attributes=["site", "ward"])
    assert (
        again["targets"]["finding"]["attributes"][0]["groups"] == whole["targets"]["finding"]["attributes"][0]["groups"]
    )
    assert any("case or blanks" in line for line in again["said"])
    assert any("50 rows" in line for line in again["said"])
    assert verdict(again, "finding", "ward") == "skipped"


def test_repeated_cases_change_nothing(simulated: Any, ask: Any) -> None:
    table = simulated.table("severe", 600, 3)
    whole = ask(table, target="finding", attributes=["site", "age"])
    for twice in (
        pd.concat([table, table.iloc[::7]]),
        table.loc[np.repeat(table.index, 1 + np.arange(len(table)) % 3)],  # some once, some twice, some three times
        pd.concat([table, table.assign(site=table["site"].str.lower() + " ").iloc[:60]]),
    ):
        again = ask(twice, target="finding", attributes=["site", "age"])
        assert len(again["said"]) > len(whole["said"])
        assert json.dumps({**again, "said": []}) == json.dumps({**whole, "said": []})
    _, said = repaired(pd.concat([table.assign(ward="1"), table.iloc[:9].assign(ward="9")]))
    assert "each case counts once, with ward of its first row" in said[0]


def test_cases_without_a_score_are_left_out_and_not_in_the_headline(simulated: Any, ask: Any) -> None:
    table = simulated.table("severe", 1000, 2)
    lost = table.index % 10 == 0
    asked = {"target": "finding", "attributes": ["sex"]}
    found = ask(table.assign(score_finding=table["score_finding"].mask(lost)), **asked)
    clean = ask(table[~lost], **asked)
    assert found["targets"]["finding"]["auc"] == clean["targets"]["finding"]["auc"]
    assert (found["about"]["rows"], found["about"]["cases"]) == (1000, 900)
    assert found["about"]["patients"] == table.loc[~lost, "patient"].nunique()
    assert [line for line in found["said"] if "score" in line] == [
        "finding: 100 cases have a label and no score and are left out."
    ]
    assert "900 cases of" in page(found).subtitle


def test_a_folds_own_scale_of_scores_changes_nothing(simulated: Any, ask: Any) -> None:
    table = simulated.table("severe", 600, 4).assign(fold=lambda t: t["patient"] % 2)
    moved = table.assign(score_finding=table["score_finding"] * np.where(table["fold"] == 1, 0.1, 1.0))
    one, other = (ask(given, target="finding", attributes=["site"])["targets"]["finding"] for given in (table, moved))
    assert json.dumps(one) == json.dumps(other)


def test_what_cannot_be_audited_is_refused(simulated: Any, ask: Any) -> None:
    table = simulated.table("off", 200, 0)
    with pytest.raises(EvaluationError, match="only label 0"):
        ask(table.assign(label_finding=0.0), target="finding")
    with pytest.raises(EvaluationError, match="label_<target>"):
        ask(table[["image", "site"]])
    with pytest.raises(EvaluationError, match="times with different"):
        ask(pd.concat([table, table.iloc[:5].assign(score_finding=0.5)]))
    with pytest.raises(EvaluationError, match="no column stage"):
        ask(table, severity=["stage"])
    with pytest.raises(EvaluationError, match="target=edema"):
        ask(table, target="edema")
    with pytest.raises(EvaluationError, match="not a number"):
        ask(table.assign(score_finding="high"))


@pytest.mark.slow
def test_false_alarms_over_twenty_tables(simulated: Any, ask: Any) -> None:
    """tools/audit_alarms does so with 200."""
    alarms = [bool(ask(simulated.table("off", 1200, 100 + seed))["alarms"]) for seed in range(20)]
    assert sum(alarms) <= 3  # of 5 %, more than 3 in 20 have a probability of 1.6 %
