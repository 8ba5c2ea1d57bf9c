"""Which models a run trains: those of its methods, and those that other models learn from, their teachers."""

from collections.abc import Iterable


def teachers_of(model: dict) -> dict[str, str]:
    """Return role -> name of each model that the training of a model learns from."""
    return model.get("models", {})


def with_teachers(names: Iterable[str], models: dict[str, dict]) -> list[str]:
    """Return names of models, each once, followed by those of their teachers and of the teachers of these."""
    needed = list(dict.fromkeys(names))
    for name in needed:  # the list grows on the way
        needed += [teacher for teacher in teachers_of(models.get(name, {})).values() if teacher not in needed]
    return needed


def settle_diffusion(models: dict[str, dict]) -> None:
    """Give each model that learns from a denoiser, and names no diffusion of its own, that of its teacher."""
    for model in models.values():
        for teacher in teachers_of(model).values():
            if diffusion := models.get(teacher, {}).get("diffusion"):
                model.setdefault("diffusion", dict(diffusion))


def used_models(resolved: dict) -> list[str]:
    """Return the models that the methods of a system need, with their teachers."""
    named = [model for method in resolved["methods"].values() for model in method["models"].values()]
    return with_teachers(named, resolved["models"])
