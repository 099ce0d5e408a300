"""The table of the spectral metrics, which are of features, patch maps and weights."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

from pytest_qreliab.metrics.definitions import FEATURES, GRATINGS, Direction, Metric, Need
from pytest_qreliab.metrics.names import MetricName


def _spectral(
    statistic: str,
    better: Direction,
    header: str,
    text: str,
    spread: float | None = None,
    *,
    distance: bool = False,
    needs: frozenset[Need] = frozenset(),
) -> Metric:
    """Return a metric of features."""
    return Metric(
        name=f"spectral.{statistic}",
        aspect="spectrum",
        better=better,
        header=header,
        help=text,
        spread=spread,
        needs=needs,
        reads=frozenset({"features"}),
        distance=distance,
    )


_BANDS = {"low_rank": "the first ranks", "mid_rank": "the middle ranks", "high_rank": "the last ranks"}


class _Banded(NamedTuple):
    """A metric of all ranks and of each band."""

    statistic: str
    better: Direction
    header: str
    text: str
    whose: str  # the ranks' owner
    spreads: tuple[float | None, ...] = (None,) * 4  # of all ranks, and of each band
    needs: frozenset[Need] = frozenset()

    def metrics(self) -> list[Metric]:
        """Return the metric of all ranks and those of the bands."""
        rows = [(self.statistic, self.header, self.text)]
        for band, ranks in _BANDS.items():
            header, text = f"{self.header} {band.replace('_', ' ')}", f"{self.text}, along {ranks} of {self.whose}"
            rows.append((f"{self.statistic}_{band}", header, text))
        return [
            _spectral(statistic, self.better, header, text, spread, distance=True, needs=self.needs)
            for (statistic, header, text), spread in zip(rows, self.spreads, strict=True)
        ]


_SQNR = _Banded(
    statistic="sqnr",
    better="higher",
    header="SQNR",
    text="mean squares of the centred image features over those of what quantization adds to them, dB",
    whose="full precision",
    spreads=(2.6, 13.0, 8.5, 3.4),
)
_RESIDUAL = _Banded(
    statistic="residual",
    better="lower",
    header="residual",
    text="mean squares of what quantization adds to the image features over those of the features, centred",
    whose="full precision",
    spreads=(0.016, 0.013, 0.036, 1.9),
)
_WEIGHT_ERROR = _Banded(
    statistic="weight_error",
    better="lower",
    header="weight error",
    text="root of the squared errors of all weights over their squares",
    whose="each",
    needs=frozenset({"weights"}),
)
_VARIES = "of the centred image features"

# The metrics of features by rank that other features than the image's have as well.
_RANKED = (
    _spectral(
        "effective_rank",
        "neither",
        "effective rank",
        f"exp of the entropy of the squared singular values {_VARIES}",
        0.85,
    ),
    _spectral(
        "stable_rank", "neither", "stable rank", f"sum over maximum of the squared singular values {_VARIES}", 0.61
    ),
    _spectral(
        "participation_ratio",
        "neither",
        "participation ratio",
        f"squared sum over sum of squares of the squared singular values {_VARIES}",
        0.96,
    ),
    *(metric for pair in zip(_SQNR.metrics(), _RESIDUAL.metrics(), strict=True) for metric in pair),
)
_ACCURACIES = tuple(
    _spectral(
        f"accuracy_{band}",
        "higher",
        f"accuracy {band.replace('_', ' ')}",
        f"top-1 accuracy of {ranks} of the image features alone",
        spread,
        distance=True,
    )
    for (band, ranks), spread in zip(_BANDS.items(), (0.23, 0.16, 0.29), strict=True)
)
_SIMILARITIES = (
    _spectral("cka", "higher", "CKA", "linear CKA of the image features with full precision's", 0.012, distance=True),
    _spectral(
        "principal_angle",
        "lower",
        "principal angle",
        "largest angle of the first ranks to those of full precision, degrees",
        distance=True,
    ),
)
_SENSITIVITIES = tuple(
    _spectral(
        f"sensitivity_{which}",
        "neither",
        f"sensitivity {which}",
        f"relative change of the image features by gratings of {frequency:g} cycles per pixel, over their RMS",
        spread,
        needs=frozenset({"gratings"}),
    )
    for (which, frequency), spread in zip(GRATINGS.items(), (0.12, 0.19, 0.081), strict=True)
)
_WEIGHTS = (
    *_WEIGHT_ERROR.metrics(),
    _spectral(
        "weight_rank",
        "neither",
        "weight rank",
        "mean over the weights of their effective rank, over that in full precision",
        distance=True,
        needs=frozenset({"weights"}),
    ),
)

_MAPS = (
    Metric(
        name="spectral.high_band_energy",
        aspect="spectrum",
        better="neither",
        header="high-band energy",
        help="share of the patch map's non-DC power above half the Nyquist radius",
        spread=0.006,
        reads=frozenset({"patches"}),
    ),
    Metric(
        name="spectral.map_error",
        aspect="spectrum",
        better="lower",
        header="map error",
        help="mean over frequencies of the relative change of the patch map's power",
        spread=0.011,
        needs=frozenset({"blocks"}),
        reads=frozenset({"patches"}),
        distance=True,
    ),
)

METRICS = {
    metric.name: metric for metric in (*_MAPS, *_RANKED, *_ACCURACIES, *_SIMILARITIES, *_SENSITIVITIES, *_WEIGHTS)
}
BAND_ACCURACIES = tuple(metric.name for metric in _ACCURACIES)
BY_RANK = tuple(metric.name for metric in (*_RANKED, *_SIMILARITIES))


def find(name: MetricName) -> Metric | None:
    """Return the metric of a spectral name; None if there is none.

    Behind the metrics of patch maps may follow the number of a block, counted from 1, and behind those by rank which
    features are meant, if not the image's own.

    Example:
        >>> find(MetricName.parse("spectral.high_band_energy.3")).header
        'high-band energy 3'
    """
    stem = f"spectral.{name.statistic}"
    if not name.part:
        return METRICS.get(stem)
    if stem in ("spectral.high_band_energy", "spectral.map_error") and re.fullmatch("[1-9][0-9]*", name.part):
        return replace(
            METRICS[stem],
            name=str(name),
            header=f"{METRICS[stem].header} {name.part}",
            help=f"{METRICS[stem].help}, after block {name.part}",
            # Of each image the power map after the last block alone is kept.
            spread=None if METRICS[stem].distance else METRICS[stem].spread,
            needs=frozenset({"blocks"}),
        )
    if stem in BY_RANK and name.part in FEATURES:
        of_text = name.part == "text"
        features = "text features of the classes" if of_text else "penultimate image features"
        return replace(
            METRICS[stem],
            name=str(name),
            header=f"{METRICS[stem].header} {name.part}",
            help=METRICS[stem].help.replace("image features", features),
            # Classes are no samples of a population.
            spread=None if of_text else METRICS[stem].spread,
            needs=frozenset() if of_text else frozenset({"penultimate"}),
        )
    return None
