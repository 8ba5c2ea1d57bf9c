"""Who computes the metrics: threads of this process, processes of this machine, or jobs of a SLURM cluster.

Frames are opened lazily (dask), a member and a stretch of time at a time, so files may be larger than memory. The graph of
tasks is the same whoever computes it, and so are the numbers, bit for bit.
"""

import contextlib
import importlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator

import dask

from sns_core.runtime import UserError

# `metrics.dask` of the configuration; `memory` in MB, `options` for dask_jobqueue.SLURMCluster.
ONE_THREAD = {"scheduler": "threads", "workers": 1, "memory": 2000, "options": {}}

# A worker past its memory is ended and told of; by default it would be paused, and all would wait for it for ever.
SETTINGS = {"distributed.worker.memory.pause": False, "distributed.scheduler.allowed-failures": 1}


@contextlib.contextmanager
def computed_by(scheduler: str, workers: int, memory: int, options: dict) -> Iterator[None]:
    """In this block dask's graphs are computed by `workers` threads ("threads"), processes of at most `memory` MB each
    ("local"), or as many SLURM jobs of a core and `memory` MB ("slurm", with `options`, such as queue and walltime).

    Raises UserError where what that needs is missing, and where a worker was lost for lack of memory.
    """
    if scheduler == "threads":
        with dask.config.set(scheduler="threads", num_workers=workers):
            yield
        return
    distributed = _needed("distributed", scheduler)
    shared = {"n_workers": workers, "dashboard_address": ":0", "silence_logs": "ERROR"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(SETTINGS))
        if scheduler == "local":
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="sns-dask-"))
            cluster = distributed.LocalCluster(
                threads_per_worker=1, memory_limit=f"{memory}MB", local_directory=place, host="127.0.0.1", **shared
            )
        else:
            if shutil.which("sbatch") is None:
                raise UserError("metrics.dask.scheduler: 'slurm' needs `sbatch`, which is not found here; use 'local'")
            shared["scheduler_options"] = {"dashboard_address": shared.pop("dashboard_address")}
            asked = {"cores": 1, "processes": 1, "memory": f"{memory}MB", "job_name": "sns_dask", **shared, **options}
            cluster = _needed("dask_jobqueue", scheduler).SLURMCluster(**asked)
        stack.enter_context(cluster)
        stack.enter_context(distributed.Client(cluster))
        try:
            yield
        except distributed.KilledWorker as error:
            raise UserError(f"metrics.dask.memory: {memory} MB are too few for a worker ({error})") from None


def _needed(package: str, scheduler: str):
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UserError(
            f"metrics.dask.scheduler: {scheduler!r} needs the package {package}: pip install {package.replace('_', '-')}"
        ) from None


def each(function: Callable, arguments: Iterable[tuple]) -> list:
    """The function's value for each tuple of arguments, of which lazy ones are read by the worker itself."""
    return list(dask.compute(*[dask.delayed(function, pure=False)(*one) for one in arguments]))
