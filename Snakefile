# Self-refining neural surrogates, from the solver to the report.
#
#   snakemake --cores 2                 the default run (config/config.yaml), all targets
#   snakemake --cores 2 figures         one stage and what it needs: data, models, rollouts, metrics, figures, report
#   snakemake --cores 2 --configfile config/smoke.yaml     another scale, as an overlay on the default
import gc
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.utils import min_version

min_version("9.0")
# Python leaves what Snakemake has imported out of its search for cycles: a call with nothing to do takes a seventh less time.
gc.freeze()
# The folder of this file, or its address where another workflow uses this one from the network.
PROJECT = workflow.current_basedir.get_path_or_uri(secret_free=True)
IN_A_CLONE = Path(PROJECT, "sns_workflow").is_dir()
# A clone runs its own code and not the installed one. From an address there is no folder, and the installed packages are used.
if IN_A_CLONE:
    sys.path.insert(0, PROJECT)
from sns_core.catalogue import ALONE, REFINEMENTS, WITHOUT_NETWORKS
from sns_core.evaluation.settling import counted_steps
from sns_core.grids import grid_shape, longer_side
from sns_core.plugins import class_of, is_calibrated, objective_class
from sns_core.wording import titled
from sns_workflow import configuration
from sns_workflow.command import (
    command,
    command_in_a_loop,
    flags,
    in_order_of_keys,
    inspection_command,
    python,
    settings,
    write_configuration,
)
from sns_workflow.failures import HideCommands, print_end, stop_with_the_terminal
from sns_workflow.fingerprint import builds_systems, fingerprint
from sns_workflow.sweep import maker_of


configfile: f"{PROJECT}/config/config.yaml"


# Results of other runs that a run of a sweep links to: pattern of their names below the run's folder -> folder of the other run.
LINKED = config.pop("linked", {})

# Only the main process of a call asks for files that no rule makes; another workflow may have a rule that makes them.
CONFIGURATION = configuration.read_or_stop(
    config, workflow, files_must_exist=workflow.is_main_process and workflow.main_snakefile == f"{PROJECT}/Snakefile"
)
config = CONFIGURATION.whole


include: "workflow/rules/common.smk"
include: "workflow/rules/getters.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/calibration.smk"
include: "workflow/rules/rollouts.smk"
include: "workflow/rules/metrics.smk"
include: "workflow/rules/cost.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/movie_and_explorer.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/theory.smk"
include: "workflow/rules/reuse.smk"


if IN_A_CLONE:

    include: "workflow/rules/inspect.smk"


if workflow.is_main_process:
    logger.addFilter(HideCommands())
    stop_with_the_terminal()


onstart:
    # With a limit on jobs per second, Snakemake 9.27 looks at its queue every second, and once more for each job that has
    # ended (findings/snakemake-polls-its-queue.sh). Its default limit is one that no run here reaches.
    limit = getattr(workflow.scheduler, "job_rate_limiter", None)
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


onerror:
    print_end(workflow.scheduler)


# The targets. They run nothing themselves, and so they are never submitted to a cluster.
rule all:
    default_target: True
    input:
        f"{RESULTS}/report.html",
        f"{RESULTS}/provenance.json",
    localrule: True


rule data:
    input:
        [f"{RESULTS}/{system}/shards/manifest.json" for system in SYSTEMS],
    localrule: True


rule models:
    input:
        [f"{RESULTS}/{system}/models/{model}.safetensors" for system in SYSTEMS for model in get_models(system)],
    localrule: True


rule rollouts:
    input:
        [path for system in SYSTEMS for method in METHODS for path in list_segments(system, method)],
    localrule: True


rule metrics:
    input:
        [f"{RESULTS}/{system}/{table}.csv" for system in SYSTEMS for table in get_tables(system)],
    localrule: True


rule figures:
    input:
        [f"{RESULTS}/{system}/figures/{name}.png" for system in SYSTEMS for name in list_figures(system)],
        [f"{RESULTS}/{system}/{name}" for system in SYSTEMS for name in ("figures/movie.mp4", "explorer.html")],
    localrule: True


# The theorems on a Gaussian process: apart from every system and method, so not part of `all`.
rule theory:
    input:
        f"{RESULTS}/theory/theory.png",
    localrule: True


rule report:
    input:
        f"{RESULTS}/report.html",
    localrule: True
