"""The stage that trains one model. A killed training goes on from its last checkpoint to the same bits.

A checkpoint is written every `checkpoint_every` steps, every `checkpoint_minutes` minutes, and when a signal asks the
training to end (`ENDING`). It lies in a folder beside the model. When the model has been written, the checkpoint of the
last step is kept where a training of more steps could go on from it, and otherwise it is removed.
"""

import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sns_core.data.pairs import PairSampler, load_dataset
from sns_core.device import select_device, use_threads
from sns_core.errors import DamagedFile, UserError
from sns_core.files import FileTree, provenance, read_json, record_path, sha256, write_json, write_tensors
from sns_core.grids import grid_of
from sns_core.plugins import load, objective_class
from sns_core.processes import ProcessGroup
from sns_core.progress import progress
from sns_core.training.checkpoint import cannot_go_on, checkpoint_path, identify, load_checkpoint, save_checkpoint
from sns_core.training.loggers import opened
from sns_core.training.models import FORMAT, load_models
from sns_core.training.trainer import Trainer
from sns_core.version import __version__

# SLURM's request to end, Ctrl-C, and a terminal that closes.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def train_model(
    *,
    name: str,
    spec: dict,
    manifest: Path,
    seed: int,
    output: Path,
    history: Path,
    models: FileTree = {},  # noqa: B006
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,
    threads: int = 1,
    code: str = "",
    checkpoint_minutes: float = 10.0,
    loggers: list = (),
) -> None:
    """Train one model of the configuration and write its averaged weights.

    A killed call goes on from its last checkpoint. On the CPU its result has the same bits as an uninterrupted call.
    A finished training goes on for more steps where its learning rates do not depend on their number (`decay: constant`),
    and otherwise a training of more steps starts from zero and says why.
    Under torchrun, all processes share each batch: the model is the same to rounding, and may be resumed by any number
    of processes.

    `name`: the model's name in the configuration.
    `spec`: the model's objective, network, training and, for a denoiser, diffusion.
    `manifest`: the data manifest, from which the splits train and validation are read.
    `seed`: the run's seed.
    `output`: the model file; a readable `.json` with the model's note is written beside it.
    `history`: the CSV file of losses.
    `models`: role -> file of each trained model that the objective needs, a teacher for example, and "calibration" -> file of
    the measurements that a teacher follows.
    `device`: auto, cpu, or a GPU such as cuda:0.
    `precision`: auto, float32 or bfloat16.
    `compile`: whether training steps run a compiled network, which gives the same model to rounding.
    `threads`: number of threads.
    `code`: a string that names the state of the code; checkpoints of another state are not used.
    `checkpoint_minutes`: minutes after which a checkpoint is written, besides those every `checkpoint_every` steps.
    `loggers`: tensorboard, mlflow or wandb, which write to the folder `logs` beside that of the models.
    """
    use_threads(threads)
    with ProcessGroup(select_device(device)) as processes:
        dataset, held_out = (load_dataset(manifest, split) for split in ("train", "validation"))
        settings = {"seed": seed, "precision": precision, "compile": compile, "code": code}
        data = dataset.manifest["identity"]
        checksums = {role: sha256(path) for role, path in models.items()}
        identity = identify(name, spec, **{"data manifest": data, "teachers": checksums}, **settings)
        needs = load(objective_class(spec["objective"])).needs
        teachers = load_models(needs, models, f"the model {name!r}", processes.device, data)
        calibration = models.get("calibration")
        trainer = Trainer(name, spec, dataset, seed, processes, precision, compile, teachers, calibration)
        validation = PairSampler(
            held_out, trainer.sampler.frames, trainer.sampler.anchor_gap, spec["training"]["symmetries"]
        )
        checkpoint = checkpoint_path(Path(output), identity)
        _resume(trainer, checkpoint, identity, Path(output))
        names, folder = (loggers if processes.rank == 0 else ()), Path(output).parent.parent / "logs"
        with opened(names, folder, name, spec, trainer.history.rows) as log_row:
            _train(trainer, validation, checkpoint, identity, 60 * checkpoint_minutes, log_row)
        if processes.rank == 0:
            trainer.history.write(history)
            _write_model(trainer, dataset, validation, Path(output), code)
            if not _can_be_continued(spec["training"]):
                shutil.rmtree(checkpoint.parent, ignore_errors=True)


