"""Images in tar shards, as webdataset and CLIP_benchmark lay them out: the files of a sample share a name."""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from pytest_qreliab.config.text_forms import composed
from pytest_qreliab.data import decode
from pytest_qreliab.data.images import Items, LeftOut
from pytest_qreliab.data.sources.suffixes import is_image
from pytest_qreliab.data.wording import counted, first_few
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


@dataclass
class Index:
    """The files of shards, by what they are."""

    samples: dict[str, Sample] = field(default_factory=dict)  # by name
    strays: list[str] = field(default_factory=list)  # images that are no sample's
    others: dict[str, None] = field(default_factory=dict)  # the names of files of other kinds


def list_items(path: Path, label: str | None, image: str | None = None) -> Items:
    """List the samples of shards in order; the id of a sample is its shard's name and its own.

    The shards are indexed, not unpacked. As in webdataset, the name of a sample ends at the first dot.

    Args:
        path: A shard, a folder of shards, or a pattern with `*` or `{0000..0012}`.
        label: The suffix of the files with labels; None reads none.
        image: The suffix of the images, if there are others beside them; None takes any that Pillow reads.

    Raises:
        InputError: A shard is damaged, a sample lacks an image or a label or has two images, or an image is no
            sample's.
    """
    label, image = (None if suffix is None else suffix.lower().removeprefix(".") for suffix in (label, image))
    index = Index()
    for shard in _shards(path):
        _add(shard, label, image, index)
    samples, strays = index.samples, index.strays
    if strays and image is None:
        raise InputError(
            f"{path}: {counted(len(strays), 'file')} with the suffix of an image taken for no sample, the first: "
            f"{strays[0]}; a sample's name ends at the first dot, and a link is no file: rename them, or say which are "
            "the images, as in `image: jpg`"
        )
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
        suffix = "an image" if image is None else f".{image}"
        raise InputError(f"{path}: the shards hold no samples: no file with the suffix of {suffix}")
    ids, images = list(samples), [sample.images[0] for sample in samples.values()]
    labels = [_label(sample.label, name) for name, sample in samples.items() if sample.label is not None]
    left_out = [LeftOut(f"{counted(len(strays), 'image')} that `image` leaves out", on_request=True)] if strays else []
    if without := [name for name in index.others if name not in samples]:
        left_out.append(LeftOut(f"{counted(len(without), 'name')} without an image left out: {first_few(without)}"))
    return Items(
        ids=ids,
        load=lambda i: decode.image(images[i].read(), f"{path.name}: {ids[i]}"),
        labels=None if label is None else labels,
        content=lambda i: images[i].shard,
        left_out=tuple(left_out),
    )


def _label(member: Member, name: str) -> str:
    try:
        return member.read().decode("utf-8").strip()
    except UnicodeDecodeError:
        raise InputError(f"{member.shard}: the label of {name} is not UTF-8 text") from None


def _add(shard: Path, label: str | None, image: str | None, index: Index) -> None:
    """Add the files of a shard; the suffixes of labels and images are in small letters."""
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                folder, slash, file = composed(member.name).rpartition("/")
                key, _, suffix = file.partition(".")
                if member.isdir() or not key:  # without a key it is hidden, as `._1.jpg` is
                    continue
                place = Member(shard, member.offset_data, member.size)
                name = f"{shard.name}/{folder}{slash}{key}"
                if label is not None and suffix.lower() == label and member.isfile():
                    index.samples.setdefault(name, Sample()).label = place
                elif not is_image(file):
                    index.others[name] = None
                elif member.isfile() and ("." not in suffix if image is None else suffix.lower() == image):
                    index.samples.setdefault(name, Sample()).images.append(place)
                else:
                    index.strays.append(f"{shard.name}/{member.name}")
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
        shards = _unpacked(path)
    elif "*" in path.name:
        shards = sorted(shard for shard in path.parent.glob(path.name) if not shard.name.startswith("."))
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


def _unpacked(folder: Path) -> list[Path]:
    """Return the shards in a folder; raise InputError if there are packed ones, which cannot be indexed."""
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    packed = [path.name for path in files if path.name.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"))]
    if packed:
        raise InputError(f"{folder}: {counted(len(packed), 'shard')} to be unpacked first: {first_few(packed)}")
    return [path for path in files if path.suffix == ".tar"]
