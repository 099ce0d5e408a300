"""Find and load full-precision models by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_qreliab.models.names import TINY_DIGITS

if TYPE_CHECKING:
    from pytest_qreliab.models.clip import Clip


@dataclass(frozen=True)
class Loader:
    """What loads a model, and tells it from others before that is done: its `architecture` and `files`, or the
    `version` that its author gives it. `by_weights` says that what is loaded tells it."""

    load: Callable[[], Clip]
    architecture: str = ""
    files: tuple[Path, ...] = ()
    version: str = ""
    by_weights: bool = False

    def __call__(self) -> Clip:
        return self.load()


def check_model_name(name: str, registered: Iterable[str] = ()) -> None:
    """Raise InputError, with the nearest valid name, unless `name` can be loaded; `registered` names are valid too."""
    from pytest_qreliab.models import openclip

    if name != TINY_DIGITS:
        openclip.check(name, registered)


def load_model(source: str, name: str | None = None) -> Clip:
    """The full-precision model, on the CPU, in eval mode, called `name`, or as its source. Raises InputError."""
    from dataclasses import replace

    from pytest_qreliab.models import openclip, tiny_digits

    clip = tiny_digits.load() if source == TINY_DIGITS else openclip.load(source)
    return clip if name is None else replace(clip, name=name)


def find_loader(source: str, name: str) -> Loader:
    """What loads the model from its source, under that name."""
    from functools import partial

    if source == TINY_DIGITS:
        folder = Path(__file__).parent / "tiny_digits"
        return Loader(partial(load_model, source, name), source, tuple(sorted(folder.iterdir())))
    from pytest_qreliab.models import openclip

    architecture, files = openclip.local_files(source)
    return Loader(partial(load_model, source, name), architecture, files, by_weights=not files)


def load_registered_model(name: str, make: object) -> Clip:
    """The model that was registered under that name, in eval mode. Raises InputError."""
    from pytest_qreliab.models import registered

    return registered.load(name, make)


def architectures() -> list[str]:
    """Names of the architectures that open_clip describes."""
    from pytest_qreliab.models import openclip

    return openclip.architectures()


def anchor_path(name: str, folder: Path | None) -> str:
    """A model's name with its path made one below `folder`, if that is where it leads to."""
    from pytest_qreliab.models import openclip

    head, path = (openclip.LOCAL, name.removeprefix(openclip.LOCAL)) if name.startswith(openclip.LOCAL) else ("", "")
    if not head and not name.startswith(openclip.HUB):
        architecture, _, path = name.partition("/")
        head = f"{architecture}/"
    if folder is None or not path or not (folder / path).exists():
        return name
    return f"{head}{folder / path}"
