# Rules that hold what the folder of a run, or of a sweep, holds against what the configuration asks for, from the records beside
# the results, and that say what it will take. They ask nothing of .snakemake. While another call is at work:
# snakemake --nolock status. The file that includes this one says in INSPECTION whom they ask.


rule verify:
    log:
        f"{RESULTS}/logs/verify.log",
    localrule: True
    conda:
        "../../envs/sns.yaml"
    params:
        **INSPECTION,
    shell:
        inspection_command("inspect_run", "verify")


rule status:
    log:
        f"{RESULTS}/logs/status.log",
    localrule: True
    conda:
        "../../envs/sns.yaml"
    params:
        **INSPECTION,
    shell:
        inspection_command("inspect_run", "status", "--cores", "{params.cores}")


# What the configuration will take, before anything runs: jobs, hours and bytes of frames of each stage.
rule plan:
    log:
        f"{RESULTS}/logs/plan.log",
    localrule: True
    conda:
        "../../envs/sns.yaml"
    params:
        **INSPECTION,
    shell:
        inspection_command("plan")
