rule compute_theory:
    output:
        f"{RESULTS}/theory/theory.nc",
    log:
        f"{RESULTS}/logs/theory.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        settings=configuration.as_parameter(config["theory"]),
        options=" ".join(f"--{key.replace('_', '-')} '{json.dumps(value)}'" for key, value in config["theory"].items()),
        seed=config["seed"],
        code=fingerprint("compute_theory"),
    shell:
        stage("compute_theory") + "{params.options} --seed {params.seed} --output {output:q}"


rule plot_theory:
    input:
        f"{RESULTS}/theory/theory.nc",
    output:
        png=report(f"{RESULTS}/theory/theory.png", caption="../report/theory.rst", category="Theory"),
        pdf=f"{RESULTS}/theory/theory.pdf",
    log:
        f"{RESULTS}/logs/plot_theory.log",
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        dpi=config["figures"]["dpi"],
        code=fingerprint("plot_theory"),
    shell:
        stage("plot_theory") + "--theory {input:q} --dpi {params.dpi} --output {output.png:q}"
