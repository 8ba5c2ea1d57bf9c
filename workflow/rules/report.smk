report: "../report/workflow.rst"


CAPTIONS = {name: workflow.source_path(f"../report/{name}.rst") for name in [*FIGURES, "movie"]}


def get_captions(wildcards) -> dict:
    """Name of a figure -> the text of its caption."""
    return {name: Path(path).read_text(encoding="utf-8") for name, path in CAPTIONS.items()}


def get_provenance_files(wildcards) -> dict:
    """System -> files that tell what made its results."""
    files = {}
    for system in SYSTEMS:
        folder = f"{RESULTS}/{system}"
        files[system] = {
            "manifest": f"{folder}/shards/manifest.json",
            "data": {split: list_trajectories(system, split) for split in SPLITS},
            "models": {model: f"{folder}/models/{model}.safetensors" for model in get_models(system)},
            "segments": {method: list_segments(system, method) for method in METHODS},
        }
    return files


def get_report_files(wildcards) -> dict:
    """System -> what the report shows of it; methods and figures keep their order."""
    files = {}
    for system in SYSTEMS:
        folder, methods = f"{RESULTS}/{system}", get_methods(system)
        files[system] = {
            **{table: f"{folder}/{table}.csv" for table in TABLES},
            "figures": {name: f"{folder}/figures/{name}.png" for name in list_figures(system)},
            "movie": f"{folder}/figures/movie_small.mp4",
            "explorer": f"{folder}/explorer.html",
            "methods": [
                {"name": name, **{key: methods[name][key] for key in ("label", "kind")}} for name in methods
            ],
        }
    return files


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
            seed=config["seed"],
        ),
    shell:
        command("record_provenance")


rule write_report:
    input:
        figures=[f"{RESULTS}/{system}/figures/{name}.png" for system in SYSTEMS for name in list_figures(system)],
        movies=[f"{RESULTS}/{system}/figures/movie_small.mp4" for system in SYSTEMS],
        explorers=[f"{RESULTS}/{system}/explorer.html" for system in SYSTEMS],
        tables=[f"{RESULTS}/{system}/{table}.csv" for system in SYSTEMS for table in TABLES],
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
        **parameters("write_report", templates=["report.html.j2"], systems=get_report_files, captions=get_captions),
    shell:
        command("write_report")
