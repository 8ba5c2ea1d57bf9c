# Rules that hold what a run's folder holds against what the configuration asks for, from the records beside the results, and
# that say what a run will take. They ask nothing of .snakemake. While another call is at work: snakemake --nolock status.
def inspection(module, *words) -> str:
    """The shell command of such a rule, in Snakemake's format. The configuration is in a file: messages name the command."""
    call = " ".join(["{params.python}", "-m", f"sns_workflow.{module}", *words])
    return f"{call} --snakefile {{params.snakefile:q}} --configuration {{params.configuration:q}} 2>&1 | tee {{log:q}}"


def write_configuration(wildcards, output) -> str:
    """The whole configuration, written to a file."""
    path = Path(RESULTS, "logs", "configuration.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(configuration.as_parameter(config))
    return str(path)


INSPECTION = {"python": PYTHON, "snakefile": SNAKEFILE, "configuration": write_configuration}


rule verify:
    log:
        f"{RESULTS}/logs/verify.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **INSPECTION,
    shell:
        inspection("inspect_run", "verify")


rule status:
    log:
        f"{RESULTS}/logs/status.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **INSPECTION,
    shell:
        inspection("inspect_run", "status")


# What the configuration will take, before anything runs: jobs, hours and bytes of frames of each stage.
rule plan:
    log:
        f"{RESULTS}/logs/plan.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **INSPECTION,
    shell:
        inspection("plan")
