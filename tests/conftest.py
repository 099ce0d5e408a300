"""Fixtures that many tests share: models are made once, real data are skipped where they are not."""

from __future__ import annotations

import importlib.util
import json
import os
import textwrap
from pathlib import Path

import hypothesis
import pytest

pytest_plugins = ["pytester"]

# No test is timed: how long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

if "PYTEST_XDIST_WORKER" in os.environ:
    # Threads of torch in several workers take the cores from each other. In the environment, for subprocesses too.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "realdata"


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Real images and recorded outputs, which are not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"real data are not here: {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def tiny():
    """The embedded model; tests must not change it."""
    from pytest_qreliab.models import loading, names

    return loading.load_model(names.TINY_DIGITS)


@pytest.fixture
def embedder(tmp_path):
    """Embeds with a store of its own."""
    from pytest_qreliab.embedding.embedder import Embedder
    from pytest_qreliab.embedding.reader import Reader
    from pytest_qreliab.embedding.store import Store

    return Embedder(Reader(Store(tmp_path / "store"), "tests"))


@pytest.fixture(scope="session")
def embed(tmp_path_factory):
    """Embeds a benchmark with a model, whatever was embedded before."""
    from pytest_qreliab.embedding.embedder import Embedder
    from pytest_qreliab.embedding.model_handle import ModelHandle
    from pytest_qreliab.embedding.reader import Reader
    from pytest_qreliab.embedding.store import Store

    def embed(clip, data, needs=(), advance=lambda done: None):
        store = Store(tmp_path_factory.mktemp("store"))
        handle = ModelHandle(name="x", key="x", store=store, make=lambda: clip)
        return Embedder(Reader(store, "tests")).embed(handle, data, advance, needs)

    return embed


@pytest.fixture(scope="session")
def make_plan():
    """Makes the plan of some settings, all else at its default, as the command line would."""
    from pytest_qreliab.config import settings
    from pytest_qreliab.evaluation.planning import make_plan as planning_make_plan
    from pytest_qreliab.evaluation.planning.catalog import Catalog

    def make(**given: str):
        return planning_make_plan.make_plan(
            settings.resolve(lambda ini: given.get(ini.removeprefix("qreliab_")), lambda ini: None), Catalog()
        )

    return make


@pytest.fixture(scope="session")
def everything_imported(make_plan, small_benchmark):
    """pytester forgets the modules that a run inside this process imports; compiled ones cannot come back."""
    import open_clip  # noqa: F401
    from safetensors import torch  # noqa: F401

    import pytest_qreliab.models.wrapped
    import pytest_qreliab.plugin.progress
    import pytest_qreliab.plugin.suite.test_reliability
    import pytest_qreliab.plugin.suite.test_self_check  # noqa: F401
    from pytest_qreliab.evaluation.evaluator import Evaluator

    plan = make_plan(benchmarks=str(small_benchmark), bits="4")
    Evaluator(plan).result(plan.cases[0])


@pytest.fixture(scope="session")
def digits_result(make_plan):
    """The embedded model at w4a8 on the whole embedded benchmark."""
    from pytest_qreliab.evaluation.evaluator import Evaluator

    plan = make_plan(bits="4")
    return Evaluator(plan).result(plan.cases[0])


SMALL_BENCHMARK = """\
version: 1
classes: [zero, one, two, three, four, five, six, seven, eight, nine]
templates: ["a handwritten {}.", "{}"]
in_distribution: {source: digits, part: test, limit: 120}
calibration: {source: digits, part: train, limit: 100}
ood:
  near: {letters: {source: letters, limit: 60}}
  far: {photos: {source: photo-patches, limit: 60}}
"""


@pytest.fixture(scope="session")
def small_benchmark(tmp_path_factory) -> Path:
    """The embedded benchmark in small, which takes a second."""
    path = tmp_path_factory.mktemp("benchmarks") / "small.yaml"
    path.write_text(SMALL_BENCHMARK)
    return path


@pytest.fixture
def write_thresholds(tmp_path):
    """Writes a thresholds file with these gates and returns its path."""

    def write(gates: str, name: str = "limits.yaml", head: str = "version: 1\n") -> Path:
        path = tmp_path / name
        path.write_text(f"{head}gates:\n{textwrap.indent(textwrap.dedent(gates), '  ')}")
        return path

    return write


@pytest.fixture(scope="session")
def write_local_model():
    """Writes a small random open_clip model in `local-dir:` layout; `poison` names a parameter to fill with NaN."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "patch_size": 4, "width": 32, "layers": 1, "head_width": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }

    def write(folder: Path, *, poison: str | None = None) -> Path:
        torch.manual_seed(0)
        state = open_clip.CLIP(**config).state_dict()
        if poison is not None:
            state[poison] = torch.full_like(state[poison], float("nan"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
        save_file(state, folder / "open_clip_model.safetensors")
        return folder

    return write


@pytest.fixture
def image_folders(tmp_path) -> Path:
    """Noise in class folders `images/CLASS` and in a flat folder `ood`: sizes, modes and formats are mixed."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("images/cat", "images/dog", "images/owl", "ood"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for i, (mode, suffix) in enumerate(
            [("RGB", "jpg"), ("L", "png"), ("P", "gif"), ("RGBA", "png"), ("CMYK", "jpg"), ("RGB", "bmp")]
        ):
            shape = (int(rng.integers(8, 40)), int(rng.integers(8, 40)), 3)
            image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
            image.convert(mode).save(folder / f"{i}.{suffix}")
    return tmp_path


FOLDER_BENCHMARK = """\
version: 1
templates: ["a photo of a {}."]
in_distribution: {source: image-folder, path: images}
calibration: {source: flat-folder, path: ood}
ood:
  far: {noise: {source: flat-folder, path: ood}}
"""


@pytest.fixture
def folder_benchmark(image_folders) -> Path:
    """A benchmark on `image_folders`."""
    path = image_folders / "folders.yaml"
    path.write_text(FOLDER_BENCHMARK)
    return path


@pytest.fixture(scope="session")
def build():
    """The builders of `builders.py`, which tests cannot import by its name."""
    path = Path(__file__).with_name("builders.py")
    spec = importlib.util.spec_from_file_location("builders", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(
    params=[
        "<script>alert(1)</script>",
        "</script><script>alert(1)</script>",
        "<!--<script>",
        "\"><img onerror='alert(1)' x=\"",
        "' onmouseover='alert(1)",
        "&lt;b&gt; &amp; ]]> ${verdict} $data",
        "</style></title></noscript></details>",
        "line\u2028separator \x00 \ud800",
    ],
    ids=["script", "end-of-script", "comment", "attribute", "handler", "template", "end-of-others", "no-utf-8"],
)
def hostile_text(request) -> str:
    """Text that would do something if a page took it as HTML."""
    return request.param
