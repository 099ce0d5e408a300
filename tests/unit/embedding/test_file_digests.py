"""Digests of files: read once, and again only after a change."""

import hashlib
import os
import time

from pytest_qreliab.embedding import file_digests
from pytest_qreliab.embedding.file_digests import FileDigests, sha256_digests


def test_files_are_read_again_only_where_they_changed(store, monkeypatch, tmp_path):
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text(path.name)
    read = []
    file_digest = file_digests.file_digest
    monkeypatch.setattr(file_digests, "file_digest", lambda path, **how: read.append(path) or file_digest(path))
    before = FileDigests(store).digests([*paths, paths[0]])
    assert len(set(before)) == 3
    assert before[0] == before[3]
    assert sorted(read) == paths
    read.clear()
    assert FileDigests(store).digests([*paths, paths[0]]) == before
    assert not read
    times = paths[1].stat()
    time.sleep(0.02)
    paths[1].write_text("B")  # of the same size, and made to look as old
    os.utime(paths[1], ns=(times.st_atime_ns, times.st_mtime_ns))
    os.utime(paths[2])  # touched
    after = FileDigests(store).digests(paths)
    assert sorted(read) == paths[1:]
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1] != before[1]


def test_the_sha256_can_be_compared_with_that_of_others(store, tmp_path):
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_text(path.name)
    expected = [hashlib.sha256(path.read_bytes()).hexdigest()[:32] for path in paths]
    assert sha256_digests(paths, store) == sha256_digests(paths, store) == sha256_digests(paths, None) == expected
    assert FileDigests(store).digests(paths) == [file_digests.file_digest(path) for path in paths]  # kept apart
