# Self-refining neural surrogates, from the solver to the report.
#
#   snakemake --cores 2                 the default run (config/config.yaml), all targets
#   snakemake --cores 2 figures         one stage and what it needs: data, models, rollouts, metrics, figures, report
#   snakemake --cores 2 --configfile config/smoke.yaml     another scale, as an overlay on the default
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.0")
# This folder, also where another workflow uses this one as a module.
PROJECT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True))
sys.path[:0] = [str(PROJECT), str(Path(PROJECT, "workflow", "scripts"))]
import configuration
import failures
from fingerprint import fingerprint
from sns_core.plugins import is_own


configfile: Path(PROJECT, "config", "config.yaml")


try:
    configuration.validate(config)
except configuration.ConfigurationError as error:
    raise WorkflowError(str(error)) from None


include: "workflow/rules/common.smk"
include: "workflow/rules/given.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/rollouts.smk"
include: "workflow/rules/metrics.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/moving.smk"
include: "workflow/rules/cost.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/theory.smk"
include: "workflow/rules/state.smk"


# Not worth a job of their own on a cluster: a second each, or nothing.
localrules:
    all,
    data,
    models,
    rollouts,
    metrics,
    figures,
    theory,
    report,
    record_provenance,
    verify,
    status,
    plan,


onerror:
    print(failures.told(workflow.scheduler.failed if workflow.scheduler else []), file=sys.stderr)


rule all:
    default_target: True
    input:
        f"{RESULTS}/report.html",
        f"{RESULTS}/provenance.json",


rule data:
    input:
        [f"{RESULTS}/{system}/shards/manifest.json" for system in SYSTEMS],


rule models:
    input:
        [f"{RESULTS}/{system}/models/{model}.safetensors" for system in SYSTEMS for model in models_used(system)],


rule rollouts:
    input:
        [path for system in SYSTEMS for method in METHODS for path in segment_files(system, method)],


rule metrics:
    input:
        [f"{RESULTS}/{system}/{table}.csv" for system in SYSTEMS for table in TABLES],


rule figures:
    input:
        [f"{RESULTS}/{system}/figures/{name}.png" for system in SYSTEMS for name in figure_names(system)],
        [f"{RESULTS}/{system}/{name}" for system in SYSTEMS for name in ("figures/movie.mp4", "explorer.html")],


# The theorems on a Gaussian process: apart from every system and method, so not part of `all`.
rule theory:
    input:
        f"{RESULTS}/theory/theory.png",


rule report:
    input:
        f"{RESULTS}/report.html",
