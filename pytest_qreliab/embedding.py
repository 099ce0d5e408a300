"""The forward pass: image sets and prompts through a model, into arrays. After this no model is needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from open_clip import transform

from pytest_qreliab.data.batches import BATCH, batches
from pytest_qreliab.data.benchmark import CALIBRATION, IN_DISTRIBUTION, OOD, Data
from pytest_qreliab.data.images import ImageSet
from pytest_qreliab.data.recorded import rows
from pytest_qreliab.errors import InputError
from pytest_qreliab.metrics.calibration import fit_logit_scale
from pytest_qreliab.metrics.registry import GRATINGS, WITH_GRATINGS, Need
from pytest_qreliab.metrics.spectral import high_band_share, power
from pytest_qreliab.models.blocks import Seen, watched
from pytest_qreliab.models.clip import Clip
from pytest_qreliab.models.layout import OPEN_CLIP
from pytest_qreliab.quantizers.calibration import Calibration, held_out
from pytest_qreliab.record import Recording

Advance = Callable[[int], None]

CALIBRATION_NEEDS: frozenset[Need] = frozenset({"calibration", "labels"})  # either asks for calibration images
GRATING_RMS = 0.1  # in units of the pixels' own spread
WATCHED: frozenset[Need] = frozenset({"blocks", "penultimate"})


@dataclass(frozen=True)
class Blocks:
    """The Fourier spectra of the maps after each block of an image tower, over one image set.

    `power` holds the mean power map of each block, float64 (rows, columns), `shares` the high-band energy shares,
    float64 (n, blocks), and `last` the power map of each image after the last block, float32 (n, rows, columns).
    """

    power: tuple[npt.NDArray[np.float64], ...]
    shares: npt.NDArray[np.float64]
    last: npt.NDArray[np.float32]


@dataclass(frozen=True)
class ImageEmbeddings:
    """Of one image set: features, float32 (n, dim), not normalised.

    Of the in-distribution set also the high-band energy share of the last patch map, float64 (n,), and, where they
    were asked for, the `blocks` and the `penultimate` features, float32 (n, width), None where the tower shows none,
    and the `sensitivity` of some of the images to gratings, float64 (images, gratings).
    Recorded outputs may hold `logits`, float32 (n, classes), in the place of features. `local`, float64 (n,), is the
    maximum over patches and classes of the log-softmax, at temperature 1, of the cosines of the local features; None
    where it was not asked for, or the image tower shows none.
    """

    features: npt.NDArray[np.float32] | None
    high_band: npt.NDArray[np.float64] | None = None
    local: npt.NDArray[np.float64] | None = None
    logits: npt.NDArray[np.float32] | None = None
    blocks: Blocks | None = None
    penultimate: npt.NDArray[np.float32] | None = None
    sensitivity: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        values = self.logits if self.features is None else self.features
        assert values is not None
        return len(values)


@dataclass(frozen=True)
class LabelledEmbeddings:
    """Of a further image set with int64 labels (n,). Where `among`, int64, is given, only those classes are told
    apart."""

    images: ImageEmbeddings
    labels: npt.NDArray[np.int64]
    among: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class CalibrationEmbeddings:
    """Of the calibration images: features, float32 (n, dim), not normalised, and int64 labels (n,), if they have any.

    `held_out`, bool (n,), tells the images that no quantizer has looked at. Recorded outputs may hold `logits`, float32
    (n, classes), in the place of features.
    """

    features: npt.NDArray[np.float32] | None
    labels: npt.NDArray[np.int64] | None
    held_out: npt.NDArray[np.bool_]
    logits: npt.NDArray[np.float32] | None = None

    @property
    def images(self) -> ImageEmbeddings:
        return ImageEmbeddings(self.features, logits=self.logits)


@dataclass(frozen=True)
class Embeddings:
    """Of one benchmark: `classifier` is float32 (classes, dim), unit rows; `labels` int64 (n,) index it.

    `negatives` is the same of the negative labels, (m, dim). That, `calibration` and further `labelled` sets are there
    where they were asked for and the benchmark has them. `near` names the OOD sets that are near. Recorded logits come
    without a classifier, and perhaps without the logit scale; `probabilities` says that they are known up to a constant
    of each sample only.
    """

    in_distribution: ImageEmbeddings
    labels: npt.NDArray[np.int64]
    ood: Mapping[str, ImageEmbeddings]
    classifier: npt.NDArray[np.float32] | None
    logit_scale: float | None
    logit_bias: float
    negatives: npt.NDArray[np.float32] | None = None
    calibration: CalibrationEmbeddings | None = None
    near: frozenset[str] = frozenset()
    labelled: Mapping[str, LabelledEmbeddings] = field(default_factory=dict)
    probabilities: bool = False


def embed(clip: Clip, data: Data, advance: Advance, needs: Collection[Need] = ()) -> Embeddings:
    """All of a benchmark through one model, and of the optional parts those in `needs`.

    `advance` is told of every batch of images or prompts done, in all of as many as `work` says.
    """
    labels = data.in_distribution.labels
    assert labels is not None
    clip = prepared(clip, data)
    with full_precision():
        classifier = _classifier(clip, [data.captions(label) for label in range(len(data.classes))], advance)
        negatives = None
        if "negatives" in needs and data.negatives:
            negatives = _classifier(clip, [data.filled(word) for word in data.negatives], advance)
        local_to = torch.from_numpy(classifier).to(clip.device) if "local" in needs else None
        return Embeddings(
            _encode_in_distribution(clip, data.in_distribution, advance, local_to, needs),
            labels,
            {name: _encode_features(clip, images, advance, local_to) for name, images in data.ood.items()},
            classifier,
            clip.logit_scale,
            clip.logit_bias,
            negatives,
            _encode_calibration(clip, data.calibration, advance) if CALIBRATION_NEEDS & set(needs) else None,
            data.near,
            {name: _encode_labelled(clip, images, advance) for name, images in _asked(data, needs).items()},
        )


def _asked(data: Data, needs: Collection[Need]) -> dict[str, ImageSet]:
    """The further labelled sets that are needed, by name, which starts with the need."""
    return {name: images for name, images in data.labelled.items() if name.partition(".")[0] in needs}


def recorded(recording: Recording, name: str, data: Data, needs: Collection[Need] = ()) -> Embeddings:
    """What `embed` would give, from outputs that were recorded, of the model or quantizer `name`.

    A probability of 0, which was rounded, is taken as half the smallest other one of its set. Raises InputError for
    samples that are missing, or have other labels.
    """
    wanted = {name: images for name, images in data.sets.items() if name.startswith((IN_DISTRIBUTION, OOD))}
    wanted.update(_asked(data, needs))
    if CALIBRATION_NEEDS & set(needs) and data.calibration is not None:
        wanted[CALIBRATION] = data.calibration
    found = {}
    for of, images in wanted.items():
        if of in recording.sets:  # what a gate needs is known to be there
            values = recording.sets[of].values[rows(name, recording.sets[of], images)]
            found[of] = _of_values(recording.kind, values)
    calibrating, labels = found.get(CALIBRATION), data.in_distribution.labels
    assert labels is not None
    classifier = None
    if recording.kind == "image_features":
        classifier = F.normalize(torch.from_numpy(recording.text_features).double(), dim=-1).float().numpy()
    return Embeddings(
        found[IN_DISTRIBUTION],
        labels,
        {of.split(".", 2)[2]: embeddings for of, embeddings in found.items() if of.startswith(OOD)},
        classifier,
        recording.logit_scale,
        recording.logit_bias or 0.0,
        calibration=None
        if calibrating is None or data.calibration is None
        else CalibrationEmbeddings(
            calibrating.features, data.calibration.labels, held_out(data.calibration), calibrating.logits
        ),
        near=data.near,
        labelled={
            of: LabelledEmbeddings(found[of], images.labels, images.classes)
            for of, images in data.labelled.items()
            if of in found and images.labels is not None
        },
        probabilities=recording.kind == "probabilities",
    )


def _of_values(kind: str, values: npt.NDArray[np.float32]) -> ImageEmbeddings:
    if kind == "image_features":
        return ImageEmbeddings(values)
    if kind == "probabilities":
        positive = values[values > 0]
        least = float(positive.min()) / 2 if positive.size else 1.0
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            values = np.log(np.where(values <= 0, np.float32(least), values))
    return ImageEmbeddings(None, logits=values)


def prepared(clip: Clip, data: Data) -> Clip:
    """The model with the preprocessing that the benchmark asks for. Raises InputError where it cannot be changed."""
    given = {name: value for name, value in data.preprocessing if value is not None}
    if not given:
        return clip
    renamed = {"resize": "resize_mode", "fill": "fill_color"}
    overrides = {renamed.get(name, name): tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    known = getattr(getattr(clip.module, "visual", None), "preprocess_cfg", None)
    if clip.layout is not OPEN_CLIP or known is None:
        raise InputError(
            f"{clip.name} brings its own preprocessing, which `preprocessing:` of a benchmark cannot change ("
            f"{', '.join(given)}); wrap it with another preprocess"
        )
    config = transform.PreprocessCfg(**transform.merge_preprocess_dict(known, overrides))
    return replace(clip, preprocess=transform.image_transform_v2(config, is_train=False))


def work(data: Data, needs: Collection[Need] = ()) -> int:
    """How many images and prompts `embed` counts for a benchmark."""
    images = len(data.in_distribution) + sum(map(len, [*data.ood.values(), *_asked(data, needs).values()]))
    if CALIBRATION_NEEDS & set(needs) and data.calibration is not None:
        images += len(data.calibration)
    words = len(data.classes) + (len(data.negatives) if "negatives" in needs else 0)
    return images + words * len(data.templates)


def calibration(data: Data) -> Calibration:
    """A benchmark's calibration images, if it has any, split, and its classes and templates."""
    return Calibration.split(data.calibration, data.classes, data.templates)