def _can_be_continued(training: dict) -> bool:
    """Return whether a training of more steps can go on from the last step of one with these settings."""
    return not cannot_go_on(training["steps"], training, {**training, "steps": 2 * training["steps"]})


def _resume(trainer: Trainer, checkpoint: Path, identity: dict, output: Path) -> None:
    """Set a trainer to its checkpoint if there is one. Say why a training of more steps does not go on."""
    reason = _reason_of_restart(trainer.spec, output)
    if checkpoint.exists():
        try:
            load_checkpoint(checkpoint, trainer, identity)
        except DamagedFile as error:
            reason = error.reason
    if reason and not trainer.step and trainer.processes.rank == 0:
        print(f"models.{trainer.name}: {reason}; training from the start", file=sys.stderr)


def _reason_of_restart(spec: dict, output: Path) -> str:
    """Return why the finished training that wrote `output` before does not go on for more steps; empty without one."""
    try:
        before = read_json(record_path(output))["configuration"]["spec"]["training"]
    except (UserError, KeyError, TypeError):
        return ""
    if {**before, "steps": 0} != {**spec["training"], "steps": 0} or before["steps"] == spec["training"]["steps"]:
        return ""
    return cannot_go_on(before["steps"], before, spec["training"])


def _train(
    trainer: Trainer,
    validation: PairSampler,
    checkpoint: Path,
    identity: dict,
    interval: float,
    log_row: Callable[[dict], None],
) -> None:
    """Train to the last step. Save checkpoints, `interval` seconds apart at most. On a signal, save one and end."""
    training, saved = trainer.spec["training"], time.monotonic()
    with _signals_that_end() as signals:
        for _ in progress(training["steps"], f"training {trainer.name}", start=trainer.step):
            stopped = trainer.train_step(stop=bool(signals))
            if trainer.step % training["log_every"] == 0 or trainer.step == training["steps"]:
                trainer.log(validation)
                log_row(trainer.history.rows[-1])
                if trainer.processes.rank == 0:
                    trainer.history.write(
                        checkpoint.with_name(f"{trainer.name}.csv")
                    )  # for who looks at a running training
            due = trainer.step % training["checkpoint_every"] == 0 or time.monotonic() - saved > interval
            if trainer.step == training["steps"]:
                due = _can_be_continued(training)
            if trainer.processes.rank == 0 and (stopped or due):
                save_checkpoint(checkpoint, trainer, identity)
                saved = time.monotonic()
            if stopped:
                # Perhaps only another of the processes got a signal.
                number = signals[0] if signals else signal.SIGTERM
                raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


@contextlib.contextmanager
def _signals_that_end() -> Iterator[list[int]]:
    """Note the signals of `ENDING` in this block, in a list. A signal that is ignored, as under `nohup`, stays ignored."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in ENDING}
    noted = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    try:
        for number in noted:
            signal.signal(number, lambda number, _: received.append(number))
        yield received
    finally:
        for number in noted:
            signal.signal(number, before[number])


def _write_model(trainer: Trainer, dataset, validation: PairSampler, output: Path, code: str) -> None:
    """Write the averaged weights with the note that the model's users need, and the note as JSON beside them."""
    note = {
        "format": FORMAT,
        "name": trainer.name,
        "spec": trainer.spec,
        "data": dataset.manifest["identity"],
        "statistics": dataset.statistics,
        "channels": dataset.shards[0].shape[2],
        "resolution": grid_of(dataset.shards[0].shape),
        "step": dataset.manifest["emulator"]["step"],
        "seed": trainer.seed,
        "code": code,
        "version": __version__,
    }
    note |= trainer.objective.note
    if trainer.correlation is not None:
        note["correlation"] = trainer.correlation
    trainer.use_weights(trainer.average)
    if trainer.network.heads is not None:
        note["clean_probability"] = trainer.clean_probability(validation)
    record = provenance(
        {"model": trainer.name, **trainer.spec},
        trainer.seed,
        str(trainer.device),
        processes=trainer.processes.size,
        wall_seconds=trainer.seconds,
    )
    write_json(output.with_suffix(".json"), {**note, "provenance": record})
    write_tensors(output, trainer.network.state_dict(), note)
