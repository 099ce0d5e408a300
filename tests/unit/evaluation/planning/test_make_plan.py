"""Cases and gates that do not go together."""

import pytest

from pytest_qreliab.errors import InputError


def test_models_whose_tests_would_share_a_name(make_plan, tmp_path):
    import torch
    from safetensors.torch import save_file

    for name in ("a b", "a_b"):
        save_file({"logit_scale": torch.tensor(4.6), "visual.x": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(InputError, match="share the test name"):
        make_plan(models=f"RN50/{tmp_path}/a b.safetensors,RN50/{tmp_path}/a_b.safetensors")
