# Questions about a run, and about the files that it reads.
INSPECTION = {
    "python": PYTHON,
    "snakefile": f"{PROJECT}/Snakefile",
    # With its links, that of a point of a sweep.
    "configuration": lambda wildcards, output: write_configuration(
        RESULTS, {**config, **({"linked": LINKED} if LINKED else {})}
    ),
    "cores": workflow.resource_settings.cores or 1,
}


include: "questions.smk"


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
