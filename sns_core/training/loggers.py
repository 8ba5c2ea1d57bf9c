"""Loggers that show a training while it runs: TensorBoard's event files, MLflow's local folder, W&B without a network.

A logger is a context manager of (folder, model, specification). It yields a function that takes a row of the history.
Each logger needs its own package, which is imported only where the configuration names the logger (`loggers`).
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

Row = dict[str, float]


@contextlib.contextmanager
def tensorboard(folder: Path, model: str, spec: dict) -> Iterator[Callable[[Row], None]]:
    """Write event files: `tensorboard --logdir FOLDER`."""
    from torch.utils.tensorboard import SummaryWriter

    # Event files of an interrupted call hold rows after its last checkpoint, and every call writes all rows.
    for remnant in (folder / model).glob("events.out.tfevents.*"):
        remnant.unlink()
    with SummaryWriter(str(folder / model)) as writer:

        def write(row: Row) -> None:
            for name, value in values_of(row).items():
                writer.add_scalar(name, value, row["step"])
            writer.flush()

        yield write


@contextlib.contextmanager
def mlflow(folder: Path, model: str, spec: dict) -> Iterator[Callable[[Row], None]]:
    """Write a run of the experiment `model` into a local folder: `mlflow ui --backend-store-uri FOLDER`."""
    # Without this variable, MLflow 3 refuses a folder and wants a database.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=folder.resolve().as_uri())
    experiment = client.get_experiment_by_name(model)
    number = experiment.experiment_id if experiment else client.create_experiment(model)
    run = client.create_run(number, run_name=model).info.run_id
    for name, value in spec["training"].items():
        client.log_param(run, name, value)

    def write(row: Row) -> None:
        for name, value in values_of(row).items():
            client.log_metric(run, name, value, step=row["step"])

    status = "FAILED"
    try:
        yield write
        status = "FINISHED"
    finally:
        client.set_terminated(run, status)


@contextlib.contextmanager
def wandb(folder: Path, model: str, spec: dict) -> Iterator[Callable[[Row], None]]:
    """Write a run without a network: `wandb sync FOLDER/wandb/offline-run-*` uploads it, if you want that."""
    import wandb as package

    folder.mkdir(parents=True, exist_ok=True)
    settings = package.Settings(mode="offline", silent=True, console="off")
    run = package.init(project="sns", name=model, dir=str(folder), config=spec["training"], settings=settings)
    with run:
        yield lambda row: run.log(values_of(row), step=row["step"])


LOGGERS = {"tensorboard": tensorboard, "mlflow": mlflow, "wandb": wandb}


def values_of(row: Row) -> Row:
    """Return the values of a row of the history without its step."""
    return {name: value for name, value in row.items() if name != "step"}


@contextlib.contextmanager
def opened(names: list[str], folder: Path, model: str, spec: dict, rows: list[Row]) -> Iterator[Callable[[Row], None]]:
    """Open loggers, each in a folder of its own below `folder`, and yield a function that gives a row to all of them.

    `rows`: the history so far, of a training that goes on from a checkpoint. All loggers get these rows first.
    """
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(LOGGERS[name](folder / name, model, spec)) for name in names]

        def write(row: Row) -> None:
            for writer in writers:
                writer(row)

        for row in rows:
            write(row)
        yield write
