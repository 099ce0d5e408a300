"""Drawings of a comparison, legible on light and on dark pages, since their background is transparent.

The first model of every mapping is the baseline: the one solid line. Arrays are float64 unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from sklearn.metrics import auc, roc_curve

from pytest_qreliab.metrics.calibration import BINS, bin_sums
from pytest_qreliab.statistics.arrays import FloatArray

# WCAG contrast on white and on #0d1117: of the grey 3.9 and 4.9, of the lines (Okabe & Ito) at least 2.2 and 3.6.
GREY = "#7a828c"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ((0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 3)), (0, (6, 1.5, 1.2, 1.5, 1.2, 1.5)))
COLUMNS = 4

STYLE: Any = {  # newer matplotlib types the keys, older does not
    "font.size": 9,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "legend.labelcolor": GREY,
    "figure.labelsize": 9,
    "figure.constrained_layout.w_pad": 0.08,
    "svg.hashsalt": "qreliab",  # else the ids in an SVG are random
}


@matplotlib.rc_context(STYLE)
def reliability_diagram(models: Mapping[str, tuple[FloatArray, FloatArray]]) -> Figure:
    """Accuracy by confidence, and the share of samples, in equal-width bins; ECE in the titles.

    `models`: name -> confidence (n,) in [0, 1] and correctness (n,), 0 or 1.
    """
    _check_pairs(models, "model")
    figure, panels = _panels(len(models), (2.5, 3.2), heights=(3, 1), sharey="row")
    left = np.arange(BINS) / BINS
    for (name, (confidence, correct)), colour, (upper, lower) in zip(
        models.items(), _colours(models), panels, strict=True
    ):
        count, confident, right = bin_sums(confidence, correct)
        ece = np.abs(confident - right).sum() / len(confidence)
        there = count > 0
        accuracy, gap = right[there] / count[there], (confident - right)[there] / count[there]
        bar: dict[str, Any] = {"x": left[there], "width": 1 / BINS, "align": "edge"}
        # Pale, since the gap of an underconfident bin is drawn upon its bar.
        paint: dict[str, Any] = {"facecolor": to_rgba(colour, 0.4), "edgecolor": colour}
        upper.bar(height=accuracy, label="accuracy", **bar, **paint)
        upper.bar(
            height=gap,
            bottom=accuracy,
            fill=False,
            hatch="/////",
            edgecolor=GREY,
            label="gap to mean confidence",
            **bar,
        )
        upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="calibrated")
        upper.set(title=f"{name}\nECE {ece:.4f}", xlim=(0, 1), ylim=(0, 1))
        lower.bar(height=count[there] / len(confidence), **bar, **paint)
    for upper, lower in panels[:: _columns(len(models))]:
        upper.set_ylabel("accuracy")
        lower.set_ylabel("share of\nsamples")
    figure.supxlabel("confidence")
    _legend(figure)
    return figure


@matplotlib.rc_context(STYLE)
def risk_coverage(models: Mapping[str, tuple[FloatArray, FloatArray]]) -> Figure:
    """The error rate among the most confident share of the samples; ties in confidence share a point.

    `models`: name -> confidence (n,) in [0, 1] and correctness (n,), 0 or 1.
    """
    _check_pairs(models, "model")
    figure, [[axes]] = _panels(1, (6, 3.4))
    for (name, (confidence, correct)), style in zip(models.items(), _styles(models), strict=True):
        _, member = np.unique(-confidence, return_inverse=True)
        covered, wrong = (np.bincount(member, weights).cumsum() for weights in (np.ones_like(correct), 1 - correct))
        axes.plot(covered / len(confidence), wrong / covered, label=name, **style)
    axes.set(xlabel="coverage (share of samples)", ylabel="risk (error rate)", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    _legend(figure)
    return figure


@matplotlib.rc_context(STYLE)
def roc(models: Mapping[str, Mapping[str, tuple[FloatArray, FloatArray]]]) -> Figure:
    """ROC curves of OOD detection, a panel per OOD set; AUROC in the legends, ties counting one half.

    `models`: name -> OOD set -> scores of ID samples (n,) and of OOD samples (m,), higher for OOD.
    """
    _check(models, "model")
    sets = list(dict.fromkeys(chain.from_iterable(models.values())))
    _check(sets, "OOD set")
    figure, panels = _panels(len(sets), (2.7, 2.9))
    for ood, [axes] in zip(sets, panels, strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=0.8)
        for (name, scores), style in zip(models.items(), _styles(models), strict=True):
            if ood not in scores:
                continue
            if min(map(len, scores[ood])) == 0:
                raise ValueError(f"{name} has no ID or no OOD scores on {ood}")
            is_ood = np.repeat([0, 1], [len(part) for part in scores[ood]])
            flagged, detected, _ = roc_curve(is_ood, np.concatenate(scores[ood]))
            axes.plot(flagged, detected, label=f"{name} {auc(flagged, detected):.4f}", **style)
        axes.set(title=ood, xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.legend(loc="lower right", title="AUROC", fontsize=7, title_fontsize=7, alignment="right")
    figure.supxlabel("false positive rate (share of ID flagged as OOD)")
    figure.supylabel("true positive rate (share of OOD detected)")
    return figure


@matplotlib.rc_context(STYLE)
def corruption_grid(cells: Mapping[tuple[str, int], tuple[float, float]]) -> Figure:
    """The change in accuracy by kind and severity of corruption, in percentage points; missing cells are blank.

    `cells`: (kind, severity) -> accuracy of the baseline and of the quantized model, in [0, 1].
    """
    _check(cells, "cell")
    kinds, severities = list(dict.fromkeys(kind for kind, _ in cells)), sorted({severity for _, severity in cells})
    baseline, change = np.full((2, len(kinds), len(severities)), np.nan)
    for (kind, severity), (before, after) in cells.items():
        at = kinds.index(kind), severities.index(severity)
        baseline[at], change[at] = 100 * before, 100 * (after - before)
    there = np.isfinite(change)
    largest = max(np.abs(change[there]).max(initial=0), 0.1)  # below that every cell reads 0.0
    figure, [[axes]] = _panels(1, (1.9 + 0.65 * len(severities), 1.1 + 0.36 * len(kinds)), grid=False)
    image = axes.imshow(change, cmap="RdBu", vmin=-largest, vmax=largest, aspect="auto")
    for row, column in np.argwhere(there):
        ink = _ink(image.to_rgba(change[row, column]))
        points = f"{round(change[row, column], 1) + 0:+.1f}".replace("-", "−")
        axes.text(column, row - 0.13, points, ha="center", va="center", size=8, color=ink)
        axes.text(column, row + 0.27, f"{baseline[row, column]:.1f}", ha="center", va="center", size=6, color=ink)
    axes.set(xlabel="severity", title="Change in accuracy\n(small: baseline accuracy, %)")
    axes.set_xticks(range(len(severities)), [str(severity) for severity in severities])
    axes.set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    _colour_bar(figure, image, [axes], "percentage points")
    return figure


@matplotlib.rc_context(STYLE)
def sqnr_by_rank(curves: Mapping[str, FloatArray], bands: Sequence[tuple[str, int, int]]) -> Figure:
    """Signal to quantization noise over the rank of the singular direction, over shaded bands of ranks.

    `curves`: name -> SQNR in dB (ranks,); not finite: left out. `bands`: name, first rank from 0, end exclusive.
    """
    # The baseline, without noise, has no curve: its style stays free, and models look as they do elsewhere.
    figure, axes = _over_rank(curves, _styles(["", *curves])[1:])
    for index, (name, first, end) in enumerate(bands):
        left, right = np.clip((first + 0.5, end + 0.5), *axes.get_xlim())  # rank r, from 1, is in r - 0.5 to r + 0.5
        axes.axvspan(left, right, color=GREY, alpha=0.1 + 0.12 * (index % 2), linewidth=0)
        axes.text(
            np.sqrt(left * right), 1.01, name, ha="center", va="bottom", size=7, transform=axes.get_xaxis_transform()
        )
    axes.set_ylabel("SQNR (dB)")
    return figure


@matplotlib.rc_context(STYLE)
def singular_values(curves: Mapping[str, FloatArray]) -> Figure:
    """Singular values over their rank, both logarithmic. `curves`: name -> singular values (ranks,), falling."""
    figure, axes = _over_rank(curves, _styles(curves))
    axes.set(ylabel="singular value", yscale="log")
    return figure


@matplotlib.rc_context(STYLE)
def weight_bands(bands: Mapping[str, tuple[FloatArray, FloatArray]]) -> Figure:
    """Relative error, logarithmic, and share of the energy of each weight, by band of its ranks.

    `bands`: name -> relative errors (weights,) and shares (weights,), in the model's order.
    """
    _check_pairs(bands, "band")
    figure, [[errors, energies]] = _panels(1, (6, 4.4), heights=(2, 1), sharey=False)
    for (name, (error, energy)), style in zip(bands.items(), _styles(bands), strict=True):
        weight = np.arange(len(error)) + 1
        errors.plot(weight, np.where(error > 0, error, np.nan), label=name, **style)
        energies.plot(weight, energy, **style)
    errors.set(yscale="log", ylabel="relative error")
    energies.set(ylabel="share of\nthe energy", ylim=(0, 1), xlabel="weight, from the first layer on")
    _legend(figure)
    return figure


@matplotlib.rc_context(STYLE)
def power_spectra(blocks: Mapping[str, Mapping[str, tuple[FloatArray, FloatArray]]]) -> Figure:
    """Radial power spectra, a panel per block; a thin line at half the Nyquist frequency.

    `blocks`: block -> model -> frequency in cycles per patch (radii,) and mean power (radii,).
    """
    _check(blocks, "block")
    models = list(dict.fromkeys(chain.from_iterable(blocks.values())))
    _check(models, "model")
    styles = dict(zip(models, _styles(models), strict=True))
    figure, panels = _panels(len(blocks), (2.2, 1.7))
    for (block, spectra), [axes] in zip(blocks.items(), panels, strict=True):
        _check_pairs(spectra, f"model in {block}")
        axes.axvline(0.25, color=GREY, linewidth=0.8)
        for name, (frequency, power) in spectra.items():
            axes.semilogy(frequency, power, label=name, **styles[name])
        axes.set_title(block)
    figure.supxlabel("frequency (cycles per patch; line: half of Nyquist)")
    figure.supylabel("mean power")
    _legend(figure)
    return figure


@matplotlib.rc_context(STYLE)
def error_maps(maps: Mapping[str, FloatArray]) -> Figure:
    """Relative errors of two-dimensional power spectra, a panel per block, on one colour scale; NaN is blank.

    `maps`: block -> |P_q - P_fp| / P_fp (rows, columns), zero frequency at [0, 0].
    """
    _check(maps, "block")
    for block, error in maps.items():
        if error.ndim != 2:
            raise ValueError(f"the map of {block} has shape {error.shape}, not two dimensions")
    values = np.concatenate([error[np.isfinite(error)] for error in maps.values()])
    _check(values, "finite value")
    # A few directions with next to no power would take the whole scale.
    largest = float(np.percentile(values, 99)) or 1.0
    figure, panels = _panels(len(maps), (2.3, 2.1), grid=False)
    figure.set_layout_engine("compressed")  # panels of one aspect, without wide gaps
    for (block, error), [axes] in zip(maps.items(), panels, strict=True):
        # Of an even size the Nyquist frequency is both -0.5 and 0.5: half of its cell belongs to either edge.
        shown = np.pad(np.fft.fftshift(error), [(0, 1 - size % 2) for size in error.shape], mode="wrap")
        y, x = (padded / size / 2 for padded, size in zip(shown.shape, error.shape, strict=True))
        image = axes.imshow(shown, cmap="viridis", vmin=0, vmax=largest, origin="lower", extent=(-x, x, -y, y))
        axes.set(title=block, xlim=(-0.5, 0.5), ylim=(-0.5, 0.5), xticks=(-0.5, 0, 0.5), yticks=(-0.5, 0, 0.5))
    figure.supxlabel("horizontal frequency\n(cycles per patch)")
    figure.supylabel("vertical frequency\n(cycles per patch)")
    beyond = "max" if values.max() > largest else "neither"
    _colour_bar(figure, image, panels[:, 0], "relative spectral error", extend=beyond)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a .png or .svg with a transparent background; the same figure gives the same bytes."""
    metadata = {".png": {"Software": None}, ".svg": {"Date": None}}
    if path.suffix not in metadata:
        raise ValueError(f"cannot save {path.name}: the name must end in {' or '.join(metadata)}")
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, transparent=True, dpi=150, bbox_inches="tight", metadata=metadata[path.suffix])


