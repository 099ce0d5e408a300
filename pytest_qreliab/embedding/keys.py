"""Keys of models, recipes and libraries: what the store keeps is kept under their digests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from pytest_qreliab.hashing import digest
from pytest_qreliab.models.loading import Loader
from pytest_qreliab.quantizers.parameters import Artifact
from pytest_qreliab.quantizers.recipe import Recipe

PACKAGE = Path(__file__).parents[1]  # all rooms of it: numbers depend on every one

# The libraries that a number may change with. Those of a quantizer alone are in its recipe.
LIBRARIES = ("torch", "torchvision", "open_clip_torch", "timm", "transformers", "numpy", "scipy", "pillow")

Digests = Callable[[list[Path]], list[str]]


def code_key() -> str:
    """Return the key of the libraries and of this package's own code."""
    return digest(package_versions(LIBRARIES), _own_code())


def environment_key(device: torch.device) -> str:
    """Return the key of the code and of the kind of device.

    In full precision the numbers of two kinds of device differ in the last digits. Once rounded they may differ in the
    first.
    """
    return digest(code_key(), device_kind(device), "float32")


def device_kind(device: torch.device) -> str:
    """Return the name of the GPU, or the instructions that the CPU has."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def loader_key(loader: Loader, digests: Digests) -> str | None:
    """Return the key of a model that is not loaded yet.

    The key comes from the model's files or, without files, from the version that its author gave it. It is None if
    there is neither: such a model is not kept.

    Args:
        loader: What loads the model.
        digests: Returns the digests of files.
    """
    if loader.files:
        return digest("model", loader.architecture, digests(list(loader.files)))
    return digest("model", loader.architecture, "version", loader.version) if loader.version else None


def recipe_key(recipe: Recipe, digests: Digests) -> str | None:
    """Return the key of a quantizer with its parameters.

    It is None for a quantizer that is registered without a version, whose code may change unseen.

    Args:
        recipe: The quantizer and its parameters.
        digests: Returns the digests of files.
    """
    quantizer, parameters = recipe.quantizer, recipe.parameters
    if not quantizer.ours and not quantizer.version:
        return None
    given = parameters.model_dump(mode="json") | {"layers": list(parameters.layers.items())}  # their order matters
    if isinstance(parameters, Artifact):
        path = Path(parameters.path).expanduser()
        files = sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else [path]
        given["path"] = digests(files)
    matched = None if recipe.matched is None else recipe_key(recipe.matched, digests)
    if recipe.matched is not None and matched is None:
        return None
    versions = package_versions(quantizer.packages)
    return digest("recipe", quantizer.name, quantizer.version, given, recipe.rescale, matched, versions)


@cache
def package_versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the installed version of each package, empty for one that is not installed."""
    return {package: _version(package) for package in packages}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


@cache
def _own_code() -> str:
    """Return the digest of this package's modules: after a change of any, released or not, all is made again."""
    return digest(
        {path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
    )
