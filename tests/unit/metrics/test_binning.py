"""Tables of binned metrics, against other libraries, by hand and by brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.special import softmax
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from pytest_qreliab.metrics import binning, calibration, classification


def values(table) -> dict[str, float]:
    return {name: float(value[0]) for name, value in table.metrics_from_sums(table.sums()).items()}


def binned(confidence, correct, bins: int = 15) -> dict[str, float]:
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    tables = (table(confidence, correct, bins) for table in (binning.EqualWidthBins, binning.EqualMassBins))
    return {name: value for table in tables for name, value in values(table).items()}


def predict(logits, labels):
    return classification.predict(torch.as_tensor(np.asarray(logits, dtype=np.float64)), np.asarray(labels))


def by_class(logits, labels, bins: int = 15) -> dict[str, float]:
    return values(binning.ClassBins(predict(logits, labels), bins))


@st.composite
def samples(draw, least: int = 1):
    """Confidences, many of them equal, on an edge, 0 or 1, and whether they are right."""
    n = draw(st.integers(least, 40))
    one = st.floats(0, 1) | st.integers(0, 15).map(lambda k: k / 15)
    confidence = draw(npst.arrays(np.float64, n, elements=one))
    return confidence, draw(npst.arrays(np.float64, n, elements=st.sampled_from([0.0, 1.0])))


@st.composite
def predictions(draw):
    """Logits that are not on an edge, and labels, of which some classes may have none."""
    n, classes, seed = draw(st.integers(1, 30)), draw(st.integers(2, 20)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, classes)) * draw(st.sampled_from([0.1, 3, 30])), rng.integers(0, classes, n)


def drawn(n: int = 2000, classes: int = 10, seed: int = 0):
    """Confidences of a model that is overconfident, and whether it is right."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 2
    labels = (logits / 1.7 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, labels


def test_published_example_of_torchmetrics():
    probabilities = np.array([[0.25, 0.20, 0.55], [0.55, 0.05, 0.40], [0.10, 0.30, 0.60], [0.90, 0.05, 0.05]])
    found = binned(probabilities.max(1), probabilities.argmax(1) == np.array([0, 1, 2, 0]), bins=3)
    assert (found["ece"], found["mce"]) == (pytest.approx(0.2000, abs=5e-5), pytest.approx(0.2333, abs=5e-5))


@pytest.mark.parametrize("bins", [1, 15, 20, 100])
@pytest.mark.parametrize(("name", "norm"), [("ece", "l1"), ("ece.rms", "l2"), ("mce", "max")])
def test_agrees_with_torchmetrics_off_the_edges(name, norm, bins):
    logits, labels = drawn()
    found = predict(logits, labels)
    probabilities, target = torch.from_numpy(softmax(logits, axis=1)), torch.from_numpy(labels)
    theirs = multiclass_calibration_error(probabilities, target, num_classes=10, n_bins=bins, norm=norm)
    assert binned(found.confidence, found.correct, bins)[name] == pytest.approx(float(theirs), abs=1e-6)


def test_bins_are_open_below_and_closed_above():
    edges = np.array([0.0, 1 / 15, 2 / 15, 14 / 15, 1.0, 1 / 15 + 3e-6])
    np.testing.assert_array_equal(binning.bin_indices(edges), [0, 0, 1, 13, 14, 1])


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("bins", [2, 10, 15, 100])
def test_a_confidence_on_an_edge_is_in_the_bin_below_however_it_was_rounded(bins, precision):
    edges = (np.arange(1, bins) / bins).astype(precision)
    for ulps in (-8, -1, 0, 1, 8):
        rounded = edges.astype(np.float32) + ulps * np.spacing(edges.astype(np.float32))
        np.testing.assert_array_equal(binning.bin_indices(rounded.astype(np.float64), bins), np.arange(bins - 1))


def every_ece(confidence, correct, bins):
    """All metrics of bins by name; those by class of the two classes `right` and `wrong`."""
    logits = np.log(np.stack([confidence, 1 - confidence], axis=1))
    return {**binned(confidence, correct, bins), **by_class(logits, (1 - correct).astype(int), bins)}


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([5, 10, 15, 20]))
def test_the_noise_of_float32_moves_no_metric_of_bins(data, bins):
    """Confidences with edges among them, each within 8 units of float32's last place."""
    n = data.draw(st.integers(2, 40))
    hundredths = st.integers(1, 99).map(lambda k: k / 100) | st.integers(1, 14).map(lambda k: k / 15)
    confidence = data.draw(npst.arrays(np.float64, n, elements=hundredths))
    correct = data.draw(npst.arrays(np.float64, n, elements=st.sampled_from([0.0, 1.0])))
    ulps = data.draw(npst.arrays(np.int64, n, elements=st.integers(-8, 8)))
    noisy = confidence + ulps * np.spacing(confidence.astype(np.float32))
    assert every_ece(noisy, correct, bins) == pytest.approx(every_ece(confidence, correct, bins), abs=4e-5)


