"""Suite files: what they say, where it comes from, and what is wrong with them."""

import re

import pytest

from pytest_qreliab.config.document import shipped
from pytest_qreliab.config.suite import Suite
from pytest_qreliab.errors import InputError

SUITE = """\
version: 1
models: [tiny-digits]
quantizers:
  - minmax
  - name: wide
    quantizer: percentile
    share: 99.99
  - {name: grouped, quantizer: mse, granularity: 32, activations: dynamic}
bits: [4, w8]
scopes: [vision, both]
benchmarks: [data/small.yaml]
thresholds: limits.yaml
device: cpu
deterministic: true
"""


@pytest.fixture
def suite(tmp_path, small_benchmark, write_thresholds):
    """Writes a suite file in a folder with a benchmark and thresholds beside it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "small.yaml").write_text(small_benchmark.read_text())
    write_thresholds("accuracy: {max_drop: 0.5}")

    def write(text: str = SUITE, *changes: tuple[str, str]):
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "suite.yaml"
        path.write_text(text)
        return path

    return write


def test_shipped_suites_are_valid():
    for path in shipped("suites").values():
        assert Suite.load(path).definition.benchmarks


def test_a_suite_says_what_to_run(suite, make_plan):
    plan = make_plan(suite=str(suite()))
    assert [case.id for case in plan.cases if case.build.quantizer == "wide"] == [
        f"tiny-digits/wide/{case}/small" for case in ("w4a8/vision", "w4a8", "w8/vision", "w8")
    ]
    assert len(plan.cases) == 12
    assert plan.recipes["wide"].parameters.share == 99.99
    assert plan.recipes["grouped"].parameters.granularity == 32
    assert plan.recipes["grouped"].quantizer.name == "mse"
    assert plan.device == "cpu"
    assert plan.deterministic
    assert plan.thresholds[plan.cases[0]].document.path.name == "limits.yaml"
    assert [case.build.calibration for case in plan.cases if case.build.quantizer == "grouped"] == [None] * 4


def test_what_it_leaves_out_is_at_its_default(suite, make_plan):
    plan = make_plan(suite=str(suite("version: 1\n")))
    assert [case.id for case in plan.cases] == ["tiny-digits/minmax/w4a8/digits", "tiny-digits/minmax/w8a8/digits"]


def test_an_option_takes_the_place_of_the_suites_axis(suite, make_plan):
    plan = make_plan(
        suite=str(suite()), bits="w5", quantizers="grouped+rescale,minmax", scopes="text", thresholds="default"
    )
    assert [case.id for case in plan.cases] == [
        "tiny-digits/grouped+rescale/w5/text/small",
        "tiny-digits/minmax/w5/text/small",
    ]
    assert plan.recipes["grouped+rescale"].parameters.granularity == 32
    assert plan.recipes["grouped+rescale"].rescale
    assert plan.thresholds[plan.cases[0]].document.path.name == "default.yaml"


def test_no_suite_can_be_asked_for(make_plan):
    assert len(make_plan(suite="none").cases) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 2", r"suite.yaml:1: version: Input should be 1"),
        ("scopes:", "scope:", r"suite.yaml:10: unknown key 'scope'; did you mean 'scopes'\?"),
        ("share: 99.99", "shar: 99.99", r"suite.yaml:7: quantizers.1: unknown key 'shar'; did you mean 'share'\?"),
        ("share: 99.99", "share: 20", r"suite.yaml:7: quantizers.1.share: Input should be greater than 50"),
        ("share: 99.99", "share: wide", r"suite.yaml:7: quantizers.1.share: Input should be a valid number"),
        ("granularity: 32", "granularity: 1", r"suite.yaml:8: quantizers.2.granularity"),
        ("quantizer: percentile", "quantizer: percentil", r"suite.yaml:6: unknown quantizer 'percentil'; did you"),
        ("quantizer: mse", "quantizer: wide", r"suite.yaml:8: unknown quantizer 'wide'"),
        ("name: wide", "name: mse", r"suite.yaml:5: 'mse' is a quantizer's own name; give the variant another"),
        ("name: wide", "name: grouped", r"suite.yaml:8: there is a variant 'grouped' already, at .*suite.yaml:5"),
        ("name: wide", "name: wide+rescale", r"suite.yaml:5: quantizers.1.name: String should match pattern"),
        ("    quantizer: percentile\n", "", r"suite.yaml:5: quantizers.1.quantizer: Field required"),
        ("- minmax", "- 8", r"suite.yaml:4: quantizers.0: give a quantizer's name, or a mapping"),
        ("- minmax", "- minmx", r"suite.yaml:4: unknown quantizer 'minmx'; did you mean 'minmax'"),
        ("[4, w8]", "[4, w9]", r"suite.yaml:9: 9 bits in 'w9' is out of range"),
        ("[4, w8]", "[4, 4.5]", r"suite.yaml:9: bits.1: write a format such as 4, w4, w4a8 or fp8"),
        ("[4, w8]", "[yes]", r"suite.yaml:9: bits.0: write a format"),
        ("[4, w8]", "[]", r"suite.yaml:9: bits: List should have at least 1 item"),
        ("[4, w8]", "4", r"suite.yaml:9: bits: Input should be a valid list"),
        ("[vision, both]", "[vision, boht]", r"suite.yaml:10: unknown scope 'boht'; did you mean 'both'"),
        ("data/small.yaml", "smal.yaml", r"suite.yaml:11: unknown benchmark 'smal.yaml'.*/smal.yaml does not exist"),
        ("limits.yaml", "limit.yaml", r"suite.yaml:12: unknown thresholds file 'limit.yaml'"),
        ("device: cpu", "device: cqu", r"suite.yaml:13: unknown device 'cqu'"),
        ("[tiny-digits]", "[tiny-digit]", r"suite.yaml:2: unknown model 'tiny-digit'; did you mean 'tiny-digits'"),
        ("[tiny-digits]", "[RN50/none.pt]", r"suite.yaml:2: model 'RN50/.*none.pt': there is no checkpoint .*none.pt"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_file_and_line(suite, make_plan, old, new, message):
    with pytest.raises(InputError) as told:
        make_plan(suite=str(suite(SUITE, (old, new))))
    assert re.search(message, str(told.value)), str(told.value)
    assert "--qreliab" not in str(told.value).partition(":")[0]


def test_bits_that_a_quantizer_cannot_do_are_told_with_their_line(suite, make_plan):
    from dataclasses import replace

    from pytest_qreliab.config import settings as config_settings
    from pytest_qreliab.evaluation.planning import make_plan as planning_make_plan
    from pytest_qreliab.evaluation.planning.catalog import Catalog

    catalog = Catalog()
    catalog.add_quantizer(replace(catalog.quantizers["mse"], name="eight", bits=("w8",)))
    path = suite("version: 1\nquantizers: [eight]\nbits:\n  - w8\n  - w4\n")
    settings = config_settings.resolve({"qreliab_suite": str(path)}.get, lambda ini: None)
    with pytest.raises(InputError, match=r"suite.yaml:5: quantizer 'eight' cannot do w4; it can do w8"):
        planning_make_plan.make_plan(settings, catalog)


def test_a_suite_that_is_not_there(make_plan):
    with pytest.raises(
        InputError, match=r"suite: unknown suite 'missing.yaml'; .*missing.yaml does not exist\); or none"
    ):
        make_plan(suite="missing.yaml")
