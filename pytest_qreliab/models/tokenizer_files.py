"""Check that the tokenizer and the text tower's configuration of a local model are here too."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pytest_qreliab.errors import InputError
from pytest_qreliab.models.local_models import LOCAL, TOKENIZER_FILES, LocalModel, has_tokenizer_files


def check_packages(name: str, model_config: Mapping[str, Any]) -> None:
    """Raise InputError if an architecture needs a package that is not installed.

    Args:
        name: Of the model, for the message.
        model_config: The architecture, as open_clip has it.
    """
    text = model_config["text_cfg"]
    if (text.get("hf_tokenizer_name") or text.get("hf_model_name")) and not _installed("transformers"):
        raise InputError(f"model {name!r} needs the package transformers: pip install 'pytest-qreliab[hf]'")


def check_tokenizer(model: LocalModel) -> None:
    """Raise InputError if a model whose checkpoint is here would ask the Hugging Face hub for the rest.

    Args:
        model: The model.
    """
    check_packages(model.name, model.model_config)
    text, folder = model.model_config["text_cfg"], model.path.parent
    repository = text.get("hf_tokenizer_name")
    in_cache = not model.source.startswith(LOCAL) and _cached(repository, TOKENIZER_FILES)
    if repository and not has_tokenizer_files(folder) and not in_cache:
        raise InputError(
            f"model {model.name!r}: its checkpoint is here, its tokenizer, {repository}, is not; put its files beside "
            f"the checkpoint: hf download {repository} --include '*token*' '*vocab*' '*.model' --local-dir {folder}"
        )
    tower = text.get("hf_model_name")
    if tower and not (Path(tower) / "config.json").is_file() and not _cached(tower, ("config.json",)):
        raise InputError(
            f"model {model.name!r}: its checkpoint is here, the description of its text tower, {tower}, is not; fetch "
            f"it: hf download {tower} config.json"
        )


def _cached(repository: str | None, files: Iterable[str]) -> bool:
    """Return whether the cache of the Hugging Face hub holds any of the files of a repository."""
    if not repository or not _installed("huggingface_hub"):
        return False
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(repository, file), str) for file in files)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
