from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from domainseg.evaluation import EvaluationError, compare, evaluate, films, get, read_table
from domainseg.evaluation.groups import groups_of
from domainseg.evaluation.tables import rows_of


@pytest.fixture(scope="module")
def metrics(hips: pd.DataFrame) -> dict[str, Any]:
    return evaluate(hips, resamples=200)


def leaves(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from [(f"{path}.{key}", value)] if "method" in value else leaves(value, f"{path}.{key}")


def test_every_metric_is_the_same_record(metrics: dict[str, Any]) -> None:
    assert list(metrics) == ["tune", "test"]
    assert list(metrics["test"]) == ["view_filter", "localizer", "implant_filter", "fracture", "location"]
    for path, record in leaves(metrics):
        assert set(record) == {"value", "low", "high", "n", "n_clusters", "method"}, path
        assert record["n_clusters"] <= record["n"], path
        if np.isfinite([record["value"], record["low"], record["high"]]).all():
            assert record["low"] - 1e-9 <= record["value"] <= record["high"] + 1e-9, path
        if record["n"] == 0:
            assert np.isnan(record["value"]), path


def test_conditional_figures_are_sklearns(hips: pd.DataFrame, metrics: dict[str, Any]) -> None:
    part = hips[(hips["split"] == "test") & hips["score_fracture"].notna()]
    truth, score = part["label_fracture"], part["score_fracture"]
    assert get(metrics, "test.fracture.auc")["value"] == pytest.approx(roc_auc_score(truth, score))
    assert get(metrics, "test.fracture.auc")["n"] == len(part)
    (tn, fp), (fn, tp) = confusion_matrix(truth, score >= part["threshold_fracture"])
    for name, value in {
        "sensitivity": tp / (tp + fn), "specificity": tn / (tn + fp), "ppv": tp / (tp + fp), "npv": tn / (tn + fn),
        "accuracy": (tp + tn) / len(part),
    }.items():  # fmt: skip
        assert get(metrics, f"test.fracture.{name}")["value"] == pytest.approx(value)


def test_intention_counts_exclusions_as_errors(hips: pd.DataFrame, metrics: dict[str, Any]) -> None:
    part = hips[(hips["split"] == "test") & (hips["eligible_fracture"] == 1)]
    truth = part["label_fracture"]
    score = part["score_fracture"].fillna(truth.map({1: -1.0, 0: 2.0}))  # the same order as -inf and +inf
    assert get(metrics, "test.fracture.intention.auc")["value"] == pytest.approx(roc_auc_score(truth, score))
    called = score >= 0.25
    assert get(metrics, "test.fracture.intention.sensitivity")["value"] == pytest.approx(called[truth == 1].mean())
    assert get(metrics, "test.fracture.intention.specificity")["value"] == pytest.approx((~called)[truth == 0].mean())
    assert "ppv" not in metrics["test"]["fracture"]["intention"]


def test_film_level_targets_take_one_row_a_film(hips: pd.DataFrame, metrics: dict[str, Any]) -> None:
    films_there = hips[hips["split"] == "test"].drop_duplicates("image")
    record = get(metrics, "test.view_filter.intention.auc")
    assert (record["n"], record["n_clusters"]) == (len(films_there), len(films_there))
    assert record["method"].startswith("delong")
    twice = pd.concat([hips.assign(fold=0), hips.assign(fold=1)])
    assert evaluate(twice, ["view_filter"], resamples=20)["test"]["view_filter"]["auc"]["n"] == 2 * record["n"] - 6


def test_groups_of_fractures_keep_all_intact_hips(hips: pd.DataFrame, metrics: dict[str, Any]) -> None:
    part = hips[(hips["split"] == "test") & hips["score_fracture"].notna()]
    hairline = part[(part["fracture_class"] == "hairline") | (part["label_fracture"] == 0)]
    record = get(metrics, "test.fracture.by.fracture_class.hairline.auc")
    assert record["value"] == pytest.approx(roc_auc_score(hairline["label_fracture"], hairline["score_fracture"]))
    assert get(metrics, "test.fracture.by.fracture_width.under 1 mm.auc") == record
    assert list(metrics["test"]["fracture"]["by"]["fracture_width"]) == ["under 1 mm", "1 to 2 mm", "4 mm and over"]
    site = part[part["site"] == "B"]
    expected = roc_auc_score(site["label_fracture"], site["score_fracture"])
    assert get(metrics, "test.fracture.by.site.B.auc")["value"] == pytest.approx(expected)
    assert get(metrics, "test.fracture.intention.by.site.B.sensitivity")["n"] > 0
    assert "by" not in metrics["test"]["fracture"]["by"]["site"]["B"]


def test_coverage_and_false_exclusions_by_label(hips: pd.DataFrame, metrics: dict[str, Any]) -> None:
    part = hips[(hips["split"] == "test") & (hips["eligible_fracture"] == 1)]
    scored = part["score_fracture"].notna()
    for name, label in (("positive", 1), ("negative", 0)):
        mine = scored[part["label_fracture"] == label]
        assert get(metrics, f"test.fracture.coverage_{name}")["value"] == pytest.approx(mine.mean())
        assert get(metrics, f"test.fracture.false_exclusion_{name}")["value"] == pytest.approx(1 - mine.mean())
        by = metrics["test"]["fracture"]["excluded"]
        assert sum(stage[name]["value"] for stage in by.values()) == pytest.approx(1 - mine.mean())
    metal = part[(part["label_fracture"] == 1) & (part["excluded_by"] == "implant_filter")]
    record = get(metrics, "test.fracture.excluded.implant_filter.positive")
    assert record["value"] == pytest.approx(len(metal) / (part["label_fracture"] == 1).sum())


def test_a_lost_case_of_unknown_label_is_in_coverage_only() -> None:
    table = pd.DataFrame(
        {
            "image": list("abcd"), "label_fracture": [1, 0, np.nan, np.nan], "score_fracture": [0.9, 0.1, np.nan, 0.5],
            "eligible_fracture": [True, True, False, False], "label_implant_filter": [0, 0, 0, 1],
            "excluded_by": ["", "", "localizer", ""],
        }
    )  # fmt: skip
    result = evaluate(table, ["fracture"], resamples=20)["test"]["fracture"]
    assert result["coverage"]["value"] == pytest.approx(2 / 3)  # d should have been excluded, c was lost
    assert result["auc"]["n"] == result["intention"]["auc"]["n"] == 2
    assert result["missed_exclusion"]["n"] == 0


def test_localizer_counts_a_missing_head_as_an_error() -> None:
    table = pd.DataFrame(
        {
            "image": list("abcdef"), "label_localizer": [1, 1, 1, 1, 1, 0],
            "score_localizer": [0.9, 0.9, np.nan, 0.9, np.nan, 0.8], "true_head_x": [5.0, 5, 5, 5, 5, np.nan],
            "head_x": [5.0, 9, np.nan, 5, np.nan, 3], "spacing": [0.2, 0.2, 0.2, np.nan, np.nan, 0.2],
            "head_error_mm": [1.0, 5.1, np.nan, np.nan, np.nan, np.nan],
            "head_error_pct": [1.0, 6.0, np.nan, 2, np.nan, np.nan],
            "eligible_localizer": [1, 1, 1, 1, 0, 1],
        }
    )  # fmt: skip
    result = evaluate(table, ["localizer"], resamples=20)["test"]["localizer"]
    assert (result["within_5mm"]["value"], result["within_5mm"]["n"]) == (0.5, 2)
    assert (result["intention"]["within_5mm"]["value"], result["intention"]["within_5mm"]["n"]) == (
        pytest.approx(1 / 3),
        3,
    )
    assert (result["within_6pct"]["value"], result["within_6pct"]["n"]) == (1, 3)
    assert (result["intention"]["within_6pct"]["value"], result["intention"]["within_6pct"]["n"]) == (0.75, 4)
    assert result["head_error_pct_median"]["value"] == 2


def test_location_and_pointing(hips: pd.DataFrame, metrics: dict[str, Any]) -> None:
    test = hips[hips["split"] == "test"]
    broken = test[test["label_fracture"] == 1]
    found = broken[broken["score_fracture"] >= 0.25]
    right = found["location"] == found["label_location"]
    location = metrics["test"]["location"]
    assert location["accuracy"]["value"] == pytest.approx(right.mean())
    eligible = broken["eligible_fracture"] == 1
    assert location["intention"]["accuracy"]["value"] == pytest.approx((right.sum()) / eligible.sum())
    expected = confusion_matrix(found["label_location"], found["location"], labels=["none", "intra", "extra"])[1:]
    assert location["confusion"]["counts"] == expected.tolist()
    record = get(metrics, "test.fracture.intention.pointing_hit")
    assert record["value"] == pytest.approx((broken["pointing_hit"] == 1).sum() / eligible.sum())


def test_a_table_from_elsewhere_needs_three_columns() -> None:
    table = pd.DataFrame({"image": list("abcd"), "label_x": [1, 0, 1, 0], "score_x": [0.9, 0.2, 0.8, 0.85]})
    result = evaluate(table, resamples=20)
    assert list(result) == ["test"]
    assert get(result, "test.x.auc")["value"] == 0.75
    sensitivity = get(result, "test.x.intention.sensitivity")
    assert np.isnan(sensitivity["value"])
    assert (sensitivity["method"], sensitivity["n"]) == ("no frozen threshold", 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score_x": None}, "label_<target> and score_<target>"),
        ({"image": None}, "missing columns image"),
        ({"label_x": [1, 0, 2, 0]}, "label_x, image c: 2 is not 1, 0 or empty"),
        ({"score_x": [0.1, "high", 0.2, 0.3]}, "score_x, image b: 'high' is not a number"),
        ({"score_x": [0.1, np.inf, 0.2, 0.3]}, "infinite"),
    ],
)
def test_errors_name_columns_and_cells(change: dict[str, Any], message: str) -> None:
    columns = {"image": list("abcd"), "label_x": [1, 0, 1, 0], "score_x": [0.9, 0.2, 0.8, 0.85], **change}
    table = pd.DataFrame({name: values for name, values in columns.items() if values is not None})
    with pytest.raises(EvaluationError, match=message):
        evaluate(table)


