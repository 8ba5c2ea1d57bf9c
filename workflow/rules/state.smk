# What is there against what the configuration asks for, from the records beside the results; .snakemake is not asked.
# While another call is at work: snakemake --nolock status.
rule verify:
    log:
        f"{RESULTS}/logs/verify.log",
    conda:
        ENVIRONMENT
    params:
        script=Path(PROJECT, "workflow", "scripts", "state.py"),
        snakefile=Path(PROJECT, "Snakefile"),
        configuration=configuration_file,
    shell:
        "python {params.script:q} verify --snakefile {params.snakefile:q} --configuration {params.configuration:q} 2>&1 | tee {log:q}"


rule status:
    log:
        f"{RESULTS}/logs/status.log",
    conda:
        ENVIRONMENT
    params:
        script=Path(PROJECT, "workflow", "scripts", "state.py"),
        snakefile=Path(PROJECT, "Snakefile"),
        configuration=configuration_file,
    shell:
        "python {params.script:q} status --snakefile {params.snakefile:q} --configuration {params.configuration:q} 2>&1 | tee {log:q}"


# What the configuration will take, before anything runs: jobs, bytes and hours of each stage.
rule plan:
    log:
        f"{RESULTS}/logs/plan.log",
    conda:
        ENVIRONMENT
    params:
        script=Path(PROJECT, "workflow", "scripts", "plan.py"),
        snakefile=Path(PROJECT, "Snakefile"),
        configuration=configuration_file,
    shell:
        "python {params.script:q} --snakefile {params.snakefile:q} --configuration {params.configuration:q} 2>&1 | tee {log:q}"
