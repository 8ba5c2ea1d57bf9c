"""Settings of the tiny data set and the tiny models, which the tests of training, rollouts and faults share."""

from pathlib import Path

from sns_core.training import train_model

SYSTEM = {"name": "KolmogorovFlow", "parameters": {"resolution": 32, "viscosity": 5e-3, "dt": 0.02}}
EMULATOR = {"resolution": 16, "step": 0.1}
NETWORK = {
    "width": 8, "multipliers": [1, 2], "blocks": 1, "attention": False, "patch": 2, "head_features": "encoder",
    "head_kind": "ordinal", "head_width": 16,
}  # fmt: skip
TRAINING = {
    "steps": 30, "batch": 4, "learning_rate": 1e-3, "warmup": 5, "decay": "cosine", "weight_decay": 0.05, "clip": 1.0,
    "ema": 0.9, "log_every": 10, "checkpoint_every": 10, "trajectories": None, "frames": None, "symmetries": "translations", "unroll": 1,
    "input_noise": 0.0, "shell_weight": 0.0, "level_weight": 1.0, "low_condition_share": 0.0,
}  # fmt: skip
DIFFUSION = {
    "levels": 20, "schedule": "cosine", "prediction": "noise", "colour": 0.25, "anchor": True, "anchor_gap": 6,
}  # fmt: skip
SPECS = {
    "pointwise": {"objective": "pointwise", "network": NETWORK, "training": TRAINING},
    "denoiser": {"objective": "denoiser", "network": NETWORK, "training": TRAINING, "diffusion": DIFFUSION},
    "residual": {
        "objective": "denoiser", "network": NETWORK, "training": {**TRAINING, "low_condition_share": 0.5},
        "diffusion": {**DIFFUSION, "prediction": "residual"},
    },
    "unconditional": {
        "objective": "unconditional", "network": NETWORK, "training": TRAINING, "diffusion": {**DIFFUSION, "anchor": False},
    },
    "acdm": {
        "objective": "acdm", "network": NETWORK, "training": TRAINING,
        "diffusion": {**DIFFUSION, "schedule": "linear", "prediction": "velocity", "colour": 0.0, "anchor": False},
    },
    "crps": {
        "objective": "crps", "network": NETWORK, "training": {**TRAINING, "unroll": 2}, "noise_features": 4, "members": 3,
        "fairness": 0.95, "score": "crps",
    },
    "pushforward": {"objective": "pushforward", "network": NETWORK, "training": {**TRAINING, "unroll": 3}},
    "dissipative": {
        "objective": "dissipative", "network": NETWORK, "training": TRAINING, "dissipation_weight": 1.0, "contraction": 0.5,
        "radii": [2.0, 4.0],
    },
    "flow_matching": {"objective": "flow_matching", "network": NETWORK, "training": TRAINING},
    "rolling_window": {"objective": "rolling_window", "network": NETWORK, "training": TRAINING, "window": 3},
    "distilled": {
        "objective": "distilled_flow_matching", "network": NETWORK, "training": TRAINING,
        "models": {"teacher": "flow_matching"}, "moves": 2, "teacher_moves": 2, "bend": 2.0,
    },
    "distilled_generation": {
        "objective": "distilled_generation", "network": NETWORK, "training": TRAINING,
        "diffusion": {**DIFFUSION, "prediction": "residual"}, "models": {"teacher": "residual"},
        "moves": 2, "teacher_moves": 2, "bend": 2.0, "condition_level": 1,
    },
    "distilled_refinement": {
        "objective": "distilled_refinement", "network": NETWORK, "training": TRAINING,
        "diffusion": {**DIFFUSION, "prediction": "residual"}, "models": {"surrogate": "pointwise", "denoiser": "residual"},
        "calibration": "calibrated", "run_up": 4,
    },
    "pde_refiner": {
        "objective": "pde_refiner", "network": NETWORK, "training": TRAINING, "refinements": 3, "least_noise": 0.05,
    },
}  # fmt: skip

# Arguments of the stage that measures what a calibrated refinement follows.
CALIBRATED = {
    "name": "calibrated", "method": {"kind": "calibrated_refinement"}, "seed": 3, "device": "cpu", "precision": "float32",
}  # fmt: skip


def train(folder: Path, manifest: Path, name: str, spec: dict, **more) -> Path:
    """Train a model by its specification and return its file. `more` replaces arguments of the stage.

    Its teacher is one of the tiny models, which lie beside the folder of the manifest.
    """
    output, tiny = folder / f"{name}.safetensors", manifest.parent.parent
    settings = {"seed": 3, "device": "cpu", "precision": "float32", "history": folder / f"{name}.csv"}
    settings["models"] = {role: tiny / f"{model}.safetensors" for role, model in spec.get("models", {}).items()}
    if "calibration" in spec:
        settings["models"]["calibration"] = tiny / "calibration.json"
    train_model(name=name, spec=spec, manifest=manifest, output=output, **{**settings, **more})
    return output