def test_asked_for_targets_that_are_absent_are_named(hips: pd.DataFrame) -> None:
    with pytest.raises(EvaluationError, match="label_tumour, score_tumour"):
        evaluate(hips, ["tumour"])


def test_folds_are_judged_within(hips: pd.DataFrame) -> None:
    table = hips[hips["split"] == "test"].copy()
    table["fold"] = (table["image"].str[-1].astype(int) % 3).astype(str)
    result = evaluate(table, ["fracture"], groups=(), resamples=20)["test"]["fracture"]
    assert "within 3 folds" in result["auc"]["method"]
    scored = table[table["score_fracture"].notna()]
    assert result["auc_pooled"]["value"] == pytest.approx(roc_auc_score(scored.label_fracture, scored.score_fracture))
    each, pairs = [], []
    for _, part in scored.groupby("fold"):
        each.append(roc_auc_score(part.label_fracture, part.score_fracture))
        pairs.append((part.label_fracture == 1).sum() * (part.label_fracture == 0).sum())
    assert result["auc"]["value"] == pytest.approx(np.average(each, weights=pairs))


def test_patients_of_two_sites_with_one_number_are_two(hips: pd.DataFrame) -> None:
    table = pd.DataFrame(
        {"image": list("abcd"), "patient": [1, 1, 1, 2], "site": list("AABB"), "label_x": [1, 0, 1, 0], "score_x": 0.5}
    )
    assert evaluate(table, resamples=20)["test"]["x"]["auc"]["n_clusters"] == 3
    table["group"] = ["g", None, "g", None]
    assert evaluate(table, resamples=20)["test"]["x"]["auc"]["n_clusters"] == 2  # (A, 1) and (B, 1) by g, (B, 2)


