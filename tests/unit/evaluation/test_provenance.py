"""The data and the environment of a case, in words."""

import platform
from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest
import torch

from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.data.images import Corruption, HubOrigin, from_arrays
from pytest_qreliab.evaluation.provenance import describe_commits, describe_data, describe_environment


def images(name: str, count: int, labels=None):
    return from_arrays(name, np.zeros((count, 2, 2), np.uint8), labels)


@pytest.fixture
def data():
    inside = images("inside", 4, np.array([0, 1, 0, 1]))
    foggy = {f"corruption.fog.{level}": replace(inside, corruption=Corruption("fog", level, 0)) for level in (1, 2)}
    return Dataset(
        classes=("cat", "dog"),
        templates=("a {}.", "{}", "the {}"),
        in_distribution=inside,
        calibration=None,
        ood={"letters": images("letters", 7)},
        labelled={**foggy, "shift.some": images("some", 3, np.array([1, 1, 0]))},
    )


def by_name(of_set) -> str:
    return of_set.name


def changed(before: Dataset, after: Dataset) -> set[str]:
    one, other = describe_data(before, by_name), describe_data(after, by_name)
    return {name for name in {*one, *other} if one.get(name) != other.get(name)}


def test_each_part_has_its_size_and_corrupted_sets_are_one(data):
    sizes = {name: text.rpartition(" ")[0] for name, text in describe_data(data, by_name).items()}
    assert sizes == {
        "classes": "2",
        "templates": "3",
        "preprocessing": "",
        "in_distribution": "4 images",
        "ood.far.letters": "7 images",
        "shift.some": "3 images",
        "corruption": "2 sets",
    }


def test_captions_are_data_too(data):
    captioned = replace(data, captions=replace(images("pairs", 2), captions=["a", "b"]))
    other = replace(data, captions=replace(captioned.captions, captions=["a", "c"]))
    assert changed(data, captioned) == changed(captioned, other) == {"captions"}


def test_recorded_samples_are_no_images(data):
    described = describe_data(replace(data, recorded=True), by_name)
    assert described["in_distribution"].startswith("4 samples ")


def test_a_change_of_one_part_changes_its_description_alone(data):
    assert changed(data, replace(data, classes=("cat", "owl"))) == {"classes"}
    assert changed(data, replace(data, templates=("a {}.", "{}", "one {}"))) == {"templates"}
    other = replace(data.ood["letters"], name="others")
    assert changed(data, replace(data, ood={"letters": other})) == {"ood.far.letters"}
    relabelled = replace(data.labelled["shift.some"], labels=np.array([0, 1, 0]))
    assert changed(data, replace(data, labelled={**data.labelled, "shift.some": relabelled})) == {"shift.some"}
    fog = data.labelled["corruption.fog.2"]
    reseeded = replace(fog, corruption=Corruption("fog", 2, 1))
    assert changed(data, replace(data, labelled={**data.labelled, "corruption.fog.2": reseeded})) == {"corruption"}
    assert changed(data, replace(data)) == set()


def test_the_environment_names_what_numbers_may_depend_on():
    found = describe_environment(torch.device("cpu"))
    for name, distribution in (("pytest-qreliab", "pytest-qreliab"), ("torch", "torch"), ("numpy", "numpy")):
        assert found[name] == metadata.version(distribution)
    assert found["python"] == platform.python_version()
    assert found["device"].startswith("cpu ")
    fixed = describe_environment(torch.device("cpu"), deterministic=True)
    assert fixed == {**found, "kernels": "deterministic"}


def test_the_commits_of_a_hub_are_named_with_what_they_are_of(data):
    assert describe_commits({"file": "model.pt"}, data) == {}
    images = replace(data.in_distribution, origin=HubOrigin("org/photos", "a" * 40))
    model = {"repository": "org/name@main", "commit": "b" * 40}
    assert describe_commits(model, replace(data, in_distribution=images)) == {
        "model repository": "org/name@main",
        "model commit": "b" * 40,
        "data set org/photos": "a" * 40,
    }
