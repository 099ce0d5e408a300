"""Models of open_clip: hub tags, local checkpoints, `hf-hub:` and `local-dir:` names."""

from __future__ import annotations

import difflib
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from pytest_qreliab.errors import InputError, unknown
from pytest_qreliab.models import hub_models, local_models
from pytest_qreliab.models.checkpoint_fit import check_fit
from pytest_qreliab.models.checkpoints import SUFFIXES, load_state
from pytest_qreliab.models.description import ModelDescription, in_words
from pytest_qreliab.models.encoding_settings import EncodingSettings
from pytest_qreliab.models.foreign_names import check_runtime, describe_foreign
from pytest_qreliab.models.local_models import HUB, LOCAL, LocalModel, architectures, import_open_clip
from pytest_qreliab.models.logit_scale import check_logarithm
from pytest_qreliab.models.names import TINY_DIGITS
from pytest_qreliab.models.tokenizer_files import check_packages, check_tokenizer

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from pytest_qreliab.models.clip import Clip


def tags() -> dict[str, list[str]]:
    """Return the tags of the hub weights of every architecture."""
    return {name: _tags(name) for name in architectures()}


def check_name(name: str, registered: Iterable[str] = ()) -> None:
    """Raise InputError if a model cannot be loaded, as far as a check without loading or downloading shows.

    Args:
        name: Of the model.
        registered: Other names that the message may suggest.
    """
    if name.startswith(HUB):
        hub_models.parse(name)
        return
    check_runtime(name)
    architecture, _, weights = name.partition("/")
    valid = architectures()
    if not name.startswith(LOCAL) and architecture not in valid:
        raise _unknown(name, architecture, [TINY_DIGITS, *registered, *valid])
    model = find_local(name)
    if model is None:
        _check_tag(name, architecture, weights)
    else:
        describe_local(model)


def _unknown(name: str, architecture: str, valid: list[str]) -> InputError:
    """Return an error for a name of another form, or for one that is written wrong."""
    seems = describe_foreign(name)
    alike = difflib.get_close_matches(architecture.casefold(), map(str.casefold, valid), cutoff=0.75)
    if seems is None or (alike and not Path(name).exists()):
        return unknown("model", architecture, valid)
    return InputError(f"unknown model {name!r}: {seems}")


def find_local(source: str, name: str = "") -> LocalModel | None:
    """Return the model of a name whose checkpoint is here; None of a name of hub weights.

    Args:
        source: `local-dir:PATH`, `ARCH/PATH` or `ARCH/PATH@TAG`.
        name: How messages call it, by default by its source.

    Raises:
        InputError: There is no such checkpoint, or several are meant.
    """
    found, name = local_models.local_path(source, architectures()), name or source
    if found is None:
        return None
    architecture, path, tag = found
    if not architecture:
        return local_models.in_folder(name, path)
    if not path.exists():
        raise InputError(f"model {name!r}: there is no checkpoint {path.absolute()}")
    if not tag:
        return local_models.of_architecture(name, architecture, path)
    known = _tags(architecture)
    if _cleaned(tag) not in known:
        raise unknown(f"tag of {architecture} in {name!r}", tag, known)
    path = local_models.choose_checkpoint(name, path) if path.is_dir() else path
    config = local_models.read_architecture(architecture)
    return LocalModel(
        name=name,
        source=architecture,
        path=path,
        config=None,
        model_config=config,
        settings=_tag_settings(architecture, tag),
        tag=_cleaned(tag),
    )


def local_files(name: str) -> tuple[str, tuple[Path, ...]]:
    """Return what tells a model from others of the same files, and its files; none for a model of a hub."""
    model = None if name.startswith(HUB) else find_local(name)
    if model is None:
        return name.partition("/")[0], ()
    return f"{LOCAL if model.source.startswith(LOCAL) else model.source}@{model.tag}".rstrip("@"), model.files


def describe(source: str, name: str) -> ModelDescription:
    """Return what is known of a model before it is loaded, if its checkpoint is here.

    Args:
        source: Where it comes from.
        name: How messages call it.

    Raises:
        InputError: Its checkpoint cannot be used.
    """
    model = None if source.startswith(HUB) else find_local(source, name)
    return ModelDescription() if model is None else describe_local(model)


def describe_local(model: LocalModel) -> ModelDescription:
    """Return what is known of a model whose checkpoint is here.

    Raises:
        InputError: Its checkpoint, its tokenizer or its logit scale cannot be used.
    """
    found, said = model.checkpoint, list(model.warnings)
    said += check_fit(model)
    check_tokenizer(model)
    facts = {"file": model.path.name}
    if found.inside not in ("", "state_dict"):
        facts["weights under"] = found.inside
    if found.prefix:
        facts["names without"] = found.prefix
    facts |= {**_sizes(model.model_config), **model.settings.facts()}
    if found.log_scale is not None:
        if (warning := check_logarithm(found.log_scale, f"model {model.name!r}: logit_scale")) is not None:
            said.append(warning)
        facts["logit scale"] = f"{math.exp(found.log_scale):.4g}"
    facts["settings of"] = f"tag {model.tag}" if model.tag else model.config.name if model.config else "open_clip"
    if not model.tag and model.config is None and (warning := _other_settings(model)) is not None:
        said.append(warning)
    return ModelDescription(
        facts=facts, warnings=tuple(said), blocks=_blocks(model.model_config), checkpoint=model.path.resolve()
    )


