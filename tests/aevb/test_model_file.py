"""Model files: what was saved is what is loaded, damage is found, no code runs, and the first edition's are read."""

import io
import pickle
from pathlib import Path

import pytest
import torch

from vaetut.aevb import load_model, save_model, train
from vaetut.aevb.model_file import read_model, write_model
from vaetut.models import VAE

FIRST_EDITION = Path(__file__).parent.parent / "data" / "first-edition"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hidden_dim": (5, 4), "activation": "relu", "likelihood": "gaussian"},
        {"hidden_dim": (), "likelihood": "isotropic"},
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_round_trip(tmp_path, options, dtype):
    model = VAE(6, 2, **{"hidden_dim": 3, **options}).to(dtype)
    save_model(model, tmp_path / "a model.pt")
    state = torch.get_rng_state()
    again = load_model(str(tmp_path / "a model.pt"))
    assert torch.equal(torch.get_rng_state(), state)
    assert repr(again) == repr(model) and not again.training
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert all(p.requires_grad for p in again.parameters())
    assert [file.name for file in tmp_path.iterdir()] == ["a model.pt"]
    train(again, torch.rand(20, 6, dtype=dtype), epochs=1)  # it can be trained on


def test_torch_alone_reads_it(tmp_path):
    model = VAE(6, 2, 3)
    write_model(model, tmp_path / "model.pt", {"dataset": "digits", "image_shape": (2, 3)})
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert torch.equal(content["parameters"]["encoder.0.weight"], model.encoder[0].weight)
    assert read_model(tmp_path / "model.pt")[1] == {"dataset": "digits", "image_shape": (2, 3)}


def test_each_byte_counts(tmp_path):
    path = tmp_path / "model.pt"
    save_model(VAE(6, 2, 3), path)
    content = path.read_bytes()
    for place in (*range(0, len(content), len(content) // 60), *range(len(content) - 90, len(content))):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(ValueError, match="the file is left as it is"):
            load_model(path)
    for size in (0, 1, 100, len(content) - 91, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="the file is left as it is"):
            load_model(path)
    # without its last line it is what torch.save wrote, and torch would read it
    path.write_bytes(read_signed_payload(content))
    with pytest.raises(ValueError, match="is cut short: it must end with its SHA-256"):
        load_model(path)


def read_signed_payload(content):
    return content[: content.rindex(b"\nvaetut checkpoint ")]


def test_what_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    path = tmp_path / "model.pt"
    buffer = io.BytesIO()
    torch.save({"format": "vaetut model", "version": 1, "arguments": Evil()}, buffer)
    for content in (b"", b"notes", pickle.dumps(Evil()), buffer.getvalue()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read") as error:
            load_model(path)
        assert "weights_only" not in str(error.value)
    assert not (tmp_path / "owned").exists()
    torch.save(VAE(6, 2, 3).state_dict(), path)
    with pytest.raises(ValueError, match="does not hold a model of vaetut"):
        load_model(path)
    torch.save({"format": "vaetut model", "version": 3}, path)
    with pytest.raises(ValueError, match="has version 3, this vaetut reads up to 2"):
        load_model(path)
    torch.save([1], path)
    with pytest.raises(ValueError, match="must hold a dict, got list"):
        load_model(path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt does not exist"):
        load_model(tmp_path / "nothing.pt")
    with pytest.raises(FileNotFoundError, match=r"holds neither model\.pt nor checkpoint\.pt"):
        load_model(Path(__file__).parent)
    with pytest.raises(FileNotFoundError, match="path must be in a folder that exists"):
        save_model(VAE(6, 2, 3), tmp_path / "nowhere" / "model.pt")
    with pytest.raises(TypeError, match=r"model must be a vaetut\.VAE, got Linear; torch\.save"):
        save_model(torch.nn.Linear(2, 2), path)


def test_checkpoints_and_folders(tmp_path):
    class Mine(VAE):
        pass

    x = torch.rand(40, 6)
    model = VAE(6, 2, 3)
    train(model, x, epochs=1, checkpoint=tmp_path / "checkpoint.pt")
    for path in (tmp_path / "checkpoint.pt", tmp_path):
        assert torch.equal(load_model(path).encoder[0].weight, model.encoder[0].weight)
    save_model(VAE(6, 2, 4), tmp_path / "model.pt")
    assert load_model(tmp_path).hidden_dim == 4
    train(Mine(6, 2, 3), x, epochs=1, checkpoint=tmp_path / "mine.pt")
    with pytest.raises(ValueError, match="holds a model of another class than VAE"):
        load_model(tmp_path / "mine.pt")


def test_first_edition():
    run, stopped = load_model(FIRST_EDITION / "run"), load_model(FIRST_EDITION / "stopped")
    assert repr(run) == repr(stopped) and run.hidden_dim == (4,)
    kept = torch.load(FIRST_EDITION / "run" / "model.pt", weights_only=True)
    assert torch.equal(run.encoder[0].weight, kept["parameters"]["encoder.0.weight"])
    assert torch.equal(
        load_model(FIRST_EDITION / "run" / "checkpoint.pt").encoder[0].weight, run.encoder[0].weight
    )
    about = read_model(FIRST_EDITION / "run")[1]
    assert about == {"dataset": "digits", "image_shape": (8, 8), "binarize": "dynamic"}
