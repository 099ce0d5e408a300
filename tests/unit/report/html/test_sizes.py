"""The section on sizes."""


def test_recorded_outputs_have_no_sizes(build, read_page):
    records = [build.case(index, coverage=None, size=None, curves=None) for index in range(2)]
    page = read_page(build.results(*records))
    assert not [of for of in page.elements if of.get("id") in ("sizes", "pareto", "scatter")]
    assert "coverage recorded" in page.all("caption")[0]["text"]


def test_front_is_each_models_own(build, read_page):
    records = [build.case(index, model=f"model-{index % 2}") for index in range(6)]
    for index, harm in enumerate((0.03, 0.3, 0.01, 0.1, 0.02, 0.2)):
        records[index]["gates"][0].update(baseline=0.9, quantized=0.9 - harm)
    sizes = read_page(build.results(*records)).data()["sizes"]
    assert sizes["names"][0] == "accuracy"
    assert sorted(sizes["models"][at]["name"] for at in sizes["fronts"][0]) == [
        f"quantizer-{index} w4a8" for index in (0, 1, 2, 3)
    ]
