"""Loggers get every row of a training's history. Those whose package is installed are read again by that package."""

import contextlib
import json
import sys

import pandas as pd
import pytest
from tiny_models import SPECS, train

from sns_core.__main__ import main
from sns_core.training import loggers
from sns_core.training.trainer import Trainer


@pytest.fixture
def rows(monkeypatch) -> list[dict]:
    """The rows that a logger `list` gets."""
    received = []

    @contextlib.contextmanager
    def to_list(folder, model, spec):
        received.append({"opened": folder.parts[-2:], "model": model})
        yield received.append
        received.append("closed")

    monkeypatch.setitem(loggers.LOGGERS, "list", to_list)
    return received


def test_a_logger_gets_the_rows_of_the_history_and_those_before_an_interruption(tiny, tmp_path, monkeypatch, rows):
    done = Trainer.train_step

    def dies_at_17(trainer, stop=False):
        if trainer.step == 17:
            raise KeyboardInterrupt
        return done(trainer, stop)

    folder = tmp_path / "models"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_step", dies_at_17)
        train(folder, tiny.manifest, "denoiser", SPECS["denoiser"], loggers=["list"])
    rows.clear()
    model = train(folder, tiny.manifest, "denoiser", SPECS["denoiser"], loggers=["list"])
    assert rows[0] == {"opened": ("logs", "list"), "model": "denoiser"} and rows[-1] == "closed"
    history = pd.read_csv(model.with_suffix(".csv"))
    assert pd.DataFrame(rows[1:-1])[list(history)].equals(history)


@pytest.mark.parametrize("package", ["tensorboard", "mlflow", "wandb"])
def test_an_absent_package_is_named_in_one_line_before_the_training(tiny, tmp_path, monkeypatch, capsys, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    model = tmp_path / "models/pointwise.safetensors"
    words = ["--name", "pointwise", "--spec", json.dumps(SPECS["pointwise"]), "--manifest", str(tiny.manifest)]
    words += ["--seed", "3", "--output", str(model), "--history", str(model.with_suffix(".csv"))]
    assert main(["train_model", *words, "--device", "cpu", "--loggers", json.dumps([package])]) == 1
    line = f"train_model: needs the package {package!r}, which is not installed: pip install 'sns-core[loggers]'"
    assert capsys.readouterr().err.strip() == line and not model.exists()


ROWS = [{"step": 10, "loss": 1.5, "learning_rate": 0.25}, {"step": 20, "loss": 0.5, "learning_rate": 0.125}]


def written(logger: str, folder) -> None:
    for rows in (ROWS[:1], ROWS):  # of a call that was interrupted, and of the call that goes on from its checkpoint
        with loggers.opened([logger], folder, "sns", SPECS["pointwise"], rows[:1]) as write:
            for row in rows[1:]:
                write(row)


def test_event_files_hold_each_row_once(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    written("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard/sns")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(10, 1.5), (20, 0.5)]
    assert [(e.step, e.value) for e in events.Scalars("learning_rate")] == [(10, 0.25), (20, 0.125)]


def test_the_last_run_of_mlflow_holds_all_rows_and_the_settings(tmp_path):
    pytest.importorskip("mlflow")
    written("mlflow", tmp_path)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("sns").experiment_id
    runs = client.search_runs([experiment], order_by=["attributes.start_time DESC"])
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    both = [[(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] for run in runs]
    assert sorted(both) == [[(10, 1.5)], [(10, 1.5), (20, 0.5)]]
    assert runs[0].data.params["batch"] == "4"


def test_wandb_writes_a_run_without_a_network(tmp_path):
    pytest.importorskip("wandb")
    written("wandb", tmp_path)
    assert len(list((tmp_path / "wandb/wandb").glob("offline-run-*/run-*.wandb"))) == 2
