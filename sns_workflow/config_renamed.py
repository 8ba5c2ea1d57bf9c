"""Keys of the configuration that were renamed: their new names, for messages and for older runs."""

# Old name of a key -> its name now; `*` stands for any name. Tested against docs/configuration-keys.md.
RENAMED = {
    "device": "hardware.device",
    "devices": "hardware.devices",
    "precision": "hardware.precision",
    "compile": "hardware.compile",
    "given": "reuse",
    "models.*.training.low_condition": "models.*.training.low_condition_share",
    "methods.*.stepper": "methods.*.kind",
    "methods.*.readout.quantile": "methods.*.readout.refine_share",  # where the read-out is calibrated
    "methods.*.joint": "methods.*.shared_level",
    "methods.*.fixed": "methods.*.blind",
    "methods.*.every": "methods.*.refine_every",
    "methods.*.threshold": "methods.*.min_level",
    "methods.*.begin": "methods.*.start_from",
    "methods.*.anchor": "methods.*.anchor_frame",
    "rollout.block": "rollout.block_steps",
    "metrics.extra": "metrics.user",
    "metrics.cost.finest": "metrics.cost.finest_forecast",
    "metrics.diagnose.grid": "metrics.diagnose.levels",
    "theory.marks": "theory.training_steps",
}
RENAMED_VALUES = {"methods.*.kind": {"foreign": "external"}}


def name_now(old: str) -> str | None:
    """Return the name that a key has now; None for a key that was never renamed."""
    for pattern, new in RENAMED.items():
        words, parts = pattern.split("."), old.split(".")
        if len(words) == len(parts) and all(word in ("*", part) for word, part in zip(words, parts, strict=True)):
            return ".".join(parts[i] if word == "*" else word for i, word in enumerate(new.split(".")))
    return None


def with_new_names(config: dict) -> dict:
    """Rename, in place, every key of a configuration that has its old name (see RENAMED)."""
    for method in (config.get("methods") or {}).values():
        readout = method.get("readout", {})
        if readout.get("kind") != "quantile" and "quantile" in readout:
            share = readout.pop("quantile")  # only a calibrated read-out used it
            readout |= {"refine_share": share} if readout.get("kind") == "calibrated" else {}
    for old, new in RENAMED.items():
        if not old.endswith("readout.quantile"):
            _rename(config, old.split("."), new.split("."))
    for method in (config.get("methods") or {}).values():
        if "kind" in method:
            method["kind"] = RENAMED_VALUES["methods.*.kind"].get(method["kind"], method["kind"])
    for system in (config.get("systems") or {}).values():
        with_new_names(system.get("override") or {})
    return config


def _rename(config: dict, old: list[str], new: list[str]) -> None:
    """Move the value at the path `old` to the path `new`; the two agree in all names before a `*`."""
    if not isinstance(config, dict):
        return
    if "*" in old:
        star = old.index("*")
        for name in old[:star]:
            config = config.get(name) or {}
        for inner in config.values():
            _rename(inner, old[star + 1 :], new[star + 1 :])
        return
    holder = config
    for name in old[:-1]:
        holder = holder.get(name)
        if not isinstance(holder, dict):
            return
    if old[-1] in holder:
        value = holder.pop(old[-1])
        for name in new[:-1]:
            config = config.setdefault(name, {})
        config.setdefault(new[-1], value)
