"""The page as a whole: what it says, and that nothing in it breaks out."""

from __future__ import annotations

import itertools
import re

import pytest

from pytest_qreliab.report import results_file
from pytest_qreliab.report.html import markup
from pytest_qreliab.report.html import page as html_page


def test_head_gives_the_verdict_in_words(read_page, small):
    page = read_page(small)
    assert page.all("h1")[0]["text"] == "✗ 2 of 4 cases failed"
    assert page.all("time")[0]["text"] == "2026-01-02 03:04 UTC"
    text = page.all("body")[0]["text"]
    assert "pytest-qreliab 0.1.0" in text
    first, second, *others = [of["text"] for of in page.all("li")]
    assert first == "tiny/minmax/w2a8/digits: accuracy, ood.auroc"
    assert second.startswith("tiny/")
    assert others == ["few samples", "smallest passing: minmax w4a8, 0.21 of full size"]


@pytest.mark.parametrize(
    ("cases", "run", "verdict"),
    [
        pytest.param(1, {}, "✓ 1 case passed", id="one"),
        pytest.param(2, {}, "✓ All 2 cases passed", id="several"),
        pytest.param(2, {"exitstatus": 1}, "✗ 2 cases passed, but the run failed", id="exit-status"),
        pytest.param(1, {"errors": {"b": "no"}}, "✗ None of 2 cases failed, 1 without result", id="one-missing"),
        pytest.param(0, {"errors": {"a": "no", "b": "no"}}, "✗ No result of 2 cases", id="all-missing"),
    ],
)
def test_verdict_of_other_runs(build, read_page, cases, run, verdict):
    results = build.results(*map(build.case, range(cases)), **run)
    assert read_page(results).all("h1")[0]["text"] == verdict


def test_headings_are_in_order(read_page, small):
    levels = [int(of["name"][1]) for of in read_page(small).elements if re.fullmatch("h[1-6]", of["name"])]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_page_needs_no_network(read_page, small):
    text, page = html_page.render(small), read_page(small)
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")  # a name, which nothing is loaded from
    assert "https://" not in text
    assert not [of for of in page.elements if "src" in of or of["name"] in ("link", "img", "iframe", "object")]
    assert all(of["href"].startswith("#") for of in page.all("a"))
    assert "url(" not in text
    assert "@import" not in text


def test_links_lead_somewhere(read_page, small):
    page = read_page(small)
    ids = [of["id"] for of in page.elements if "id" in of]
    assert len(ids) == len(set(ids))
    assert {of["href"][1:] for of in page.all("a")} <= set(ids)


def test_policy_allows_only_what_is_there(read_page, small):
    page = read_page(small)
    [policy] = [of["content"] for of in page.all("meta") if of.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert markup.content_digest(page.all("style")[0]["text"]) in policy
    assert markup.content_digest(page.all("script")[-1]["text"]) in policy
    assert not [of for of in page.elements if "style" in of or any(key.startswith("on") for key in of)]


def test_nothing_breaks_out(build, read_page, hostile_text):
    harmless, page = (read_page(build.hostile_results(text)) for text in ("harmless", hostile_text))
    assert [of["name"] for of in page.elements if of["name"] != "wbr"] == [
        of["name"] for of in harmless.elements if of["name"] != "wbr"
    ]
    assert [sorted(of) for of in page.elements if of["name"] != "wbr"] == [
        sorted(of) for of in harmless.elements if of["name"] != "wbr"
    ]
    said = hostile_text.replace("\ud800", "?")
    assert said in page.all("details")[0]["text"]
    assert page.data()["cases"][0]["warnings"] == [said]


def test_run_without_any_result(build, read_page):
    page = read_page(build.results(errors={"a": "out of memory", "b": "not measured"}))
    assert not page.all("table")
    assert [of["text"] for of in page.all("li")] == ["a has no result: out of memory", "b has no result: not measured"]


def test_200_cases_are_under_two_megabytes(build):
    assert len(html_page.render(build.results(*build.many(200))).encode()) < 2_000_000


def test_page_of_a_results_file(tmp_path, small):
    results_file.write(tmp_path / "r.json", small)
    assert html_page.render(results_file.read(tmp_path / "r.json")) == html_page.render(small)


def test_what_was_trained_on_is_among_the_notes_and_in_the_case(build, read_page):
    page = read_page(build.results(build.case(quantizer="lsq", trained_on="pairs in a.csv"), build.case(1)))
    assert "lsq: trained on pairs in a.csv" in [of["text"] for of in page.all("li")]
    data = page.data()
    about = [{name: data["pool"][place] for name, place in case["about"]} for case in data["cases"]]
    assert about[0]["trained on"] == "pairs in a.csv"
    assert "trained on" not in about[1]
