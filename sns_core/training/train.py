"""The stage that trains one model. A killed training goes on from its last checkpoint to the same bits.

A checkpoint is written every `checkpoint_every` steps and on SIGTERM. It lies in a folder beside the model, and is
removed when the model has been written.
"""

import shutil
import signal
import sys
from pathlib import Path

from sns_core.data.pairs import PairSampler, load_dataset
from sns_core.device import select_device, use_threads
from sns_core.errors import DamagedFile
from sns_core.files import provenance, write_json, write_tensors
from sns_core.grids import grid_of
from sns_core.processes import ProcessGroup
from sns_core.progress import progress
from sns_core.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from sns_core.training.models import FORMAT
from sns_core.training.trainer import Trainer
from sns_core.version import __version__


def train_model(
    *,
    name: str,
    spec: dict,
    manifest: Path,
    seed: int,
    output: Path,
    history: Path,
    device: str = "auto",
    precision: str = "auto",
    compile: bool = False,
    threads: int = 1,
    code: str = "",
) -> None:
    """Train one model of the configuration and write its averaged weights.

    A killed call goes on from its last checkpoint. On the CPU its result has the same bits as an uninterrupted call.
    Under torchrun, all processes share each batch: the model is the same to rounding, and may be resumed by any number
    of processes.

    `name`: the model's name in the configuration.
    `spec`: the model's objective, network, training and, for a denoiser, diffusion.
    `manifest`: the data manifest, from which the splits train and validation are read.
    `seed`: the run's seed.
    `output`: the model file; a readable `.json` with the model's note is written beside it.
    `history`: the CSV file of losses.
    `device`: auto, cpu, or a GPU such as cuda:0.
    `precision`: auto, float32 or bfloat16.
    `compile`: whether training steps run a compiled network, which gives the same model to rounding.
    `threads`: number of threads.
    `code`: a string that names the state of the code; checkpoints of another state are not used.
    """
    use_threads(threads)
    with ProcessGroup(select_device(device)) as processes:
        dataset, held_out = (load_dataset(manifest, split) for split in ("train", "validation"))
        identity = {
            "model": name,
            "specification": spec,
            "data manifest": dataset.manifest["identity"],
            "seed": seed,
            "precision": precision,
            "compile": compile,
            "code": code,
        }
        trainer = Trainer(name, spec, dataset, seed, processes, precision, compile)
        validation = PairSampler(
            held_out, trainer.sampler.frames, trainer.sampler.anchor_gap, spec["training"]["symmetries"]
        )
        checkpoint = checkpoint_path(Path(output), identity)
        _train(trainer, validation, checkpoint, identity)
        if processes.rank == 0:
            trainer.history.write(history)
            _write_model(trainer, dataset, validation, Path(output), code)
            shutil.rmtree(checkpoint.parent, ignore_errors=True)


def _train(trainer: Trainer, validation: PairSampler, checkpoint: Path, identity: dict) -> None:
    """Train to the last step, from the checkpoint if there is one. On SIGTERM, save a checkpoint and exit."""
    training = trainer.spec["training"]
    if checkpoint.exists():
        try:
            load_checkpoint(checkpoint, trainer, identity)
        except DamagedFile as error:
            print(f"{error.reason}; training from the start", file=sys.stderr)

    signals = []
    previous_handler = signal.signal(signal.SIGTERM, lambda *_: signals.append(True))
    try:
        for _ in progress(training["steps"], f"training {trainer.name}", start=trainer.step):
            stopped = trainer.train_step(stop=bool(signals))
            if trainer.step % training["log_every"] == 0 or trainer.step == training["steps"]:
                trainer.log(validation)
            due = trainer.step % training["checkpoint_every"] == 0 and trainer.step < training["steps"]
            if trainer.processes.rank == 0 and (stopped or due):
                save_checkpoint(checkpoint, trainer, identity)
            if stopped:
                raise SystemExit(128 + signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


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