def test_same_seed_same_metrics(hips: pd.DataFrame) -> None:
    first, second = (evaluate(hips, ["fracture"], groups=("site",), resamples=50, seed=3) for _ in range(2))
    assert str(first) == str(second)


def test_empty_table_and_empty_group() -> None:
    table = pd.DataFrame({"image": [], "label_x": [], "score_x": []})
    record = get(evaluate(table, resamples=20), "test.x.intention.auc")
    assert (record["n"], record["method"]) == (0, "no cases")


def test_get_finds_names_with_dots() -> None:
    tree = {"test": {"x": {"by": {"scanner": {"v1.2": {"auc": 1}, "v1": {"2": {"auc": 2}}}}}}}
    assert get(tree, "test.x.by.scanner.v1.2.auc") == 1
    with pytest.raises(KeyError, match=r"test\.x\.nothing"):
        get(tree, "test.x.nothing")


def test_read_table_maps_columns(tmp_path: Any) -> None:
    path = tmp_path / "theirs.csv"
    path.write_text("file,truth,p\na,1,0.5\n")
    table = read_table(path, {"image": "file", "label_x": "truth", "score_x": "p"})
    assert list(table.columns) == ["image", "label_x", "score_x"]
    with pytest.raises(EvaluationError, match="names probability"):
        read_table(path, {"score_x": "probability"})
    with pytest.raises(EvaluationError, match="no such"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(EvaluationError, match=r"empty\.csv: is empty; needed are a line"):
        read_table(tmp_path / "empty.csv")
    (tmp_path / "commas.csv").write_text("image,score_x\na,1\nb,0,5\n")
    with pytest.raises(EvaluationError, match=r"commas\.csv: line 3: not readable as CSV; put quotes"):
        read_table(tmp_path / "commas.csv")
    (tmp_path / "semicolons.csv").write_text("image;label_x;score_x\na;1;0,5\n")
    with pytest.raises(EvaluationError, match=r"semicolons; save the table with commas"):
        read_table(tmp_path / "semicolons.csv")
    with pytest.raises(EvaluationError, match=r"is a folder; name a table"):
        read_table(tmp_path)
    (tmp_path / "predictions.parquet").write_bytes(b"")
    with pytest.raises(EvaluationError, match=rf"is a folder; name its table: predictions={tmp_path}/predictions"):
        read_table(tmp_path)


def test_a_film_is_its_highest_hip() -> None:
    cells = {
        "a": [(1, 0.2), (0, 0.7)],
        "b": [(0, 0.1), (0, np.nan)],
        "c": [(0, 0.3), (np.nan, 0.4)],
        "d": [(1, np.nan)],
    }
    rows = [{"image": i, "label_fracture": y, "score_fracture": s} for i, hips in cells.items() for y, s in hips]
    out = films(pd.DataFrame(rows)).set_index("image")
    assert out["label_fracture"].to_dict() == pytest.approx({"a": 1, "b": 0, "c": np.nan, "d": 1}, nan_ok=True)
    assert out["score_fracture"].to_dict() == pytest.approx({"a": 0.7, "b": 0.1, "c": 0.4, "d": np.nan}, nan_ok=True)


def test_compare_uses_rows_with_both_scores(hips: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)
    table = hips[hips["split"] == "test"].assign(other=lambda t: t["score_fracture"] + rng.normal(0, 0.4, len(t)))
    table.loc[table.index[:60], "other"] = np.nan
    result = compare(table, "score_fracture", "other", "label_fracture")
    both = table.dropna(subset=["score_fracture", "other"])
    for key, name in (("a", "score_fracture"), ("b", "other")):
        assert result[key]["value"] == pytest.approx(roc_auc_score(both["label_fracture"], both[name]))  # type: ignore[literal-required]
    assert result["difference"]["method"] == "obuchowski paired"
    assert result["p"] < 0.05
    by_patients = compare(table, "score_fracture", "other", "label_fracture", "patient", method="bootstrap")
    assert by_patients["difference"]["value"] == pytest.approx(result["difference"]["value"])
    for edge, other in itertools.product(("low", "high"), [by_patients]):
        assert other["difference"][edge] == pytest.approx(result["difference"][edge], abs=0.02)  # type: ignore[literal-required]
    everyone = compare(table, "score_fracture", "other", "label_fracture", intention=True)
    assert everyone["a"]["n"] == len(table)
    with pytest.raises(EvaluationError, match="absent"):
        compare(table, "absent", "other", "label_fracture")
    with pytest.raises(EvaluationError, match="-1 is not 1, 0 or empty"):
        compare(table.assign(label_fracture=-1), "score_fracture", "other", "label_fracture")


def test_every_site_is_a_group_however_many_there_are(hips: pd.DataFrame) -> None:
    rows = rows_of(hips.assign(site=[f"s{k % 31}" for k in range(len(hips))]), "fracture")
    assert {value for column, value, _ in groups_of(rows, "fracture") if column == "site"} == {
        f"s{k}" for k in range(31)
    }
