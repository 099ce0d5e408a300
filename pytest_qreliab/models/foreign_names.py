"""Names of models that are not open_clip's: what they seem to be, and what to write instead."""

from __future__ import annotations

from pathlib import Path

from pytest_qreliab.errors import InputError
from pytest_qreliab.models.checkpoints import OF_TRANSFORMERS, SUFFIXES
from pytest_qreliab.models.local_models import CONFIG, HUB, LOCAL, transformers_type

# Files of runtimes, which compute outputs but have no weights that a quantizer here could change.
RUNTIMES = {".onnx", ".xml", ".engine", ".plan", ".trt", ".tflite", ".mlmodel", ".mlpackage", ".dlc", ".pt2"}

OUTPUTS = {".npz", ".parquet"}

# OpenAI's models, whose names for transformers are known best.
OF_OPENAI = {"clip-vit-base-patch32": "ViT-B-32", "clip-vit-base-patch16": "ViT-B-16",
             "clip-vit-large-patch14": "ViT-L-14", "clip-vit-large-patch14-336": "ViT-L-14-336"}  # fmt: skip


def check_runtime(name: str, what: str = "model") -> None:
    """Raise InputError if a name is that of a file for a runtime, or of recorded outputs without their prefix.

    Args:
        name: Of the model or quantizer.
        what: Whether it is a "model" or a "quantizer".
    """
    suffix = Path(name).suffix.lower()
    if suffix in RUNTIMES:
        other = ", or register a model that calls it with Clip.wrap" if what == "model" else ""
        if what == "quantizer" and suffix == ".onnx":
            other = ", or give the folder of its ONNX towers as artifact:PATH"
        raise InputError(
            f"{what} {name!r}: a {suffix} file is a model of a runtime; record its outputs and give them as "
            f"recorded:PATH{other}"
        )
    if suffix in OUTPUTS:
        raise InputError(f"{what} {name!r}: if these are recorded outputs, write recorded:{name}")


def describe_foreign(name: str) -> str | None:
    """Return what a name that is none of ours seems to be and how to give it, in words; None if nothing is known."""
    path = Path(name).expanduser()
    if path.is_dir():
        if (path / CONFIG).is_file():
            return f"it is a folder with {CONFIG}: write {LOCAL}{name}"
        if (kind := transformers_type(path)) is not None:
            return f"it is a folder of transformers ({kind}), not of open_clip; {OF_TRANSFORMERS}"
        return f"it is a folder without {CONFIG}: write ARCH/{name} with an architecture of open_clip"
    if path.suffix in SUFFIXES:
        return f"a checkpoint needs its architecture: write ARCH/{name}, such as ViT-B-32/{name}"
    organisation, _, repository = name.partition("/")
    if not organisation or not repository or "/" in repository:
        return None
    if organisation == "openai" and repository in OF_OPENAI:
        return f"it is a repository for transformers; open_clip has the same weights as {OF_OPENAI[repository]}/openai"
    return (
        f"if it is a repository of the Hugging Face hub, write {HUB}{name}, which needs {CONFIG} there; a model of "
        "transformers is registered with Clip.wrap"
    )
