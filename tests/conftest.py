"""Fixtures that many tests share: models are made once, real data are skipped where they are not."""

from __future__ import annotations

import functools
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


@pytest.fixture(scope="session", autouse=True)
def drawn_once():
    """Every plan of a shipped benchmark draws letters, half a second of them: keep each of the built-in sets."""
    from pytest_qreliab.data.sources import builtin

    with pytest.MonkeyPatch.context() as patch:
        for name in ("digits", "coloured_digits", "printed_digits", "letters", "photo_patches"):
            patch.setattr(builtin, name, functools.cache(getattr(builtin, name)))
        yield


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

    def make(*, with_drift: bool = False, **given: str):
        found = settings.resolve(lambda ini: given.get(ini.removeprefix("qreliab_")), lambda ini: None)
        return planning_make_plan.make_plan(found, Catalog(), with_drift=with_drift)

    return make


@pytest.fixture(scope="session")
def kept(tmp_path_factory) -> Path:
    """The folder of a store for all tests, of all workers, that look at what is made of embeddings.

    It knows the package's code and not what a test puts in its place: who replaces what embeds or quantizes has a store
    of its own.
    """
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "kept"


@pytest.fixture(scope="session")
def everything_imported(make_plan, small_benchmark, kept):
    """pytester forgets the modules that a run inside this process imports; compiled ones cannot come back.

    What the head says of power is reckoned once for equal gates and samples.
    """
    import open_clip  # noqa: F401
    import rich._emoji_codes  # noqa: F401
    from safetensors import torch  # noqa: F401

    import pytest_qreliab.models.wrapped
    import pytest_qreliab.plugin.progress
    import pytest_qreliab.plugin.suite.test_reliability
    import pytest_qreliab.plugin.suite.test_self_check  # noqa: F401
    from pytest_qreliab.embedding.store import Store
    from pytest_qreliab.evaluation.evaluator import Evaluator
    from pytest_qreliab.statistics import power

    plan = make_plan(benchmarks=str(small_benchmark), bits="4")
    Evaluator(plan, store=Store(kept)).result(plan.cases[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(power, "minimum_detectable_drop", functools.cache(power.minimum_detectable_drop))
        yield


@pytest.fixture(scope="session")
def digits_result(make_plan, kept):
    """The embedded model at w4a8 on the whole embedded benchmark."""
    from pytest_qreliab.embedding.store import Store
    from pytest_qreliab.evaluation.evaluator import Evaluator

    plan = make_plan(bits="4")
    return Evaluator(plan, store=Store(kept)).result(plan.cases[0])


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

    from pytest_qreliab.models.encoding_settings import EncodingSettings

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
        described = {"model_cfg": config, "preprocess_cfg": EncodingSettings().image_settings}
        (folder / "open_clip_config.json").write_text(json.dumps(described))
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
    return _module_beside("builders")


@pytest.fixture
def hub_server():
    """A stand-in of the Hugging Face hub, which holds nothing yet: see `hub_server.py`."""
    with _module_beside("hub_server").Hub() as hub:
        yield hub


@pytest.fixture
def hub(hub_server, tmp_path, monkeypatch):
    """The stand-in as the hub that this process uses, with an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub_server.endpoint)
    template = hub_server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return hub_server


@pytest.fixture
def hub_model(hub, write_local_model, tmp_path):
    """A repository of a small model, and the same in a folder."""
    folder = write_local_model(tmp_path / "model")
    hub.repositories["models/org/small"] = {path.name: path.read_bytes() for path in folder.iterdir()}
    return folder


def _module_beside(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
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
