# What moves: the movie that the report carries, and the page to explore a run.
rule plot_movie:
    input:
        segments=method_segments,
        metrics=method_metrics,
        reference=f"{RESULTS}/{{system}}/metrics/reference.nc",
        manifest=manifest,
    output:
        movie=report(
            f"{RESULTS}/{{system}}/figures/movie.mp4",
            caption="../report/movie.rst",
            category="{system}",
            labels={"figure": "Movie"},
        ),
        small=f"{RESULTS}/{{system}}/figures/movie_small.mp4",
    log:
        f"{RESULTS}/{{system}}/logs/plot_movie.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 20 * attempt,
    params:
        segments=segments_by_method,
        metrics=by_method(method_metrics),
        labels=labels,
        methods=json.dumps(shown_in_movie(config)),
        member=config["figures"]["fields"]["member"],
        seconds=config["figures"]["movie"]["seconds"],
        rate=config["figures"]["movie"]["rate"],
        code=code("plot_movie"),
    shell:
        stage("plot_movie")
        + "--segments {params.segments:q} --metrics {params.metrics:q} --reference {input.reference:q}"
        " --manifest {input.manifest:q} --labels {params.labels:q} --methods {params.methods:q} --member {params.member}"
        " --seconds {params.seconds} --rate {params.rate} --output {output.movie:q}"


rule write_explorer:
    input:
        segments=method_segments,
        metrics=method_metrics,
        reference=f"{RESULTS}/{{system}}/metrics/reference.nc",
        templates=[Path(PROJECT, "sns_core", "figures", "explorer", f"explorer.{kind}") for kind in ("html.j2", "css", "js")],
    output:
        report(
            f"{RESULTS}/{{system}}/explorer.html",
            caption="../report/explorer.rst",
            category="{system}",
            labels={"figure": "Explorer"},
        ),
    log:
        f"{RESULTS}/{{system}}/logs/explorer.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        segments=segments_by_method,
        metrics=by_method(method_metrics),
        labels=labels,
        methods=json.dumps(shown_in_movie(config)),
        members=config["figures"]["explorer"]["members"],
        megabytes=config["figures"]["explorer"]["megabytes"],
        title=lambda wildcards: f"{wildcards.system.capitalize()}, run “{config['run']}”",
        code=code("write_explorer"),
    shell:
        stage("write_explorer") + "--segments {params.segments:q} --metrics {params.metrics:q}"
        " --reference {input.reference:q} --labels {params.labels:q} --methods {params.methods:q}"
        " --members {params.members} --megabytes {params.megabytes} --title {params.title:q} --output {output:q}"
