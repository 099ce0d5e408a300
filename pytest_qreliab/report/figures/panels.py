"""Colours, lines, panels and legends of all plots.

They are legible on light and on dark pages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

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
    "text.parse_math": False,  # a dollar in a name is a dollar
    "legend.labelcolor": GREY,
    "figure.labelsize": 9,
    "figure.constrained_layout.w_pad": 0.08,
    "svg.hashsalt": "qreliab",  # else the ids in an SVG are random
}


def check_any(items: Collection[object] | FloatArray, what: str) -> None:
    """Raise ValueError if there is nothing to draw."""
    if len(items) == 0:
        raise ValueError(f"nothing to draw: not one {what}")


def check_pairs(pairs: Mapping[str, tuple[FloatArray, FloatArray]], what: str) -> None:
    """Raise ValueError for no pairs, or arrays that differ in length."""
    check_any(pairs, what)
    for name, (first, second) in pairs.items():
        if first.shape != second.shape or first.ndim != 1 or not len(first):
            raise ValueError(f"{name} needs two arrays of one length, at least 1: {first.shape} and {second.shape}")


def model_colours(names: Collection[str]) -> list[str]:
    """Return a colour for each name; they repeat after six."""
    return [COLOURS[index % len(COLOURS)] for index in range(len(names))]


def line_styles(names: Collection[str]) -> list[dict[str, Any]]:
    """Return the colour and line of each name.

    Only the first is solid. 30 others differ from each other.
    """
    dashes = [DASHES[index % len(DASHES)] for index in range(len(names) - 1)]
    # The baseline is wide, to be seen below lines that cover it.
    widths = [2.2] + [1.4] * len(dashes)
    return [
        {"color": colour, "linestyle": line, "linewidth": width}
        for colour, line, width in zip(model_colours(names), ["-", *dashes], widths, strict=True)
    ]


def column_count(count: int) -> int:
    """Return the columns of the fewest rows, as even as possible."""
    rows = -(-count // COLUMNS)
    return -(-count // rows)


def make_panels(
    count: int,
    size: tuple[float, float],
    *,
    heights: tuple[float, ...] = (1,),
    sharey: bool | str = True,
    grid: bool = True,
) -> tuple[Figure, npt.NDArray[np.object_]]:
    """Return a figure of panels in rows, and its axes.

    Args:
        count: The number of panels.
        size: The width and height of a panel, in inches.
        heights: The relative heights of the axes that lie below each other in a panel.
        sharey: Which axes share their scale, as in `matplotlib.figure.Figure.subplots`.
        grid: Whether lines are drawn behind the curves.

    Returns:
        The figure, and axes of shape (count, len(heights)).
    """
    columns = column_count(count)
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


def plot_over_rank(curves: Mapping[str, FloatArray], styles: Sequence[dict[str, Any]]) -> tuple[Figure, Axes]:
    """Plot the finite values of curves over a logarithmic rank.

    The first rank is 1.
    """
    check_any(curves, "curve")
    figure, [[axes]] = make_panels(1, (6, 3.4))
    for (name, curve), style in zip(curves.items(), styles, strict=True):
        finite = np.flatnonzero(np.isfinite(curve))
        axes.plot(finite + 1, curve[finite], label=name, **style)
    axes.set(xscale="log", xlabel="rank", xlim=(0.8, max(map(len, curves.values())) + 0.5))
    add_legend(figure)
    return figure, axes


def add_legend(figure: Figure) -> None:
    """Add one legend above all panels, with each label once."""
    labelled = (zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes)
    handles: dict[str, Artist] = {}
    for handle, label in chain.from_iterable(labelled):
        handles.setdefault(str(label), handle)
    ncols = int(figure.get_figwidth() / 1.6)
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=ncols, handlelength=3)


def add_colour_bar(
    figure: Figure, image: ScalarMappable, panels: Iterable[Axes], label: str, extend: str = "neither"
) -> None:
    """Add a colour bar beside panels.

    Args:
        figure: The figure.
        image: What has the colours.
        panels: The axes that the bar is as high as.
        label: The name of the values.
        extend: "max" if values lie beyond the upper end, else "neither".
    """
    bar = figure.colorbar(image, ax=list(panels), label=label, extend=extend)
    bar.ax.tick_params(which="both", colors=GREY)


def readable_ink(rgba: Sequence[float]) -> str:
    """Return black or white, whichever has more contrast (WCAG 2)."""
    channels = np.asarray(rgba[:3], dtype=np.float64)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "black" if luminance > 0.179 else "white"
