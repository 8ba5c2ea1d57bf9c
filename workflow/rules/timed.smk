# What is timed, on which grids, and whom it is held against: what the rules of cost.smk are told.
from types import SimpleNamespace


def grids(system) -> list[int]:
    """Points a side of the solver's grids, its own among them, the coarsest first."""
    return configuration.solver_grids(RESOLVED[system])


def finest(wildcards) -> int:
    """Points a side of the finest grid on which forecasts are made."""
    resolved = RESOLVED[wildcards.system]
    return round(resolved["metrics"]["cost"]["finest_forecast"] * resolved["system"]["parameters"]["resolution"])


def whole_machine(wildcards) -> int:
    """Cores of a job that is timed: all that this call has, so that nothing runs beside it; on a cluster one."""
    return (workflow.resource_settings.cores or 1) if workflow.local_exec else 1


def timed_methods(wildcards):
    """JSON of what is timed: each method that can be started from states of our choice."""
    found = {}
    for name in forecasters(wildcards.system):
        one = SimpleNamespace(system=wildcards.system, method=name)
        found[name] = {"method": json.loads(method_options(one)), "models": json.loads(model_roles(one))}
    return configuration.as_parameter(found)


def own_steppers(wildcards):
    """The user's own among the steppers that are timed."""
    names = forecasters(wildcards.system)
    return sorted({own for name in names for own in own_stepper(SimpleNamespace(system=wildcards.system, method=name))})


def models_of_methods(system):
    """Method -> names of the models that it needs, sorted: the order of roles is no part of the configuration."""
    methods = RESOLVED[system]["methods"]
    return {name: sorted(methods[name]["models"].values()) for name in forecasters(system)}


def learnt_from(system):
    """Trajectories that training has seen."""
    return [path for split in ("train", "validation") for path in trajectory_files(system, split)]


def notes_of_models(system):
    """Model -> the JSON beside it."""
    return {model: f"{RESULTS}/{system}/models/{model}.json" for model in models_used(system)}