def test_equal_confidences_in_two_roundings_have_the_same_ece():
    """Recorded logits of the same confidences, .6 and .65, a hair below an edge in one model and above in the other."""
    correct = np.tile([1.0, 1.0, 0.0, 1.0], 50)
    found = [
        binned(np.where(np.arange(200) < 100, 0.6 + shift, 0.65), correct) for shift in (-1.3e-10, 3.4e-9, -6e-8, 6e-8)
    ]
    assert all(one == pytest.approx(found[0], abs=1e-6) for one in found)
    assert binned(np.full(200, 0.6 + 1e-5), correct) != pytest.approx(found[0], abs=1e-3)


def test_ties_by_rounding_share_an_equal_mass_bin_even_among_many():
    """Of more distinct confidences than there are cells."""
    rng = np.random.default_rng(0)
    around = np.repeat(np.arange(25, 75) / 100, 100)
    confidence = around + rng.integers(-8, 9, 5000) * np.spacing(around.astype(np.float32))
    correct = (rng.random(5000) < 0.7).astype(float)
    assert len(np.unique(confidence)) > 64 * 7
    for bins in (2, 3, 7):
        ours, exact = (binned(c, correct, bins)["ece.equal_mass"] for c in (confidence, around))
        assert ours == pytest.approx(exact, abs=1e-6)


def test_torchmetrics_puts_an_edge_one_bin_higher():
    """The documented disagreement: .5 shares a bin with .3 here, with .6 there."""
    confidence, correct = np.array([0.3, 0.5, 0.6]), np.array([1, 0, 1])
    assert binned(confidence, correct, bins=2)["ece"] == pytest.approx((abs(0.8 - 1) + 0.4) / 3)
    theirs = binary_calibration_error(torch.tensor(confidence), torch.tensor(correct), n_bins=2)
    assert float(theirs) == pytest.approx((0.7 + abs(1.1 - 1)) / 3)


@pytest.mark.parametrize("name", ["ECE", "MCE"])
def test_agrees_with_netcal_off_the_edges(name):
    metrics = pytest.importorskip("netcal.metrics")
    found = predict(*drawn())
    theirs = getattr(metrics, name)(15).measure(found.confidence, found.correct.astype(int))
    assert binned(found.confidence, found.correct)[name.lower()] == pytest.approx(theirs, abs=1e-12)


def test_netcal_puts_an_edge_one_bin_higher_too():
    """The documented disagreement, as with torchmetrics. Its ACE, the mean over bins, is no metric here."""
    metrics = pytest.importorskip("netcal.metrics")
    confidence, correct = np.array([0.3, 0.5, 0.6]), np.array([1, 0, 1])
    assert metrics.ECE(2).measure(confidence, correct) == pytest.approx((0.7 + abs(1.1 - 1)) / 3)
    assert metrics.ACE(2).measure(confidence, correct) == pytest.approx((0.7 + abs(1.1 - 1) / 2) / 2)


