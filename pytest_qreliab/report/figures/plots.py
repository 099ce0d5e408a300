"""Plots of a comparison, with a transparent background.

The first model of every mapping is the baseline: the one solid line. Arrays are float64 unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from sklearn.metrics import auc, roc_curve

from pytest_qreliab.metrics.binning import bin_sums
from pytest_qreliab.metrics.definitions import BINS
from pytest_qreliab.report.figures.panels import (
    GREY,
    STYLE,
    add_colour_bar,
    add_legend,
    check_any,
    check_pairs,
    column_count,
    line_styles,
    make_panels,
    model_colours,
    plot_over_rank,
    readable_ink,
)
from pytest_qreliab.statistics.arrays import FloatArray


@matplotlib.rc_context(STYLE)
def reliability_diagram(models: Mapping[str, tuple[FloatArray, FloatArray]]) -> Figure:
    """Plot accuracy and samples by bin of confidence.

    The bins have equal width. The ECE is in the titles.

    Args:
        models: Confidence (n,) in [0, 1] and correctness (n,), 0 or 1, by name of the model.

    Raises:
        ValueError: There is no model, or its arrays differ in length.
    """
    check_pairs(models, "model")
    figure, panels = make_panels(len(models), (2.5, 3.2), heights=(3, 1), sharey="row")
    left = np.arange(BINS) / BINS
    for (name, (confidence, correct)), colour, (upper, lower) in zip(
        models.items(), model_colours(models), panels, strict=True
    ):
        sums = bin_sums(confidence, correct)
        ece = np.abs(sums.confidence - sums.correct).sum() / len(confidence)
        filled = sums.count > 0
        count = sums.count[filled]
        accuracy, gap = sums.correct[filled] / count, (sums.confidence - sums.correct)[filled] / count
        bar: dict[str, Any] = {"x": left[filled], "width": 1 / BINS, "align": "edge"}
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
        lower.bar(height=count / len(confidence), **bar, **paint)
    for upper, lower in panels[:: column_count(len(models))]:
        upper.set_ylabel("accuracy")
        lower.set_ylabel("share of\nsamples")
    figure.supxlabel("confidence")
    add_legend(figure)
    return figure


@matplotlib.rc_context(STYLE)
def risk_coverage(models: Mapping[str, tuple[FloatArray, FloatArray]]) -> Figure:
    """Plot the error rate of the most confident samples over their share.

    Samples of equal confidence are one point.

    Args:
        models: Confidence (n,) in [0, 1] and correctness (n,), 0 or 1, by name of the model.

    Raises:
        ValueError: There is no model, or its arrays differ in length.
    """
    check_pairs(models, "model")
    figure, [[axes]] = make_panels(1, (6, 3.4))
    for (name, (confidence, correct)), style in zip(models.items(), line_styles(models), strict=True):
        _, member = np.unique(-confidence, return_inverse=True)
        covered, wrong = (np.bincount(member, weights).cumsum() for weights in (np.ones_like(correct), 1 - correct))
        axes.plot(covered / len(confidence), wrong / covered, label=name, **style)
    axes.set(xlabel="coverage (share of samples)", ylabel="risk (error rate)", xlim=(0, 1))
    axes.set_ylim(bottom=0)
    add_legend(figure)
    return figure


@matplotlib.rc_context(STYLE)
def roc(models: Mapping[str, Mapping[str, tuple[FloatArray, FloatArray]]]) -> Figure:
    """Plot ROC curves, a panel for each OOD set.

    The AUROC is in the legends; ties count one half.

    Args:
        models: Scores of ID samples (n,) and of OOD samples (m,), higher for OOD, by name of the model and of the set.

    Raises:
        ValueError: There is no model, no OOD set, or a set without scores.
    """
    check_any(models, "model")
    sets = list(dict.fromkeys(chain.from_iterable(models.values())))
    check_any(sets, "OOD set")
    figure, panels = make_panels(len(sets), (2.7, 2.9))
    for ood, [axes] in zip(sets, panels, strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=0.8)
        for (name, scores), style in zip(models.items(), line_styles(models), strict=True):
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
    """Plot the change in accuracy by corruption, in percentage points.

    Args:
        cells: The accuracy in [0, 1] of the baseline and of the quantized model, by kind and severity. A cell that is
            missing is blank.

    Raises:
        ValueError: There is no cell.
    """
    check_any(cells, "cell")
    kinds, severities = list(dict.fromkeys(kind for kind, _ in cells)), sorted({severity for _, severity in cells})
    baseline, change = np.full((2, len(kinds), len(severities)), np.nan)
    for (kind, severity), (before, after) in cells.items():
        at = kinds.index(kind), severities.index(severity)
        baseline[at], change[at] = 100 * before, 100 * (after - before)
    measured = np.isfinite(change)
    largest = max(np.abs(change[measured]).max(initial=0), 0.1)  # below that every cell reads 0.0
    figure, [[axes]] = make_panels(1, (1.9 + 0.65 * len(severities), 1.1 + 0.36 * len(kinds)), grid=False)
    image = axes.imshow(change, cmap="RdBu", vmin=-largest, vmax=largest, aspect="auto")
    for row, column in np.argwhere(measured):
        ink = readable_ink(image.to_rgba(change[row, column]))
        points = f"{round(change[row, column], 1) + 0:+.1f}".replace("-", "−")
        axes.text(column, row - 0.13, points, ha="center", va="center", size=8, color=ink)
        axes.text(column, row + 0.27, f"{baseline[row, column]:.1f}", ha="center", va="center", size=6, color=ink)
    axes.set(xlabel="severity", title="Change in accuracy\n(small: baseline accuracy, %)")
    axes.set_xticks(range(len(severities)), [str(severity) for severity in severities])
    axes.set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    add_colour_bar(figure, image, [axes], "percentage points")
    return figure


@matplotlib.rc_context(STYLE)
def sqnr_by_rank(curves: Mapping[str, FloatArray], bands: Sequence[tuple[str, int, int]]) -> Figure:
    """Plot signal over quantization noise by rank, on shaded bands.

    Args:
        curves: The SQNR in dB, (ranks,), by name. Values that are not finite are left out.
        bands: The name of each band, its first rank from 0 on, and its end, which it does not hold.

    Raises:
        ValueError: There is no curve.
    """
    # The baseline has no noise and so no curve. Its style stays free, so that models look as they do elsewhere.
    figure, axes = plot_over_rank(curves, line_styles(["", *curves])[1:])
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
    """Plot singular values over their rank, both logarithmic.

    Args:
        curves: Falling singular values (ranks,), by name.

    Raises:
        ValueError: There is no curve.
    """
    figure, axes = plot_over_rank(curves, line_styles(curves))
    axes.set(ylabel="singular value", yscale="log")
    return figure


@matplotlib.rc_context(STYLE)
def weight_bands(bands: Mapping[str, tuple[FloatArray, FloatArray]]) -> Figure:
    """Plot the error and the energy of each weight by band.

    The error is relative and logarithmic. The energy is a share of the weight's.

    Args:
        bands: Relative errors (weights,) and shares (weights,), in the order of the model, by name of the band.

    Raises:
        ValueError: There is no band, or its arrays differ in length.
    """
    check_pairs(bands, "band")
    figure, [[errors, energies]] = make_panels(1, (6, 4.4), heights=(2, 1), sharey=False)
    for (name, (error, energy)), style in zip(bands.items(), line_styles(bands), strict=True):
        weight = np.arange(len(error)) + 1
        errors.plot(weight, np.where(error > 0, error, np.nan), label=name, **style)
        energies.plot(weight, energy, **style)
    errors.set(yscale="log", ylabel="relative error")
    energies.set(ylabel="share of\nthe energy", ylim=(0, 1), xlabel="weight, from the first layer on")
    add_legend(figure)
    return figure


@matplotlib.rc_context(STYLE)
def power_spectra(blocks: Mapping[str, Mapping[str, tuple[FloatArray, FloatArray]]]) -> Figure:
    """Plot radial power spectra, a panel for each block.

    A thin line is at half the Nyquist frequency.

    Args:
        blocks: Frequency in cycles per patch (radii,) and mean power (radii,), by name of the block and of the model.

    Raises:
        ValueError: There is no block or no model, or its arrays differ in length.
    """
    check_any(blocks, "block")
    models = list(dict.fromkeys(chain.from_iterable(blocks.values())))
    check_any(models, "model")
    styles = dict(zip(models, line_styles(models), strict=True))
    figure, panels = make_panels(len(blocks), (2.2, 1.7))
    for (block, spectra), [axes] in zip(blocks.items(), panels, strict=True):
        check_pairs(spectra, f"model in {block}")
        axes.axvline(0.25, color=GREY, linewidth=0.8)
        for name, (frequency, power) in spectra.items():
            axes.semilogy(frequency, power, label=name, **styles[name])
        axes.set_title(block)
    figure.supxlabel("frequency (cycles per patch; line: half of Nyquist)")
    figure.supylabel("mean power")
    add_legend(figure)
    return figure


@matplotlib.rc_context(STYLE)
def error_maps(maps: Mapping[str, FloatArray]) -> Figure:
    """Plot the errors of power spectra, a panel for each block.

    All panels share a colour scale.

    Args:
        maps: |P_q - P_fp| / P_fp (rows, columns) with the zero frequency at [0, 0], by name of the block. NaN is blank.

    Raises:
        ValueError: There is no map, one without two dimensions, or no finite value.
    """
    check_any(maps, "block")
    for block, error in maps.items():
        if error.ndim != 2:
            raise ValueError(f"the map of {block} has shape {error.shape}, not two dimensions")
    values = np.concatenate([error[np.isfinite(error)] for error in maps.values()])
    check_any(values, "finite value")
    # A few directions with next to no power would take the whole scale.
    largest = float(np.percentile(values, 99)) or 1.0
    figure, panels = make_panels(len(maps), (2.3, 2.1), grid=False)
    figure.set_layout_engine("compressed")  # panels of one aspect, without wide gaps
    for (block, error), [axes] in zip(maps.items(), panels, strict=True):
        # If a size is even, the Nyquist frequency is both -0.5 and 0.5: half of its cell belongs to either edge.
        shown = np.pad(np.fft.fftshift(error), [(0, 1 - size % 2) for size in error.shape], mode="wrap")
        y, x = (padded / size / 2 for padded, size in zip(shown.shape, error.shape, strict=True))
        image = axes.imshow(shown, cmap="viridis", vmin=0, vmax=largest, origin="lower", extent=(-x, x, -y, y))
        axes.set(title=block, xlim=(-0.5, 0.5), ylim=(-0.5, 0.5), xticks=(-0.5, 0, 0.5), yticks=(-0.5, 0, 0.5))
    figure.supxlabel("horizontal frequency\n(cycles per patch)")
    figure.supylabel("vertical frequency\n(cycles per patch)")
    beyond = "max" if values.max() > largest else "neither"
    add_colour_bar(figure, image, panels[:, 0], "relative spectral error", extend=beyond)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure with a transparent background.

    The same figure gives the same bytes.

    Args:
        figure: The figure.
        path: Ends in .png or .svg.

    Raises:
        ValueError: The path ends otherwise.
        OSError: The file cannot be written.
    """
    metadata = {".png": {"Software": None}, ".svg": {"Date": None}}
    if path.suffix not in metadata:
        raise ValueError(f"cannot save {path.name}: the name must end in {' or '.join(metadata)}")
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, transparent=True, dpi=150, bbox_inches="tight", metadata=metadata[path.suffix])
