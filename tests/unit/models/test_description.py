from pytest_qreliab.models.description import ModelDescription


def test_the_digest_stands_behind_the_name_of_its_file():
    found = ModelDescription(facts={"tag": "a", "file": "w.pt", "mean": "0"}, warnings=("w",)).with_digest(
        "0123456789abcdef"
    )
    assert list(found.facts.items()) == [("tag", "a"), ("file", "w.pt"), ("sha256", "0123456789ab"), ("mean", "0")]
    assert found.warnings == ("w",)
