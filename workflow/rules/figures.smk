# One rule per figure, all from this table: title, inputs and settings. Labels, resolution and those inputs that a stage takes as
# a mapping (method -> files) are settings, too, of each stage that takes them.


REFERENCE = {"reference": get_reference}
METRICS = {"metrics": get_metrics, **REFERENCE}
SHARED = {"labels": get_labels, "dpi": config["figures"]["dpi"]}
FIGURES = {
    "fields": (
        "1 Fields",
        {"segments": get_segments, **METRICS},
        {"steps": config["figures"]["fields"]["steps"], "member": config["figures"]["fields"]["member"]},
    ),
    "phase_space": ("2 Phase space", {}, {}),
    "condition_error": ("3 Condition and error", {"diagnostics": get_diagnostics}, {}),
    "temporal": ("5 Temporal coherence", METRICS, {}),
    "ablation": ("6 Accuracy and cost", {"tables": get_table("metrics"), **METRICS}, {}),
    "levels": (
        "7 Noise levels",
        {"diagnostics": get_diagnostics, **METRICS},
        {"surrogates": get_surrogate_methods},
    ),
    "error": ("8 Distance from the solver", METRICS, {}),
    "spectra": (
        "9 Spectra",
        {"windows": get_table("windows"), **METRICS},
        {"shells": config_slice("metrics", "shells")},
    ),
    "zonal": (
        "10 Zonal flow",
        METRICS,
        {"member": config["figures"]["fields"]["member"], "window": config_slice("metrics", "window")},
    ),
    "spin_up": (
        "11 Spin-up",
        {"manifest": get_manifest, "trajectories": get_trajectories, "stationarity": get_check},
        {},
    ),
    "distributions": ("12 Distributions", METRICS, {}),
    "scorecard": ("13 Scorecard", {"table": get_table("scorecard")}, {}),
    "held_out": (
        "14 Held-out frames and rollouts",
        {"table": get_table("held_out"), "agreement": get_table("held_out_agreement")},
        {},
    ),
    "cost": ("15 Cost", {"table": get_table("cost")}, {}),
    "calibration": ("16 Calibration", {"calibrations": get_calibrations}, {}),
}


for name, (title, inputs, values) in FIGURES.items():

    rule:
        name:
            f"plot_{name}"
        input:
            **{
                key: ancient(files_of(getter)) if key == "trajectories" else files_of(getter)
                for key, getter in inputs.items()
            },
        output:
            output=report(
                f"{RESULTS}/{{system}}/figures/{name}.png",
                caption=f"../report/{name}.rst",
                category="{system}",
                labels={"figure": title},
            ),
            pdf=f"{RESULTS}/{{system}}/figures/{name}.pdf",
        log:
            f"{RESULTS}/{{system}}/logs/plot_{name}.log",
        conda:
            ENVIRONMENT
        resources:
            **small_job(),
        params:
            **parameters(f"plot_{name}", shared={**SHARED, **inputs}, **values),
            flags=flags(f"plot_{name}"),
        shell:
            command_in_a_loop()