def _check(items: Collection[object] | FloatArray, what: str) -> None:
    if len(items) == 0:
        raise ValueError(f"nothing to draw: not one {what}")


def _check_pairs(pairs: Mapping[str, tuple[FloatArray, FloatArray]], what: str) -> None:
    _check(pairs, what)
    for name, (first, second) in pairs.items():
        if first.shape != second.shape or first.ndim != 1 or not len(first):
            raise ValueError(f"{name} needs two arrays of one length, at least 1: {first.shape} and {second.shape}")


def _colours(names: Collection[str]) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(len(names))]


def _styles(names: Collection[str]) -> list[dict[str, Any]]:
    """A colour and a line style for each name; only the first is solid. 30 others differ from each other."""
    dashes = [DASHES[index % len(DASHES)] for index in range(len(names) - 1)]
    # The baseline is wide, to be seen below lines that cover it.
    widths = [2.2] + [1.4] * len(dashes)
    return [
        {"color": colour, "linestyle": line, "linewidth": width}
        for colour, line, width in zip(_colours(names), ["-", *dashes], widths, strict=True)
    ]


def _columns(count: int) -> int:
    """Of the least number of rows, as even as they come."""
    rows = -(-count // COLUMNS)
    return -(-count // rows)


def _panels(
    count: int,
    size: tuple[float, float],
    heights: tuple[float, ...] = (1,),
    sharey: bool | str = True,
    grid: bool = True,
) -> tuple[Figure, npt.NDArray[np.object_]]:
    """A figure and its axes, (count, len(heights)), in rows of panels that share axes; `size` of one, in inches."""
    columns = _columns(count)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns + 0.4, size[1] * rows + 0.4), layout="constrained")
    every = figure.subplots(
        rows * len(heights),
        columns,
        sharex=True,
        sharey=sharey,  # type: ignore[arg-type]
        squeeze=False,
        gridspec_kw={"height_ratios": heights * rows},
    )
    panels = every.reshape(rows, len(heights), columns).swapaxes(1, 2).reshape(-1, len(heights))
    for axes in panels[:count].flat:
        axes.set_axisbelow(True)
        axes.grid(grid)
        axes.tick_params(which="both", colors=GREY)  # explicitly: ticks may be made when this style is left again
    for axes in panels[count:].flat:
        axes.remove()
    for axes in panels[:count][-columns:, -1]:
        axes.tick_params(labelbottom=True)  # where no panel follows below
    return figure, panels[:count]


