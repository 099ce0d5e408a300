import subprocess
import sys

import pytest
from PIL import Image, features

from pytest_qreliab.data import decode
from pytest_qreliab.data.sources import suffixes


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.JPEG", "a.b.PNG", "a.jfif", "a.jpe", "a.tga", "a.pgm", "a.apng", "a.webp"]
)
def test_files_that_pillow_reads_are_images(name):
    assert suffixes.is_image(name)


@pytest.mark.parametrize(
    "name", ["a", "jpg", ".jpg", "a.jpg.txt", "a.txt", "a.pdf", "a.eps", "a.h5", "a.mpg", "a.jpg.dvc", ""]
)
def test_other_files_are_none(name):
    assert not suffixes.is_image(name)


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".tga", ".pbm", ".pcx", ".ico", ".apng", ".dib", ".sgi"])
def test_what_pillow_writes_under_a_suffix_is_an_image_and_decoded(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.new("1" if suffix == ".pbm" else "RGB", (32, 32)).save(path)
    assert suffixes.is_image(path.name)
    assert decode.image(path, "a").size == (32, 32)


@pytest.mark.parametrize(("feature", "suffix"), [("avif", ".avif"), ("jpg_2000", ".jp2"), ("jpg_2000", ".j2k")])
def test_formats_that_a_pillow_may_lack_are_images_if_it_has_them(tmp_path, feature, suffix):
    if not features.check(feature):
        pytest.skip(f"this Pillow has no {feature}")
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (32, 32)).save(path)
    assert suffixes.is_image(path.name)
    assert decode.image(path, "a").size == (32, 32)


@pytest.mark.parametrize("name", [".git", "._1.jpg", "Thumbs.db", "thumbs.db", "desktop.ini", "__MACOSX", "@eaDir"])
def test_what_systems_put_into_folders_is_hidden(name):
    assert suffixes.is_hidden(name)
    assert not suffixes.is_hidden(f"a{name}")


def test_what_is_left_out_is_said_with_the_number_and_the_first_names():
    said = suffixes.not_images([f"{n}.txt" for n in range(7)])
    assert not said.on_request
    assert said.text == (
        "7 files left out, without the suffix of an image that Pillow reads: "
        "0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 2 more"
    )


def test_usual_suffixes_cost_no_look_into_pillow():
    code = (
        "import sys; from pytest_qreliab.data.sources import suffixes; assert suffixes.is_image('a.jpg');"
        "print('PIL.TiffImagePlugin' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
