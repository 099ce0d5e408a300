"""The record of a result."""


def test_the_file_says_what_it_was_measured_on_and_with(results):
    failed, passed = results.cases
    assert failed["data"] == passed["data"]
    assert failed["data"].keys() == {
        *("classes", "templates", "preprocessing", "in_distribution", "calibration"),
        *("ood.near.letters", "ood.far.photos"),
    }
    assert failed["data"]["in_distribution"].startswith("120 images ")
    assert {"python", "torch", "pytest-qreliab", "device"} <= failed["environment"].keys()
    assert failed["size"]["quantized"] < passed["size"]["quantized"] < passed["size"]["full"]
