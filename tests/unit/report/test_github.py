"""Annotations of GitHub Actions."""

from pytest_qreliab.report import github


def test_annotations_point_at_the_limit(results):
    results.cases[0]["gates"][0] |= {"metric": "a,b:c", "problem": "not\nmeasured 100%", "where": "limits.yaml:7"}
    lines = list(github.commands(results.cases))
    assert lines[0] == (
        "::error file=limits.yaml,line=7,title=a%2Cb%3Ac of minmax w2a8::tiny-digits/minmax/w2a8/small: "
        "not%0Ameasured 100%25"
    )
    assert len(lines) == sum(not gate["passed"] for gate in results.cases[0]["gates"])
    assert list(github.commands(results.cases[1:])) == []
