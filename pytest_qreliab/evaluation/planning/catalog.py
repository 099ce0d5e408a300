"""The catalogue of every quantizer and model that has a name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from pytest_qreliab.config.document import display_path
from pytest_qreliab.errors import InputError, describe_exception, unknown
from pytest_qreliab.models import loading, names
from pytest_qreliab.models.foreign_names import check_runtime
from pytest_qreliab.models.loading import Loader
from pytest_qreliab.quantizers.builtin import BUILTIN
from pytest_qreliab.quantizers.parameters import Artifact, ControlParameters, Parameters
from pytest_qreliab.quantizers.recipe import RESCALE, Quantizer, Recipe

ENTRY_POINTS = "pytest_qreliab"
ARTIFACT = "artifact:"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A registered model."""

    make: object  # a Clip, an object that `Clip.wrap` takes, or a function of no arguments that makes one of them
    help: str
    version: str  # a text that changes with the weights or the code; empty if nothing may be kept for later runs


class Catalog:
    """The names that `--qreliab-quantizers` and `--qreliab-models` take, at first those that the package ships."""

    def __init__(self) -> None:
        self.quantizers = {quantizer.name: quantizer for quantizer in BUILTIN}
        self.models: dict[str, Registered] = {}
        self._variants: dict[str, Recipe] = {}

    def add_quantizer(self, quantizer: Quantizer) -> None:
        """Register a quantizer.

        Args:
            quantizer: The quantizer, with a name that is not taken.

        Raises:
            InputError: The name is taken or no plain word, or the argument is no such quantizer.
        """
        if not isinstance(quantizer, Quantizer):
            raise InputError(f"add_quantizer takes a Quantizer, not a {type(quantizer).__name__}")
        _check_name("quantizer", quantizer.name, self.quantizers)
        if not (isinstance(quantizer.parameters, type) and issubclass(quantizer.parameters, Parameters)):
            raise InputError(
                f"quantizer {quantizer.name!r}: parameters={quantizer.parameters!r} must be a subclass of "
                "pytest_qreliab.quantizers.parameters.Parameters"
            )
        self.quantizers[quantizer.name] = quantizer

    def add_model(self, name: str, make: object | Callable[[], object], *, help: str = "", version: str = "") -> None:
        """Register a model.

        A model is a Clip, as `Clip.wrap` makes it, or an object with `encode_image`, `encode_text`, `preprocess`,
        `tokenizer` and `logit_scale`.

        Args:
            name: The name that settings use.
            make: A function of no arguments that makes the model when it is first needed, or the model itself.
            help: A line for `qreliab list models`.
            version: A text of yours that you change with the weights or the code. Without one nothing that the model
                computes is kept for later runs.

        Raises:
            InputError: The name is taken or no plain word.
        """
        _check_name("model", name, {*self.models, names.TINY_DIGITS, *loading.architectures()})
        self.models[name] = Registered(make=make, help=help, version=version)

    def add_entry_points(self) -> None:
        """Let every installed package register what it has.

        Raises:
            InputError: The code of a package failed. The message names the entry point.
        """
        for entry in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
            package = f" of {entry.dist.name} {entry.dist.version}" if entry.dist else ""
            where = f"entry point {entry.name} = {entry.value!r}{package} (group {ENTRY_POINTS})"
            try:
                register = entry.load()
            except Exception as error:  # another package's code may raise anything
                raise InputError(f"{where} cannot be imported: {describe_exception(error)}") from error
            try:
                register(self)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
            except Exception as error:
                raise InputError(f"{where} raised {describe_exception(error)}") from error

    def with_variants(self, variants: Iterable[Recipe]) -> Catalog:
        """Return a copy of this catalogue that knows more quantizers with parameters of their own."""
        other = Catalog()
        other.quantizers, other.models = self.quantizers, self.models
        other._variants = {**self._variants, **{variant.name: variant for variant in variants}}
        return other

    def quantizer(self, name: str) -> Quantizer:
        """Return the quantizer of that name, or raise InputError with the nearest one."""
        if name not in self.quantizers:
            raise unknown("quantizer", name, self.quantizers)
        return self.quantizers[name]

    def recipe(self, name: str, folder: Path | None = None) -> Recipe:
        """Return the recipe of a quantizer.

        Args:
            name: The name of a quantizer or variant, or `artifact:PATH`, each with `+rescale` if it is to be rescaled.
            folder: Where a relative path in the name starts, by default the working directory.

        Raises:
            InputError: There is no such quantizer, or it lacks a package or parameters. The message has the nearest
                name.
        """
        plain = name.removesuffix(RESCALE)
        if plain not in {*self.quantizers, *self._variants}:
            check_runtime(plain, "quantizer")
        if plain.startswith(ARTIFACT):
            path = anchor(plain.removeprefix(ARTIFACT), folder)
            return Recipe(
                name=name,
                quantizer=self.quantizers["artifact"],
                parameters=Artifact(path=path),
                rescale=plain != name,
            )
        if plain in self._variants:
            variant = self._variants[plain]
            quantizer, parameters = variant.quantizer, variant.parameters
        elif plain in self.quantizers:
            quantizer = self.quantizers[plain]
            parameters = _defaults(quantizer)
        else:
            raise unknown("quantizer", plain, {*self.quantizers, *self._variants})
        quantizer.check_packages()
        matched = self.recipe(parameters.match) if isinstance(parameters, ControlParameters) else None
        return Recipe(name=name, quantizer=quantizer, parameters=parameters, rescale=plain != name, matched=matched)

    def model(self, name: str, folder: Path | None = None) -> Loader:
        """Return what loads a model.

        Args:
            name: A registered name, `tiny-digits`, or a name that open_clip takes.
            folder: Where a relative path in the name starts, if it leads to a file there.

        Raises:
            InputError: The model cannot be loaded, as far as is known without loading it. The message has the nearest
                name.
        """
        if name in self.models:
            registered = self.models[name]
            load = partial(loading.load_registered_model, name, registered.make)
            return Loader(load=load, architecture=name, version=registered.version)
        source = loading.anchor_path(name, folder)
        loading.check_model_name(source, self.models)
        return loading.find_loader(source, name)


def anchor(path: str, folder: Path | None) -> str:
    """Return a path that starts in a folder, relative to the working directory if it is below it.

    So the digest of a plan is the same in another checkout.
    """
    plain = Path(path).expanduser()
    return str(plain) if folder is None else display_path(folder / plain)


def _check_name(what: str, name: object, taken: Iterable[str]) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"the {what} name {name!r} is no plain word: letters, digits, '_', '.' and '-' only")
    if name in taken:
        raise InputError(f"a {what} {name!r} is there already; give the new one another name")


def _defaults(quantizer: Quantizer) -> Parameters:
    from pydantic import ValidationError

    try:
        return quantizer.parameters()
    except ValidationError as error:
        needed = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
        raise InputError(
            f"quantizer {quantizer.name!r} has no default for {needed}; define a variant of it in a suite file"
        ) from None