def _over_rank(curves: Mapping[str, FloatArray], styles: Sequence[dict[str, Any]]) -> tuple[Figure, Axes]:
    _check(curves, "curve")
    figure, [[axes]] = _panels(1, (6, 3.4))
    for (name, curve), style in zip(curves.items(), styles, strict=True):
        there = np.flatnonzero(np.isfinite(curve))
        axes.plot(there + 1, curve[there], label=name, **style)
    axes.set(xscale="log", xlabel="rank", xlim=(0.8, max(map(len, curves.values())) + 0.5))
    _legend(figure)
    return figure, axes


def _legend(figure: Figure) -> None:
    """One legend above all panels: each label once."""
    labelled = (zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes)
    handles: dict[str, Artist] = {}
    for handle, label in chain.from_iterable(labelled):
        handles.setdefault(str(label), handle)
    ncols = int(figure.get_figwidth() / 1.6)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=ncols, handlelength=3)


def _colour_bar(
    figure: Figure, image: ScalarMappable, panels: Iterable[Axes], label: str, extend: str = "neither"
) -> None:
    bar = figure.colorbar(image, ax=list(panels), label=label, extend=extend)
    bar.ax.tick_params(which="both", colors=GREY)


def _ink(rgba: Sequence[float]) -> str:
    """Black or white, whichever has more contrast on the colour (WCAG 2)."""
    channels = np.asarray(rgba[:3], dtype=np.float64)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "black" if luminance > 0.179 else "white"
