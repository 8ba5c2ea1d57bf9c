"""A `python` that starts at once: it forks `python -m snakemake` and `python -m sns_core` from loaded processes.

The workflow's tests start about a hundred short processes, and the imports of torch, xarray and snakemake took most of
their time. Two servers import these once. The folder that `start` returns holds an executable named `python`. The
executable hands its words, working directory, environment and open files to a server, which forks. So each call still is
a separate process, whose memory holds freshly imported modules and nothing else. All other calls go to the real
interpreter.

With SNS_COLD_PYTHON=1 in the environment the tests use the real interpreter for everything.
"""

import array
import atexit
import contextlib
import functools
import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

SOCKETS = "SNS_WARM_PYTHON"
# Modules that each server imports. The first server does not import sns_core, because snakemake imports the sns_core of
# the project that it runs.
IMPORTS = {
    "snakemake": [
        "snakemake.cli", "snakemake.api", "snakemake.workflow", "snakemake.executors.local", "snakemake.executors.dryrun",
        "snakemake.linting.rules", "snakemake.report.html_reporter", "snakemake.storage", "snakemake.profiles",
        "snakemake.assets", "jsonschema", "yaml", "pandas", "smart_open", "safetensors",
    ],
    # The first optimiser that a process makes imports torch._dynamo, which takes longer than a tiny training.
    "sns_core": [
        "netCDF4", "dask.array", "distributed", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf",
        "torch._dynamo", "fontTools.subset", "numpy.ctypeslib", "xarray.computation.rolling", "pandas.io.formats.csvs",
    ],
}  # fmt: skip
CLIENT = """#!{python} -SE
import array, json, os, socket, sys

words, folder = sys.argv[1:], os.environ.get({sockets!r}, "")
path = os.path.join(folder, words[1]) if len(words) > 1 and words[0] == "-m" else ""
if not folder or words[:1] != ["-m"] or words[1] not in {modules!r}:
    os.execv({python!r}, [{python!r}, *words])
server = socket.socket(socket.AF_UNIX)
server.connect(path)
message = json.dumps([words[1:], os.getcwd(), dict(os.environ)]).encode()
server.sendmsg([len(message).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
server.sendall(message)
status = server.recv(8)
number = int(status) if status else 1
if number < 0:
    os.kill(os.getpid(), -number)
sys.exit(number)
"""


@functools.cache
def start() -> Path | None:
    """Start the servers, once per process. Return the folder of the executable; None with SNS_COLD_PYTHON=1."""
    if os.environ.get("SNS_COLD_PYTHON") == "1":
        return None
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    client = folder / "python"
    client.write_text(CLIENT.format(python=sys.executable, sockets=SOCKETS, modules=tuple(IMPORTS)))
    client.chmod(0o755)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for module in IMPORTS:
        line = [sys.executable, __file__, module, str(folder / module)]
        server = subprocess.Popen(line, env=environment, stdin=subprocess.PIPE, start_new_session=True)
        atexit.register(server.wait)
        atexit.register(server.stdin.close)  # the server ends when this end of the pipe closes
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    deadline = time.monotonic() + 120
    while not all((folder / module).exists() for module in IMPORTS):
        assert time.monotonic() < deadline, "the warm interpreters did not start"
        time.sleep(0.02)
    return folder


def environment() -> dict:
    """Return the variables of a call in which `python` is the warm one."""
    folder, real = start(), str(Path(sys.executable).parent)
    path = os.pathsep.join([*([str(folder)] if folder else []), real, os.environ["PATH"]])
    sockets = {SOCKETS: str(folder)} if folder else {}
    return {**os.environ, **sockets, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def executable() -> str:
    """Return the interpreter to call: the warm one, or the real one with SNS_COLD_PYTHON=1."""
    return str(start() / "python") if start() else sys.executable


def _load(module: str) -> None:
    import importlib

    names = IMPORTS[module]
    if module == "sns_core":
        from sns_core.stages import STAGES

        names = [*sorted(set(STAGES.values())), "sns_core.record", *names]
    for name in names:
        importlib.import_module(name)
    if module == "sns_core":
        import torch
        import xarray.backends.plugins

        torch.set_num_threads(1)
        xarray.backends.plugins.list_engines()
    gc.collect()
    gc.freeze()  # the garbage collector of a forked call looks at what the call makes, and not at all modules


def _receive(connection: socket.socket) -> tuple[list, list[int]]:
    """Return (words, working directory, environment) of a call, and its open files."""
    head, ancillary, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(3 * 4))
    files = array.array("i")
    for _, _, data in ancillary:
        files.frombytes(data)
    size, content = int.from_bytes(head, "big"), b""
    while len(content) < size:
        content += connection.recv(size - len(content))
    return json.loads(content), list(files)


def _run(call: list, files: list[int]) -> None:
    """Become the called process: run the module as `python -m` does, then end."""
    words, folder, variables = call
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, 256)
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv, sys.path[0] = words, folder
    if SOCKETS in variables:
        sys.executable = os.path.join(
            variables[SOCKETS], "python"
        )  # the workflow's jobs use the interpreter of snakemake
    sys.orig_argv = [sys.executable, "-m", *words]
    code = 1
    try:
        _customise(variables.get("PYTHONPATH", ""))
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _customise(python_path: str) -> None:
    """Run the first `sitecustomize.py` of PYTHONPATH, as an interpreter does when it starts."""
    for folder in filter(None, python_path.split(os.pathsep)):
        path = os.path.join(folder, "sitecustomize.py")
        if os.path.exists(path):
            runpy.run_path(path)
            return


def _serve(path: str) -> None:
    """Answer calls until the pipe on standard input closes."""
    wake, written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(written)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{path}.new")
    listening.listen(64)
    os.rename(f"{path}.new", path)
    children: dict[socket.socket, int] = {}
    while True:
        ready = select.select([0, wake, listening, *children], [], [])[0]
        if listening in ready:
            connection = listening.accept()[0]
            call, files = _receive(connection)
            child = os.fork()
            if not child:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _run(call, files)
            for file in files:
                os.close(file)
            children[connection] = child
        for connection in set(ready) & children.keys():
            _kill(children[connection])  # the caller was killed, so the forked call must end, too
        if wake in ready:
            os.read(wake, 4096)
        for connection, child in list(children.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                del children[connection]
                code = os.waitstatus_to_exitcode(status)
                with contextlib.suppress(OSError):
                    connection.sendall(str(code).encode())
                connection.close()
        if 0 in ready:
            for child in children.values():
                _kill(child)
            return


def _kill(child: int) -> None:
    """Kill a forked call and all processes of its session."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    _load(sys.argv[1])
    _serve(sys.argv[2])
