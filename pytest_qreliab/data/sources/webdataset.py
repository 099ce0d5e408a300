"""Images in tar shards, as webdataset and CLIP_benchmark lay them out: the files of a sample share a name."""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from pytest_qreliab.data import decode
from pytest_qreliab.data.images import Items
from pytest_qreliab.data.sources.folders import SUFFIXES
from pytest_qreliab.errors import InputError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class Member:
    """A file within a shard."""

    shard: Path
    offset: int  # bytes
    size: int  # bytes

    def read(self) -> bytes:
        """Return the content of the file."""
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass
class Sample:
    """The files of one sample."""

    images: list[Member] = field(default_factory=list)
    label: Member | None = None


def list_items(path: Path, label: str | None) -> Items:
    """List the samples of shards in order; the id of a sample is its shard's name and its own.

    The shards are indexed, not unpacked.

    Args:
        path: A shard, a folder of shards, or a pattern with `*` or `{0000..0012}`.
        label: The suffix of the files with labels; None reads none.

    Raises:
        InputError: A shard is damaged, or a sample lacks an image or a label, or has two images.
    """
    samples: dict[str, Sample] = {}
    for shard in _shards(path):
        _index(shard, label, samples)
    for what, lacking in (
        ("image", [name for name, sample in samples.items() if not sample.images]),
        ("one image alone", [name for name, sample in samples.items() if len(sample.images) > 1]),
        (f"file .{label}", [name for name, sample in samples.items() if label is not None and sample.label is None]),
    ):
        if lacking:
            raise InputError(
                f"{path}: {len(lacking)} of {len(samples)} samples have no {what}; the first: {lacking[0]}"
            )
    if not samples:
        raise InputError(f"{path}: the shards hold no samples: no file with a suffix of {', '.join(sorted(SUFFIXES))}")
    ids, images = list(samples), [sample.images[0] for sample in samples.values()]
    labels = [_label(sample.label, name) for name, sample in samples.items() if sample.label is not None]
    return Items(
        ids=ids,
        load=lambda i: decode.image(images[i].read(), f"{path.name}: {ids[i]}"),
        labels=None if label is None else labels,
        content=lambda i: images[i].shard,
    )


def _label(member: Member, name: str) -> str:
    try:
        return member.read().decode("utf-8").strip()
    except UnicodeDecodeError:
        raise InputError(f"{member.shard}: the label of {name} is not UTF-8 text") from None


def _index(shard: Path, label: str | None, samples: dict[str, Sample]) -> None:
    """Add the samples of a shard."""
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                folder, slash, file = member.name.rpartition("/")
                key, dot, suffix = file.partition(".")
                if not member.isfile() or not dot or not key:
                    continue
                place = Member(shard, member.offset_data, member.size)
                name = f"{shard.name}/{folder}{slash}{key}"
                if label is not None and suffix.lower() == label.lower():
                    samples.setdefault(name, Sample()).label = place
                elif f".{suffix.lower()}" in SUFFIXES:
                    samples.setdefault(name, Sample()).images.append(place)
            if archive.offset > shard.stat().st_size:
                raise tarfile.ReadError("its end is missing")
    except OSError as error:
        raise InputError(f"{shard}: the shard cannot be read: {error.strerror}") from None
    except tarfile.TarError as error:
        raise InputError(
            f"{shard}: the shard cannot be read: {error} (a packed one, .tar.gz, has to be unpacked)"
        ) from None


def _shards(path: Path) -> list[Path]:
    """Return the shards that a path names."""
    if path.is_dir():
        shards = sorted(path.glob("*.tar"))
    elif "*" in path.name:
        shards = sorted(path.parent.glob(path.name))
    elif given := _RANGE.search(path.name):
        first, last = given[1], given[2]
        names = [
            f"{path.name[: given.start()]}{number:0{len(first)}d}{path.name[given.end() :]}"
            for number in range(int(first), int(last) + 1)
        ]
        shards = [path.with_name(name) for name in names]
        missing = [str(shard) for shard in shards if not shard.is_file()]
        if missing:
            raise InputError(f"{path}: {len(missing)} of {len(shards)} shards are not there; the first: {missing[0]}")
    else:
        shards = [path]
    if not shards:
        raise InputError(f"{path}: there are no shards (*.tar)")
    return shards
