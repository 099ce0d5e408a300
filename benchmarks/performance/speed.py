"""Shared parts of the speed benchmarks: images, checkpoints, YAML, and whole processes timed in a folder of their own.

This module stays light, and so must the scripts: a child's peak memory, as the system counts it, starts at that of the
process that starts it. Work that needs torch runs in `apart`.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import yaml
from PIL import Image

CORES = os.cpu_count() or 1
CENTRED_ON = 64  # images and prompts

# In the order of the alphabet, so that the order of folders is that of the labels.
CLASSES = [
    *("apple", "bicycle", "candle", "dolphin", "elephant", "forest", "guitar", "helmet", "island", "jacket"),
    *("kettle", "lantern", "mountain", "needle", "orchid", "piano", "rocket", "saddle", "tractor", "umbrella"),
]
_KINDS_OF_PHOTO = ("", "blurry", "black and white", "low contrast", "high contrast", "bad", "good")
TEMPLATES = [  # the 18 that CLIP's authors use for CIFAR
    text
    for article in ("a", "the")
    for text in (
        *(f"a {kind} photo of {article} {{}}.".replace("  ", " ") for kind in _KINDS_OF_PHOTO),
        f"a photo of {article} small {{}}.",
        f"a photo of {article} big {{}}.",
    )
]

# A test of the user's own that writes every metric of its case, bit by bit, below the folder that pytest runs in.
VALUES_TEST = """\
import json
from pathlib import Path


