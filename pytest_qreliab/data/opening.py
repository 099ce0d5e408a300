"""Open the image sets that a benchmark's definition asks for: list their images whole, without decoding them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pytest_qreliab.config.benchmark import Benchmark, SetSource
from pytest_qreliab.config.document import Location
from pytest_qreliab.config.set_names import CALIBRATION, IN_DISTRIBUTION, OOD
from pytest_qreliab.config.sources import AnyCaptions, AnyLabelled, AnySource, HeldOut, Recorded
from pytest_qreliab.config.text_forms import as_on_disk
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.labels import Classes, LabelReader, source_hint
from pytest_qreliab.data.sources import listing
from pytest_qreliab.data.wording import counted, first_few
from pytest_qreliab.errors import InputError


def open_sets(benchmark: Benchmark, classes: Classes) -> Iterator[tuple[SetSource, ImageSet | InputError]]:
    """Yield all images of every set, whatever its limit, or what is wrong with it.

    Calibration images that are held out are drawn from the in-distribution images, and are in both sets.
    """
    inside: ImageSet | None = None
    for wanted in benchmark.sources():
        try:
            images = _open_set(benchmark, classes, wanted, inside)
        except InputError as error:
            yield wanted, error
            continue
        if wanted.name == IN_DISTRIBUTION:
            inside = images
        yield wanted, images


def _open_set(benchmark: Benchmark, classes: Classes, wanted: SetSource, inside: ImageSet | None) -> ImageSet:
    name, source, at = wanted
    if isinstance(source, HeldOut):
        return _held_out(benchmark, source, at, inside)
    assert not isinstance(source, Recorded)  # a benchmark of recorded samples opens no image set
    reader: LabelReader | None = None
    if isinstance(source, AnyLabelled):
        if not name.startswith(OOD):
            reader = LabelReader(benchmark=benchmark, classes=classes, source=source, at=at)
        elif source.classes is not None or source.partial or source.other_labels != "error":
            keys = "`classes`, `partial` and `other_labels`"
            raise InputError(f"{benchmark.where(at)}: an OOD set has no classes: leave out {keys}")

    def resolve(text: str) -> Path:
        return as_on_disk(benchmark.path(text, _location_of(source, text, at)))

    try:
        if isinstance(source, AnyCaptions):
            items = listing.list_captioned(source, resolve)
        else:
            labelled = reader is not None and (name != CALIBRATION or listing.offers_labels(source))
            items = listing.list_items(source, resolve, labelled=labelled)
        _check_names(items.ids)
    except InputError as error:
        raise InputError(f"{_where(benchmark, at)}: {error}{source_hint(source)}") from None
    images = ImageSet(
        name=name,
        ids=items.ids,
        load=items.load,
        content=items.content,
        units=items.units,
        captions=items.labels if isinstance(source, AnyCaptions) else None,
        left_out=items.left_out,
        origin=items.origin,
    )
    return images if reader is None else reader.label(images, items.labels)


def _check_names(ids: Sequence[str]) -> None:
    """Raise InputError for names of other bytes than UTF-8, which no results file could hold."""
    unusual = [name for name in ids if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name)]
    if unusual:
        raise InputError(f"{counted(len(unusual), 'file name')} not in UTF-8, rename: {first_few(unusual)}")


def _held_out(benchmark: Benchmark, source: HeldOut, at: Location, inside: ImageSet | None) -> ImageSet:
    if inside is None:
        raise InputError(f"{benchmark.where(at)}: there are no in-distribution images to hold out")
    if source.limit >= len(inside):
        raise InputError(
            f"{benchmark.where((*at, 'limit'))}: {source.limit} images to hold out of {len(inside)}: none are left"
        )
    return replace(inside.sampled(source.limit, benchmark.definition.seed), left_out=())


def _location_of(source: AnySource | AnyCaptions, text: str, at: Location) -> Location:
    """Return where a path of the source is written, which may be in another file than the rest of it."""
    return (*at, next((key for key, value in source.model_dump().items() if value == text), "path"))


def _where(benchmark: Benchmark, at: Location) -> str:
    """Return file and line of the source's path, or of the source if no path is written."""
    return next(
        (benchmark.where((*at, key)) for key in ("path", "root", "name") if (*at, key) in benchmark.document.places),
        benchmark.where(at),
    )
