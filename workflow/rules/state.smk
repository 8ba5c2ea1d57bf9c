# What is there against what the configuration asks for, from the records beside the results; .snakemake is not asked.
# While another call is at work: snakemake --nolock status.
import shlex


def questioned(question):
    """The command that holds the folder against this configuration."""
    script = Path(workflow.basedir, "workflow", "scripts", "state.py")
    words = ["python", script, question, "--snakefile", workflow.snakefile]
    words += ["--configuration", configuration.as_parameter(config)]
    return " ".join(shlex.quote(str(word)) for word in words)


rule verify:
    log:
        f"{RESULTS}/logs/verify.log",
    conda:
        ENVIRONMENT
    params:
        command=questioned("verify"),
    shell:
        "{params.command} 2>&1 | tee {log:q}"


rule status:
    log:
        f"{RESULTS}/logs/status.log",
    conda:
        ENVIRONMENT
    params:
        command=questioned("status"),
    shell:
        "{params.command} 2>&1 | tee {log:q}"
