# Rules that hold what a run's folder holds against what the configuration asks for, from the records beside the results, and
# that say what a run will take. They ask nothing of .snakemake. While another call is at work: snakemake --nolock status.
INSPECTION = {
    "python": PYTHON,
    "snakefile": f"{PROJECT}/Snakefile",
    "configuration": write_configuration,
    "cores": workflow.resource_settings.cores or 1,
}


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
        inspection_command("inspect_run", "status", "--cores", "{params.cores}")


# A page of what there is so far, also during a call: snakemake --nolock progress
rule progress:
    log:
        f"{RESULTS}/logs/progress.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **INSPECTION,
    shell:
        inspection_command("inspect_run", "progress", "--cores", "{params.cores}")


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
