"""Every kind of image that a data set may hold, written and read back."""

import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from pytest_qreliab.data import decode
from pytest_qreliab.data.sources import folders
from pytest_qreliab.errors import InputError

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def encoded(image, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(content) -> Image.Image:
    return decode.image(content, "x")


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_modes_stay_and_convert_as_pillow_does(mode):
    image = Image.fromarray(RGB).convert(mode)
    found = decoded(encoded(image))
    assert found.mode == mode
    np.testing.assert_array_equal(np.asarray(found), np.asarray(image))
    np.testing.assert_array_equal(np.asarray(found.convert("RGB")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("transparency", [3, bytes(range(200))])
def test_palettes_with_transparency_convert_without_a_warning(transparency):
    image = Image.fromarray(RGB).convert("P")
    found = decoded(encoded(image, transparency=transparency))
    assert found.mode == "P"
    np.testing.assert_array_equal(np.asarray(found.convert("RGB")), np.asarray(image.convert("RGB")))


def test_cmyk_jpeg():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    found = decoded(encoded(image, "JPEG", quality=95))
    assert found.mode == "CMYK"
    red, green, blue = np.asarray(found.convert("RGB"), dtype=int)[4, 4]
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_greyscale_is_scaled_and_not_clipped(kind):
    exact = GREY.astype(np.uint16) * 257
    for off in (-128, 0, 128):
        deep = np.clip(exact.astype(int) + off, 0, 65535).astype(np.uint16)
        found = decoded(encoded(Image.fromarray(deep), kind))
        assert found.mode == "L"
        np.testing.assert_array_equal(np.asarray(found), GREY)


def test_16_bit_greyscale_the_other_way_round(tmp_path):
    deep = (GREY.astype(np.uint16) * 257).astype(">u2")
    found = decoded(encoded(Image.frombytes("I;16B", (9, 6), deep.tobytes()), "TIFF"))
    assert found.mode == "L"
    np.testing.assert_array_equal(np.asarray(found), GREY)


def test_32_bit_values_are_scaled_where_they_are_16_bit_ones():
    found = decoded(encoded(Image.fromarray(GREY.astype(np.int32) * 257), "TIFF"))
    np.testing.assert_array_equal(np.asarray(found), GREY)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[-1, 5]], np.int32), "32-bit whole numbers from -1 to 5; .*save it as an 8-bit PNG"),
        (np.array([[1, 65536]], np.int32), "from 1 to 65536"),
        (np.array([[0.25, 1]], np.float32), "floating-point numbers from 0.25 to 1; pixels have 8 bits"),
    ],
)
def test_values_that_are_no_pixels(array, message):
    with pytest.raises(InputError, match=f"image x holds .*{message}"):
        decoded(encoded(Image.fromarray(array), "TIFF"))


