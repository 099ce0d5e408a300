"""Images that two sets of a benchmark share, and what that means for the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_qreliab.config.set_names import CALIBRATION, CAPTIONS, IN_DISTRIBUTION, OOD, SHIFT
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.errors import InputError

# Public sets have a few exact duplicates between their parts. One in a thousand moves an accuracy by .001 at most.
HARMLESS = 0.001
LOOKED_AT = (CALIBRATION, CAPTIONS)  # by quantizers

Identify = Callable[[ImageSet], Sequence[Hashable]]


@dataclass(frozen=True, kw_only=True)
class SharedImages:
    """The images of a set that are in another set as well."""

    name: str  # of the set that is measured
    other: str
    count: int
    size: int  # of the set that is measured

    @property
    def spoils_training(self) -> bool:
        """True if a model that is trained on the other set has seen too much of this one."""
        trained_on = self.other in LOOKED_AT and not self.name.startswith(OOD)
        return trained_on and self.count > HARMLESS * self.size

    def __str__(self) -> str:
        """Say what is shared, what follows, and how to mend it."""
        if self.other in LOOKED_AT:
            follows = "quantizers look at these, so that the results are too good; calibrate on other images"
        elif self.name.startswith(OOD) and self.other == IN_DISTRIBUTION:
            follows = "these are not out of distribution; take them out of one of the sets"
        else:
            follows = "these count twice; take them out of one of the sets"
        return f"{self.count} of the {self.size} images of {self.name} are images of {self.other} too: {follows}"


def find(sets: Mapping[str, ImageSet], identify: Identify) -> list[SharedImages]:
    """Return what sets share that should share nothing.

    These are images that quantizers look at and any set that is measured, two OOD sets, and the in-distribution images
    and an OOD or shifted set. Corrupted and spurious sets may be made of the in-distribution images.

    Args:
        sets: The image sets, by full name.
        identify: Returns what tells each image of a set from others.
    """
    pairs = list(_pairs([name for name, images in sets.items() if images.corruption is None]))
    known = {name: Counter(identify(sets[name])) for name in dict.fromkeys(name for pair in pairs for name in pair)}
    found = []
    for name, other in pairs:
        count = sum(times for image, times in known[name].items() if image in known[other])
        if count:
            found.append(SharedImages(name=name, other=other, count=count, size=len(sets[name])))
    return found


def check_training(what: str, shared: Iterable[SharedImages]) -> None:
    """Raise InputError if a quantizer trains on images that are measured.

    Args:
        what: The quantizer, for the message.
        shared: What the sets of its benchmark share.
    """
    for images in shared:
        if images.spoils_training:
            name = "calibration images" if images.other == CALIBRATION else f"images of {images.other}"
            raise InputError(f"{what} trains on the {name}; {images}")


def _pairs(names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the names of two sets that should share nothing, the one that is measured first."""
    ood = [name for name in names if name.startswith(OOD)]
    if IN_DISTRIBUTION in names:
        yield from ((name, IN_DISTRIBUTION) for name in names if name.startswith((OOD, SHIFT)))
    yield from ((name, other) for place, name in enumerate(ood) for other in ood[:place])
    for other in LOOKED_AT:
        if other in names:
            yield from ((name, other) for name in names if name not in LOOKED_AT)


def by_file(images: ImageSet) -> list[Hashable]:
    """Return the file of each image, which is known without a look into it; nothing for a set of other images.

    An image that shares its file with others is told by its id as well.
    """
    try:
        if not len(images) or not isinstance(images.identify(0), Path):
            return []
    except InputError:  # it has to be decoded to be known, and cannot be
        return []
    files = [images.identify(index) for index in range(len(images))]
    times = Counter(files)
    return [
        Path(file).absolute() if times[file] == 1 else (Path(file).absolute(), identity)
        for file, identity in zip(files, images.ids, strict=True)
    ]
