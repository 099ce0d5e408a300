"""Find and load full-precision models by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pytest_qreliab.errors import InputError
from pytest_qreliab.models.description import ModelDescription
from pytest_qreliab.models.names import TINY_DIGITS

if TYPE_CHECKING:
    from pytest_qreliab.models.clip import Clip


@dataclass(frozen=True, kw_only=True)
class Loader:
    """A function that loads a model, with what tells the model from others before it is loaded."""

    load: Callable[[], Clip]
    architecture: str = ""
    files: tuple[Path, ...] = ()  # that the model is loaded from
    version: str = ""  # the author's own
    describe: Callable[[], ModelDescription] = ModelDescription  # says what is known of the model without loading it
    fetch: Callable[[], Loader] | None = None  # brings the files of a hub's model here, and returns what loads them

    def __call__(self) -> Clip:
        """Load the model."""
        return self.load()

    def fetched(self) -> Loader:
        """Return what loads the model from files that are on this machine.

        Raises:
            InputError: The files cannot be downloaded, or are of no model that can be loaded.
        """
        return self if self.fetch is None else self.fetch()


def check_model_name(name: str, registered: Iterable[str] = ()) -> None:
    """Raise InputError, with the nearest valid name, unless a model can be loaded by its name.

    Args:
        name: `tiny-digits`, or a name for open_clip.
        registered: Other names that the message may suggest.
    """
    from pytest_qreliab.models import openclip

    if name != TINY_DIGITS:
        openclip.check_name(name, registered)


def load_model(source: str, name: str | None = None) -> Clip:
    """Load a full-precision model on the CPU, in eval mode.

    Args:
        source: Where it comes from, such as `tiny-digits`, `ViT-B-32/openai` or `local-dir:PATH`.
        name: How to call it, by default by its source.

    Raises:
        InputError: The model cannot be loaded.
    """
    from pytest_qreliab.models import openclip, tiny_digits

    if source != TINY_DIGITS and not openclip.local_files(source)[1]:
        return _fetch(source, name or source)()
    clip = tiny_digits.load() if source == TINY_DIGITS else openclip.load(source)
    return clip if name is None else replace(clip, name=name)


def find_loader(source: str, name: str) -> Loader:
    """Return the function that loads a model from its source, and calls it by a name.

    Nothing is downloaded before it is asked for by `Loader.fetched`.
    """
    if source == TINY_DIGITS:
        folder = Path(__file__).parent / "tiny_digits"
        files = tuple(sorted(folder.iterdir()))
        describe = partial(_describe_folder, folder, name)
        return Loader(load=partial(load_model, source, name), architecture=source, files=files, describe=describe)
    from pytest_qreliab.models import openclip

    architecture, files = openclip.local_files(source)
    return Loader(
        load=partial(load_model, source, name),
        architecture=architecture,
        files=files,
        describe=partial(openclip.describe, source, name),
        fetch=None if files else partial(_fetch, source, name),
    )


def _describe_folder(folder: Path, name: str) -> ModelDescription:
    from pytest_qreliab.models import local_models, openclip

    return openclip.describe_local(local_models.in_folder(name, folder))


def _fetch(source: str, name: str) -> Loader:
    """Return the function that loads a model of a hub, after bringing its files here, if that is allowed."""
    from pytest_qreliab.models import hub, hub_models, openclip
    from pytest_qreliab.models.local_models import LOCAL

    try:
        fetched = hub_models.fetch(source)
    except hub.NotDownloadedError as error:
        refuse = partial(_refuse, str(error))
        nothing = ModelDescription(facts={"files": "not downloaded yet"})
        fetch = partial(_fetch, source, name)
        return Loader(load=refuse, architecture=source, describe=lambda: nothing, fetch=fetch)
    local = f"{LOCAL}{fetched.folder}"
    with _named(source, fetched.folder):
        openclip.check_name(local)
    loader = find_loader(local, name)

    def load() -> Clip:
        with _named(source, fetched.folder):
            return loader()

    def describe() -> ModelDescription:
        known = loader.describe()
        facts = {**fetched.facts, **known.facts, **fetched.facts}  # its own come first, and count
        return replace(known, facts=facts, warnings=(*fetched.warnings, *known.warnings))

    architecture = source.partition("@")[0]
    return replace(loader, load=load, architecture=architecture, files=fetched.files, describe=describe)


@contextmanager
def _named(source: str, folder: Path) -> Iterator[None]:
    """Let errors name a model by its source in place of the folder that its files are in."""
    try:
        yield
    except InputError as error:
        text = str(error).replace(f"local-dir:{folder}", source).replace(f"{folder}/", "")
        raise InputError(text if source in text else f"model {source!r}: {text}") from None


def _refuse(message: str) -> NoReturn:
    raise InputError(message)


def load_registered_model(name: str, make: object) -> Clip:
    """Load a registered model in eval mode.

    Args:
        name: The name that it was registered under.
        make: The model, or a function or class that makes it.

    Raises:
        InputError: Making it fails, or the result is no CLIP.
    """
    from pytest_qreliab.models import registered

    return registered.load(name, make)


def architectures() -> list[str]:
    """Return the names of the architectures that open_clip describes."""
    from pytest_qreliab.models import local_models

    return local_models.architectures()


def anchor_path(name: str, folder: Path | None) -> str:
    """Return a model's name with its path made one below `folder`, if it is the path of a file or folder."""
    from pytest_qreliab.models.checkpoints import SUFFIXES
    from pytest_qreliab.models.local_models import HUB, LOCAL, split_tag

    if folder is None or name.startswith(HUB):
        return name
    head, path = LOCAL, name.removeprefix(LOCAL)
    if path == name:
        architecture, _, path = name.partition("/")
        head = f"{architecture}/"
    if not path:
        return name
    below, tag = split_tag(str(folder / Path(path).expanduser()))
    is_path = head == LOCAL or below.suffix in SUFFIXES or below.exists()
    return f"{head}{below}{'@' * bool(tag)}{tag}" if is_path else name
