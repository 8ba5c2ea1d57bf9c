"""The place where metrics are computed: threads of this process, processes of this machine, or jobs of a SLURM cluster.

Dask opens frames lazily, one member and one stretch of time at a time, so files may be larger than memory. The graph of
tasks is the same for all three, and so are the numbers, bit for bit.
"""

import contextlib
import importlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator

import dask

from sns_core.errors import UserError

# `metrics.dask` of the configuration; `memory` in MB, `options` for dask_jobqueue.SLURMCluster.
ONE_THREAD = {"scheduler": "threads", "workers": 1, "memory": 2000, "options": {}}

# A worker past its memory is ended with a message. By default dask pauses it, and the computation never ends.
SETTINGS = {"distributed.worker.memory.pause": False, "distributed.scheduler.allowed-failures": 1}


@contextlib.contextmanager
def computed_by(scheduler: str, workers: int, memory: int, options: dict) -> Iterator[None]:
    """Compute dask's graphs in this block with `workers` threads, processes or SLURM jobs.

    `scheduler`: "threads" of this process; "local" processes of at most `memory` MB each; "slurm" jobs of one core and
    `memory` MB, with `options` such as queue and walltime. Raises UserError where a package or `sbatch` is missing, and
    where a worker was lost for lack of memory.
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
            request = {"cores": 1, "processes": 1, "memory": f"{memory}MB", "job_name": "sns_dask", **shared, **options}
            cluster = _needed("dask_jobqueue", scheduler).SLURMCluster(**request)
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
    """Return the function's value for each tuple of arguments; the worker itself reads lazy arguments."""
    return list(dask.compute(*[dask.delayed(function, pure=False)(*values) for values in arguments]))
