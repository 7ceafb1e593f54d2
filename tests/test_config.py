"""What is typed is what arrives: paths, names, overlays, networks, resuming, errors in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from domainseg.config import launch
from domainseg.files import DomainsegError
from domainseg.overrides import PATH_KEYS, UsageError, rewrite

PIPELINE = """\
# @package _global_
# A pipeline of one stage, for tests.
defaults:
  - /network@stage.fracture.network: toy_small
  - override /data: toy_films
  - _self_
stage:
  fracture:
    epochs: 3
    patience: 2
"""

FILES = {
    "pipeline/toy.yaml": PIPELINE,
    "experiment/brief_toy.yaml": "# @package _global_\nstage:\n  fracture:\n    epochs: 1\n",
    "network/toy_small.yaml": "width: 8\n",
    "network/toy_large.yaml": "width: 64\n",
    "data/toy_films.yaml": "path: null\ncohort: {}\nseed: ${seed}\n",
    "data/toy_other.yaml": "path: ???\n",
}

NASTY_PATHS = [
    "a,b",
    "a=b",
    "a b",
    " leading and trailing ",
    "(a) [b] {c}",
    "it's",
    'say "x"',
    "back\\slash",
    "ends\\",
    "quote\\'d",
    "two\\\\",
    "^caret#hash",
    "12",
    "null",
    "true",
    "1e3",
    "$HOME",
    "%s{}",
    "a:b@c",
    "*?;&|<>!",
    "~home",
    "äöü 股関節",
    "new\nline",
    "tab\there",
    "+plus",
    "-minus",
    "a'b'c'",
]


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_as_before: None) -> None:
    """A working folder with groups of its own."""
    for name, text in FILES.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    monkeypatch.chdir(tmp_path)


class Recorder:
    """A main function that keeps what it was given."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[dict[str, Any], Path]] = []
        self.error = error

    def __call__(self, cfg: dict[str, Any], output: Path) -> float:
        self.calls.append((cfg, output))
        if self.error:
            raise self.error
        return 0.5


def train(*argv: str, main: Recorder | None = None, output: str = "run") -> dict[str, Any]:
    main = main or Recorder()
    assert launch(main, "train", ["--config-dir", "groups", f"output={output}", *argv]) == 0.5
    return main.calls[-1][0]


def there(*paths: str) -> None:
    """Makes what path keys name."""
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()


def refused(capsys: pytest.CaptureFixture[str], *argv: str, command: str = "train", code: int = 2) -> str:
    main = Recorder()
    with pytest.raises(SystemExit) as stop:
        launch(main, command, ["--config-dir", "groups", *argv])
    assert stop.value.code == code
    assert main.calls == []
    return capsys.readouterr().err


def test_a_networks_weights_are_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Path("groups/network/toy_small.yaml").write_text("width: 8\nweights: null\n")
    there("some.pth")
    cfg = train("+pipeline=toy", "stage.fracture.network.weights=some.pth")
    assert cfg["stage"]["fracture"]["network"]["weights"] == str(tmp_path / "some.pth")
    assert train("+pipeline=toy", output="other")["stage"]["fracture"]["network"]["weights"] is None
    assert train("+pipeline=toy", "stage.fracture.network.weights=null", output="third")
    said = refused(capsys, "+pipeline=toy", "stage.fracture.network.weights=none.pth", "output=run4", code=1)
    assert said == "error: stage.fracture.network.weights=none.pth: does not exist\n"


def test_a_copy_of_a_commands_own_settings_needs_another_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Behind the program's own Hydra never looks at it."""
    Path("groups/label.yaml").write_text("defaults: [command]\n")
    there("r.csv")
    said = refused(capsys, "reports=r.csv", "output=run", command="label")
    assert "groups/label.yaml: would have no effect" in said
    assert "--config-name" in said


@pytest.mark.parametrize("path", NASTY_PATHS)
def test_paths_arrive_literally(path: str, tmp_path: Path) -> None:
    main = Recorder()
    there(path, "films")
    launch(main, "predict", [f"run={path}", "input=films", f"output=out/{path}"])
    cfg, output = main.calls[0]
    assert cfg["run"] == str(tmp_path / path)
    assert str(output) == cfg["output"] == f"{tmp_path}/out/{path}"
    assert output.is_dir()


def test_a_path_that_is_not_there_is_told_before_anything_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = refused(capsys, "+pipeline=toy", "data=toy_other", "data.path=nope.csv", "output=run", code=1)
    assert said == "error: data.path=nope.csv: does not exist\n"
    assert not (tmp_path / "run").exists()


