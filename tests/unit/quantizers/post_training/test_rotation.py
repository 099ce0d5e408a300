from pytest_qreliab.config.cases import Bits


def test_rotation_changes_nothing_of_full_size_and_hides_an_outlier_channel(tiny, images, quantize, error):
    """An outlier in one channel costs minmax its activation range, and a rotation next to nothing."""
    spiked = tiny.copy()
    norm = spiked.module.visual.transformer.resblocks[0].ln_1
    norm.weight[3] *= 300  # undone in the weights that read it, so that the model is the same
    for part in spiked.module.visual.transformer.resblocks[0].attn.in_proj_weight.unbind():
        part[3] /= 300
    norm.bias[3] *= 300
    assert max(error(spiked, tiny, images)) < 1e-3
    plain = error(quantize(spiked, "minmax", Bits(8, 8)), tiny, images)[0]
    for method in ("smoothquant", "outlier-suppression", "quarot"):
        assert error(quantize(spiked, method, Bits(8, 8)), tiny, images)[0] < plain / 2, method
