rule plot_movie:
    input:
        segments=files_of(get_segments),
        metrics=files_of(get_metrics),
        reference=get_reference,
        manifest=get_manifest,
    output:
        output=report(
            f"{RESULTS}/{{system}}/figures/movie.mp4",
            caption="../report/movie.rst",
            category="{system}",
            labels={"figure": "Movie"},
        ),
        small=f"{RESULTS}/{{system}}/figures/movie_small.mp4",
    log:
        f"{RESULTS}/{{system}}/logs/plot_movie.log",
    priority: 1
    conda:
        ENVIRONMENT
    resources:
        **small_job(runtime=20),
    params:
        **parameters(
            "plot_movie",
            segments=get_segments,
            metrics=get_metrics,
            labels=get_labels,
            methods=get_methods_shown,
            member=config["figures"]["fields"]["member"],
            seconds=config["figures"]["movie"]["seconds"],
            rate=config["figures"]["movie"]["rate"],
        ),
    shell:
        command("plot_movie")


rule write_explorer:
    input:
        segments=files_of(get_segments),
        metrics=files_of(get_metrics),
        reference=get_reference,
    output:
        output=report(
            f"{RESULTS}/{{system}}/explorer.html",
            caption="../report/explorer.rst",
            category="{system}",
            labels={"figure": "Explorer"},
        ),
    log:
        f"{RESULTS}/{{system}}/logs/explorer.log",
    conda:
        ENVIRONMENT
    resources:
        **small_job(),
    params:
        **parameters(
            "write_explorer",
            templates=[f"figures/explorer/explorer.{kind}" for kind in ("html.j2", "css", "js")],
            segments=get_segments,
            metrics=get_metrics,
            labels=get_labels,
            methods=get_methods_shown,
            members=config["figures"]["explorer"]["members"],
            megabytes=config["figures"]["explorer"]["megabytes"],
            title=lambda wildcards: f"{titled(wildcards.system)}, run “{config['run']}”",
        ),
    shell:
        command("write_explorer")
