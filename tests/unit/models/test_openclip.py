import io
import zipfile

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pytest_qreliab.errors import InputError
from pytest_qreliab.models import loading, openclip, tiny_digits


def test_the_preprocessing_is_open_clips_own(tiny):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 25, 3), dtype=np.uint8))
    expected = open_clip.image_transform(
        32, is_train=False, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", resize_mode="shortest"
    )
    assert torch.equal(tiny.preprocess(image), expected(image))


@pytest.fixture
def rn50_state():
    torch.manual_seed(0)
    return open_clip.create_model("RN50", pretrained=None).state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_local_checkpoint_of_an_open_clip_architecture(tmp_path, rn50_state, suffix):
    path = tmp_path / f"weights{suffix}"
    save_file(rn50_state, path) if suffix == ".safetensors" else torch.save({"state_dict": rn50_state}, path)
    name = f"RN50/{path}"
    loading.check_model_name(name)
    clip = loading.load_model(name)
    assert clip.name == name
    loaded = clip.module.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in rn50_state.items())
    assert clip.encode_image(torch.zeros(1, 3, 224, 224)).shape == (1, 1024)
    assert clip.tokenizer(["a dog"]).shape == (1, 77)


def test_a_checkpoint_of_another_architecture_says_so(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"nothing.weight": torch.zeros(2, 2)}, path)
    loading.check_model_name(f"RN50/{path}")
    with pytest.raises(InputError, match=r"cannot be loaded: .*Missing key"):
        loading.load_model(f"RN50/{path}")


def test_a_local_dir(tmp_path, write_local_model):
    folder = write_local_model(tmp_path / "model")
    name = f"local-dir:{folder}"
    loading.check_model_name(name)
    clip = loading.load_model(name)
    state = load_file(folder / "open_clip_model.safetensors")
    assert torch.equal(clip.module.visual.proj, state["visual.proj"])
    assert clip.encode_text(["a cat"]).shape == (1, 16)


class Malicious:
    def __reduce__(self):
        return print, ("code from a checkpoint ran",)


def truncated(path):
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def code(path):
    torch.save({"a": Malicious()}, path)


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("no checkpoint at all")


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "nothing")


def script(path):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
    path.write_bytes(buffer.getvalue())


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.filterwarnings("ignore:.*TorchScript")
@pytest.mark.parametrize("damage", [truncated, code, empty, text, zipped, script])
def test_bad_pytorch_checkpoints_are_refused_and_run_no_code(tmp_path, capsys, damage):
    path = tmp_path / "weights.pt"
    damage(path)
    with pytest.raises(InputError, match=r"weights\.pt is damaged"):
        loading.check_model_name(f"ViT-B-32/{path}")
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"\x00" * 8, b"garbage" * 100])
def test_bad_safetensors_are_refused(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged or no safetensors file"):
        loading.check_model_name(f"ViT-B-32/{path}")


def test_truncated_safetensors_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(tiny_digits.WEIGHTS.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged or no safetensors file"):
        openclip.check_checkpoint(path)


def test_a_format_that_is_none_of_ours(tmp_path):
    (tmp_path / "weights.h5").write_bytes(b"x")
    with pytest.raises(InputError, match=r"'\.h5' is not one of"):
        loading.check_model_name(f"ViT-B-32/{tmp_path / 'weights.h5'}")


@pytest.mark.parametrize(
    ("config", "message"), [("{", "not valid JSON"), ("{}", "no 'model_cfg'"), ('{"model_cfg": {}}', "no checkpoint")]
)
def test_bad_local_dirs(tmp_path, config, message):
    (tmp_path / "open_clip_config.json").write_text(config)
    with pytest.raises(InputError, match=message):
        loading.check_model_name(f"local-dir:{tmp_path}")


def test_openai_weights_get_quick_gelu(monkeypatch):
    seen = {}

    def create(name, pretrained, **options):
        seen.update(options, name=name, pretrained=pretrained)
        raise RuntimeError("no network here")

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", create)
    with pytest.raises(InputError, match="cannot be loaded: no network here"):
        loading.load_model("ViT-B-32/openai")
    assert seen["force_quick_gelu"] is True
    assert seen["weights_only"] is True
    with pytest.raises(InputError, match="no network here"):
        loading.load_model("ViT-B-32/laion2b_s34b_b79k")
    assert seen["force_quick_gelu"] is False


def test_a_model_that_needs_a_package_says_which(monkeypatch):
    def create(*args, **options):
        raise ModuleNotFoundError("No module named 'transformers'", name="transformers")

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", create)
    with pytest.raises(InputError, match=r"needs the package transformers: pip install 'pytest-qreliab\[hf\]'"):
        loading.load_model("ViT-B-16-SigLIP/webli")


def test_a_tokenizer_with_more_words_than_the_text_tower_is_refused(tmp_path):
    """As of a model that was trained with a tokenizer of its own, of which the configuration says nothing."""
    for path in tiny_digits.WEIGHTS.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="its text tower knows 258 tokens, and its tokenizer, SimpleTokenizer"):
        loading.load_model(f"local-dir:{tmp_path}")
