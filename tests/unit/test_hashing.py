"""Digests: the same for the same content, another for any other."""

import hashlib

import numpy as np
import torch

from pytest_qreliab.hashing import array_digest, bytes_digest, digest, file_digest, tensor_digest, text_sha256


def test_a_digest_tells_values_from_each_other_and_not_orders_of_keys():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert len({digest(1), digest("1"), digest([1]), digest(1, 1), digest(None), digest(1.5)}) == 6


def test_arrays_and_tensors_are_told_by_type_shape_and_values():
    values = np.arange(6.0)
    arrays = [values, values.astype(np.float32), values.reshape(2, 3), values + 1]
    assert len({array_digest(array) for array in arrays}) == 4
    assert len({tensor_digest(torch.from_numpy(array)) for array in arrays}) == 4
    assert array_digest(values.reshape(2, 3).T.copy().T) == array_digest(values.reshape(2, 3))  # laid out otherwise
    assert tensor_digest(torch.ones(2, 3).T) == tensor_digest(torch.ones(3, 2))
    assert tensor_digest(torch.tensor(1.0)) != tensor_digest(torch.tensor([1.0]))


def test_tensors_of_types_that_numpy_lacks_have_a_digest():
    half = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    assert tensor_digest(half) == tensor_digest(half.clone()) != tensor_digest(half.float())


def test_a_file_is_told_by_its_content(tmp_path):
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_bytes(b"content")
    assert file_digest(paths[0]) == file_digest(paths[1]) == bytes_digest(b"content") == bytes_digest(b"con", b"tent")
    assert file_digest(paths[0], sha256=True) == text_sha256("content") == hashlib.sha256(b"content").hexdigest()
