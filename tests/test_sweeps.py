"""Sweeps go on where they stopped, repeat nothing, refuse what has changed, and tell what failed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from domainseg.config import launch
from domainseg.files import DomainsegError, read_json
from domainseg.overrides import rewrite

LR = "stage.fracture.lr"
FILES = {
    "pipeline/toy.yaml": "# @package _global_\ntarget: fracture\nstage:\n  fracture: {lr: 0.1}\n",
    "trainer/slow.yaml": "threads: 1\n",
}
NASTY = ["a,b=c (d) [e] {f}", "it's ^# back\\slash\\"]
OPTUNA = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", f"{LR}=interval(0.0,1.0)"]


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_as_before: None) -> None:
    """A working folder with a pipeline of its own."""
    for name, text in FILES.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    monkeypatch.chdir(tmp_path)


class Runs:
    """A main function whose value depends on the learning rate; ``before`` may raise before a job has ended."""

    def __init__(self, before: Callable[[str], None] = lambda job: None) -> None:
        self.calls: list[tuple[str, float, bool]] = []
        self.summaries = 0
        self.before = before

    def __call__(self, cfg: dict[str, Any], output: Path) -> float:
        lr = float(cfg["stage"]["fracture"]["lr"])
        self.calls.append((output.name, lr, cfg["resume"]))
        assert read_json(output / "job.json")["status"] == "running"
        (output / "environment.json").write_text("{}")
        self.before(output.name)
        return 1 - (lr - 0.3) ** 2

    def summary(self, folder: Path) -> None:
        self.summaries += 1

    def launch(self, *argv: str, output: str = "sweep") -> Any:
        arguments = ["--config-dir", "groups", "-m", f"output={output}", *argv]
        return launch(self, "train", arguments, summary=self.summary)


def stop(at: str) -> Callable[[str], None]:
    """Interrupts the process, as a person or a power cut would, in job ``at``."""

    def before(job: str) -> None:
        if job == at:
            raise KeyboardInterrupt

    return before


def fail(at: str, error: Exception) -> Callable[[str], None]:
    """Lets job ``at`` fail."""

    def before(job: str) -> None:
        if job == at:
            raise error

    return before


@pytest.mark.parametrize("typed", [[f"{LR}=0.1,0.2,0.3,0.4"], OPTUNA], ids=["basic", "optuna"])
@pytest.mark.parametrize("path", NASTY)
def test_a_stopped_sweep_goes_on_as_it_would_have(typed: list[str], path: str, tmp_path: Path) -> None:
    argv = ["+pipeline=toy", *typed, f"init_from={path}"]
    (tmp_path / path).mkdir()
    whole = Runs()
    whole.launch(*argv, output=f"whole {path}")
    assert [job for job, _, _ in whole.calls] == ["0", "1", "2", "3"]
    assert len({lr for _, lr, _ in whole.calls}) == 4
    stopped = Runs(stop("2"))
    with pytest.raises(KeyboardInterrupt):
        stopped.launch(*argv, output=path)
    again = Runs()
    again.launch("resume=true", output=path)
    assert again.calls == [("2", whole.calls[2][1], True), ("3", whole.calls[3][1], False)]
    for job in range(4):
        folders = [tmp_path / f"whole {path}" / str(job), tmp_path / path / str(job)]
        records = [read_json(folder / "job.json") for folder in folders]
        assert records[0]["value"] == records[1]["value"]
        assert {record["status"] for record in records} == {"finished"}
        assert yaml.safe_load((folders[1] / "config.yaml").read_text())["init_from"] == f"{tmp_path}/{path}"
    nothing = Runs()
    nothing.launch(*argv, "resume=true", output=path)
    assert nothing.calls == []


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ([f"{LR}=0.1,0.5"], LR),
        (["seed=4"], "seed"),
        (["+pipeline=toy"], LR),
    ],
)
def test_a_changed_sweep_is_refused_by_name(typed: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    Runs().launch("+pipeline=toy", f"{LR}=0.1,0.2", "trainer.threads=1")
    runs = Runs()
    with pytest.raises(SystemExit) as end:
        runs.launch("resume=true", *typed)
    assert end.value.code == 2
    assert f": {named}. Only trainer settings may change" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        runs.launch("+pipeline=toy", f"{LR}=0.1,0.2")
    assert "Add resume=true" in capsys.readouterr().err
    assert runs.calls == []


@pytest.mark.parametrize(("typed", "told"), [(["resume=true"], "Add -m"), (["+pipeline=toy"], "name another folder")])
def test_a_run_does_not_go_into_the_folder_of_a_sweep(
    typed: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs()
    runs.launch("+pipeline=toy", "seed=1,2")
    before = sorted(path.name for path in (tmp_path / "sweep").iterdir())
    with pytest.raises(SystemExit) as end:
        launch(runs, "train", ["--config-dir", "groups", "output=sweep", *typed], summary=runs.summary)
    assert end.value.code == 2
    assert told in capsys.readouterr().err
    assert len(runs.calls) == 2
    assert {path.name for path in (tmp_path / "sweep").iterdir()} - {"train.log"} == set(before)


def test_a_job_that_began_with_other_settings_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Not what was typed but what it stands for has changed: a file of the configuration."""
    with pytest.raises(KeyboardInterrupt):
        Runs(stop("1")).launch("+pipeline=toy", "seed=1,2")
    (tmp_path / "groups/pipeline/toy.yaml").write_text(FILES["pipeline/toy.yaml"].replace("0.1", "0.2"))
    with pytest.raises(SystemExit) as end:
        Runs().launch("resume=true")
    assert end.value.code == 2
    assert f"other settings of {LR}" in capsys.readouterr().err


