# Three seeds of one configuration, each from its own data on, and the table of their means and spreads:
#
#   snakemake -s workflow/seeds.smk --cores 2 seeds                                     of the demo
#   snakemake -s workflow/seeds.smk --cores 2 --configfile config/qg-demo.yaml -- seeds    of another scale
#
# The first seed is the configuration's own run; the others lie beside it, in <run>-seed1 and <run>-seed2.
import sys
from pathlib import Path

HOME = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent
sys.path.insert(0, str(HOME))  # a clone runs its own code and not the installed one
from sns_workflow import configuration
from sns_workflow.command import command, python, settings
from sns_workflow.fingerprint import fingerprint


configfile: Path(HOME, "config", "config.yaml")


config = configuration.read_or_stop(config, workflow).whole


def configuration_of(number):
    return {**config, "run": f"{config['run']}-seed{number}", "seed": config["seed"] + number}


module first:
    snakefile:
        str(HOME / "Snakefile")
    config:
        config


module second:
    snakefile:
        str(HOME / "Snakefile")
    config:
        configuration_of(1)


module third:
    snakefile:
        str(HOME / "Snakefile")
    config:
        configuration_of(2)


RUNS = [config["run"], configuration_of(1)["run"], configuration_of(2)["run"]]
SEEDS = [config["seed"] + number for number in range(3)]
SYSTEMS = config["use"]["systems"]
PYTHON = python(deployed=bool(workflow.deployment_settings.deployment_method))


rule seeds:
    input:
        [f"{config['results']}/{config['run']}/{system}/seeds.csv" for system in SYSTEMS],


rule compare_seeds:
    input:
        scorecards=[f"{config['results']}/{run}/{{system}}/scorecard.csv" for run in RUNS],
    output:
        output=f"{config['results']}/{config['run']}/{{system}}/seeds.csv",
        output_readable=f"{config['results']}/{config['run']}/{{system}}/seeds.md",
    log:
        f"{config['results']}/{config['run']}/{{system}}/logs/seeds.log",
    conda:
        "../envs/sns.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        settings=settings("compare_seeds", {"seeds": SEEDS}),
        code=lambda wildcards: fingerprint("compare_seeds"),
        call=lambda wildcards, output: f"{PYTHON} -m sns_core compare_seeds",
    shell:
        command("compare_seeds")


use rule * from first as first_*


use rule * from second as second_*


use rule * from third as third_*
