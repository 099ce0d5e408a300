import re

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text
from PIL import Image
from sklearn.metrics import roc_auc_score

from pytest_qreliab.report.figures import plots

NAMES = ("full precision", "int8", "int4", "fp8", "int4 head", "a", "b")
PAGES = ("#ffffff", "#0d1117")


def predictions(names=NAMES[:2], n=397):
    rng = np.random.default_rng(0)
    confidence = [np.round(rng.beta(4, 1.5, n), 2) for _ in names]  # many ties, and some on an edge of a bin
    return {name: (c, (rng.random(n) < c**1.3).astype(float)) for name, c in zip(names, confidence, strict=True)}


def ood_scores(names=NAMES[:2]):
    rng = np.random.default_rng(1)
    return {
        name: {ood: (rng.integers(0, 9, 90), rng.integers(i, 9 + i, 70)) for ood in ("near", "far")}
        for i, name in enumerate(names)
    }


def every_figure(names=NAMES):
    rng = np.random.default_rng(2)
    ranks, radii = np.arange(1, 65), np.linspace(0.05, 0.7, 9)
    spectra = {name: (radii, radii**-2 * rng.uniform(0.8, 1.2, 9)) for name in names}
    cells = {(kind, severity): (0.8, rng.uniform(0.6, 0.9)) for kind in ("fog", "snow") for severity in range(1, 6)}
    return [
        plots.reliability_diagram(predictions(names)),
        plots.risk_coverage(predictions(names)),
        plots.roc(ood_scores(names)),
        plots.corruption_grid(cells),
        plots.sqnr_by_rank({name: 30 - 9 * np.log(ranks) for name in names}, [("head", 0, 8), ("tail", 8, 64)]),
        plots.singular_values(dict.fromkeys(names, 1 / ranks)),
        plots.weight_bands(dict.fromkeys(names, (rng.random(20), rng.random(20)))),
        plots.power_spectra({f"block {i}": spectra for i in range(6)}),
        plots.error_maps({f"block {i}": rng.random((7, 7)) for i in range(6)}),
    ]


def contrast(one, other):
    def luminance(colour):
        channels = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour))
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), channels, strict=True))

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_the_titles_of_a_reliability_diagram_give_the_ece_and_its_bars_the_accuracies():
    models = predictions()
    upper = [axes for axes in plots.reliability_diagram(models).axes if axes.get_title()]
    for axes, (name, (confidence, correct)) in zip(upper, models.items(), strict=True):
        bins = [
            [(c, right) for c, right in zip(confidence, correct, strict=True) if max(1, np.ceil(c * 15)) == k]
            for k in range(1, 16)
        ]
        means = [np.mean(seen, axis=0) for seen in bins if seen]
        counts = [len(seen) for seen in bins if seen]
        ece = np.average([abs(confident - accuracy) for confident, accuracy in means], weights=counts)
        assert axes.get_title() == f"{name}\nECE {ece:.4f}"
        accuracy, gaps = axes.containers
        np.testing.assert_allclose([bar.get_height() for bar in accuracy], [a for _, a in means])
        np.testing.assert_allclose([bar.get_y() + bar.get_height() for bar in gaps], [c for c, _ in means])


def test_the_risk_of_equal_confidences_is_one_point():
    models = predictions()
    lines = plots.risk_coverage(models).axes[0].lines
    for line, (confidence, correct) in zip(lines, models.values(), strict=True):
        accepted = [correct[confidence >= threshold] for threshold in sorted(set(confidence), reverse=True)]
        expected = [(len(seen) / len(correct), 1 - seen.mean()) for seen in accepted]
        np.testing.assert_allclose(line.get_xydata(), expected, atol=1e-12)


def test_the_legends_of_roc_curves_give_the_auroc():
    models = ood_scores()
    for axes in plots.roc(models).axes:
        expected = []
        for name, sets in models.items():
            id_scores, ood = sets[axes.get_title()]
            auroc = roc_auc_score([0] * len(id_scores) + [1] * len(ood), np.concatenate([id_scores, ood]))
            expected.append(f"{name} {auroc:.4f}")
        assert [text.get_text() for text in axes.get_legend().get_texts()] == expected


