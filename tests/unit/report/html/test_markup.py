"""Escaped HTML."""

import json

from pytest_qreliab.report.html import markup


def test_content_and_attributes_are_escaped_and_markup_is_not():
    inner = markup.tag("b", "<1>", title='"&"')
    assert markup.tag("p", "a < ", inner, hidden=None) == '<p>a &lt; <b title="&quot;&amp;&quot;">&lt;1&gt;</b></p>'


def test_names_of_attributes_are_as_in_html():
    assert markup.tag("input", class_="a", data_case=1) == '<input class="a" data-case="1">'


def test_json_for_a_script_holds_no_tag():
    value = {"</script>": ["<!--"]}
    assert "<" not in markup.script_json(value)
    assert json.loads(markup.script_json(value)) == value


def test_a_long_name_may_break_where_its_parts_meet():
    assert list(markup.breakable("a/b_c")) == ["a/", "<wbr>", "b_", "<wbr>", "c"]
