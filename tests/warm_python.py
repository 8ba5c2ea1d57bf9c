"""A `python` that starts at once: it forks Snakemake, stages of `sns_core` and torchrun from loaded processes.

The workflow's tests start about a hundred short processes, and the imports of torch, xarray and snakemake took most of
their time. Two servers import these once for all workers of a test session. The folder that `start` returns holds an
executable named `python`. The executable hands its words, working directory, environment and open files to a server, which
forks. So each call still is a separate process, whose memory holds freshly imported modules and nothing else. All other
calls go to the real interpreter.

The executable passes SIGINT, SIGTERM, SIGCONT and SIGHUP on to the process group of the forked process. If the executable is
killed, the server kills that group.

With SNS_COLD_PYTHON=1 in the environment the tests use the real interpreter for everything.
"""

import array
import contextlib
import fcntl
import functools
import gc
import hashlib
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
import uuid
from pathlib import Path

SOCKETS = "SNS_WARM_PYTHON"
# Module that is called -> server that forks it.
SERVERS = {
    "snakemake": "snakemake", "sns_workflow.inspect_run": "snakemake", "sns_workflow.plan": "snakemake", "sns_core": "sns_core",
    "torch.distributed.run": "sns_core",
}  # fmt: skip
# Modules that each server imports. The first server does not import sns_core, because snakemake imports the sns_core of
# the project that it runs. Estimates of a run's time need torch.
IMPORTS = {
    "snakemake": [
        "snakemake.cli", "snakemake.api", "snakemake.workflow", "snakemake.executors.local", "snakemake.executors.dryrun",
        "snakemake.linting.rules", "snakemake.report.html_reporter", "snakemake.storage", "snakemake.profiles",
        "snakemake.assets", "jsonschema", "yaml", "pandas", "smart_open", "safetensors", "torch._subclasses.fake_tensor",
        "torch.utils.flop_counter", "xarray", "matplotlib.backends.backend_agg",
    ],
    # The first optimiser that a process makes imports torch._dynamo, which takes longer than a tiny training.
    "sns_core": [
        "netCDF4", "dask.array", "distributed", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf",
        "torch._dynamo", "torch.distributed.run", "fontTools.subset", "numpy.ctypeslib", "xarray.computation.rolling",
        "pandas.io.formats.csvs",
    ],
}  # fmt: skip
CLIENT = """#!{python} -SE
import array, json, os, signal, socket, sys

words, folder, servers = sys.argv[1:], os.environ.get({sockets!r}, ""), {servers!r}
call = words[1:] if words[:1] == ["-u"] else words
if not folder or call[:1] != ["-m"] or call[1] not in servers:
    os.execv({python!r}, [{python!r}, *words])
server = socket.socket(socket.AF_UNIX)
server.connect(os.path.join(folder, servers[call[1]]))
message = json.dumps([call[1:], os.getcwd(), dict(os.environ)]).encode()
server.sendmsg([len(message).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
server.sendall(message)
group = int(server.recv(8) or 0)
passed = (signal.SIGINT, signal.SIGTERM, signal.SIGCONT, signal.SIGHUP)
for number in passed if group else ():
    signal.signal(number, lambda number, frame: os.killpg(group, number))
status = server.recv(8)
number = int(status) if status else 1
if number < 0:
    signal.signal(-number, signal.SIG_DFL)
    os.kill(os.getpid(), -number)
sys.exit(number)
"""


@functools.cache
def start() -> Path | None:
    """Start the servers, unless another worker of this test session has done so. Return the folder of the executable.

    Return None with SNS_COLD_PYTHON=1. The servers end when all workers have ended.
    """
    if os.environ.get("SNS_COLD_PYTHON") == "1":
        return None
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid.uuid4().hex)
    folder = Path(tempfile.gettempdir(), f"warm-{session[:12]}")  # the path of a socket must be short
    (folder / "parsed").mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        workers = folder / "workers"
        if not workers.exists():
            os.mkfifo(workers)
            client = folder / "python"
            client.write_text(CLIENT.format(python=sys.executable, sockets=SOCKETS, servers=SERVERS))
            client.chmod(0o755)
            _remember_syntax()
        reading = os.open(workers, os.O_RDONLY | os.O_NONBLOCK)
        os.open(workers, os.O_WRONLY)  # this end stays open as long as the process of the worker lives
        # Threads that wait sleep: those of a call with several threads would take the processors from other calls.
        threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
        environment = {**os.environ, **threads, "PYTHONDONTWRITEBYTECODE": "1"}
        for module in IMPORTS:
            if not (folder / module).exists():
                line = [sys.executable, __file__, module, str(folder / module)]
                subprocess.Popen(line, env=environment, stdin=reading, start_new_session=True)
        os.close(reading)
        deadline = time.monotonic() + 120
        while not all((folder / module).exists() for module in IMPORTS):
            assert time.monotonic() < deadline, "the warm interpreters did not start"
            time.sleep(0.02)
    return folder


