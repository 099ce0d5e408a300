"""The sources of images that a benchmark file may name.

Paths are relative to the file that they are written in; `~` and `$NAME` expand.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pytest_qreliab.config.document import Strict

Count = Annotated[int, Field(ge=1)]
Word = Annotated[str, Field(pattern=r"\S")]
PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
LabelledBy = Literal["key", "index", "name"]
OrSkip = Literal["error", "skip"]
Scalar = str | int | float | bool


class _Images(Strict):
    limit: Count | None = None
    size: Count | None = None
    origin: Word | None = None
    layout: Word | None = None
    licence: Word | None = None


class _Rows(Strict):
    path: Word
    image: Word = "image"
    root: Word | None = None
    columns: Annotated[list[Word], Field(min_length=1)] | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    where: dict[str, Scalar | Annotated[list[Scalar], Field(min_length=1)]] = {}
    missing_images: OrSkip = "error"


class CaptionTable(_Rows, _Images):
    """Image-caption pairs of a table, whose other keys are those of a `table` of images: `caption` is the column of
    captions. Of an image in several rows the first counts, and of a list of captions the first.
    """

    source: Literal["table"]
    caption: Word = "caption"


class CaptionShards(_Images):
    """Image-caption pairs of tar shards, whose other keys are those of a `webdataset` of images: `caption` is the
    suffix of captions.
    """

    source: Literal["webdataset"]
    path: Word
    image: Word | None = None
    caption: Word = "txt"


_BY_NAME = Field(discriminator="source")
AnyCaptions = CaptionTable | CaptionShards


def _with_source(captions: Any) -> Any:
    """Refuse the bare path of a file, which does not say how it is read."""
    if isinstance(captions, str):
        kind = "webdataset" if captions.endswith(".tar") else "table"
        raise ValueError(f"write what the file is as well: {{source: {kind}, path: {captions}}}")
    return captions


Captions = Annotated[AnyCaptions, _BY_NAME, BeforeValidator(_with_source)]


class _Source(_Images):
    """Any source. `limit` draws that many of its images: with a seed, and of every class in proportion.

    `size` is how many there are before that, where the set is a published one; `origin` says where to get it, `layout`
    what has to lie where, `licence` under which terms it comes. `captions`, of `calibration` alone, are image-caption
    pairs that quantizers look at in place of the prompts of the benchmark's classes.
    """

    captions: Captions | None = None


class _Labelled(_Source):
    """A source that has labels. Images may be told apart among fewer classes than the benchmark has.

    `classes` are the keys of those: a list, a file, or a built-in set; `partial` says that some of them may be without
    images, which is an error otherwise where classes are folders. `labelled_by` says what the source writes as a
    label: the key of a class, its index, or its name. `other_labels: skip` leaves images out whose label is that of no
    class, which is an error otherwise.
    """

    classes: Annotated[list[Word], Field(min_length=1)] | Word | None = None
    partial: bool = False
    labelled_by: LabelledBy | None = None
    other_labels: OrSkip = "error"


class Digits(_Labelled):
    """scikit-learn's handwritten digits; the `test` part was never shown to `tiny-digits`. In colour, if asked for:
    each class in a `common` colour of its own, or each image in the colour of another class (`counter`).
    """

    source: Literal["digits"]
    part: Literal["train", "test"]
    colour: Literal["common", "counter"] | None = None


class PrintedDigits(_Labelled):
    """Digits drawn with a font, in the handwritten digits' format."""

    source: Literal["printed-digits"]


class Letters(_Source):
    """Letters drawn in the digits' format."""

    source: Literal["letters"]


class PhotoPatches(_Source):
    """Patches of scikit-learn's two photographs."""

    source: Literal["photo-patches"]


class ImageFolder(_Labelled):
    """A folder with one folder of images per class; or with images wherever `pattern` says, a path within the folder
    with `*` for any name or part of one, `**` for any folders or none, and `{label}` for the label:
    `{label} */common-*/*`. Links are followed. `partial` also allows empty class folders.
    """

    source: Literal["image-folder"]
    path: Word
    pattern: Annotated[str, Field(pattern=r"^[^{}]*\{label\}[^{}]*$")] | None = None


