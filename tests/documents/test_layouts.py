"""The layouts of docs/benchmarks.md: each is built in small, and the YAML of the page reads it."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from pytest_qreliab.config.benchmark import Benchmark
from pytest_qreliab.data import availability, loading

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
LAYOUTS = dict(re.findall(r"^```yaml\n# (\S+\.yaml)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S))


def save(folder: Path, *names: str) -> None:
    for shade, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), shade).save(folder / name)


def pacs(folder):
    for domain in ("photo", "art_painting", "cartoon", "sketch"):
        save(folder, *(f"PACS/{domain}/{name}/pic_{n}.jpg" for name in ("dog", "elephant", "giraffe") for n in "12"))
    return {"labels": [0, 0, 1, 1, 2, 2], "classes": ("dog", "elephant", "giraffe"), "left_out": [], "warnings": 0}


def tiny_imagenet(folder):
    save(folder, *(f"val/images/val_{n}.JPEG" for n in range(4)))
    wnids = ["n2", "n3", "n1", "n2"]
    rows = [f"val_{n}.JPEG\t{wnid}\t0\t32\t44\t62" for n, wnid in enumerate(wnids)]
    (folder / "val" / "val_annotations.txt").write_text("\n".join(rows) + "\n")
    (folder / "wnids.txt").write_text("n3\nn1\nn2\n")
    names = ["entity", "goldfish, Carassius auratus", "tailed frog", "scorpion"]
    words = [f"n{n}\t{name}" for n, name in enumerate(names)] + [f"n9{n:05}\tword {n}" for n in range(1000)]
    (folder / "words.txt").write_text("\n".join(words))
    classes = ("scorpion", "goldfish, Carassius auratus", "tailed frog")
    return {"labels": [2, 0, 1, 2], "classes": classes, "left_out": [], "warnings": 0}


def fashion(folder):
    save(folder, "images/10000.jpg", "images/10002.jpg", "images/10003.jpg", "images/10004.jpg")
    rows = [
        "10000,Jeans,Summer",
        "10001,Jeans,Fall",
        "10002,Handbags,Fall",
        "10003,Shirts,Winter",
        "10004,Watches,Fall",
    ]
    rows.append("10005,Shirts,Summer")
    (folder / "styles.csv").write_text("id,articleType,season\n" + "\n".join(rows))
    warnings = [
        "fashion: in_distribution: 2 rows left out, whose image is not there: images/10001.jpg, images/10005.jpg",
        "fashion: in_distribution: 1 image left out, with labels of no class: Handbags",
        "fashion: in_distribution: 1 of 3 classes without images: 'Shirts'",
    ]
    return {
        "labels": [1, 2],
        "classes": ("Shirts", "Jeans", "Watches"),
        "left_out": ["1 row that `where` leaves out"],
        "warnings": warnings,
    }


def metadata(folder):
    save(folder, "train/1.jpg", "train/deep/2.jpg", "train/3.jpg")
    rows = [{"file_name": "1.jpg", "label": "dog", "text": "a"}, {"file_name": "deep/2.jpg", "label": "cat"}]
    rows.append({"label": "cat", "file_name": "3.jpg", "text": None})
    (folder / "train" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return {"labels": [1, 0, 0], "classes": ("cat", "dog"), "left_out": [], "warnings": 0}


def some(folder):
    save(folder, *(f"imagenet/val/{key}/{n}.JPEG" for key in ("n01440764", "n02124075", "n02504458") for n in "12"))
    warnings = ["some: in_distribution: 2 images left out, with labels of no class: n01440764"]
    return {
        "labels": [0, 0, 1, 1],
        "classes": ("Egyptian cat", "African elephant"),
        "left_out": [],
        "warnings": warnings,
    }


def captioned(folder):
    save(folder, "1.jpg", "2.jpg", "others/3.jpg", "coco/images/4.jpg", "coco/images/5.jpg")
    (folder / "animals.csv").write_text("image,label\n1.jpg,dog\n2.jpg,cat\n")
    (folder / "coco" / "captions.csv").write_text('image,caption\nimages/4.jpg,"A tree, a lake"\nimages/5.jpg,Snow\n')
    return {"labels": [1, 0], "classes": ("cat", "dog"), "left_out": [], "warnings": 0}


BUILDERS = {
    "pacs.yaml": pacs,
    "tiny-imagenet.yaml": tiny_imagenet,
    "fashion.yaml": fashion,
    "metadata.yaml": metadata,
    "some.yaml": some,
    "captioned.yaml": captioned,
}


def test_every_layout_of_the_page_is_built_here():
    assert set(LAYOUTS) == set(BUILDERS)


@pytest.mark.parametrize("name", BUILDERS)
def test_the_yaml_of_a_layout_reads_it(tmp_path, name):
    expected = BUILDERS[name](tmp_path)
    (tmp_path / name).write_text(LAYOUTS[name])
    benchmark = Benchmark.load(str(tmp_path / name))
    found = loading.load(benchmark)
    assert found.in_distribution.labels.tolist() == expected["labels"]
    assert found.classes == expected["classes"]
    assert list(found.warnings) == (expected["warnings"] or [])
    checked = availability.check(benchmark)
    assert checked.sets[0].images == len(expected["labels"])
    assert list(checked.sets[0].left_out) == expected["left_out"]
    assert checked.warnings == found.warnings
    for images in found.sets.values():
        assert images.load(0).size == (8, 8)