def load(name: str) -> Clip:
    """Load a model of open_clip whose checkpoint is here, on the CPU.

    Raises:
        InputError: The model cannot be loaded.
    """
    from pytest_qreliab.models.clip import Clip

    model = find_local(name)
    if model is None:
        raise InputError(f"model {name!r} is not on this machine")
    module, preprocess = create(model)
    with _loading(name):
        tokenizer = _tokenizer(model)
    _check_loaded(name, module, tokenizer)
    return Clip(name=name, module=module, preprocess=preprocess, tokenizer=tokenizer)


def create(model: LocalModel) -> tuple[Any, Callable[[Image.Image], torch.Tensor]]:
    """Create a module of open_clip from its checkpoint, in float32 and eval mode, with its own image transform.

    Raises:
        InputError: The module cannot be created.
    """
    with _loading(model.name):
        open_clip = import_open_clip()
        module = open_clip.create_model(
            model.source,
            precision="fp32",
            load_weights=False,
            pretrained_text=False,
            force_quick_gelu=model.settings.quick_gelu,
            force_preprocess_cfg=model.settings.image_settings,
        )
        # open_clip chooses files by itself, and takes names with a prefix only if it is DistributedDataParallel's.
        state = load_state(model.path)
        with patch.object(open_clip.factory, "load_state_dict", lambda *args, **options: state):
            open_clip.factory.load_checkpoint(module, str(model.path))
        config = open_clip.transform.PreprocessCfg(**module.visual.preprocess_cfg)
        return module.eval().requires_grad_(False), open_clip.transform.image_transform_v2(config, is_train=False)


def _tokenizer(model: LocalModel) -> Any:
    if model.source.startswith(LOCAL) or not model.has_tokenizer:
        return import_open_clip().get_tokenizer(model.source)
    text = model.model_config["text_cfg"]
    return import_open_clip().tokenizer.HFTokenizer(
        str(model.path.parent),
        context_length=model.context_length,
        tokenizer_mode=text.get("tokenizer_mode"),
        **text.get("tokenizer_kwargs", {}),
    )


def _check_loaded(name: str, module: Any, tokenizer: Any) -> None:
    """Raise InputError if the tokenizer makes tokens that the text tower lacks, or the logit scale cannot be one."""
    check_logarithm(float(module.logit_scale), f"model {name!r}: logit_scale")
    embedding = getattr(getattr(module, "text", module), "token_embedding", None)
    tokens, made = getattr(embedding, "num_embeddings", None), getattr(tokenizer, "vocab_size", None)
    if tokens is not None and made is not None and made > tokens:
        raise InputError(
            f"model {name!r}: its text tower knows {tokens} tokens, and its tokenizer, {type(tokenizer).__name__}, "
            f"gives {made}; name the right one in its configuration (hf_tokenizer_name), or register the model with "
            "its own"
        )


def _check_tag(name: str, architecture: str, tag: str) -> None:
    known = _tags(architecture)
    hint = f"or a checkpoint: {architecture}/PATH with {', '.join(SUFFIXES)}"
    if not tag:
        raise InputError(
            f"model {name!r} names no weights; write {architecture}/TAG with one of {', '.join(known)}, {hint}"
        )
    if _cleaned(tag) not in known:
        raise unknown(f"weights of {architecture}", tag, known, hint=hint)
    check_packages(name, local_models.read_architecture(architecture))


def _tags(architecture: str) -> list[str]:
    return list(import_open_clip().list_pretrained_tags_by_model(architecture))


def _cleaned(tag: str) -> str:
    return tag.lower().replace("-", "_")


def _tag_settings(architecture: str, tag: str) -> EncodingSettings:
    """Return the settings of the hub weights of a tag."""
    config = import_open_clip().get_pretrained_cfg(architecture, tag)
    quick = bool(config.get("quick_gelu") or local_models.read_architecture(architecture).get("quick_gelu"))
    return replace(EncodingSettings(), quick_gelu=quick).with_image_settings(config)


def _other_settings(model: LocalModel) -> str | None:
    """Warn if hub weights of the same architecture have other settings than open_clip's own, which count."""
    others = {tag: model.settings.differences(_tag_settings(model.source, tag)) for tag in _tags(model.source)}
    differing = {tag: difference for tag, difference in others.items() if difference}
    if not differing:
        return None
    tag, difference = next(iter(differing.items()))
    return (
        f"model {model.name!r} is used with open_clip's own settings, {in_words(model.settings.facts())}; "
        f"{len(differing)} of the {len(others)} tags of {model.source} have others, as {tag}: {in_words(difference)}. "
        f"If the weights come from one of them, say so: {model.name}@{tag}"
    )


def _blocks(config: Mapping[str, Any]) -> int | None:
    """Return the number of the image tower's blocks; None for a tower of timm, which has its own."""
    if "timm_model_name" in config["vision_cfg"]:
        return None
    layers = config["vision_cfg"].get("layers", 12)
    return layers if isinstance(layers, int) else len(layers)


def _sizes(config: Mapping[str, Any]) -> dict[str, str]:
    height, width = local_models.pair(config["vision_cfg"].get("image_size", 224))
    return {
        "resolution": f"{height}" if height == width else f"{height} x {width}",
        "context length": str(config["text_cfg"].get("context_length", 77)),
    }


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Turn every error while open_clip loads a model into an InputError that names the model."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it says that weights are random, which are filled in afterwards
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except ModuleNotFoundError as error:
        raise InputError(f"model {name!r} needs the package {error.name}: pip install 'pytest-qreliab[hf]'") from None
    except Exception as error:  # of any kind: what a wrong checkpoint makes open_clip raise is not limited
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise InputError(f"model {name!r} cannot be loaded: {' '.join(line[:200] for line in lines[:4])}") from None
    finally:
        logging.disable(before)