def test_paths_are_not_swept_in_a_multirun(tmp_path: Path) -> None:
    main = Recorder()
    there("c,d")
    launch(main, "train", ["--config-dir", "groups", "-m", "+pipeline=toy", "output=a,b", "data.path=c,d", "seed=1,2"])
    assert [(cfg["seed"], cfg["data"]["path"], str(output)) for cfg, output in main.calls] == [
        (1, f"{tmp_path}/c,d", f"{tmp_path}/a,b/0"),
        (2, f"{tmp_path}/c,d", f"{tmp_path}/a,b/1"),
    ]
    assert yaml.safe_load((tmp_path / "a,b/1/config.yaml").read_text()) == main.calls[1][0]


@pytest.mark.parametrize("key", PATH_KEYS)
def test_interpolation_in_a_path_is_refused_by_name(key: str) -> None:
    with pytest.raises(UsageError, match=key):
        rewrite([f"{key}=${{oc.env:HOME}}"])


def test_what_is_given_to_main_is_plain_and_what_is_saved(tmp_path: Path) -> None:
    cfg = train("+pipeline=toy", "seed=7")
    assert type(cfg["stage"]) is dict
    assert cfg["data"] == {"path": None, "cohort": {}, "seed": 7}
    assert cfg["stage"] == {"fracture": {"network": {"width": 8}, "epochs": 3, "patience": 2}}
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text()) == cfg
    assert {file.name for file in (tmp_path / "run").iterdir()} == {"config.yaml", "train.log"}


def test_default_output_is_a_dated_folder(tmp_path: Path) -> None:
    main = Recorder()
    launch(main, "train", ["--config-dir", "groups", "+pipeline=toy"])
    assert main.calls[0][1].parent.parent == tmp_path / "outputs"


@pytest.mark.parametrize("argv", [("+experiment=brief_toy", "+pipeline=toy"), ("pipeline=toy", "experiment=brief_toy")])
def test_experiment_overlays_the_pipeline_in_any_order(argv: tuple[str, ...]) -> None:
    assert train(*argv)["stage"]["fracture"] == {"network": {"width": 8}, "epochs": 1, "patience": 2}


def test_command_line_wins_over_the_experiment() -> None:
    assert (
        train("stage.fracture.epochs=9", "+experiment=brief_toy", "+pipeline=toy")["stage"]["fracture"]["epochs"] == 9
    )


def test_data_overrides_the_choice_of_the_pipeline(tmp_path: Path) -> None:
    there("x.csv")
    assert train("+pipeline=toy", "data=toy_other", "data.path=x.csv")["data"] == {"path": f"{tmp_path}/x.csv"}


