"""What trained quantizers are trained on, in words."""

from dataclasses import replace

import pytest

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.evaluation.planning.training_data import describe_training
from pytest_qreliab.quantizers.parameters import Parameters

LABELS = "calibration images and class prompts of {}, with labels"
NO_LABELS = "calibration images and class prompts of {}, without labels"
PAIRS = "image-caption pairs in pairs.csv"
IMAGES = "calibration images of {}, without labels"
PROMPTS = "class prompts of {}"


@pytest.fixture
def plan_of(make_plan, small_benchmark, tmp_path):
    """Makes a plan on the small benchmark: `calibration` has no captions, `both` has, `captions` has nothing else."""
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "pairs.csv").write_text("image,caption\na.png,a caption\n")
    text = small_benchmark.read_text()
    pairs = "captions: {source: table, path: pairs.csv}"
    own = "{source: digits, part: train, limit: 100}"
    texts = {"calibration": text, "both": text.replace(own, f"{own[:-1]}, {pairs}}}")}
    texts["captions"] = text.replace(own, f"{{{pairs}}}")

    def make(name, **given):
        path = tmp_path / f"{name}.yaml"
        path.write_text(texts[name])
        return make_plan(benchmarks=str(path), **given)

    return make


@pytest.mark.parametrize(
    ("quantizer", "scope", "words"),
    [
        ("minmax", "both", ["", "", ""]),
        ("lsq", "both", [NO_LABELS, f"{IMAGES}, and captions of {PAIRS}", PAIRS]),
        ("omniquant", "vision", [IMAGES, IMAGES, f"images of {PAIRS}"]),
        ("dsq", "text", [PROMPTS, f"captions of {PAIRS}", f"captions of {PAIRS}"]),
        ("distillation", "vision", [NO_LABELS, PAIRS, PAIRS]),
        ("lsq+contrastive", "text", [LABELS, PAIRS, PAIRS]),
        ("lsq+contrastive+mse", "both", [LABELS, PAIRS, PAIRS]),
    ],
)
def test_what_a_quantizer_is_trained_on_is_said_in_words(plan_of, quantizer, scope, words):
    for name, expected in zip(("calibration", "both", "captions"), words, strict=True):
        plan = plan_of(name, quantizers=quantizer, scopes=scope, bits="w4a8")
        assert plan.training[plan.cases[0]].words == expected.format(name)


def test_labels_of_the_tested_classes_are_warned_of_and_captions_are_not(plan_of):
    plan = plan_of("calibration", quantizers="lsq+contrastive,lsq+contrastive+rescale,lsq,distillation", bits="w4,w3")
    warnings = {case.build.quantizer: plan.warnings(case) for case in plan.cases}
    (warning,) = warnings["lsq+contrastive"]
    assert warning.startswith("calibration: lsq+contrastive is trained on labels of the classes that it is tested on")
    assert "add `captions:` to " in warning
    assert "calibration.yaml:5" in warning
    assert len(warnings["lsq+contrastive+rescale"]) == 1
    assert warnings["lsq"] == warnings["distillation"] == ()
    plan = plan_of("both", quantizers="lsq+contrastive", bits="w4")
    assert plan.warnings(plan.cases[0]) == ()


def test_a_refitted_logit_scale_has_seen_labels_and_a_control_what_it_matches(plan_of, tmp_path):
    plan = plan_of("both", quantizers="minmax+rescale,distillation+rescale", bits="w4")
    scale = "labelled calibration images of both (the logit scale alone)"
    assert [plan.training[case].words for case in plan.cases] == [scale, f"{PAIRS}; {scale}"]
    suite = tmp_path / "suite.yaml"
    suite.write_text("version: 1\nbits: [w4]\nquantizers: [{name: x, quantizer: noise, match: lsq+contrastive}]\n")
    plan = plan_of("calibration", suite=str(suite))
    assert plan.training[plan.cases[0]].words == LABELS.format("calibration")
    assert plan.warnings(plan.cases[0])[0].startswith("calibration: x is trained on labels")


def test_what_another_package_makes_of_pairs_is_said_too(plan_of):
    plan = plan_of("calibration", quantizers="lsq", bits="w4")
    (case,) = plan.cases
    recipe = plan.recipes["lsq"]
    other = replace(recipe, quantizer=replace(recipe.quantizer, needs="pairs"), parameters=Parameters())
    found = describe_training(case, other, Benchmark.load("digits"), plan.data["calibration"])
    assert found.words == LABELS.format("digits")
