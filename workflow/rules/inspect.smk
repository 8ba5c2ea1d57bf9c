# Rules that hold what a run's folder holds against what the configuration asks for, from the records beside the results, and
# that say what a run will take. They ask nothing of .snakemake. While another call is at work: snakemake --nolock status.
INSPECTION = {"python": PYTHON, "snakefile": f"{PROJECT}/Snakefile", "configuration": write_configuration}


rule verify:
    log:
        f"{RESULTS}/logs/verify.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **INSPECTION,
    shell:
        inspection_command("inspect_run", "verify")


rule status:
    log:
        f"{RESULTS}/logs/status.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **INSPECTION,
    shell:
        inspection_command("inspect_run", "status")


# What the configuration will take, before anything runs: jobs, hours and bytes of frames of each stage.
rule plan:
    log:
        f"{RESULTS}/logs/plan.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **INSPECTION,
    shell:
        inspection_command("plan")


# What the files of a source hold, and whether they suffice.
rule inspect:
    log:
        f"{RESULTS}/logs/inspect.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **INSPECTION,
    shell:
        inspection_command("inspect_source")
