import pytest

from pytest_qreliab.data.sources import webdataset
from pytest_qreliab.errors import InputError


def test_damaged_shards(tmp_path, pixels, png, write_shard):
    write_shard(tmp_path / "0.tar", {"a.png": png(pixels[0]), "a.jpg": png(pixels[0])})
    with pytest.raises(InputError, match=r"have no one image alone; the first: 0.tar/a"):
        webdataset.list_items(tmp_path / "0.tar", None)
    write_shard(tmp_path / "0.tar", {"a.png": png(pixels[0]), "b.png": png(pixels[0]) * 100})
    whole = (tmp_path / "0.tar").read_bytes()
    for cut in (600, len(whole) // 2):
        (tmp_path / "0.tar").write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"0\.tar: the shard cannot be read"):
            webdataset.list_items(tmp_path, None)
    write_shard(tmp_path / "0.tar", {"a.txt": b"no image"})
    with pytest.raises(InputError, match="hold no samples"):
        webdataset.list_items(tmp_path, None)
