report: "../report/workflow.rst"


# The commit of the checkout is read by the job and is no parameter: a new commit alone reruns nothing.
rule record_provenance:
    input:
        manifests=[f"{RESULTS}/{system}/shards/manifest.json" for system in SYSTEMS],
        data=[path for system in SYSTEMS for split in SPLITS for path in trajectory_files(system, split)],
        models=[
            f"{RESULTS}/{system}/models/{model}.{kind}"
            for system in SYSTEMS
            for model in models_used(system)
            for kind in ("safetensors", "json")
        ],
        segments=[path for system in SYSTEMS for method in METHODS for path in segment_files(system, method)],
        metrics=[f"{RESULTS}/{system}/metrics.csv" for system in SYSTEMS],
    output:
        f"{RESULTS}/provenance.json",
    log:
        f"{RESULTS}/logs/provenance.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        configuration=configuration.as_parameter(config),
        systems=described,
        seed=config["seed"],
        code=fingerprint("record_provenance"),
    shell:
        stage("record_provenance") + "--configuration {params.configuration:q}"
        " --systems {params.systems:q} --seed {params.seed} --output {output:q}"


rule write_report:
    input:
        figures=[f"{RESULTS}/{system}/figures/{name}.png" for system in SYSTEMS for name in figure_names(system)],
        movies=[f"{RESULTS}/{system}/figures/movie_small.mp4" for system in SYSTEMS],
        explorers=[f"{RESULTS}/{system}/explorer.html" for system in SYSTEMS],
        tables=[f"{RESULTS}/{system}/{table}.csv" for system in SYSTEMS for table in TABLES],
        references=[f"{RESULTS}/{system}/metrics/reference.nc" for system in SYSTEMS],
        captions=[Path(PROJECT, "workflow", "report", f"{name}.rst") for name in [*FIGURES, "movie"]],
        template=Path(PROJECT, "sns_core", "report.html.j2"),
        provenance=f"{RESULTS}/provenance.json",
    output:
        report(f"{RESULTS}/report.html", caption="../report/workflow.rst", category="Report"),
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        systems=told,
        code=fingerprint("write_report"),
    shell:
        stage("write_report") + "--systems {params.systems:q}"
        " --captions {input.captions:q} --provenance {input.provenance:q} --output {output:q}"
