import pytest
import torch

from pytest_qreliab.config.formats import Format
from pytest_qreliab.quantizers.inspection import coverage
from pytest_qreliab.quantizers.libraries.artifact import inspect


@pytest.mark.parametrize(("kind", "bits"), [("dynamic", Format.integers(8, 8)), ("weights", Format.integers(8))])
def test_onnx_towers(tiny, towers, noise, error, prompts, kind, bits, load):
    assert inspect(towers / kind, "both") == bits
    clip = load(tiny, towers / kind)
    assert max(error(tiny, clip)) < 0.1
    assert clip.encode_image_with_map(noise(tiny))[1].shape == tiny.encode_image_with_map(noise(tiny))[1].shape
    found = coverage.measure(tiny, clip, bits, "both")
    assert found.matrices == 1.0
    assert (found.weights == 1.0) == (bits == Format.integers(8, 8))
    assert (clip.logit_scale, clip.device) == (tiny.logit_scale, tiny.device)
    vision = load(tiny, towers / kind, "vision")
    assert torch.equal(vision.encode_text(prompts), tiny.encode_text(prompts))


def test_an_onnx_tower_of_one_batch_size_takes_any(tiny, towers, tmp_path, noise, load):
    import onnx

    model = onnx.load(towers / "dynamic" / "visual.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, tmp_path / "visual.onnx")
    images = noise(tiny)
    found, expected = (load(tiny, path, "vision").encode_image(images) for path in (tmp_path, towers / "dynamic"))
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=0.2)  # ranges are of the batch
    assert coverage.measure(tiny, load(tiny, tmp_path, "vision"), Format.integers(8, 8), "vision").weights == 1.0
