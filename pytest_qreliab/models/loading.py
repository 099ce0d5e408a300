"""Find and load full-precision models by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
    by_weights: bool = False  # only the loaded weights tell it from others
    describe: Callable[[], ModelDescription] = ModelDescription  # says what is known of the model without loading it

    def __call__(self) -> Clip:
        """Load the model."""
        return self.load()


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
    from dataclasses import replace

    from pytest_qreliab.models import openclip, tiny_digits

    clip = tiny_digits.load() if source == TINY_DIGITS else openclip.load(source)
    return clip if name is None else replace(clip, name=name)


def find_loader(source: str, name: str) -> Loader:
    """Return the function that loads a model from its source, and calls it by a name."""
    from functools import partial

    if source == TINY_DIGITS:
        folder = Path(__file__).parent / "tiny_digits"
        files = tuple(sorted(folder.iterdir()))
        return Loader(load=partial(load_model, source, name), architecture=source, files=files)
    from pytest_qreliab.models import openclip

    architecture, files = openclip.local_files(source)
    return Loader(load=partial(load_model, source, name), architecture=architecture, files=files, by_weights=not files)


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
    from pytest_qreliab.models import openclip

    return openclip.architectures()


def anchor_path(name: str, folder: Path | None) -> str:
    """Return a model's name with its path made one below `folder`, if it leads to something there."""
    from pytest_qreliab.models import openclip

    head, path = (openclip.LOCAL, name.removeprefix(openclip.LOCAL)) if name.startswith(openclip.LOCAL) else ("", "")
    if not head and not name.startswith(openclip.HUB):
        architecture, _, path = name.partition("/")
        head = f"{architecture}/"
    if folder is None or not path or not (folder / path).exists():
        return name
    return f"{head}{folder / path}"