def _remember_syntax() -> None:
    """Write the memory of the files' syntax. Calls of the tests only read it, because they write no compiled code."""
    from sns_core.stages import STAGES
    from sns_workflow.fingerprint import modules
    from sns_workflow.syntax import remember

    writes_nothing, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    for stage in STAGES:
        modules(stage)
    remember()
    sys.dont_write_bytecode = writes_nothing


def environment() -> dict:
    """Return the variables of a call in which `python` is the warm one."""
    folder, real = start(), str(Path(sys.executable).parent)
    path = os.pathsep.join([*([str(folder)] if folder else []), real, os.environ["PATH"]])
    sockets = {SOCKETS: str(folder)} if folder else {}
    return {**os.environ, **sockets, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def executable() -> str:
    """Return the interpreter to call: the warm one, or the real one with SNS_COLD_PYTHON=1."""
    return str(start() / "python") if start() else sys.executable


def _parse_once(parse, folder: Path, path, workflow, linemap, overwrite_shellcmd=None, rulecount=0):
    """Do what Snakemake's `parse` does, once for each text of a file: calls of the tests parse the same files."""
    name = path.get_path_or_uri(secret_free=True)
    if not os.path.isfile(name):  # a workflow at an address
        return parse(path, workflow, linemap, overwrite_shellcmd, rulecount)
    read = f"{name} {overwrite_shellcmd} {rulecount} ".encode() + Path(name).read_bytes()
    memory = folder / hashlib.sha256(read).hexdigest()
    try:
        parsed = json.loads(memory.read_text())
    except OSError:
        lines: dict = {}
        parsed = [*parse(path, workflow, lines, overwrite_shellcmd, rulecount), list(lines.items())]
        written = memory.with_suffix(f".{os.getpid()}")
        written.write_text(json.dumps(parsed))
        written.rename(memory)
    code, rulecount, lines = parsed
    linemap.update(lines)
    return code, rulecount


def _load(module: str, folder: Path) -> None:
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
    else:
        import snakemake.cli
        from snakemake import workflow

        snakemake.cli.get_argument_parser()  # looks for plugins among all packages, once
        workflow.parse = functools.partial(_parse_once, workflow.parse, Path(folder, "parsed"))
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


def _run(call: list, files: list[int], connection: socket.socket) -> None:
    """Become the called process: tell the caller its process group, run the module as `python -m` does, then end."""
    words, folder, variables = call
    os.setsid()
    connection.sendall(f"{os.getpid():8}".encode())
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, 256)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv, sys.path[0] = words, folder
    python_path = [entry for entry in variables.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[1:1] = [entry for entry in python_path if entry not in sys.path]
    if SOCKETS in variables:
        # The workflow's jobs use the interpreter of snakemake.
        sys.executable = os.path.join(variables[SOCKETS], "python")
    sys.orig_argv = [sys.executable, "-m", *words]
    code = 1
    try:
        _customise(python_path)
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except KeyboardInterrupt:
        traceback.print_exc()
        sys.stdout.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _customise(python_path: list[str]) -> None:
    """Run the first `sitecustomize.py` of PYTHONPATH, as an interpreter does when it starts."""
    for folder in python_path:
        path = os.path.join(folder, "sitecustomize.py")
        if os.path.exists(path):
            runpy.run_path(path)
            return


def _serve(path: str) -> None:
    """Answer calls until all workers have closed the pipe on standard input."""
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
                _run(call, files, connection)
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
            os.unlink(path)
            for child in children.values():
                _kill(child)
            if not any((Path(path).parent / module).exists() for module in IMPORTS):
                shutil.rmtree(Path(path).parent, ignore_errors=True)
            return


def _kill(child: int) -> None:
    """Kill a forked call and all processes of its session."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    _load(sys.argv[1], Path(sys.argv[2]).parent)
    _serve(sys.argv[2])