def upright(orientation: int) -> np.ndarray:
    """GREY as the camera has to store it for a viewer that obeys `orientation` to see GREY, by the standard's words."""
    return {
        1: GREY,
        2: GREY[:, ::-1],
        3: GREY[::-1, ::-1],
        4: GREY[::-1],
        5: GREY.T,
        6: np.rot90(GREY),
        7: GREY[::-1, ::-1].T,
        8: np.rot90(GREY, -1),
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deep", [False, True])
def test_images_are_turned_upright_once(orientation, deep):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(upright(orientation))
    found = decoded(encoded(Image.fromarray(stored.astype(np.uint16) * 257 if deep else stored), exif=exif))
    np.testing.assert_array_equal(np.asarray(found), GREY)
    assert 0x0112 not in found.getexif()


def test_a_rotated_jpeg(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    left_dark = np.zeros((16, 32), np.uint8)
    left_dark[:, 16:] = 255
    (tmp_path / "a.jpg").write_bytes(encoded(Image.fromarray(left_dark), "JPEG", exif=exif))
    found = folders.load_image(tmp_path / "a.jpg")
    assert found.size == (16, 32)
    assert np.asarray(found)[:16].max() < 10 < 245 < np.asarray(found)[16:].min()


def test_exif_data_that_cannot_be_read_do_not_matter():
    content = encoded(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xffrubbish")
    filters = warnings.filters[:]
    assert decoded(content).size == (9, 6)
    assert warnings.filters == filters
    with ThreadPoolExecutor(8) as pool:
        assert {image.size for image in pool.map(decoded, [content] * 200)} == {(9, 6)}
    assert warnings.filters == filters


def test_large_images_that_are_no_bombs_decode(monkeypatch):
    content = encoded(Image.fromarray(RGB))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    assert decoded(content).size == (9, 6)


def test_of_several_frames_the_first():
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (10, 200)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(np.asarray(decoded(content).convert("L")), np.full((4, 4), 10))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_damaged_images_are_named_wherever_they_are_cut(kind, tmp_path):
    whole = encoded(Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)), kind)
    for cut in range(0, len(whole) * 3 // 4, max(1, len(whole) // 40)):
        with pytest.raises(InputError, match="image x cannot be decoded: ") as caught:
            decoded(whole[:cut])
        assert " at 0x" not in str(caught.value)


def test_whatever_the_bytes_nothing_but_an_input_error_is_raised():
    rng = np.random.default_rng(2)
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP"):
        whole = np.frombuffer(encoded(Image.fromarray(RGB), kind), np.uint8)
        for _ in range(60):
            broken = whole.copy()
            broken[rng.integers(0, len(broken), 4)] = rng.integers(0, 256, 4)
            try:
                decoded(broken.tobytes())
            except InputError as error:
                assert str(error).startswith("image x ")  # noqa: PT017


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_files_that_are_no_images(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"image .*a\.jpg cannot be decoded: it is empty, no image, or of a kind"):
        folders.load_image(path)
    with path.open("rb") as file, pytest.raises(InputError, match="image a file cannot be decoded"):
        decode.image(file, "a file")


@pytest.mark.parametrize(
    ("content", "name", "mend"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS", "git lfs pull"),
        (b"/annex/objects/SHA256E-s933--0a1b.jpg\n", "git-annex", "git annex get"),
    ],
)
def test_a_pointer_in_place_of_an_image_is_named(tmp_path, content, name, mend):
    (tmp_path / "a.jpg").write_bytes(content)
    for source in (tmp_path / "a.jpg", content):
        with pytest.raises(InputError, match=f"image x cannot be decoded: it is a pointer of {name}: .* `{mend}`"):
            decode.image(source, "x")


@pytest.mark.parametrize("size", [(1, 1001), (3000, 2)])
def test_a_strip_is_refused_before_it_is_enlarged(size):
    with pytest.raises(InputError, match=rf"image x has {size[0]:,} x {size[1]:,} pixels; a side may be 1000 times"):
        decoded(encoded(Image.new("L", size)))
    assert decoded(encoded(Image.new("L", (1, 1000)))).size == (1, 1000)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"b\.png cannot be decoded: No such file or directory$"):
        folders.load_image(tmp_path / "b.png")


def test_decompression_bombs(monkeypatch):
    content = encoded(Image.fromarray(RGB))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match=r"image x cannot be decoded: .*decompression bomb"):
        decoded(content)


def test_arrays():
    for array in (RGB, GREY, RGB[::-1, ::2]):
        np.testing.assert_array_equal(np.asarray(decode.from_array(array, "x")), array)
    np.testing.assert_array_equal(np.asarray(decode.from_array(GREY.astype(np.uint16) * 257, "x")), GREY)


@pytest.mark.parametrize(
    "array",
    [GREY.astype(np.float32), RGB.astype(np.uint16), np.zeros((3, 8, 8), np.uint8), GREY[0], GREY[:0]],
)
def test_arrays_that_are_no_images(array):
    with pytest.raises(InputError, match=r"image x is an array \w+ of shape .*uint8 \(height, width\) or"):
        decode.from_array(array, "x")