def test_values(qreliab_result):
    found = {name: [float(c.baseline).hex(), float(c.quantized).hex()] for name, c in qreliab_result.changes.items()}
    path = Path("values", f"{qreliab_result.case.id.replace('/', ' ')}.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found))
"""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Finished:
    """A finished process: its wall time, and the peak memory of the largest process in it."""

    seconds: float
    peak: int  # bytes
    code: int
    output: str

    @property
    def gib(self) -> str:
        return f"{self.peak / 2**30:.2f} GiB"


def run(
    command: Sequence[str],
    folder: Path,
    *,
    threads: int = CORES,
    accept: Iterable[int] = (0,),
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run a whole process in a folder, with a number of threads for torch.

    No setting of the plugin or of pytest in the environment reaches it, and it asks no hub for anything. An exit
    code that is not allowed ends the benchmark with the output of the process.
    """
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("QRELIAB_", "PYTEST_"))}
    variables.update({"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}, **(environment or {}))
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        child = subprocess.Popen(
            command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        child.returncode = code = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if code not in accept:
        sys.exit(f"{text}\nexit code {code} of: {' '.join(command)}")
    return Finished(seconds, usage.ru_maxrss * 1024, code, text)


def python(code: str, folder: Path, *, threads: int = CORES) -> Finished:
    return run([sys.executable, "-c", code], folder, threads=threads)


def pytest(folder: Path, *options: str, threads: int = CORES) -> Finished:
    """Run the gate without other plugins.

    Gates may fail, because the models are random. Any other failure ends the benchmark.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pytest_qreliab.plugin.hooks", "-p", "xdist", *options]
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return run(command, folder, threads=threads, accept=(0, 1), environment=alone)


def apart(function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Return the result of a function that is called in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **options).result()


@contextmanager
def workspace(given: Path | None) -> Iterator[Path]:
    """Return the folder that is given, whose images and checkpoints are used again, or a temporary one."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder).resolve()


def fresh(folder: Path, *, values: bool = False) -> Path:
    """Return an empty folder to run pytest in, with a cache of its own; if wanted, with the test that writes values."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "pytest.ini").write_text("[pytest]\n" + ("qreliab_testpaths = test_values.py\n" if values else ""))
    if values:
        (folder / "test_values.py").write_text(VALUES_TEST)
    return folder


def values(folder: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the values that the test wrote: by case and metric, in full precision and quantized."""
    found = {}
    for path in sorted((folder / "values").glob("*.json")):
        of_case = json.loads(path.read_text())
        found[path.stem] = {name: (float.fromhex(b), float.fromhex(q)) for name, (b, q) in of_case.items()}
    return found


def write_yaml(path: Path, **content: object) -> Path:
    path.write_text(yaml.safe_dump({"version": 1, **content}, sort_keys=False))
    return path


def line(cells: Iterable[object]) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    return "\n".join(map(line, [head, ["---"] * len(head), *rows]))


def photo(rng: np.random.Generator, width: int = 500, height: int = 375) -> np.ndarray:
    """Draw smooth random fields of every scale, the coarser the stronger, a colour cast and noise: uint8 (h, w, 3)."""
    grey, colour = np.zeros((height, width, 1), np.float32), rng.normal(0, 25, 3) + np.zeros((height, width, 3))
    cells = 2
    while cells < min(width, height):
        for field in (grey, colour):
            for channel in range(field.shape[2]):
                coarse = Image.fromarray(rng.normal(0, 1, (cells, cells + cells // 3)).astype(np.float32))
                smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
                field[..., channel] += smooth * (60 if field is grey else 25) / cells**0.5
        cells *= 2
    pixels = 118 + grey + colour + rng.normal(0, 4, (height, width, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def photos(
    folder: Path, count: int, classes: Sequence[str], *, seed: int = 0, size: tuple[int, int] = (500, 375)
) -> None:
    """Write JPEGs in class folders, the classes in turn, unless they are there already."""

    def write(index: int) -> None:
        path = folder / classes[index % len(classes)] / f"{index:06}.jpg"
        Image.fromarray(photo(np.random.default_rng([seed, index]), *size)).save(path, quality=90)

    done = folder.with_name(f"{folder.name}.made")
    made = json.dumps([count, list(classes), seed, size])
    if done.is_file() and done.read_text() == made:
        return
    shutil.rmtree(folder, ignore_errors=True)
    for name in classes:
        (folder / name).mkdir(parents=True)
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(write, range(count)))
    done.write_text(made)


def checkpoint(folder: Path, architecture: str, seed: int = 0) -> Path:
    """Return a checkpoint of an open_clip architecture with random weights, written unless it is there."""
    path = folder / f"{architecture}.safetensors"
    if not path.is_file():
        apart(_write_checkpoint, path, architecture, seed)
    return path


def _write_checkpoint(path: Path, architecture: str, seed: int) -> None:
    import open_clip
    import torch
    from safetensors.torch import save_file

    logging.disable(logging.WARNING)  # that the weights are random
    torch.manual_seed(seed)
    model, _, preprocess = open_clip.create_model_and_transforms(architecture)
    model.eval()
    _centre(model, preprocess, open_clip.get_tokenizer(architecture))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)


def _centre(model: Any, preprocess: Callable[[Image.Image], Any], tokenizer: Callable[[list[str]], Any]) -> None:
    """Move the last norms of both towers so that features have a mean of zero over some images and prompts.

    Features of random weights are otherwise nearly the same for all images, and so are the predictions. Other towers
    stay as they are.
    """
    import torch

    rng = np.random.default_rng(0)
    images = torch.stack([preprocess(Image.fromarray(photo(rng))) for _ in range(CENTRED_ON)])
    prompts = tokenizer([TEMPLATES[i % len(TEMPLATES)].format(CLASSES[i % len(CLASSES)]) for i in range(CENTRED_ON)])
    with torch.no_grad():
        for norm, matrix, features in (
            (getattr(model.visual, "ln_post", None), getattr(model.visual, "proj", None), model.encode_image(images)),
            (getattr(model, "ln_final", None), getattr(model, "text_projection", None), model.encode_text(prompts)),
        ):
            if norm is not None and isinstance(matrix, torch.Tensor):
                norm.bias -= torch.linalg.lstsq(matrix.T, features.mean(0)[:, None]).solution[:, 0]


def model_name(architecture: str, weights: Path) -> str:
    """Return the name of a checkpoint for `--qreliab-models`."""
    return f"{architecture}/{weights}"
