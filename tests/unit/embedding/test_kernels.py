"""The kernels of a run: one attention kernel and one thread where they are asked for, and all as before afterwards."""

import os

import pytest
import torch
import torch.nn.functional as F

from pytest_qreliab.embedding import kernels


def settings() -> tuple[object, ...]:
    return (
        torch.get_num_threads(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch.backends.cuda.math_sdp_enabled(),
        os.environ.get(kernels.WORKSPACE),
    )


@pytest.fixture
def attend():
    """Attention over 65 places, whose sums the kernels take in different orders."""
    q, k, v = torch.randn(3, 4, 4, 65, 24, generator=torch.Generator().manual_seed(0))

    def attend() -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    return attend


def by_definition(attend) -> torch.Tensor:
    with kernels.attention("math"):
        return attend()


def test_kernels_of_attention_differ_in_the_last_bits(attend):
    with kernels.attention("chosen"):
        chosen = attend()
    assert torch.equal(chosen, attend())
    assert not torch.equal(by_definition(attend), chosen)
    assert torch.allclose(by_definition(attend), chosen, atol=1e-6)


def test_a_deterministic_run_has_one_attention_kernel_and_one_thread(attend):
    with kernels.deterministic():
        assert settings()[:4] == (1, False, True, True)
        assert torch.equal(attend(), by_definition(attend))
        with kernels.attention("chosen"):
            assert not torch.equal(attend(), by_definition(attend))
        assert torch.equal(attend(), by_definition(attend))


@pytest.mark.parametrize("workspace", [None, ":16:8"])
def test_all_is_as_before_afterwards_even_after_an_error(monkeypatch, workspace):
    monkeypatch.delenv(kernels.WORKSPACE, raising=False)
    if workspace is not None:
        monkeypatch.setenv(kernels.WORKSPACE, workspace)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        before = settings()
        with pytest.raises(KeyError), kernels.deterministic():
            raise KeyError
        assert settings() == before
    finally:
        torch.set_num_threads(threads)


def test_sums_of_a_deterministic_run_do_not_depend_on_the_number_of_threads():
    """The product that GPTQ sums over all tokens: its order is another on another number of threads."""
    tokens = torch.randn(20_000, 48, generator=torch.Generator().manual_seed(0))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            with kernels.deterministic():
                found.append((tokens.T @ tokens, tokens.sum()))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for pair in found[1:] for a, b in zip(pair, found[0], strict=True))