def test_trainer_settings_may_change_when_a_sweep_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Runs(stop("1")).launch("+pipeline=toy", "seed=1,2", "trainer.threads=1")
    seen = []
    runs = Runs()
    runs.before = lambda job: seen.append(job)
    runs.launch("resume=true", "trainer.threads=2")
    assert seen == ["1"]
    assert yaml.safe_load((tmp_path / "sweep/1/config.yaml").read_text())["trainer"]["threads"] == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [(DomainsegError("films.csv: no row"), "films.csv: no row"), (KeyError("bug"), "KeyError('bug')")],
)
def test_the_others_go_on_when_a_job_fails(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs = Runs(fail("1", error))
    with pytest.raises(SystemExit) as end:
        runs.launch("+pipeline=toy", "seed=1,2,3")
    assert end.value.code == 1
    assert f"job 1: {line}" in capsys.readouterr().err
    assert [read_json(tmp_path / f"sweep/{job}/job.json")["status"] for job in range(3)] == [
        "finished", "failed", "finished",
    ]  # fmt: skip
    again = Runs()
    again.launch("resume=true")
    assert [job for job, _, _ in again.calls] == ["1"], "what failed is tried again, in a sweep that was fixed before"


def test_what_optuna_proposed_after_a_failure_stays(tmp_path: Path) -> None:
    first = Runs(fail("1", DomainsegError("no")))
    with pytest.raises(SystemExit):
        first.launch("+pipeline=toy", *OPTUNA)
    assert len(first.calls) == 4
    again = Runs()
    with pytest.raises(SystemExit):
        again.launch("resume=true")
    assert again.calls == []


def test_plugins_are_composed_and_missing_ones_name_their_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hydra import compose, initialize_config_dir

    from domainseg.overrides import conf_folder

    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        slurm = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra.launcher.gpus_per_node=4"]
        made = compose("train", rewrite([*slurm, "hydra/sweeper=optuna", "seed=7"]), return_hydra_config=True).hydra
    assert made.launcher._target_.endswith("SlurmLauncher")
    assert (made.launcher.partition, made.launcher.gpus_per_node) == ("gpu", 4)
    assert made.sweeper._target_.endswith("OptunaSweeper")
    assert (made.sweeper.direction, made.sweeper.sampler.seed) == ("maximize", 7)
    monkeypatch.setattr("domainseg.overrides.find_spec", lambda name: None)
    for typed, extra in (("hydra/sweeper=optuna", "optuna"), ("hydra/launcher=submitit_slurm", "slurm")):
        with pytest.raises(SystemExit):
            Runs().launch("+pipeline=toy", "seed=1,2", typed)
        assert f'pip install "domainseg[{extra}]"' in capsys.readouterr().err


def test_several_tasks_for_one_job_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """hydra.launcher.tasks_per_node=2: each task would take the other's folder for a job that has begun."""
    answers = iter([False])  # where the sweep is started; then in its job
    monkeypatch.setattr("domainseg.config.several_started", lambda: next(answers, True))
    runs = Runs()
    with pytest.raises(SystemExit) as end:
        runs.launch("+pipeline=toy", "seed=1,2")
    assert end.value.code == 2
    assert "trainer.devices" in capsys.readouterr().err
    assert runs.calls == []


def test_unknown_launchers_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        Runs().launch("+pipeline=toy", "seed=1,2", "hydra/launcher=submitit_slrum")
    assert end.value.code == 2
    assert "submitit_slrum" in capsys.readouterr().err


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_cohorts_of_a_sweep_replace_the_one_that_stands_there(plus: str) -> None:
    cohorts = []

    class Told(Runs):
        def __call__(self, cfg: dict[str, Any], output: Path) -> float:
            cohorts.append(cfg["data"]["cohort"])
            return super().__call__(cfg, output)

    Told().launch(
        "+pipeline=toy", "data=phantom_pelvis", f"{plus}data.cohort={{site: [A]}},{{}},{{department: [ward]}}"
    )
    assert cohorts == [{"site": ["A"]}, {}, {"department": ["ward"]}]