class FlatFolder(_Source):
    """A folder of images without classes."""

    source: Literal["flat-folder"]
    path: Word


class Table(_Rows, _Labelled):
    """A CSV, JSON lines (`.jsonl`) or Parquet file with a column of image paths, and perhaps one of labels.

    `image` is the column of paths, or a path with columns in it: `images/{id}.jpg`. `root` is where relative image
    paths start, by default the table's folder. `columns` names the columns of a CSV file without a head, `delimiter` is
    what is between them: by default a tab in a `.tsv` file, else a comma. `where` keeps the rows with those values, one
    or a list for each column. `missing_images: skip` leaves rows out whose image is not there.
    """

    source: Literal["table"]
    label: Word | None = None


class Torchvision(_Labelled):
    """A data set of torchvision by its class name, as CIFAR10, in the folder `root`; `arguments` are the others that
    the class takes, as `train: false`. Nothing is downloaded unless `download` says so.
    """

    source: Literal["torchvision"]
    dataset: Word
    root: Word
    arguments: dict[str, Scalar] = {}
    download: bool = False


class WebDataset(_Labelled):
    """Tar shards in which the files of a sample share a name up to the first dot: an image, and a label, say `.cls`.

    `path` is one shard, a folder of them, or a pattern: `*`, `{0000..0012}`. `label` and `image` are the suffixes of
    labels and images; without `image` each file that Pillow reads is the image of a sample.
    """

    source: Literal["webdataset"]
    path: Word
    image: Word | None = None
    label: Word | None = None


class HuggingFace(_Labelled):
    """A data set of the package `datasets`: saved to disk at `path`, or of that `name` on the hub, where `revision` is
    a branch, a tag or a commit.
    """

    source: Literal["huggingface"]
    path: Word | None = None
    name: Word | None = None
    revision: Word | None = None
    config: Word | None = None
    split: Word | None = None
    image: Word = "image"
    label: Word | None = None

    @model_validator(mode="after")
    def _one_place(self) -> HuggingFace:
        if (self.path is None) == (self.name is None):
            raise ValueError("give either the path of a saved data set or the name of one on the hub")
        if self.revision is not None and self.name is None:
            raise ValueError("a revision is of a data set on the hub, and this one is saved on disk")
        return self


class Arrays(_Labelled):
    """Images in a NumPy array, uint8 (n, height, width) or (n, height, width, 3): a `.npy` file, or in a `.npz` file
    the one called `images`. `labels` is the path of another `.npy` file, or the name of another array of the `.npz`.
    `part: 2/5` takes the second of five equal parts, in order.
    """

    source: Literal["arrays"]
    path: Word
    images: Word = "images"
    labels: Word | None = None
    part: Annotated[str, Field(pattern=r"^([1-9][0-9]*|\{severity\})/[1-9][0-9]*$")] | None = None


class HeldOut(_Source):
    """`limit` images taken out of the in-distribution set, which is measured on without them."""

    source: Literal["held-out"]
    limit: Count


class CaptionedImages(Strict):
    """The images of `captions`, for a benchmark whose calibration has no others. The `source` may be left out."""

    source: Literal["captioned"] = "captioned"
    captions: Captions


class Recorded(_Source):
    """Samples whose outputs were recorded elsewhere: ids, labels and classes, and no images."""

    source: Literal["recorded"]
    path: Word


AnyLabelled = Digits | PrintedDigits | ImageFolder | Table | Torchvision | WebDataset | HuggingFace | Arrays
AnySource = AnyLabelled | Letters | PhotoPatches | FlatFolder
Labelled = Annotated[AnyLabelled, _BY_NAME]
Source = Annotated[AnySource, _BY_NAME]
InDistribution = Annotated[AnyLabelled | Recorded, _BY_NAME]
Calibrating = Annotated[AnySource | HeldOut | CaptionedImages, _BY_NAME]