def test_netcals_equal_mass_bins_end_between_samples():
    """The documented disagreement: theirs are numpy's interpolated quantiles, and closed below."""
    metrics = pytest.importorskip("netcal.metrics")
    confidence, correct = np.array([0.2, 0.3, 0.4, 0.6, 0.9]), np.array([0, 1, 0, 1, 1])
    ours = binned(confidence, correct, bins=2)["ece.equal_mass"]  # .2 .3 .4 | .6 .9
    assert ours == pytest.approx((abs(0.9 - 1) + 0.5) / 5)
    theirs = metrics.ECE(2, equal_intervals=False).measure(confidence, correct)  # .2 .3 | .4 .6 .9
    assert theirs == pytest.approx((0.5 + 0.1) / 5)


def test_exact_values():
    assert binned([1, 1], [1, 1])["ece"] == 0
    assert binned([1, 1], [0, 0])["ece"] == 1
    assert binned([0.9, 0.9], [1, 0])["ece"] == pytest.approx(0.4)
    assert binned([0, 0], [0, 0])["mce"] == 0
    assert binned([0, 1], [1, 1])["mce"] == 1


@given(samples())
def test_ece_and_mce_by_brute_force(sample):
    confidence, correct = sample
    member = np.clip(np.ceil(np.round(confidence * 15, 12)), 1, 15)
    ours = binning.bin_indices(confidence) + 1
    gaps = [(confidence - correct)[ours == k] for k in range(1, 16)]
    assert np.abs(member - ours).max() <= 1  # of a confidence within rounding of an edge
    found = binned(confidence, correct)
    assert found["ece"] == pytest.approx(sum(abs(gap.sum()) for gap in gaps) / len(confidence), abs=1e-12)
    squares = sum(len(gap) * gap.mean() ** 2 for gap in gaps if len(gap)) / len(confidence)
    assert found["ece.rms"] == pytest.approx(squares**0.5, abs=1e-9)
    assert found["mce"] == pytest.approx(max(abs(gap.mean()) for gap in gaps if len(gap)), abs=1e-12)


def test_debiased_ece_is_what_comes_out_when_one_half_gives_the_sign_and_the_other_the_size():
    """Over random halves of a Gaussian mean x with standard error s: x + d and x - d, d of deviation s."""
    confidence, correct = drawn_in_one_bin()
    gap = confidence - correct
    x, s = gap.mean(), gap.std() / len(gap) ** 0.5
    d = s * np.random.default_rng(0).normal(size=1_000_000)
    assert binned(confidence, correct)["ece.debiased"] == pytest.approx((np.sign(x + d) * (x - d)).mean(), abs=3e-3 * s)
    # And over halves of the samples themselves.
    rng, halved = np.random.default_rng(1), []
    for _ in range(4000):
        one, other = np.split(rng.permutation(gap), 2)
        halved.append(np.sign(one.mean()) * other.mean())
    assert binned(confidence, correct)["ece.debiased"] == pytest.approx(np.mean(halved), abs=0.05 * s)


def drawn_in_one_bin(n: int = 200):
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.81, 0.86, n)
    return confidence, (rng.random(n) < confidence - 0.02).astype(float)


def test_of_calibrated_models_ece_is_far_above_zero_and_the_debiased_one_is_not():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        confidence = rng.uniform(0.2, 1, 1000)
        found.append(binned(confidence, rng.random(1000) < confidence))
    assert np.mean([f["ece"] for f in found]) > 0.03
    debiased = [f["ece.debiased"] for f in found]
    assert np.mean(debiased) == pytest.approx(0, abs=0.003)
    assert min(debiased) < 0


@given(samples())
def test_debiased_ece_is_below_ece_and_equal_where_nothing_varies(sample):
    confidence, correct = sample
    found = binned(confidence, correct)
    assert found["ece.debiased"] <= found["ece"] + 1e-12
    same = binned(np.full(7, 0.9), np.zeros(7))
    assert same["ece.debiased"] == pytest.approx(same["ece"])


