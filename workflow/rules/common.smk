# Names and helpers that the rules share. The settings of a job are the slice of the configuration that its stage uses, and a
# fingerprint stands for the stage's code: a rule reruns when one of these changes, and only then.
import functools
import re
import shlex
import shutil

SYSTEMS = config["use"]["systems"]
METHODS = config["use"]["methods"]
SPLITS = ("train", "validation", "test")
ENSEMBLE = "reference"  # the split that gives the reference ensemble its states, and the folder of its segments
RESULTS = f"{config['results']}/{config['run']}"
RESOLVED = CONFIGURATION.systems
# Systems whose data come from files: there is no solver to time, or to run on other grids.
SOURCED = [system for system in SYSTEMS if "source" in RESOLVED[system]]
# Results that this run takes from another run, by their names below the run's folder.
REUSED = CONFIGURATION.reused
ENVIRONMENT = "../../envs/sns.yaml"
# A call with a storage provider: each job gets copies of its inputs alone, so a data set's shards must be among them.
IN_STORAGE = bool(workflow.storage_settings and workflow.storage_settings.default_storage_provider)
PYTHON = python(deployed=bool(workflow.deployment_settings.deployment_method))


def any_of(names) -> str:
    """Return a pattern that fits any of the names, and nothing where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    system=any_of(SYSTEMS),
    method=any_of(METHODS),
    split="|".join((*SPLITS, ENSEMBLE)),
    members="(_[0-9]+-[0-9]+)?",
    model="[A-Za-z0-9._-]+",
    index="[0-9]{4}",
    group="[0-9]+-[0-9]+",


# Memory and time


def resource(rule, name):
    """Resource function: what the configuration says that a job of the rule takes, more at each further attempt."""
    return lambda wildcards, attempt: config["resources"][rule][name] * attempt


def count_gpus(devices=1) -> int:
    """GPUs of a job with tensors: `hardware.device: auto` takes them where this machine has any."""
    if config["hardware"]["device"] == "auto":
        return devices * int(shutil.which("nvidia-smi") is not None)
    return devices * int(config["hardware"]["device"].startswith("cuda"))


def resources_of(rule) -> dict:
    """Memory and time of a rule's jobs, as the configuration states them."""
    return {name: resource(rule, name) for name in ("mem_mb", "runtime")}


def small_job(mem_mb=1000, runtime=10) -> dict:
    """Memory in MB and time in minutes of a job that takes seconds."""
    return {
        "mem_mb": lambda wildcards, attempt: mem_mb * attempt,
        "runtime": lambda wildcards, attempt: runtime * attempt,
    }


# Parameters


def config_slice(*keys):
    """Setting of a rule: a slice of the system's resolved configuration."""

    def select(wildcards):
        value = RESOLVED[wildcards.system]
        for key in keys:
            value = value[key.format(**wildcards)]
        return in_order_of_keys(value)

    return select


def fingerprint_of(stage, user_code=lambda wildcards: [], templates=()):
    """Parameter function: the fingerprint of a stage's code with the job's system and the user's own code."""

    def evaluate(wildcards):
        takes_system = hasattr(wildcards, "system") and builds_systems(stage)
        system = [RESOLVED[wildcards.system]["system"]["name"]] if takes_system else []
        return fingerprint(stage, *system, *user_code(wildcards), templates=tuple(templates))

    return evaluate


def parameters(stage, user_code=lambda wildcards: [], templates=(), processes=1, shared={}, **values) -> dict:
    """The params of a stage's rule: its settings (see sns_workflow.command), its fingerprint and the call that starts it.

    `values`: name -> value of each setting, or a function of the wildcards; `shared`: values that several
    rules share; a stage takes those that it has arguments for.

    Snakemake does not compare parameters that are computed from `output`, as `call` is. So no job runs again because of
    another interpreter, another place of the clone or another number of devices: what is learnt is the same to rounding.
    """
    return {
        "settings": settings(stage, values, shared),
        "code": fingerprint_of(stage, user_code, templates),
        "call": lambda wildcards, output, threads, resources: (
            f"{start_of_modules(processes, threads, resources)} sns_core {stage}{where_files_are(output[0])}"
        ),
    }


def where_files_are(output) -> str:
    """Words that say where the files lie that settings name: in a copy of a storage, if `output` lies in one."""
    folder = output.rpartition(f"{RESULTS}/")[0]
    return f" --files-below {shlex.quote(folder)}" if folder else ""


def start_of_modules(processes, threads, resources) -> str:
    """Words before the name of a module that a job runs: Python, and torchrun where several processes share the job.

    `resources.nodes`, which only the profile of a cluster gives: the nodes of SLURM among which the processes are divided.
    The job itself runs on the first node. From there srun starts a torchrun on each, and all of them meet on the first.
    """
    nodes = resources.get("nodes", 1)
    if processes % nodes:
        raise WorkflowError(
            f"hardware.devices: {processes} does not divide among {nodes} nodes (a resource in the profile)"
        )
    if processes == 1:
        return f"{PYTHON} {on_gpus_of_its_own(resources)}-m"
    torchrun = f"-m torch.distributed.run --nproc-per-node={processes // nodes}"
    if nodes == 1:
        return f"{PYTHON} {on_gpus_of_its_own(resources)}{torchrun} --standalone -m --"
    meeting = (
        "--rdzv-backend=c10d --rdzv-endpoint=$(hostname):$((20000 + SLURM_JOB_ID % 10000)) --rdzv-id=$SLURM_JOB_ID"
    )
    srun = f"srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --cpus-per-task={threads}"
    return f"{srun} env {PYTHON} {torchrun} --nnodes={nodes} {meeting} -m --"


def on_gpus_of_its_own(resources) -> str:
    """Words that start a job on as many GPUs as it asks for; none where it asks for none, or the configuration names one."""
    count, named = resources.get("gpu", 0), config["hardware"]["device"] not in ("auto", "cuda")
    return f"-m sns_core.gpus {count} " if count and not named else ""
