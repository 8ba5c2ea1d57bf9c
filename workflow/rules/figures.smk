include: "pages.smk"


rule plot_fields:
    input:
        segments=method_segments,
        metrics=method_metrics,
        reference=f"{RESULTS}/{{system}}/metrics/reference.nc",
    output:
        **drawn("fields"),
    log:
        f"{RESULTS}/{{system}}/logs/plot_fields.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        segments=segments_by_method,
        metrics=by_method(method_metrics),
        steps=json.dumps(config["figures"]["fields"]["steps"]),
        member=config["figures"]["fields"]["member"],
        labels=labels,
        dpi=config["figures"]["dpi"],
        code=code("plot_fields"),
    shell:
        stage("plot_fields")
        + "--segments {params.segments:q} --metrics {params.metrics:q} --reference {input.reference:q}"
        " --steps {params.steps:q} --member {params.member}"
        " --labels {params.labels:q} --dpi {params.dpi} --output {output.png:q}"


rule plot_phase_space:
    output:
        **drawn("phase_space"),
    log:
        f"{RESULTS}/{{system}}/logs/plot_phase_space.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        dpi=config["figures"]["dpi"],
        code=fingerprint("plot_phase_space"),
    shell:
        stage("plot_phase_space") + "--dpi {params.dpi} --output {output.png:q}"


rule plot_condition_error:
    input:
        diagnostics=method_diagnostics,
    output:
        **drawn("condition_error"),
    log:
        f"{RESULTS}/{{system}}/logs/plot_condition_error.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        diagnostics=by_method(method_diagnostics, refinements),
        labels=labels,
        dpi=config["figures"]["dpi"],
        code=code("plot_condition_error"),
    shell:
        stage("plot_condition_error") + "--diagnostics {params.diagnostics:q}"
        " --labels {params.labels:q} --dpi {params.dpi} --output {output.png:q}"


rule plot_temporal:
    input:
        metrics=method_metrics,
        reference=f"{RESULTS}/{{system}}/metrics/reference.nc",
    output:
        **drawn("temporal"),
    log:
        f"{RESULTS}/{{system}}/logs/plot_temporal.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        metrics=by_method(method_metrics),
        labels=labels,
        dpi=config["figures"]["dpi"],
        code=code("plot_temporal"),
    shell:
        stage("plot_temporal") + "--metrics {params.metrics:q} --reference {input.reference:q}"
        " --labels {params.labels:q} --dpi {params.dpi} --output {output.png:q}"


rule plot_ablation:
    input:
        tables=f"{RESULTS}/{{system}}/metrics.csv",
        metrics=method_metrics,
        reference=f"{RESULTS}/{{system}}/metrics/reference.nc",
    output:
        **drawn("ablation"),
    log:
        f"{RESULTS}/{{system}}/logs/plot_ablation.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        metrics=by_method(method_metrics),
        labels=labels,
        dpi=config["figures"]["dpi"],
        code=code("plot_ablation"),
    shell:
        stage("plot_ablation")
        + "--tables {input.tables:q} --metrics {params.metrics:q} --reference {input.reference:q} --labels {params.labels:q} --dpi {params.dpi} --output {output.png:q}"


rule plot_levels:
    input:
        metrics=method_metrics,
        diagnostics=method_diagnostics,
        reference=f"{RESULTS}/{{system}}/metrics/reference.nc",
    output:
        **drawn("levels"),
    log:
        f"{RESULTS}/{{system}}/logs/plot_levels.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        metrics=by_method(method_metrics),
        diagnostics=by_method(method_diagnostics, refinements),
        surrogates=surrogates,
        labels=labels,
        dpi=config["figures"]["dpi"],
        code=code("plot_levels"),
    shell:
        stage("plot_levels") + "--metrics {params.metrics:q} --diagnostics {params.diagnostics:q}"
        " --surrogates {params.surrogates:q} --reference {input.reference:q}"
        " --labels {params.labels:q} --dpi {params.dpi} --output {output.png:q}"


rule plot_error:
    input:
        metrics=method_metrics,
        reference=f"{RESULTS}/{{system}}/metrics/reference.nc",
    output:
        **drawn("error"),
    log:
        f"{RESULTS}/{{system}}/logs/plot_error.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        metrics=by_method(method_metrics),
        labels=labels,
        dpi=config["figures"]["dpi"],
        code=code("plot_error"),
    shell:
        stage("plot_error") + "--metrics {params.metrics:q} --reference {input.reference:q}"
        " --labels {params.labels:q} --dpi {params.dpi} --output {output.png:q}"