@given(samples(), st.integers(1, 15))
def test_equal_mass_ece_by_brute_force_over_ranks(sample, bins):
    confidence, correct = sample
    n, ranked = len(confidence), np.sort(confidence)
    edges = [ranked[-(-k * n // bins) - 1] for k in range(1, bins + 1)]
    member = np.searchsorted(np.unique(edges) * (1 + 2e-6), confidence)
    total = sum(abs((confidence - correct)[member == k].sum()) for k in np.unique(member))
    assert binned(confidence, correct, bins)["ece.equal_mass"] == pytest.approx(total / n, abs=1e-12)


def test_equal_mass_bins_of_many_samples_hold_the_same_number():
    """Of more distinct confidences than there are cells."""
    confidence, correct = np.random.default_rng(0).random(4500), np.zeros(4500)
    order = np.argsort(confidence)
    correct[order[:300]] = 1  # the first of 15 bins
    expected = np.abs([(confidence - correct)[part].sum() for part in np.split(order, 15)]).sum() / 4500
    assert binned(confidence, correct)["ece.equal_mass"] == pytest.approx(expected, abs=1e-12)


def test_equal_confidences_share_a_bin():
    assert binned([0.7] * 10, [1] * 7 + [0] * 3)["ece.equal_mass"] == pytest.approx(0, abs=1e-12)


@given(samples(), st.data())
def test_order_of_samples_does_not_matter(sample, data):
    confidence, correct = sample
    order = np.array(data.draw(st.permutations(range(len(confidence)))))
    assert binned(confidence[order], correct[order]) == pytest.approx(binned(confidence, correct), abs=1e-12)


@given(samples())
def test_errors_are_shares(sample):
    found = binned(*sample)
    for name in ("ece", "ece.rms", "mce", "ece.equal_mass"):
        assert 0 <= found[name] <= 1 + 1e-12
    assert found["ece"] - 1e-12 <= found["ece.rms"] <= found["mce"] + 1e-12
    assert found["ece"] >= abs((sample[0] - sample[1]).mean()) - 1e-12


@given(samples())
def test_every_sample_twice_changes_nothing_but_the_debiased_ece(sample):
    """Whose correction is for chance, of which twice the samples would leave less."""
    confidence, correct = sample
    before, after = binned(confidence, correct), binned(*(np.repeat(x, 2) for x in sample))
    assert after.pop("ece.debiased") >= before.pop("ece.debiased") - 1e-12
    assert after == pytest.approx(before, abs=1e-12)


@given(st.floats(0, 1), npst.arrays(np.float64, st.integers(1, 30), elements=st.sampled_from([0.0, 1.0])))
def test_of_equal_confidences_every_ece_is_the_confidence_gap(confidence, correct):
    found = binned(np.full(len(correct), confidence), correct)
    gap = abs(confidence - correct.mean())
    names = ("ece", "ece.rms", "mce", "ece.equal_mass")
    assert [found[name] for name in names] == pytest.approx([gap] * 4, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(predictions(), st.integers(0, 2**32 - 1))
def test_masks_give_the_values_of_the_subsets_that_they_are(sample, seed):
    logits, labels = sample
    masks = np.random.default_rng(seed).random((len(labels), 3)) < 0.6
    masks[0] = True  # no subset is empty
    found = predict(logits, labels)
    for table in calibration.build_tables(found):
        of_masks = table.metrics_from_sums(table.sums(masks.astype(np.float64)))
        for column in range(3):
            (same,) = (
                t
                for t in calibration.build_tables(found.take(np.flatnonzero(masks[:, column])))
                if type(t) is type(table)
            )
            for name, value in values(same).items():
                assert of_masks[name][column] == pytest.approx(value, abs=1e-5), name


def brute_force(logits, labels, bins: int = 15):
    """ECE of each class, and the parts of the Brier score of each (Stephenson et al. 2008)."""
    probabilities = softmax(np.asarray(logits, dtype=np.float64), axis=1).astype(np.float32).astype(np.float64)
    classes = probabilities.shape[1]
    found = dict.fromkeys(("ece", "reliability", "resolution", "uncertainty", "variance", "covariance"), 0.0)
    for k in range(classes):
        p, hit = probabilities[:, k], (labels == k).astype(float)
        member = binning.bin_indices(p, bins)
        for b in np.unique(member):
            of = member == b
            share = of.mean()
            found["ece"] += share * abs(p[of].mean() - hit[of].mean()) / classes
            found["reliability"] += share * (p[of].mean() - hit[of].mean()) ** 2
            found["resolution"] += share * (hit[of].mean() - hit.mean()) ** 2
            found["variance"] += share * p[of].var()
            found["covariance"] += share * 2 * ((p[of] - p[of].mean()) * (hit[of] - hit[of].mean())).mean()
        found["uncertainty"] += hit.mean() * (1 - hit.mean())
    return found


@given(predictions())
def test_metrics_of_classes_by_brute_force(sample):
    found, expected = by_class(*sample), brute_force(*sample)
    assert found["ece.classwise"] == pytest.approx(expected["ece"], abs=1e-6)
    assert found["brier.reliability"] == pytest.approx(expected["reliability"], abs=1e-6)
    assert found["brier.resolution"] == pytest.approx(expected["resolution"], abs=1e-6)


@given(predictions())
def test_the_brier_score_is_reliability_less_resolution_plus_uncertainty_and_what_varies_within_bins(sample):
    logits, labels = sample
    found, parts = by_class(logits, labels), brute_force(logits, labels)
    of_parts = found["brier.reliability"] - found["brier.resolution"] + calibration.brier_uncertainty(labels)
    within = parts["variance"] - parts["covariance"]
    assert predict(logits, labels).brier.mean() == pytest.approx(of_parts + within, abs=1e-5)
    assert calibration.brier_uncertainty(labels) == pytest.approx(parts["uncertainty"], abs=1e-12)


def test_classwise_ece_is_the_mean_of_torchmetrics_binary_ones_off_the_edges():
    logits, labels = drawn(500, 6)
    probabilities = torch.from_numpy(softmax(logits, axis=1).T.copy())
    theirs = [
        float(binary_calibration_error(probabilities[k], torch.from_numpy((labels == k).astype(int)), n_bins=15))
        for k in range(6)
    ]
    assert by_class(logits, labels)["ece.classwise"] == pytest.approx(np.mean(theirs), abs=1e-6)


@given(predictions(), st.data())
def test_neither_order_nor_doubling_matters_to_metrics_of_classes(sample, data):
    logits, labels = sample
    found = by_class(logits, labels)
    order = np.array(data.draw(st.permutations(range(len(labels)))))
    for index in (order, np.repeat(order, 2)):
        assert by_class(logits[index], labels[index]) == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 16, 20])
def test_probabilities_that_are_all_equal(classes):
    """From 16 classes on they all lie in the first bin."""
    labels = np.arange(40) % 2
    found = by_class(np.zeros((40, classes)), labels)
    gaps = [1 / 2 - 1 / classes] * 2 + [1 / classes] * (classes - 2)
    assert found["ece.classwise"] == pytest.approx(np.mean(gaps), abs=1e-6)
    assert found["brier.reliability"] == pytest.approx(np.square(gaps).sum(), abs=1e-6)
    assert found["brier.resolution"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 20])
def test_probabilities_of_exactly_zero_and_one(classes):
    logits = np.full((4, classes), -1e4)
    logits[np.arange(4), [0, 0, 1, 1]] = 1e4
    right, wrong = by_class(logits, np.array([0, 0, 1, 1])), by_class(logits, np.array([1, 1, 0, 0]))
    assert right == pytest.approx({"ece.classwise": 0, "brier.reliability": 0, "brier.resolution": 0.5}, abs=1e-9)
    assert wrong["brier.reliability"] == pytest.approx(2)
    assert wrong["ece.classwise"] == pytest.approx(2 / classes)


def test_labels_of_one_class_leave_no_uncertainty():
    logits, _ = drawn(30, 4)
    assert calibration.brier_uncertainty(np.full(30, 2)) == 0
    assert by_class(logits, np.full(30, 2))["brier.resolution"] == pytest.approx(0, abs=1e-12)
