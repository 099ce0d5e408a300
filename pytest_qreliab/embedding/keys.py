"""What tells models, recipes and libraries apart: the names under which the store keeps what they gave."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from pytest_qreliab.hashing import digest
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.loading import Loader
from pytest_qreliab.quantizers.parameters import Artifact
from pytest_qreliab.quantizers.recipe import Recipe

# The libraries that a number may change with. Those of a quantizer alone are in its recipe.
LIBRARIES = ("torch", "torchvision", "open_clip_torch", "timm", "transformers", "numpy", "scipy", "pillow")

Digests = Callable[[list[Path]], list[str]]


def code_key() -> str:
    """The libraries and this package's own code."""
    return digest(package_versions(LIBRARIES), _own_code())


def environment_key(device: torch.device) -> str:
    """The same, and the kind of device: numbers of another kind differ in the last digits in full precision, and where
    they are rounded in the first."""
    return digest(code_key(), device_kind(device), "float32")


def device_kind(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def loader_key(loader: Loader, digests: Digests) -> str | None:
    """Of a model that is told by files, or by its author's version; None for another."""
    if loader.files:
        return digest("model", loader.architecture, digests(list(loader.files)))
    return digest("model", loader.architecture, "version", loader.version) if loader.version else None


def weights_key(clip: Clip) -> str:
    """Of a model by all that it holds."""
    found = hashlib.blake2b(f"{clip.name} {clip.module} {clip.preprocess}".encode(), digest_size=16)
    for name, tensor in clip.module.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def recipe_key(recipe: Recipe, digests: Digests) -> str | None:
    """Of a quantizer with its parameters; None for one that is registered without a version."""
    quantizer, parameters = recipe.quantizer, recipe.parameters
    if not quantizer.ours and not quantizer.version:
        return None
    given = parameters.model_dump(mode="json")
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
    return {package: _version(package) for package in packages}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


@cache
def _own_code() -> str:
    """Of this package's modules, so that a change of any of them, released or not, makes everything again."""
    folder = Path(__file__).parents[1]  # the whole package
    return digest(
        {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in sorted(folder.rglob("*.py"))}
    )
