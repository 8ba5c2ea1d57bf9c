"""A real SLURM on this machine, for tests. A node has three processors, and three files stand for its GPUs.

    python tests/slurm/cluster.py start DIR     and then, in the shell: . DIR/environment
    python tests/slurm/cluster.py stop DIR

DIR holds all files. The cluster takes free ports, changes nothing under /etc and needs no systemd, but its daemons need
root. `install` fetches Debian's packages. The cluster runs without slurmdbd, so squeue and scontrol list the jobs.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = (
    "slurmctld",
    "slurmd",
    "munged",
    "munge",
    "unmunge",
    "sbatch",
    "srun",
    "squeue",
    "scontrol",
    "scancel",
    "sinfo",
)

# config_overrides lets the node claim more resources than the machine may have: the jobs are small, and the tests check
# how jobs are submitted. slurmctld checks time limits every 30 s, which no option changes. A requeued job waits until
# its old credential expires, after 120 s by default (cred_expire). slurmctld forgets ended jobs after MinJobAge seconds, which
# are more than the tests take on the busiest machine.
CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=5
ReturnToService=2
KillWait=3
OverTimeLimit=0
MinJobAge=7200
DefMemPerCPU=500
PropagateResourceLimits=NONE
GresTypes=gpu
PartitionName=main Nodes=ALL Default=YES MaxTime=UNLIMITED DefaultTime=10 State=UP
PartitionName=others Nodes=ALL MaxTime=UNLIMITED DefaultTime=10 State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=3 RealMemory=32000 Gres=gpu:3 State=UNKNOWN\n"


def hindrance() -> str:
    """Return the reason why no SLURM can start on this machine, or an empty text if SLURM can start."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        return f"SLURM is not installed (no {absent[0]}): apt-get install {' '.join(PACKAGES)}"
    return "" if os.geteuid() == 0 else "SLURM's daemons need root here"


def install() -> None:
    """Install Debian's packages if the system is Debian and the user is root. Otherwise `hindrance` names what is missing."""
    if not hindrance() or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    quiet = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.STDOUT,
        "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    }
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(["apt-get", "update", "-qq"], timeout=120, **quiet)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES], timeout=300, **quiet)


def _path() -> str:
    """Return PATH with the folders of daemons, which a user's PATH may lack."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _alive(pid: int) -> bool:
    """Return whether a process runs. A process that has ended and waits for its parent does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Cluster:
    """The SLURM of a folder, with one node or more. The path must be short, because the folder holds a socket."""

    def __init__(self, folder: Path, nodes: int = 1):
        self.folder, self.nodes = Path(folder).resolve(), [f"node{index}" for index in range(1, nodes + 1)]

    def environment(self) -> dict[str, str]:
        """Return the variables with which a process finds this SLURM: its configuration, and an `srun` that works inside jobs.

        Snakemake's jobs call `srun` without SLURM's variables, so also without SLURM_CONF.
        """
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": f"{self.folder / 'bin'}{os.pathsep}{_path()}"}

    def call(self, *words: str, check: bool = True) -> str:
        """Run one of SLURM's commands and return its output."""
        done = subprocess.run(
            words, env={**os.environ, **self.environment()}, text=True, timeout=60,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout}")
        return done.stdout

    def jobs(self) -> list[dict[str, str]]:
        """Return all jobs that `scontrol show job` lists, the oldest first."""
        lines = [line for line in self.call("scontrol", "show", "job", "-o").splitlines() if line.startswith("JobId=")]
        jobs = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        return sorted(jobs, key=lambda job: int(job["JobId"]))

    def start(self) -> None:
        """Write the configuration, start the daemons, and wait until the node is idle."""
        for name in ("munge", "state", "bin", *(f"spool/{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        host, folder = socket.gethostname().split(".")[0], self.folder
        port, *ports = _free_ports(1 + len(self.nodes))
        nodes = [NODE.format(name=name, host=host, port=port) for name, port in zip(self.nodes, ports, strict=True)]
        (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, folder=folder, port=port) + "".join(nodes))
        (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        files = [
            f"NodeName={name} Name=gpu File=/dev/{file}\n" for name in self.nodes for file in ("null", "zero", "full")
        ]
        (folder / "gres.conf").write_text("".join(files))
        wrapper = folder / "bin" / "srun"
        wrapper.write_text(
            f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun", path=_path())} "$@"\n'
        )
        wrapper.chmod(0o755)
        lines = [f"export {name}='{value}'\n" for name, value in self.environment().items()]
        (folder / "environment").write_text("".join(lines))
        key = folder / "munge" / "key"
        key.unlink(missing_ok=True)
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        munge = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}
        self._daemon(
            "munged", "-F", "--force", "--num-threads=2", *(f"--{k}={folder / 'munge' / v}" for k, v in munge.items())
        )
        self._wait("munge", lambda: (folder / "munge" / "socket").exists())
        self._daemon("slurmctld", "-D", "-c")
        for node in self.nodes:
            self._daemon("slurmd", "-D", "-c", "-N", node)
        self._wait("slurmctld", lambda: "is UP" in self.call("scontrol", "ping", check=False))
        self._wait("slurmd", lambda: set(self.call("sinfo", "-h", "-o", "%T", check=False).split()) == {"idle"})

    def stop(self) -> None:
        """Cancel all jobs and end the daemons in the reverse order of their start."""
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            self.call("scancel", "--user=root")
            self._wait("queue", lambda: not self.call("squeue", "-h").strip(), seconds=15)
        for name in ("slurmd", "slurmctld", "munged"):
            for path in self.folder.glob(f"{name}*.started"):
                self._end(int(path.read_text()))
                path.unlink()

    def _daemon(self, *words: str) -> None:
        """Start a daemon in its own session. Write its process number to a file, so that another process can stop it."""
        name = words[0] + (f".{words[-1]}" if words[-1] in self.nodes else "")
        with (self.folder / f"{name}.out").open("w") as out:
            process = subprocess.Popen(
                words, env={**os.environ, **self.environment()}, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        (self.folder / f"{name}.started").write_text(str(process.pid))

    def _end(self, pid: int) -> None:
        for number, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            deadline = time.monotonic() + seconds
            while _alive(pid) and time.monotonic() < deadline:
                time.sleep(0.05)

    def _wait(self, what: str, condition, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                logs = [f"{path}: {path.read_text()[-600:]}" for path in sorted(self.folder.glob("*.out"))]
                raise RuntimeError(f"{what} is not ready after {seconds} s; {' '.join(logs)}")
            time.sleep(0.1)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("start", "stop"):
        sys.exit(__doc__)
    cluster = Cluster(Path(sys.argv[2]))
    if sys.argv[1] == "start" and hindrance():
        sys.exit(hindrance())
    getattr(cluster, sys.argv[1])()
