# Three seeds of one configuration, each from its own data on, and the table of their means and spreads:
#
#   snakemake -s workflow/seeds.smk --cores 2 seeds                                     of the demo
#   snakemake -s workflow/seeds.smk --cores 2 --configfile config/qg-demo.yaml seeds    of another scale
#
# The first seed is the configuration's own run; the others lie beside it, in <run>-seed1 and <run>-seed2.
import sys
from pathlib import Path

HOME = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent
sys.path[:0] = [str(HOME), str(Path(HOME, "workflow", "scripts"))]
from fingerprint import fingerprint


configfile: Path(HOME, "config", "config.yaml")


def another(number):
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
        another(1)


module third:
    snakefile:
        str(HOME / "Snakefile")
    config:
        another(2)


RUNS = [config["run"], another(1)["run"], another(2)["run"]]
SEEDS = [config["seed"] + number for number in range(3)]
SYSTEMS = config["use"]["systems"]


rule seeds:
    input:
        [f"{config['results']}/{config['run']}/{system}/seeds.csv" for system in SYSTEMS],


rule compare_seeds:
    input:
        [f"{config['results']}/{run}/{{system}}/scorecard.csv" for run in RUNS],
    output:
        table=f"{config['results']}/{config['run']}/{{system}}/seeds.csv",
        readable=f"{config['results']}/{config['run']}/{{system}}/seeds.md",
    log:
        f"{config['results']}/{config['run']}/{{system}}/logs/seeds.log",
    conda:
        Path(HOME, "envs", "sns.yaml")
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        seeds=str(SEEDS),
        code=fingerprint("compare_seeds"),
    shell:
        "python -m sns_core compare_seeds --threads {threads} --code {params.code} --log {log:q} --scorecards {input:q}"
        " --seeds {params.seeds:q} --output {output.table:q} --output-readable {output.readable:q}"


use rule * from first as first_*


use rule * from second as second_*


use rule * from third as third_*