def fitted_logit_scale(clip: Clip, calibration: Calibration) -> float:
    """The logit scale that fits the held-out calibration images best, by NLL.

    Raises InputError where the features hold NaN or infinity.
    """
    images = calibration.held_out
    assert images is not None
    assert images.labels is not None
    with full_precision():
        features = torch.cat([clip.encode_image(batch).double().cpu() for batch in batches(images, clip.preprocess)])
        prompts = [calibration.captions(label) for label in range(len(calibration.classes))]
        classifier = torch.from_numpy(_classifier(clip, prompts)).double()
    cosines = F.normalize(features, dim=-1) @ classifier.T
    if not bool(cosines.isfinite().all()):
        raise InputError(f"{clip.name}: NaN or infinity in the features, so that no logit scale can be fitted")
    return fit_logit_scale(cosines.numpy(), images.labels)


@contextmanager
def full_precision() -> Iterator[None]:
    """Matrix products in true float32 on a GPU: TF32 keeps 10 bits, coarser than what is to be measured."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _encode_in_distribution(
    clip: Clip, images: ImageSet, advance: Advance, local_to: torch.Tensor | None, needs: Collection[Need]
) -> ImageEmbeddings:
    """`local_to` is the classifier that local features are compared with, if they are asked for."""
    features, shares, nearest, penultimate = [], [], [], []
    spectra = _Spectra()
    with watched(clip, power) if WATCHED & set(needs) else nullcontext(Seen()) as seen:
        for batch in batches(images, clip.preprocess):
            seen.clear()
            local = None
            if local_to is None:
                encoded, patch_map = clip.encode_image_with_map(batch)
            else:
                encoded, patch_map, local = clip.encode_image_with_local(batch)
            features.append(encoded.float().cpu())
            if local is not None and local_to is not None:
                nearest.append(_largest_log_softmax(local, local_to))
            maps = seen.blocks
            if patch_map is not None and (not maps or maps[-1].shape[1:] != patch_map.shape[-2:]):
                maps = [power(patch_map)]  # the tower shows the last map alone, or others than are known here
            if maps:
                shares.append(high_band_share(maps[-1]))
            if "blocks" in needs and maps:
                spectra.add(maps)
            if "penultimate" in needs and seen.penultimate is not None:
                penultimate.append(seen.penultimate.float().cpu())
            advance(len(batch))
    of_maps, of_patches, before = (
        torch.cat(parts).numpy() if parts else None for parts in (shares, nearest, penultimate)
    )
    return ImageEmbeddings(
        torch.cat(features).numpy(),
        of_maps,
        of_patches,
        blocks=spectra.blocks(len(images)),
        penultimate=before,
        sensitivity=_sensitivity(clip, images) if "gratings" in needs else None,
    )


def _sensitivity(clip: Clip, images: ImageSet) -> npt.NDArray[np.float64]:
    """How far gratings of each frequency move the features of some images: |change| / |features| over the grating's
    RMS, float64 (images, gratings). Orientation and phase are drawn for each image, with a seed."""
    rng, found = np.random.default_rng(0), []
    for batch in batches(images.limited(WITH_GRATINGS), clip.preprocess):
        plain = clip.encode_image(batch).double()
        angles, phases = rng.uniform(0, 2 * np.pi, (2, len(batch)))
        moved = [
            clip.encode_image(batch + GRATING_RMS * _grating(batch.shape[-2:], frequency, angles, phases)).double()
            for frequency in GRATINGS.values()
        ]
        found.append(torch.stack([(of - plain).norm(dim=1) / plain.norm(dim=1) / GRATING_RMS for of in moved], dim=1))
    return torch.cat(found).cpu().numpy()


def _grating(
    size: Sequence[int], frequency: float, angles: npt.NDArray[np.float64], phases: npt.NDArray[np.float64]
) -> torch.Tensor:
    """Gratings of RMS 1, (n, 1, rows, columns), of that many cycles per pixel, one of each angle and phase."""
    y, x = np.indices(size)
    along = np.cos(angles)[:, None, None] * x + np.sin(angles)[:, None, None] * y
    waves = np.sqrt(2) * np.cos(2 * np.pi * frequency * along + phases[:, None, None])
    return torch.from_numpy(waves[:, None]).float()


class _Spectra:
    """Adds the power maps of batches up, block by block."""

    def __init__(self) -> None:
        self._sums: list[npt.NDArray[np.float64]] = []
        self._shares: list[torch.Tensor] = []
        self._last: list[torch.Tensor] = []

    def add(self, maps: Sequence[torch.Tensor]) -> None:
        sums = [of_block.sum(dim=0).numpy() for of_block in maps]
        self._sums = [before + now for before, now in zip(self._sums, sums, strict=True)] if self._sums else sums
        self._shares.append(torch.stack([high_band_share(of_block) for of_block in maps], dim=1))
        self._last.append(maps[-1].float())

    def blocks(self, n: int) -> Blocks | None:
        if not self._sums:
            return None
        means = tuple(total / n for total in self._sums)
        return Blocks(means, torch.cat(self._shares).numpy(), torch.cat(self._last).numpy())


def _largest_log_softmax(local: torch.Tensor, classifier: torch.Tensor) -> torch.Tensor:
    """Over patches and classes, of cosines at temperature 1: float64 (batch,), NaN where any patch has one."""
    cosines = F.normalize(local.float(), dim=-1) @ classifier.T
    return cosines.log_softmax(dim=-1).amax(dim=(1, 2)).cpu().double()


def _encode_calibration(clip: Clip, images: ImageSet | None, advance: Advance) -> CalibrationEmbeddings | None:
    if images is None:
        return None
    return CalibrationEmbeddings(_encode_features(clip, images, advance).features, images.labels, held_out(images))


def _encode_labelled(clip: Clip, images: ImageSet, advance: Advance) -> LabelledEmbeddings:
    assert images.labels is not None
    return LabelledEmbeddings(_encode_features(clip, images, advance), images.labels, images.classes)


def _encode_features(
    clip: Clip, images: ImageSet, advance: Advance, local_to: torch.Tensor | None = None
) -> ImageEmbeddings:
    """Without spectra; `local_to` is the classifier that local features are compared with, if they are asked for."""
    features, nearest = [], []
    for batch in batches(images, clip.preprocess):
        if local_to is None:
            encoded = clip.encode_image(batch)
        else:
            encoded, _, local = clip.encode_image_with_local(batch)
            if local is not None:
                nearest.append(_largest_log_softmax(local, local_to))
        features.append(encoded.float().cpu())
        advance(len(batch))
    return ImageEmbeddings(torch.cat(features).numpy(), local=torch.cat(nearest).numpy() if nearest else None)


def image_features(clip: Clip, data: Data, images: ImageSet, advance: Advance) -> npt.NDArray[np.float32]:
    """Features, float32 (n, dim), not normalised, of some images of a benchmark."""
    with full_precision():
        features = _encode_features(prepared(clip, data), images, advance).features
    assert features is not None
    return features


def class_features(clip: Clip, data: Data) -> npt.NDArray[np.float32]:
    """Text features of the classes, float32 (classes, dim), unit rows."""
    with full_precision():
        return _classifier(clip, [data.captions(label) for label in range(len(data.classes))])


def _classifier(
    clip: Clip, captions: Sequence[Sequence[str]], advance: Advance = lambda done: None
) -> npt.NDArray[np.float32]:
    """One unit vector per class: the mean over its captions of their unit features, normalised again."""
    prompts = [prompt for of_class in captions for prompt in of_class]
    encoded = []
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        encoded.append(F.normalize(clip.encode_text(batch).float(), dim=-1).cpu())
        advance(len(batch))
    by_class = torch.cat(encoded).reshape(len(captions), len(captions[0]), -1)
    classifier: npt.NDArray[np.float32] = F.normalize(by_class.mean(dim=1), dim=-1).numpy()
    return classifier
