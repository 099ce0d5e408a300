"""Load models that a project or a package registers under a name of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from torch import nn

from pytest_qreliab.errors import InputError, describe_exception
from pytest_qreliab.models.clip import Clip

ENCODES = "encode_image"


def load(name: str, make: object) -> Clip:
    """Load a registered model.

    Args:
        name: The name that it was registered under.
        make: The model, or a function or class that makes it.

    Raises:
        InputError: Making it fails, or the result is no CLIP.
    """
    made = make
    # A model may be callable as well, but not to make one.
    if isinstance(make, type) or (callable(make) and not isinstance(make, nn.Module) and not hasattr(make, ENCODES)):
        try:
            made = cast(Callable[[], Any], make)()
        except InputError as error:
            raise InputError(f"model {name!r}: {error}") from error
        except Exception as error:  # of any kind: the factory is the user's
            raise InputError(
                f"model {name!r}: what was registered to make it raised {describe_exception(error)}"
            ) from error
    try:
        clip = made if isinstance(made, Clip) else Clip.wrap(made)
    except InputError as error:
        hint = "" if isinstance(made, Clip) else f" (a {type(made).__name__} was given; see Clip.wrap)"
        raise InputError(f"model {name!r}: {error}{hint}") from error
    return replace(clip, name=name)