rule plot_spectra:
    input:
        metrics=method_metrics,
        reference=f"{RESULTS}/{{system}}/metrics/reference.nc",
        windows=f"{RESULTS}/{{system}}/windows.csv",
    output:
        **drawn("spectra"),
    log:
        f"{RESULTS}/{{system}}/logs/plot_spectra.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        metrics=by_method(method_metrics),
        shells=part("metrics", "shells"),
        labels=labels,
        dpi=config["figures"]["dpi"],
        code=code("plot_spectra"),
    shell:
        stage("plot_spectra") + "--metrics {params.metrics:q} --reference {input.reference:q}"
        " --windows {input.windows:q} --shells {params.shells:q}"
        " --labels {params.labels:q} --dpi {params.dpi} --output {output.png:q}"


rule plot_zonal:
    input:
        metrics=method_metrics,
        reference=f"{RESULTS}/{{system}}/metrics/reference.nc",
    output:
        **drawn("zonal"),
    log:
        f"{RESULTS}/{{system}}/logs/plot_zonal.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        metrics=by_method(method_metrics),
        member=config["figures"]["fields"]["member"],
        window=part("metrics", "window"),
        labels=labels,
        dpi=config["figures"]["dpi"],
        code=code("plot_zonal"),
    shell:
        stage("plot_zonal") + "--metrics {params.metrics:q} --reference {input.reference:q}"
        " --member {params.member} --window {params.window} --labels {params.labels:q} --dpi {params.dpi} --output {output.png:q}"


rule plot_spin_up:
    input:
        manifest=manifest,
        trajectories=ancient(
            lambda wildcards: [path for split in SPLITS for path in trajectory_files(wildcards.system, split)]
        ),
    output:
        **drawn("spin_up"),
    log:
        f"{RESULTS}/{{system}}/logs/plot_spin_up.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        trajectories=lambda wildcards: json.dumps(trajectories_by_split(wildcards.system)),
        dpi=config["figures"]["dpi"],
        code=code("plot_spin_up"),
    shell:
        stage("plot_spin_up") + "--trajectories {params.trajectories:q} --dpi {params.dpi} --output {output.png:q}"


rule plot_distributions:
    input:
        metrics=method_metrics,
        reference=f"{RESULTS}/{{system}}/metrics/reference.nc",
    output:
        **drawn("distributions"),
    log:
        f"{RESULTS}/{{system}}/logs/plot_distributions.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        metrics=by_method(method_metrics),
        labels=labels,
        dpi=config["figures"]["dpi"],
        code=code("plot_distributions"),
    shell:
        stage("plot_distributions") + "--metrics {params.metrics:q} --reference {input.reference:q}"
        " --labels {params.labels:q} --dpi {params.dpi} --output {output.png:q}"


rule plot_scorecard:
    input:
        f"{RESULTS}/{{system}}/scorecard.csv",
    output:
        **drawn("scorecard"),
    log:
        f"{RESULTS}/{{system}}/logs/plot_scorecard.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        labels=labels,
        dpi=config["figures"]["dpi"],
        code=code("plot_scorecard"),
    shell:
        stage("plot_scorecard")
        + "--table {input:q} --labels {params.labels:q} --dpi {params.dpi} --output {output.png:q}"


rule plot_held_out:
    input:
        table=f"{RESULTS}/{{system}}/held_out.csv",
        agreement=f"{RESULTS}/{{system}}/held_out_agreement.csv",
    output:
        **drawn("held_out"),
    log:
        f"{RESULTS}/{{system}}/logs/plot_held_out.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        labels=labels,
        dpi=config["figures"]["dpi"],
        code=code("plot_held_out"),
    shell:
        stage("plot_held_out") + "--table {input.table:q} --agreement {input.agreement:q}"
        " --labels {params.labels:q} --dpi {params.dpi} --output {output.png:q}"


rule plot_cost:
    input:
        f"{RESULTS}/{{system}}/cost.csv",
    output:
        **drawn("cost"),
    log:
        f"{RESULTS}/{{system}}/logs/plot_cost.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        labels=labels,
        dpi=config["figures"]["dpi"],
        code=code("plot_cost"),
    shell:
        stage("plot_cost") + "--table {input:q} --labels {params.labels:q} --dpi {params.dpi} --output {output.png:q}"
