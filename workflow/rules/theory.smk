rule compute_theory:
    output:
        output=f"{RESULTS}/theory/theory.nc",
    log:
        f"{RESULTS}/logs/theory.log",
    conda:
        ENVIRONMENT
    resources:
        **small_job(mem_mb=2000, runtime=30),
    params:
        **parameters("compute_theory", **config["theory"], seed=config["seed"]),
    shell:
        command("compute_theory")


rule plot_theory:
    input:
        theory=f"{RESULTS}/theory/theory.nc",
    output:
        output=report(f"{RESULTS}/theory/theory.png", caption="../report/theory.rst", category="Theory"),
        pdf=f"{RESULTS}/theory/theory.pdf",
    log:
        f"{RESULTS}/logs/plot_theory.log",
    conda:
        ENVIRONMENT
    resources:
        **small_job(),
    params:
        **parameters("plot_theory", dpi=config["figures"]["dpi"]),
    shell:
        command("plot_theory")
