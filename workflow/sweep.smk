# A grid of runs, one per point, and the table and figure of all their scores (`sweep` in the configuration):
#
#   snakemake -s workflow/sweep.smk --cores 2                                            three seeds of the demo
#   snakemake -s workflow/sweep.smk --cores 2 --configfile config/sweep.yaml             the grid of that file
#   snakemake -s workflow/sweep.smk --cores 2 --configfile config/qg-demo.yaml mine.yaml    any grid of another scale
#
# Each point is a run in results/<run>-sweep/<point>/. Files whose settings are equal are made once. A call that was stopped
# goes on when it is repeated, and values that are added to the grid later run alone. Questions about all points, with the same
# --configfile: `plan` before a call, `--nolock status` during it and `verify` after it.
import sys
from pathlib import Path

HOME = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent
sys.path.insert(0, str(HOME))  # a clone runs its own code and not the installed one
from sns_workflow import sweep
from sns_workflow.command import command, inspection_command, python, settings, write_configuration
from sns_workflow.failures import print_end
from sns_workflow.fingerprint import fingerprint


configfile: Path(HOME, "config", "config.yaml")


SWEEP = sweep.read_or_stop(config, workflow)
RESULTS = SWEEP.folder
RUNS = [(point, system) for point in SWEEP.points for system in point.whole["use"]["systems"]]
LABELS = {
    name: method["label"]
    for point in SWEEP.points
    for name, method in point.whole["methods"].items()
    if name in point.whole["use"]["methods"]
}
PYTHON = python(deployed=bool(workflow.deployment_settings.deployment_method))
INSPECTION = {
    "python": PYTHON,
    "snakefile": str(HOME / "workflow" / "sweep.smk"),
    "configuration": lambda wildcards, output: write_configuration(RESULTS, {**config, "sweep": SWEEP.grid}),
    "cores": workflow.resource_settings.cores or 1,
}


include: "rules/questions.smk"


for POINT in (*SWEEP.points, *SWEEP.former):
    POINT_NAME, POINT_PREFIX = POINT.name, POINT.rule_prefix

    module:
        name: POINT_NAME
        snakefile:
            str(HOME / "Snakefile")
        config:
            {**POINT.whole, "linked": POINT.linked}

    use rule * from POINT_NAME as POINT_PREFIX*


onerror:
    print_end(workflow.scheduler)


rule sweep:
    default_target: True
    input:
        f"{RESULTS}/sweep.csv",
        f"{RESULTS}/sweep.png",
        # What made each point: a later grid without the point finds its settings there, and goes on linking to its files.
        [f"{point.folder}/provenance.json" for point in SWEEP.points],
    localrule: True


rule tabulate_sweep:
    input:
        scorecards=[f"{point.folder}/{system}/scorecard.csv" for point, system in RUNS],
    output:
        output=f"{RESULTS}/sweep.csv",
        output_readable=f"{RESULTS}/sweep.md",
    log:
        f"{RESULTS}/logs/sweep.log",
    conda:
        "../envs/sns.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        settings=settings("tabulate_sweep", {"places": [point.place for point, _ in RUNS]}),
        code=lambda wildcards: fingerprint("tabulate_sweep"),
        call=lambda wildcards, output: f"{PYTHON} -m sns_core tabulate_sweep",
    shell:
        command("tabulate_sweep")


rule plot_sweep:
    input:
        table=f"{RESULTS}/sweep.csv",
    output:
        output=report(f"{RESULTS}/sweep.png", caption="report/sweep.rst", category="Sweep"),
        pdf=f"{RESULTS}/sweep.pdf",
    log:
        f"{RESULTS}/logs/plot_sweep.log",
    conda:
        "../envs/sns.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        settings=settings("plot_sweep", {"axes": list(SWEEP.axes), "labels": LABELS, "dpi": config["figures"]["dpi"]}),
        code=lambda wildcards: fingerprint("plot_sweep"),
        call=lambda wildcards, output: f"{PYTHON} -m sns_core plot_sweep",
    shell:
        command("plot_sweep")
