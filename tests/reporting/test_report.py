from __future__ import annotations

import base64
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pandas as pd
import pytest

from domainseg.evaluation import EvaluationError, choose_threshold, compare
from domainseg.files import read_json, write_json
from domainseg.reporting.content import Content, gather
from domainseg.reporting.evaluate import evaluate_command, evaluate_run, retest_command
from domainseg.reporting.report import render, write_report
from domainseg.reporting.sections import waterfall
from domainseg.reporting.words import interval, number


class Reader(HTMLParser):
    """Collects what a page would fetch, its pictures and its text; fails on tags that don't close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.images: list[dict[str, str]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.fetched += [values[name] for name in ("src", "href") if name in values]
        assert tag not in ("script", "link", "iframe")
        if tag == "img":
            self.images.append(values)
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def run(hips: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "<my> run"
    folder.mkdir()
    hips.to_parquet(folder / "predictions.parquet")
    (folder / "config.yaml").write_text("pipeline: hip\nseed: 7\ndata: {name: phantom_pelvis, n: 300}\n")
    write_json(folder / "environment.json", {"python": "3.12.1", "manifest": {"films": 300, "sha256": "ab" * 32}})
    threshold = choose_threshold(np.ones(12), np.linspace(0.3, 0.9, 12), "catch_0.99")
    write_json(folder / "stages" / "implant_filter" / "threshold.json", threshold.to_dict())
    curves = pd.DataFrame(
        {"step": range(5), "train_loss": np.linspace(1, 0, 5), "tune_auc": [np.nan, 0.5, 0.6, 0.7, 0.8]}
    )
    curves.to_csv(folder / "stages" / "implant_filter" / "curves.csv", index=False)
    (folder / "pictures").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (900, 1800, 3)).astype(np.uint8)
    for name, picture in (("found_1", noise[:50, :50]), ("false_alarm_1", noise[:40, :60]), ("contact_sheet", noise)):
        cv2.imwrite(str(folder / "pictures" / f"{name}.png"), picture)
    captions = {"found_1.png": "film <1>, hip_left", "false_alarm_1.png": {"caption": "b", "group": "Mine"}}
    write_json(folder / "pictures" / "captions.json", captions)
    other = hips.assign(other=hips["score_fracture"].round(1))
    compared = compare(other, "score_fracture", "other", "label_fracture")
    write_json(folder / "comparisons.json", [{"title": "exact against rounded", **compared}])
    evaluate_run(folder, resamples=50)
    return folder


def test_report_is_one_file_that_fetches_nothing(run: Path) -> None:
    page = Reader((run / "report.html").read_text())
    assert all(source.startswith(("data:image/", "#")) for source in page.fetched)
    assert "url(" not in (run / "report.html").read_text()
    assert all(image["alt"] for image in page.images)
    kinds = {image["src"].split(";")[0] for image in page.images}
    assert kinds == {"data:image/svg+xml", "data:image/png", "data:image/jpeg"}
    for image in page.images:
        data = base64.b64decode(image["src"].split(",", 1)[1])
        if "svg" in image["src"][:20]:
            assert ElementTree.fromstring(data).tag.endswith("svg")
        else:
            assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[1] <= 1400


def test_report_says_what_a_reader_needs(run: Path) -> None:
    text = " ".join(" ".join(Reader((run / "report.html").read_text()).text).split())
    metrics = read_json(run / "metrics.json")
    record = metrics["test"]["fracture"]["intention"]["auc"]
    assert interval(record) in text
    assert f"all {record['n']} eligible hips of {record['n_clusters']} patients" in text
    for words in (
        "not a medical device", "Implant filter: the threshold is provisional", "under 1 mm", "Fractures found", "Mine",
        "film <1>, hip_left", "<my> run", "phantom_pelvis", "catch 0.99", "truly intra", "abababababab",
        "exact against rounded",
    ):  # fmt: skip
        assert words in text, words
    assert re.search(r"\bnan\b|None\b|\binf\b", text) is None
    assert len(metrics["test"]["view_filter"]) > 5


def test_same_run_same_bytes(run: Path) -> None:
    first = (run / "report.html").read_bytes()
    assert write_report(run).read_bytes() == first


def test_missing_pieces_are_skipped_and_said(tmp_path: Path) -> None:
    text = " ".join(Reader(write_report(tmp_path).read_text()).text)
    for name in ("metrics.json", "config.yaml", "predictions.parquet", "environment.json", "stages/*/*.csv"):
        assert name in text
    assert "not a medical device" in text


@pytest.mark.parametrize("piece", ["predictions.parquet", "metrics.json", "stages/implant_filter/curves.csv"])
def test_each_piece_may_be_missing(run: Path, piece: str) -> None:
    kept = (run / piece).read_bytes()
    (run / piece).unlink()
    try:
        content = gather(run)
        Reader(render(content))
        assert content.missing
    finally:
        (run / piece).write_bytes(kept)


def test_cross_validated_runs_show_each_fold(run: Path, tmp_path: Path) -> None:
    for fold in ("0", "1"):
        path = tmp_path / "folds" / fold / "stages" / "fracture" / "threshold.json"
        write_json(path, read_json(run / "stages" / "implant_filter" / "threshold.json"))
    assert [t["stage"] for t in gather(tmp_path).thresholds] == ["fold 0, fracture", "fold 1, fracture"]


def test_no_usable_score_still_gives_a_report() -> None:
    record = {"value": None, "low": None, "high": None, "n": 0, "n_clusters": 0, "method": "no cases"}
    html = render(Content(name="x", metrics={"test": {"fracture": {"auc": record, "intention": {"auc": record}}}}))
    Reader(html)
    assert "</html>" in html


def test_waterfall_adds_up(hips: pd.DataFrame) -> None:
    from domainseg.evaluation.tables import rows_of

    steps = waterfall(rows_of(hips, "fracture"), "fracture")
    assert [step["name"] for step in steps] == [
        "All", "Unreadable file", "View filter", "Localizer", "Implant filter",
    ]  # fmt: skip
    for before, after in itertools.pairwise(steps):
        for side in ("positive", "negative"):
            assert before["left"][side] - after["taken"][side] == after["left"][side]
            assert after["wrong"][side] <= after["taken"][side]
    assert sum(steps[-1]["left"].values()) == hips["score_fracture"].notna().sum()
    assert (
        steps[2]["wrong"]["negative"]
        == (
            (hips["excluded_by"] == "view_filter") & (hips["label_view_filter"] == 1) & (hips["label_fracture"] == 0)
        ).sum()
    )


def test_evaluate_command_writes_all_and_prints_intervals(
    hips: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    source = tmp_path / "theirs, 1.csv"
    columns = ["image", "part", "patient", "label_fracture", "score_fracture"]
    part = hips[columns].rename(columns={"label_fracture": "truth"})
    part.to_csv(source, index=False)
    cfg = {"predictions": str(source), "columns": {"label_fracture": "truth"}, "resamples": 50, "seed": 0}
    metrics = evaluate_command(cfg, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"metrics.json", "figures", "report.html"}
    ElementTree.parse(tmp_path / "out" / "figures" / "roc.svg")
    assert read_json(tmp_path / "out" / "metrics.json")["test"]["fracture"]["sensitivity"]["value"] is None
    assert interval(metrics["test"]["fracture"]["auc"]).replace(" to ", "–") in capsys.readouterr().out
    with pytest.raises(EvaluationError, match="label_<target>"):
        evaluate_command({"predictions": str(source)}, tmp_path / "again")
    part[:0].to_csv(tmp_path / "header.csv", index=False)
    with pytest.raises(EvaluationError, match=r"header\.csv: has no rows"):
        evaluate_command(cfg | {"predictions": str(tmp_path / "header.csv")}, tmp_path / "again")
    with pytest.raises(EvaluationError, match="reference=Siet B: no such site; the table has "):
        evaluate_command(cfg | {"reference": "Siet B"}, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.slow
def test_depth_of_the_main_target_with_readers_and_a_prior(hips: pd.DataFrame, tmp_path: Path) -> None:
    scored = hips[hips["score_fracture"].notna() & (hips["split"] == "test")]
    reads = pd.concat(
        scored[["image", "part"]].assign(reader=name, call=scored["label_fracture"] ^ (np.arange(len(scored)) % k == 0))
        for k, name in ((5, "Ada"), (7, "Ben"))
    )
    reads.to_csv(tmp_path / "readers, two.csv", index=False)
    hips.assign(site=hips["site"].where(hips.index % 5 > 0, hips["site"] + " ")).to_csv(tmp_path / "p.csv", index=False)
    cfg = {"predictions": tmp_path / "p.csv", "readers": tmp_path / "readers, two.csv", "prior": "department"}
    cfg["targets"] = ["fracture"]
    metrics = evaluate_command(cfg | {"resamples": 50, "prevalence": 0.013}, tmp_path / "out")["test"]["fracture"]
    text = " ".join(" ".join(Reader((tmp_path / "out" / "report.html").read_text()).text).split())
    for words in (
        "Operating points", "the test set itself, as in Zech et al. 2018: to compare only", "1.3 %", "Ada",
        "Mean of readers", interval(metrics["readers"]["f1"]["difference"]), "fitted on tune", "Worst group",
        interval(metrics["shift"]["by"]["B"]["sensitivity_difference"]), "values that differ only by case or blanks",
        interval(metrics["prior"]["combined"]["auc"]),
    ):  # fmt: skip
        assert words in text, words
    assert re.search(r"\bnan\b|None\b|\binf\b", text) is None
    for wrong in ({"prevalence": 2}, {"target": "pneumonia"}, {"predictions": None}):
        with pytest.raises(EvaluationError, match=r"no fraction|targets are|nothing to evaluate"):
            evaluate_command(cfg | {"resamples": 20} | wrong, tmp_path / "again")


def test_retest_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "models.csv"
    path.write_text("model,old,new,n_old,n_new\na,0.8,0.6,1000,500\nb,0.9,0.75,1000,500\nc,0.85,0.8,1000,500\n")
    found = retest_command({"retest": path}, tmp_path / "out")
    text = " ".join(" ".join(Reader((tmp_path / "out" / "retest.html").read_text()).text).split())
    assert "3 of 3 models score lower on the new set; the mean drop is 0.133; 2 change their rank." in text
    assert interval(found["models"][0]["gap"]) in text
    assert read_json(tmp_path / "out" / "retest.json")["models"][0]["model"] == "b"
    assert "0.750 (0.710–0.787)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (float("nan"), "–"), (0.12345, "0.123"), (-0.5, "\N{MINUS SIGN}0.500")]
)
def test_numbers_in_words(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_table_without_any_score_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"image": ["a", "b"], "label_x": [1, 0], "score_x": [None, None]}).to_csv(tmp_path / "t.csv")
    with pytest.raises(EvaluationError, match="no row has a score of x"):
        evaluate_command({"predictions": str(tmp_path / "t.csv")}, tmp_path / "out")