def test_a_missing_cell_of_the_corruption_grid_is_blank_and_the_others_are_legible():
    cells = {("fog", 1): (0.75, 0.70), ("fog", 5): (0.5, 0.525), ("snow", 5): (0.6, 0.59999)}
    figure = plots.corruption_grid(cells)
    axes = figure.axes[0]
    [image] = axes.images
    shown = np.ma.filled(image.get_array(), np.nan)
    np.testing.assert_allclose(shown, [[-5, 2.5], [np.nan, -0.001]], atol=1e-9)
    assert image.norm.vmin == -image.norm.vmax
    assert image.to_rgba(shown)[1, 0, 3] == 0
    texts = {text.get_position(): text for text in axes.texts}
    assert [text.get_text() for text in texts.values()] == ["−5.0", "75.0", "+2.5", "50.0", "+0.0", "60.0"]
    for (column, row), text in texts.items():
        assert contrast(text.get_color(), image.to_rgba(shown[round(row), column])[:3]) > 4.5


def test_the_map_of_errors_has_the_zero_frequency_blank_in_its_middle():
    odd, even = np.arange(49.0).reshape(7, 7), np.arange(196.0).reshape(14, 14)
    odd[0, 0] = even[0, 0] = np.nan
    for axes, error in zip(plots.error_maps({"0": odd, "1": even}).axes, (odd, even), strict=False):
        [image] = axes.images
        shown, size = np.ma.filled(image.get_array(), np.nan), len(error)
        left, right, *_ = image.get_extent()
        frequency = left + (np.arange(len(shown)) + 0.5) * (right - left) / len(shown)
        expected = error[np.ix_(*[np.round(frequency * size).astype(int) % size] * 2)]
        np.testing.assert_array_equal(shown, expected)
        assert frequency[len(shown) // 2] == pytest.approx(0)
        assert axes.get_xlim() == axes.get_ylim() == (-0.5, 0.5)


def test_values_that_are_not_finite_are_left_out():
    line = plots.sqnr_by_rank({"int8": np.array([9, np.inf, 7, np.nan, 5])}, [("head", 0, 2)]).axes[0].lines[0]
    assert line.get_xydata().tolist() == [[1, 9], [3, 7], [5, 5]]


def test_text_and_lines_are_legible_on_light_and_on_dark_pages_and_the_background_is_transparent(tmp_path):
    for figure in every_figure():
        plots.save(figure, tmp_path / "figure.png")  # makes the ticks
        with Image.open(tmp_path / "figure.png") as image:
            assert image.getpixel((0, 0))[3] == 0
        inside = [text for axes in figure.axes if axes.images for text in axes.texts]
        texts = {to_hex(text.get_color()) for text in figure.findobj(Text) if text.get_text() and text not in inside}
        lines = {to_hex(line.get_color()) for axes in figure.axes for line in axes.lines}
        spines = {to_hex(spine.get_edgecolor()) for axes in figure.axes for spine in axes.spines.values()}
        for page in PAGES:
            assert min(contrast(colour, page) for colour in texts | spines) > 3.5
            assert min((contrast(colour, page) for colour in lines), default=9) > 2.2


def test_only_the_baseline_is_solid():
    lines = plots.risk_coverage(predictions(NAMES[:6])).axes[0].lines
    assert [line.get_linestyle() == "-" for line in lines] == [True] + [False] * 5


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_figure_is_saved_as_the_same_bytes(tmp_path, suffix):
    paths = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
    for path in paths:
        plots.save(plots.risk_coverage(predictions()), path)
    one, two = (path.read_bytes() for path in paths)
    assert one == two
    assert not re.search(rb"<dc:date>|tIME", one)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.reliability_diagram({}), "nothing to draw: not one model"),
        (lambda: plots.risk_coverage({"a": (np.ones(3), np.ones(2))}), r"a needs two arrays .* \(3,\) and \(2,\)"),
        (lambda: plots.roc({"a": {}}), "not one OOD set"),
        (lambda: plots.roc({"a": {"far": (np.ones(3), np.ones(0))}}), "a has no ID or no OOD scores on far"),
        (lambda: plots.corruption_grid({}), "not one cell"),
        (lambda: plots.sqnr_by_rank({}, []), "not one curve"),
        (lambda: plots.power_spectra({"block 0": {}}), "not one model"),
        (lambda: plots.error_maps({"block 0": np.ones(3)}), r"the map of block 0 has shape \(3,\)"),
        (lambda: plots.error_maps({"block 0": np.full((2, 2), np.nan)}), "not one finite value"),
    ],
)
def test_what_cannot_be_drawn_is_said(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_only_two_kinds_of_file_are_written(tmp_path):
    with pytest.raises(ValueError, match=r"figure\.pdf: the name must end in \.png or \.svg"):
        plots.save(plots.singular_values({"a": np.ones(3)}), tmp_path / "figure.pdf")