def test_network_is_chosen_by_name_and_set_by_key() -> None:
    assert train("+pipeline=toy", "stage.fracture.network=toy_large")["stage"]["fracture"]["network"] == {"width": 64}
    argv = ("+pipeline=toy", "stage.fracture.network.width=9")
    assert train(*argv, output="other")["stage"]["fracture"]["network"] == {"width": 9}


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (["+pipeline=toi"], "pipeline=toi: nobody knows this name. Did you mean toy?"),
        (["+pipline=toy"], "pipline: nobody knows this name. Did you mean pipeline?"),
        (["+pipeline=toy", "data=toy_film"], "Did you mean toy_films?"),
        (["+pipeline=toy", "+experiment=breif_toy"], "Did you mean brief_toy?"),
        (["+pipeline=toy", "stage.fracture.network=toy_lerge"], "Did you mean toy_large?"),
        (
            ["+pipeline=toy", "stage.fractur.network=toy_large"],
            "Did you mean to override network@stage.fracture.network?",
        ),
        (["+pipeline=toy", "sed=3"], "Did you mean seed?"),
        (["+pipeline=toy", "stage.fracture.epohcs=3"], "Did you mean stage.fracture.epochs?"),
        (["+pipeline=toy", "epochs=3"], "Did you mean stage.fracture.epochs?"),
        (["+pipeline=toy", "+sead=3"], "Did you mean seed?"),
        (["+pipeline=toy", "trainer=tpu"], "Known: cpu, ddp, ddp_cpu, gpu"),
        (["+pipeline=toy", "trainer.thread=1"], "Did you mean trainer.threads?"),
        (["+pipeline=toy", "~sede"], "Did you mean seed?"),
        (["+pipeline=toy", "data=toy_other"], "not given: data.path="),
        (["+pipeline=toy", "seed=[1"], "seed=[1"),
        (["hip"], "hip: settings are typed as key=value"),
        (["data=toy_films"], "add +pipeline=NAME, one of:"),
        (["+pipeline=toy", "resume=true"], "resume=true needs output=DIR"),
        (["resume=true", "output=nowhere"], "no run to resume"),
    ],
)
def test_what_nobody_knows_is_answered_before_anything_is_written(
    typed: list[str], answer: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert answer in refused(capsys, *typed)
    assert [entry.name for entry in tmp_path.iterdir()] == ["groups"]


def test_new_key_may_be_added_to_a_known_node() -> None:
    assert train("+pipeline=toy", "+data.cohort.department=[emergency]")["data"]["cohort"] == {
        "department": ["emergency"]
    }


@pytest.mark.parametrize("plus", ["", "+"])
def test_a_cohort_names_columns_that_only_the_table_knows(plus: str) -> None:
    got = train("+pipeline=toy", f"{plus}data.cohort.region=[hip]")
    assert got["data"]["cohort"] == {"region": ["hip"]}


@pytest.mark.parametrize("plus", ["", "+"])
def test_a_cohort_that_is_typed_as_a_whole_replaces_the_one_that_stands_there(plus: str) -> None:
    for typed, expected in (("{region: [hip]}", {"region": ["hip"]}), ("{}", {}), ("null", None)):
        got = train("+pipeline=toy", "data.cohort.department=[emergency]", f"{plus}data.cohort={typed}")
        assert got["data"]["cohort"] == expected


def test_missing_values_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "not given: input=" in refused(capsys, command="predict")


def test_a_run_is_never_overwritten(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    train("+pipeline=toy", "seed=1")
    assert train("+pipeline=toy", "seed=3")["seed"] == 3, (
        "the first attempt came to nothing: only config and log are there"
    )
    (tmp_path / "run/environment.json").write_text("{}")
    before = (tmp_path / "run/config.yaml").read_text()
    assert "holds a run" in refused(capsys, "+pipeline=toy", "seed=2", "output=run")
    assert (tmp_path / "run/config.yaml").read_text() == before


def test_an_audit_is_made_anew_and_goes_on_where_it_trains(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def audit(*arguments: str) -> dict[str, Any]:
        main = Recorder()
        launch(main, "audit", ["--config-dir", "groups", *arguments, "output=out"])
        (tmp_path / "out/audit.json").write_text("{}")
        return main.calls[-1][0]

    there("one.csv", "two.csv")
    with pytest.raises(SystemExit):
        launch(Recorder(DomainsegError("no such column")), "audit", ["predictions=one.csv", "output=out"])
    audit("predictions=one.csv")
    assert audit("predictions=two.csv", "least=20")["least"] == 20
    assert "two.csv" in (tmp_path / "out/audit.yaml").read_text()
    first = audit("+pipeline=toy", "seed=3")
    saved = (tmp_path / "out/config.yaml").read_text()
    assert audit("+pipeline=toy", "seed=3") == first
    with pytest.raises(SystemExit):
        audit("+pipeline=toy", "seed=4")
    assert "holds a run" in capsys.readouterr().err
    assert (tmp_path / "out/config.yaml").read_text() == saved


def test_evaluate_leaves_the_config_of_a_run_alone(tmp_path: Path) -> None:
    train("+pipeline=toy")
    before = (tmp_path / "run/config.yaml").read_text()
    there("table.csv")
    launch(Recorder(), "evaluate", ["predictions=table.csv", "output=run"])
    assert (tmp_path / "run/config.yaml").read_text() == before


def test_resume_takes_the_saved_config_and_new_trainer_settings(tmp_path: Path) -> None:
    there("a,b")
    first = train("+pipeline=toy", "+experiment=brief_toy", "seed=4", "data.path=a,b", "trainer.precision=fp32")
    saved = (tmp_path / "run/config.yaml").read_text()
    again = train("resume=true")
    assert again == first | {"resume": True}
    again = train("resume=true", "trainer.threads=1")
    assert again["trainer"] == first["trainer"] | {"threads": 1}
    again = train("resume=true", "trainer=gpu", "trainer.devices=2")
    assert (again["trainer"]["accelerator"], again["trainer"]["devices"]) == ("gpu", 2)
    again = train("resume=true", "seed=4", "data.path=a,b", "stage.fracture.epochs=1")
    assert again == first | {"resume": True}
    again = train("resume=true", "+pipeline=toy", "+experiment=brief_toy", "seed=4", "data.path=a,b")
    assert again == first | {"resume": True}
    assert (tmp_path / "run/config.yaml").read_text() == saved


def test_a_resumed_run_keeps_its_cohort(capsys: pytest.CaptureFixture[str]) -> None:
    first = train("+pipeline=toy", "data.cohort={region: [hip], site: [A]}")
    for typed in ("data.cohort={region: [hip], site: [A]}", "data.cohort.region=[hip]"):
        assert train("resume=true", typed) == first | {"resume": True}
    for typed, named in (
        ("data.cohort={region: [hip]}", "data.cohort.site"), ("data.cohort={}", "data.cohort.region"),
        ("data.cohort={region: [pelvis], site: [A]}", "data.cohort.region"), ("data.cohort=null", "data.cohort"),
    ):  # fmt: skip
        assert f": {named}" in refused(capsys, "resume=true", "output=run", typed)


def test_a_run_of_an_older_version_gets_defaults_for_what_came_later(tmp_path: Path) -> None:
    first = train("+pipeline=toy", "trainer=gpu", "trainer.devices=1")
    file = tmp_path / "run/config.yaml"
    saved = yaml.safe_load(file.read_text())
    del saved["only"], saved["trainer"]["checkpoint_every"]
    file.write_text(yaml.safe_dump(saved))
    assert train("resume=true") == first | {"resume": True}


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        (["seed=5"], ": seed."),
        (["stage.fracture.epochs=4", "data.path=x"], ": data.path, stage.fracture.epochs."),
        (["+pipeline=toy", "+experiment=brief_toy"], ": stage.fracture.epochs."),
        (["+pipeline=toy", "stage.fracture.network=toy_large"], ": stage.fracture.network.width."),
        (["sead=5"], "Did you mean seed?"),
        (["trainer.thread=5"], "Did you mean trainer.threads?"),
    ],
)
def test_resume_refuses_a_changed_setting_by_name(
    typed: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    there("x")
    train("+pipeline=toy")
    assert named in refused(capsys, "resume=true", "output=run", *typed)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DomainsegError("films.csv row 3: no path"), "error: films.csv row 3: no path\n"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            'torch is not installed: pip install "domainseg[train]"',
        ),
        (ModuleNotFoundError("x", name="pytorch_lightning.callbacks"), 'pip install "domainseg[train]"'),
        (FileNotFoundError(2, "No such file or directory", "table.csv"), "No such file or directory: 'table.csv'"),
        (OSError(28, "No space left on device", "events.out"), "error: events.out: not written, the disk is full"),
    ],
)
def test_errors_for_people_are_one_line(error: Exception, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        launch(Recorder(error), "train", ["--config-dir", "groups", "+pipeline=toy", "output=run"])
    printed = capsys.readouterr().err
    assert stop.value.code == 1
    assert line in printed
    assert "Traceback" not in printed


def test_other_errors_keep_their_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydra._internal.utils.is_under_debugger", lambda: False)  # coverage looks like a debugger
    with pytest.raises(SystemExit) as stop:
        launch(Recorder(KeyError("bug")), "train", ["--config-dir", "groups", "+pipeline=toy", "output=run"])
    assert stop.value.code == 1
    assert "Traceback" in capsys.readouterr().err


def test_bare_word_picks_the_phantom(capsys: pytest.CaptureFixture[str]) -> None:
    assert rewrite(["+experiment=tiny", "+pipeline=hemorrhage"])[-1] == "+experiment=hemorrhage_tiny"
    given = ["+experiment=tiny", "+pipeline=hip", "--cfg", "job", "--resolve"]
    assert rewrite(given) == ["+pipeline=hip", "+experiment=hip_tiny", *given[2:]]
    assert rewrite(["pelvis", "n=5"], word="phantom") == ["+phantom@_global_=pelvis", "n=5"]
    assert rewrite(["columns={image: acc}", "columns.text=body"]) == ["++columns={image: acc}", "columns.text=body"]
    for argv in ([], ["n=5"], ["pelvys", "n=5"]):
        with pytest.raises(SystemExit) as stop:
            launch(Recorder(), "phantom", argv, word="phantom")
        assert stop.value.code == 2
        assert "pelvis" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "predict", "evaluate", "phantom"])
def test_help_lists_pipelines_and_three_examples_and_loads_nothing_slow(command: str, tmp_path: Path) -> None:
    code = (
        "import json, runpy, sys\n"
        f"sys.argv = ['x', '--help']\n"
        "try:\n"
        f"    runpy.run_module('domainseg.{command}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code\n"
        "slow = ['torch', 'hydra', 'matplotlib', 'scipy', 'sklearn', 'albumentations', 'pyarrow.parquet', 'pandera']\n"
        "print(json.dumps([name for name in slow if name in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    text, _, loaded = done.stdout.rstrip().rpartition("\n")
    assert text.split("Examples:")[1].split("\n\n")[0].count(f"python -m domainseg.{command}") == 3
    assert ("+pipeline=\n" in text and "\n  hip " in text) == (command == "train")
    assert json.loads(loaded) == []


def test_the_command_works_as_typed_from_any_folder(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "domainseg.train", "+pipline=hip"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "error: pipline: nobody knows this name. Did you mean pipeline?"
    assert os.listdir(tmp_path) == ["groups"]
