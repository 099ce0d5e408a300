"""Models of open_clip on the Hugging Face hub: their files, in a folder as `local-dir:` takes it."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_qreliab.errors import InputError, listed
from pytest_qreliab.models import hub
from pytest_qreliab.models.encoding_settings import IMAGE_SETTINGS
from pytest_qreliab.models.hub import Reference
from pytest_qreliab.models.local_models import CONFIG, HUB, import_open_clip

WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # the first that is there, as open_clip does
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "config.json",  # tells the tokenizer's class, if tokenizer_config.json does not
)

_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)

# The folders of this process, which last as long as it does.
_folders: list[tempfile.TemporaryDirectory[str]] = []


@dataclass(frozen=True, kw_only=True)
class FetchedModel:
    """A model of a hub whose files are on this machine."""

    folder: Path  # holds just the files that open_clip needs, under the names that it looks for
    files: tuple[Path, ...]  # the same in the cache of huggingface_hub: all that the model comes from
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def parse(name: str) -> Reference:
    """Return the repository that `hf-hub:ORG/NAME` or `hf-hub:ORG/NAME@REVISION` names.

    Raises:
        InputError: The name has another form.
    """
    repository, at, revision = name.removeprefix(HUB).partition("@")
    if not _NAME.fullmatch(repository) or (at and not hub.REVISION.fullmatch(revision)):
        raise InputError(
            f"model {name!r}: write {HUB}ORGANISATION/REPOSITORY, and perhaps @REVISION: a branch, a tag or a commit"
        )
    return Reference(repository, revision or hub.MAIN)


def fetch(name: str) -> FetchedModel:
    """Fetch the model of `hf-hub:ORG/NAME@REVISION` or of a tag of open_clip, `ARCH/TAG`.

    Raises:
        NotDownloadedError: It is not on this machine, and the hub may not be asked.
        InputError: It cannot be downloaded, or is no model of open_clip.
    """
    if name.startswith(HUB):
        return fetch_repository(parse(name))
    open_clip = import_open_clip()
    architecture, _, tag = name.partition("/")
    known = open_clip.get_pretrained_cfg(architecture, tag)
    location = known.get("hf_hub", "")
    if not location:
        raise InputError(
            f"model {name!r}: open_clip has its weights at {known.get('url')} alone; download them, and give "
            f"{architecture}/PATH@{tag}"
        )
    model_config = open_clip.get_model_config(architecture)
    if known.get("quick_gelu"):
        model_config["quick_gelu"] = True
    image_settings = {setting: known[setting] for setting in IMAGE_SETTINGS if setting in known}
    return fetch_tag(name, location, {"model_cfg": model_config, "preprocess_cfg": image_settings})


def fetch_repository(reference: Reference) -> FetchedModel:
    """Fetch the model that a repository holds: its configuration, its weights and its tokenizer.

    Raises:
        NotDownloadedError: It is not on this machine, and the hub may not be asked.
        InputError: It cannot be downloaded, or is no model of open_clip.
    """
    commit = hub.find_commit(reference)
    path = hub.fetch_file(reference, commit, CONFIG)
    if path is None:
        raise _no_model(reference, commit, f"has no {CONFIG}, which every model of open_clip has")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        text = config["model_cfg"]["text_cfg"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise reference.error(f"{CONFIG} is no configuration of open_clip: {type(error).__name__}: {error}") from None
    weights = _first(reference, commit, WEIGHTS)
    if weights is None:
        raise _no_model(reference, commit, f"has no weights of open_clip: {' or '.join(WEIGHTS)}")
    return _assemble(reference, commit, config, text, (path, weights))


def fetch_tag(name: str, location: str, config: dict[str, Any]) -> FetchedModel:
    """Fetch the model that a tag of open_clip stands for.

    Args:
        name: `ARCH/TAG`, for messages.
        location: Where open_clip has its weights: `ORG/NAME/FILE`, or `ORG/NAME/` for the usual files.
        config: `model_cfg` and `preprocess_cfg` of the architecture and the tag.

    Raises:
        NotDownloadedError: It is not on this machine, and the hub may not be asked.
        InputError: It cannot be downloaded.
    """
    repository, _, file = location.rpartition("/")
    reference = Reference(repository)
    commit = hub.find_commit(reference)
    files = (f"{file.rpartition('.')[0]}.safetensors", file) if file else WEIGHTS
    weights = _first(reference, commit, files)
    if weights is None:
        raise _no_model(reference, commit, f"has none of the weights of {name}: {' or '.join(files)}")
    found = _assemble(reference, commit, config, config["model_cfg"]["text_cfg"], (weights,))
    return replace(found, facts={**found.facts, "settings of": f"tag {name.partition('/')[2]}"})


def _assemble(
    reference: Reference, commit: str, config: dict[str, Any], text: dict[str, Any], files: Sequence[Path]
) -> FetchedModel:
    """Put the files of a model into a folder, with those of its tokenizer and of its text tower's configuration.

    In place of a tower of another repository the configuration names a folder, which is read without a network.
    """
    used, facts = [*files], {"repository": f"{reference.name}@{reference.revision}", "commit": commit}
    references = [reference]
    folder = _new_folder()
    tokenizer, tower = text.get("hf_tokenizer_name"), text.get("hf_model_name")
    for what, name, wanted, place in (
        ("tokenizer", tokenizer, TOKENIZER, folder),
        ("text tower", tower, ("config.json",), folder / "text_tower"),
    ):
        if not name:
            continue
        other = reference if name == reference.name else Reference(name)
        # Who names a commit of the model wants the same again, and no request.
        at = commit if other is reference else hub.find_commit(other, renew=reference.revision != commit)
        found = [path for file in wanted if (path := hub.fetch_file(other, at, file)) is not None]
        if not found:
            raise reference.error(f"its {what} is that of {name}, which has none of {', '.join(wanted)}")
        for path in found:
            _link(path, place / path.name)
        if other is not reference:
            references.append(other)
            facts[what] = f"{name} {at[:12]}"
        used += found
    if tower:
        text["hf_model_name"] = str(folder / "text_tower")
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    _link(
        files[-1],
        folder / (WEIGHTS[0] if files[-1].suffix == ".safetensors" else f"open_clip_pytorch_model{files[-1].suffix}"),
    )
    doubts = tuple(dict.fromkeys(filter(None, map(hub.commit_warning, references))))
    return FetchedModel(folder=folder, files=tuple(used), facts=facts, warnings=doubts)


def _first(reference: Reference, commit: str, files: Sequence[str]) -> Path | None:
    """Return the first of several files that a commit has, None if it has none."""
    found = (hub.fetch_file(reference, commit, file) for file in files)
    return next((path for path in found if path is not None), None)


def _no_model(reference: Reference, commit: str, lack: str) -> InputError:
    files = hub.list_files(reference, commit)
    holds = f"; it holds {listed(files, 8)}" if files else ""
    return reference.error(
        f"the repository {lack}{holds}; a model of another library, such as "
        "transformers, can be registered (docs/extend.md)"
    )


def _new_folder() -> Path:
    _folders.append(tempfile.TemporaryDirectory(prefix="qreliab-hub-", ignore_cleanup_errors=True))
    return Path(_folders[-1].name)


def _link(source: Path, target: Path) -> None:
    """Link to a file, or copy it if the system has no links."""
    target.parent.mkdir(exist_ok=True)
    try:
        target.symlink_to(source.resolve())
    except OSError:
        shutil.copyfile(source, target)
