report: "../report/workflow.rst"


CAPTIONS = {name: workflow.source_path(f"../report/{name}.rst") for name in [*FIGURES, "movie"]}


# The job itself reads the commit of the checkout, which is no parameter: a new commit alone reruns nothing.
rule record_provenance:
    input:
        files=files_of(get_provenance_files),
        notes=[f"{RESULTS}/{system}/models/{model}.json" for system in SYSTEMS for model in get_models(system)],
        metrics=[f"{RESULTS}/{system}/metrics.csv" for system in SYSTEMS],
    output:
        output=f"{RESULTS}/provenance.json",
    log:
        f"{RESULTS}/logs/provenance.log",
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        **small_job(),
    params:
        **parameters(
            "record_provenance",
            configuration=lambda wildcards: in_order_of_keys(config),
            systems=get_provenance_files,
            methods=get_methods_of_systems,
            seed=config["seed"],
        ),
    shell:
        command("record_provenance")


rule write_report:
    input:
        figures=[f"{RESULTS}/{system}/figures/{name}.png" for system in SYSTEMS for name in list_figures(system)],
        movies=[f"{RESULTS}/{system}/figures/movie_small.mp4" for system in SYSTEMS],
        explorers=[f"{RESULTS}/{system}/explorer.html" for system in SYSTEMS],
        tables=[f"{RESULTS}/{system}/{table}.csv" for system in SYSTEMS for table in get_tables(system)],
        references=[
            f"{RESULTS}/{system}/metrics/{name}" for system in SYSTEMS for name in ("reference.nc", "floors.csv")
        ],
        checks=[path for system in SYSTEMS for path in list_checks(system)],
        provenance=f"{RESULTS}/provenance.json",
    output:
        output=report(f"{RESULTS}/report.html", caption="../report/workflow.rst", category="Report"),
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        ENVIRONMENT
    resources:
        **small_job(),
    params:
        **parameters(
            "write_report", templates=["report.html.j2", "page.css"], systems=get_report_files, captions=get_captions
        ),
    shell:
        command("write_report")
