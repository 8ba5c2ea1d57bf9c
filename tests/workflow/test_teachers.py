"""A model that learns from another one, or from a method: its teacher is checked, made before it, followed by reruns, and counted."""

import json

import pytest
import yaml
from snakemake_calls import SYSTEM

from sns_workflow import plan
from sns_workflow.configuration import ConfigurationError, merge, read, validate
from sns_workflow.jobs import graph_of_jobs
from sns_workflow.sweep import dependencies

STUDENT = "distilled_2"


@pytest.fixture
def rivals(root, config) -> dict:
    """The smoke run with flow matching and its student."""
    for name in ("rivals", "smoke"):
        merge(config, yaml.safe_load((root / f"config/{name}.yaml").read_text()))
    config["use"]["methods"] = ["solver", "pointwise", STUDENT]
    for name in ("flow_matching", STUDENT):
        config["models"][name]["training"] |= {"steps": 40, "log_every": 20, "warmup": 5}
    return config


def test_a_teacher_is_trained_before_its_student_and_counts_in_its_cost(root, rivals, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    teacher = str(SYSTEM / "models/flow_matching.safetensors")
    with graph_of_jobs(str(root / "Snakefile"), rivals, ["all"]) as graph:
        jobs = {(job.rule.name, job.wildcards_dict.get("model")): job for job in graph.jobs}
        student = jobs["train_model", STUDENT]
        assert teacher in student.input and jobs["train_model", "flow_matching"] in graph.dependencies[student]
        assert json.loads(student.params.settings)["models"] == {"teacher": teacher}
        assert json.loads(jobs["train_model", "pointwise"].params.settings)["models"] == {}
        table = json.loads(jobs["tabulate_cost", None].params.settings)
        assert table["models"][STUDENT] == [STUDENT, "flow_matching"] and "flow_matching" in table["notes"]
        (rollout,) = {
            job for job in graph.jobs if job.rule.name == "rollout_ensemble" and job.wildcards.method == STUDENT
        }
        assert teacher not in rollout.input, "a student runs without its teacher"


def test_a_changed_teacher_changes_all_that_its_student_makes(rivals):
    before = dependencies(read(rivals))
    rivals["models"]["flow_matching"]["training"]["learning_rate"] = 1e-3
    now = dependencies(read(rivals))
    changed = {pattern for pattern in now if now[pattern] != before[pattern]}
    assert {pattern.partition("(")[0] for pattern in changed if "models" in pattern} == {
        r"kolmogorov/models/distilled_2\.", r"kolmogorov/models/flow_matching\."
    }  # fmt: skip
    assert [pattern for pattern in changed if pattern.startswith("kolmogorov/(rollouts/distilled_2/")]


def test_a_plan_counts_the_calls_of_a_student_and_of_its_teacher(rivals):
    scale = plan.Scale(read(rivals).systems["kolmogorov"])
    steps = scale.steps({"kind": "distilled_flow_matching", "models": {"velocity": STUDENT}}, 1, 1)["inference"]
    assert steps.flops == 2 * scale.network_call(STUDENT).flops
    learning = {}
    for name in ("flow_matching", STUDENT):
        job = plan.Job("train_model", {"name": name, "spec": scale.resolved["models"][name]}, "")
        learning[name] = plan.estimate(job, scale).work["training"].flops
    assert learning[STUDENT] / learning["flow_matching"] == pytest.approx((3 + 2 * 4) / 3)


MISTAKES = {
    "no teacher": ({}, "models.distilled_2.models: a model with the objective 'distilled_flow_matching' needs a teacher"),
    "an unknown teacher": ({"teacher": "flow_machting"}, "models.distilled_2.models.teacher: no model 'flow_machting'; did you"),
    "another objective": ({"teacher": "pointwise"}, "'pointwise' has the objective 'pointwise', the teacher of a model with the"),
    "a role without use": ({"teacher": "flow_matching", "pupil": "pointwise"}, "has no use for a pupil"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_about_a_teacher_is_one_line(rivals, mistake):
    rivals["models"][STUDENT]["models"], message = MISTAKES[mistake]
    with pytest.raises(ConfigurationError) as caught:
        validate(rivals)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_student_of_a_denoiser_has_its_diffusion(rivals):
    rivals["use"]["methods"] = ["solver", "distilled_generation_1"]
    student = rivals["models"]["distilled_generation_1"]
    models = read(rivals).systems["kolmogorov"]["models"]
    assert models["distilled_generation_1"]["diffusion"] == models["sns_residual"]["diffusion"]
    assert models["sns_residual"]["diffusion"]["levels"] == 20, "of the smoke run, which names the teacher alone"
    student["condition_level"] = 21
    with pytest.raises(ConfigurationError, match=r"condition_level: 21 exceeds the 20 noise levels of its diffusion"):
        validate(rivals)
    student |= {"condition_level": 0, "teacher_moves": 21}
    with pytest.raises(ConfigurationError, match=r"teacher_moves: 21 in each of 1 moves exceeds the 20 noise levels"):
        validate(rivals)
    student |= {"teacher_moves": 15, "diffusion": {**models["sns_residual"]["diffusion"], "levels": 30}}
    with pytest.raises(ConfigurationError, match=r"diffusion.levels: 30 is not the 20 of its teacher 'sns_residual'"):
        validate(rivals)


def test_an_objective_of_ones_own_may_have_another_diffusion_than_its_teacher(rivals, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from sns_core.methods import Surrogate\nfrom sns_core.training.objectives import PointwiseObjective\n\n\n"
        "class Pupil(PointwiseObjective):\n    needs = {'teacher': ('denoiser',)}\n\n\n"
        "class Alone(Surrogate):\n    needs = {'surrogate': ('mine.Pupil',)}\n"
    )
    models = rivals["models"]
    diffusion = {**models["sns_residual"]["diffusion"], "levels": 30}
    models["pupil"] = {
        **models["pointwise"], "objective": "mine.Pupil", "models": {"teacher": "sns_residual"}, "diffusion": diffusion
    }  # fmt: skip
    rivals["use"]["methods"] = ["solver", "alone"]
    rivals["methods"]["alone"] = {"label": "Alone", "kind": "mine.Alone", "models": {"surrogate": "pupil"}}
    assert read(rivals).systems["kolmogorov"]["models"]["pupil"]["diffusion"]["levels"] == 30


def test_a_model_cannot_learn_from_itself(rivals, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from sns_core.training.objectives import PointwiseObjective\n\n\n"
        "class Echo(PointwiseObjective):\n    needs = {'teacher': ('mine.Echo',)}\n"
    )
    for name, teacher in (("pointwise", "second"), ("second", "pointwise")):
        rivals["models"][name] = {
            **rivals["models"]["pointwise"],
            "objective": "mine.Echo",
            "models": {"teacher": teacher},
        }
    rivals["use"]["methods"] = ["solver", "echo"]
    rivals["methods"]["echo"] = {"label": "Echo", "kind": "mine.Alone", "models": {"surrogate": "pointwise"}}
    (tmp_path / "mine.py").open("a").write(
        "\n\nfrom sns_core.methods import Surrogate\n\n\nclass Alone(Surrogate):\n    needs = {'surrogate': ('mine.Echo',)}\n"
    )
    with pytest.raises(ConfigurationError, match=r"models\.pointwise\.models: 'pointwise' would learn from itself"):
        validate(rivals)


@pytest.fixture
def refined(root, config) -> dict:
    """The smoke run with `sns` and its student."""
    merge(config, yaml.safe_load((root / "config/smoke.yaml").read_text()))
    config["use"]["methods"] = ["solver", "pointwise", "sns", "sns_distilled"]
    return config


def test_a_student_of_a_refinement_is_trained_after_the_calibration_of_its_teacher(
    root, refined, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    calibration = str(SYSTEM / "calibrations/sns.json")
    with graph_of_jobs(str(root / "Snakefile"), refined, ["all"]) as graph:
        jobs = {(job.rule.name, *job.wildcards_dict.values()): job for job in graph.jobs}
        student = jobs["train_model", "kolmogorov", "sns_student"]
        assert jobs["calibrate_refinement", "kolmogorov", "sns"] in graph.dependencies[student]
        roles = json.loads(student.params.settings)["models"]
        assert roles["calibration"] == calibration and roles.keys() == {"calibration", "denoiser", "surrogate"}
        assert student in graph.dependencies[jobs["calibrate_refinement", "kolmogorov", "sns_distilled"]]
        (forecast,) = (
            j for j in graph.jobs if j.rule.name == "rollout_ensemble" and j.wildcards.method == "sns_distilled"
        )
        assert not {calibration, roles["denoiser"], roles["surrogate"]} & set(forecast.input), (
            "it runs without its teacher"
        )
    student = read(refined).systems["kolmogorov"]["models"]["sns_student"]
    assert student["diffusion"]["levels"] == 20 and student["run_up"] == 8


def test_a_student_of_a_refinement_does_not_predict_noise(refined):
    models = {"surrogate": "pointwise", "denoiser": "sns_white"}
    refined["methods"]["sns"]["models"] = refined["models"]["sns_student"]["models"] = models
    with pytest.raises(
        ConfigurationError, match=r"^models\.sns_student\.diffusion\.prediction: 'noise' tells a student"
    ):
        validate(refined)
    refined["models"]["sns_white"]["diffusion"]["prediction"] = "velocity"
    assert read(refined).systems["kolmogorov"]["models"]["sns_student"]["diffusion"]["prediction"] == "velocity"


CALIBRATION_MISTAKES = {
    "none": (lambda c: c["models"]["sns_student"].pop("calibration"), "models.sns_student.calibration: is missing; name a method of"),
    "not in use": (lambda c: c["use"]["methods"].remove("sns"), "'sns' is not in use.methods; name it there, too"),
    "no refinement": (lambda c: c["models"]["sns_student"].update(calibration="pointwise"), "'pointwise' is no calibrated refinement of"),
    "a word": (lambda c: c["models"]["sns_student"].update(calibration="sns_"), "refinement of this run; did you mean 'sns'?"),
    "other models": (lambda c: c["methods"]["sns"].update(models={"surrogate": "pointwise", "denoiser": "sns_white"}), "name the same"),
    "options": (lambda c: c["methods"]["sns"].update(level=5), "'sns' sets level, which a student does not learn"),
    "no use": (lambda c: c["models"]["pointwise"].update(calibration="sns"), "a model with the objective 'pointwise' reads none"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", CALIBRATION_MISTAKES)
def test_a_mistake_about_a_calibration_is_one_line(refined, mistake):
    change, message = CALIBRATION_MISTAKES[mistake]
    change(refined)
    with pytest.raises(ConfigurationError) as caught:
        validate(refined)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_plan_counts_the_steps_and_the_teacher_of_a_student_of_a_refinement(refined):
    scale = plan.Scale(read(refined).systems["kolmogorov"])
    job = plan.Job("train_model", {"name": "sns_student", "spec": scale.resolved["models"]["sns_student"]}, "")
    learning, call = plan.estimate(job, scale).work["training"].flops, scale.network_call("sns_student").flops
    assert learning == pytest.approx(40 * 8 * (3 + 2 + 1.635) * call, rel=1e-3)
