"""Descriptions, in words, of the data and the environment of a case."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping

import torch

from pytest_qreliab._version import __version__
from pytest_qreliab.config.set_names import CORRUPTION
from pytest_qreliab.data.dataset import Dataset
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.embedding.keys import LIBRARIES, device_kind, package_versions
from pytest_qreliab.hashing import digest


def describe_environment(device: torch.device, *, deterministic: bool = False) -> dict[str, str]:
    """Return the versions of the libraries, the system, the device and, if they are fixed, the kernels."""
    versions = {name: version for name, version in package_versions(LIBRARIES).items() if version}
    return {
        "pytest-qreliab": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device_kind(device),
        **({"kernels": "deterministic"} if deterministic else {}),
        **versions,
    }


def describe_commits(model: Mapping[str, str], data: Dataset) -> dict[str, str]:
    """Return the commits of a hub that a case was measured with.

    Args:
        model: What is known of the full-precision model.
        data: The benchmark.
    """
    of_model = {f"model {what}": model[what] for what in ("repository", "commit") if what in model}
    origins = [images.origin for images in data.sets.values() if images.origin is not None]
    return of_model | {f"data set {origin.repository}": origin.commit for origin in origins}


def describe_data(data: Dataset, manifest: Callable[[ImageSet], str]) -> dict[str, str]:
    """Describe what a benchmark measures on.

    Args:
        data: The benchmark.
        manifest: Returns a digest of an image set's content.

    Returns:
        The size and a digest of each part, by its name. All corrupted sets are one part.

    Raises:
        InputError: An image cannot be read.
    """
    parts = {
        "classes": f"{len(data.classes)} {digest(data.classes)[:8]}",
        "templates": f"{len(data.templates)} {digest(data.templates)[:8]}",
        "preprocessing": digest(data.preprocessing.model_dump())[:8],
    }
    corrupted = {}
    for name, images in data.sets.items():
        labels = images.captions if images.labels is None else images.labels.tolist()
        description = f"{len(images)} {'samples' if data.recorded else 'images'} {digest(manifest(images), labels)[:8]}"
        if images.corruption is None and not name.startswith(CORRUPTION):
            parts[name] = description
        else:
            corrupted[name] = description, None if images.corruption is None else vars(images.corruption)
    if corrupted:
        parts["corruption"] = f"{len(corrupted)} sets {digest(corrupted)[:8]}"
    return parts
