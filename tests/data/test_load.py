"""Data files: found, fetched, verified, never half written. The mirrors here are folders on localhost."""

import functools
import gzip
import hashlib
import http.server
import os
import stat
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from vaetut.data import ImageData, binarize, load, parse_idx
from vaetut.data import cache as module

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
PINNED, MIRRORS = module.SHA256, module.MIRRORS


def idx(array):
    array = np.asarray(array, dtype=np.uint8)
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def content():
    """A tiny MNIST: 5 training and 3 test images of 2 x 3 pixels."""
    pixels = np.arange(48, dtype=np.uint8).reshape(8, 2, 3)
    pixels[0, 0, 0] = 255
    return dict(zip(FILES, map(idx, (pixels[:5], [3, 1, 4, 1, 5], pixels[5:], [9, 2, 6])), strict=True))


def packed(raw):
    return gzip.compress(raw, mtime=0)  # without the time, so that twice the same is the same


def write(folder, content, compress=True):
    folder.mkdir(parents=True, exist_ok=True)
    for file, raw in content.items():
        (folder / f"{file}.gz" if compress else folder / file).write_bytes(packed(raw) if compress else raw)
    return folder


@pytest.fixture(autouse=True)
def world(monkeypatch, tmp_path, content):
    """The pinned hashes are those of the tiny files; the cache is empty; no mirror can be reached."""
    digests = {file: hashlib.sha256(raw).hexdigest() for file, raw in content.items()}
    monkeypatch.setattr(module, "SHA256", {"mnist": digests, "fashion-mnist": PINNED["fashion-mnist"]})
    monkeypatch.setattr(
        module, "MIRRORS", dict.fromkeys(PINNED, ("http://localhost:9/", "http://localhost:9/b/"))
    )
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("VAETUT_DATA_DIR", raising=False)
    return tmp_path


@pytest.fixture
def mirrors(monkeypatch, world):
    """Two folders, each served over HTTP; `requests` lists the paths asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *args):
            asked.append(self.path)

        def log_error(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(
        ("localhost", 0), functools.partial(Handler, directory=str(world / "served"))
    )
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    folders = [world / "served" / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir(parents=True)
    base = f"http://localhost:{server.server_port}"
    monkeypatch.setattr(module, "MIRRORS", {"mnist": (f"{base}/first/", f"{base}/second/")})
    yield folders, asked
    server.shutdown()
    server.server_close()


def cached(world):
    """What is in the cache folder, temporary files included."""
    folder = world / "cache" / "vaetut" / "mnist"
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


COMPLETE = {f"{file}.gz" for file in FILES}


def assert_tiny(data):
    assert isinstance(data, ImageData)
    assert data.train.shape == (5, 6) and data.test.shape == (3, 6)
    assert data.train.dtype == data.test.dtype == torch.float32
    assert data.image_shape == (2, 3) and data.name == "mnist"
    assert data.train[0, 0] == 1.0 and data.train[1, 1] == torch.tensor(7.0) / 255
    assert data.train_labels.tolist() == [3, 1, 4, 1, 5] and data.test_labels.tolist() == [9, 2, 6]
    assert data.test_labels.dtype == torch.int64


# --- the three data sets


def test_digits():
    data = load("digits")
    assert data.train.shape == (1497, 64) and data.test.shape == (300, 64) and data.image_shape == (8, 8)
    assert data.train.dtype == torch.float32 and data.train_labels.dtype == torch.int64
    assert data.train.min() == 0 and data.train.max() == 1
    assert set((data.train * 16).unique().tolist()) == set(range(17))
    counts = torch.bincount(data.test_labels)
    assert counts.min() == 25 and counts.max() == 33
    from sklearn.datasets import load_digits

    assert np.array_equal(data.test.numpy() * 16, load_digits().data[::6])
    assert repr(data) == "ImageData('digits': 1497 training and 300 test images of 8 x 8 pixels)"


def test_digits_are_the_callers_own():
    load("digits").train.zero_()
    assert load("digits").train.sum() > 0


def test_dtype_does_not_follow_the_default():
    torch.set_default_dtype(torch.float64)
    try:
        assert load("digits").train.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def real(name):
    here = Path(__file__).resolve().parents[3] / "shared" / "data"
    for folder in (os.environ.get("VAETUT_DATA_DIR"), here):
        if folder and (Path(folder) / name / f"{FILES[0]}.gz").exists():
            return Path(folder)
    return None


REAL_MNIST = real("mnist")


@pytest.mark.skipif(
    REAL_MNIST is None, reason="no copy of MNIST: set VAETUT_DATA_DIR to a folder that has it"
)
def test_real_mnist(monkeypatch):
    monkeypatch.setattr(module, "SHA256", PINNED)
    data = load("mnist", root=REAL_MNIST)
    assert data.train.shape == (60000, 784) and data.test.shape == (10000, 784)
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(data.train_labels).tolist() == counts
    assert round(data.train.double().mean().item(), 6) == 0.130660
    assert data.train.min() == 0 and data.train.max() == 1
    assert torch.bincount(data.test_labels).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    with pytest.raises(FileNotFoundError, match="is another file, one of mnist"):
        load("fashion-mnist", root=REAL_MNIST / "mnist")


def test_every_file_has_a_hash_and_two_mirrors():
    assert set(MIRRORS) == set(PINNED)
    for name, files in PINNED.items():
        assert tuple(files) == FILES
        assert all(len(digest) == 64 and int(digest, 16) for digest in files.values())
        assert len(set(MIRRORS[name])) == 2 and all(url.endswith("/") for url in MIRRORS[name])
    assert len({digest for files in PINNED.values() for digest in files.values()}) == 8


def test_unknown_name():
    with pytest.raises(ValueError, match=r"name must be one of 'digits', 'mnist', .*did you mean 'mnist'"):
        load("mnst")


# --- local copies


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("subfolder", ["mnist", "."])
def test_root_and_variable(world, content, monkeypatch, compress, subfolder):
    write(world / "copy" / subfolder, content, compress)
    assert_tiny(load("mnist", root=world / "copy"))
    assert_tiny(load("mnist", root=str(world / "copy"), download=False))
    monkeypatch.setenv("VAETUT_DATA_DIR", str(world / "copy"))
    assert_tiny(load("mnist"))
    assert not (world / "cache").exists()


def test_decompressed_file_that_kept_its_gz_name(world, content):
    folder = write(world / "copy", content)
    (folder / f"{FILES[0]}.gz").write_bytes(content[FILES[0]])
    assert_tiny(load("mnist", root=folder))


def test_read_only_copy(world, content, monkeypatch):
    folder = write(world / "copy" / "mnist", content)
    for path in (*folder.iterdir(), folder, folder.parent):
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        monkeypatch.setenv("VAETUT_DATA_DIR", str(folder.parent))
        assert_tiny(load("mnist"))
    finally:
        for path in (folder.parent, folder):
            path.chmod(0o755)


def test_root_goes_before_the_variable(world, content, monkeypatch):
    monkeypatch.setenv("VAETUT_DATA_DIR", str(world / "nowhere"))
    assert_tiny(load("mnist", root=write(world / "copy", content)))


@pytest.mark.parametrize("how", ["root", "VAETUT_DATA_DIR"])
def test_missing_folder(world, monkeypatch, how):
    if how != "root":
        monkeypatch.setenv(how, str(world / "nowhere"))
    with pytest.raises(FileNotFoundError, match=f"{how} must be an existing folder, got .*nowhere"):
        load("mnist", root=world / "nowhere" if how == "root" else None)


def test_root_without_the_files(world):
    with pytest.raises(FileNotFoundError, match=r"root must hold train-images-idx3-ubyte or .*\.gz"):
        load("mnist", root=world)


def test_variable_without_the_files_falls_through(world, content, monkeypatch):
    (world / "copy").mkdir()
    monkeypatch.setenv("VAETUT_DATA_DIR", str(world / "copy"))
    write(world / "cache" / "vaetut" / "mnist", content)
    assert_tiny(load("mnist", download=False))


DAMAGE = {
    "truncated": lambda raw: packed(raw)[:-12],
    "a bit flipped": lambda raw: (lambda g: g[:20] + bytes([g[20] ^ 4]) + g[21:])(packed(raw)),
    "empty": lambda raw: b"",
    "a web page": lambda raw: b"<html>log in first</html>",
    "good gzip, wrong bytes": lambda raw: packed(raw[:-1] + b"\x00"),
    "decompressed and truncated": lambda raw: raw[:-1],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_local_copy(world, content, damage):
    folder = write(world / "copy", content)
    bad = DAMAGE[damage](content[FILES[2]])
    (folder / f"{FILES[2]}.gz").write_bytes(bad)
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte.gz is damaged or .*change root"):
        load("mnist", root=folder)
    assert (folder / f"{FILES[2]}.gz").read_bytes() == bad


# --- downloads


def test_download_then_cache(world, content, mirrors):
    folders, asked = mirrors
    write(folders[0], content)
    assert_tiny(load("mnist"))
    assert cached(world) == COMPLETE
    assert len(asked) == 4
    assert_tiny(load("mnist"))
    assert_tiny(load("mnist", download=False))
    assert len(asked) == 4


@pytest.mark.parametrize("damage", ["missing", *DAMAGE])
def test_second_mirror(world, content, mirrors, damage):
    folders, _ = mirrors
    write(folders[1], content)
    if damage != "missing":
        write(folders[0], {})
        for file, raw in content.items():
            (folders[0] / f"{file}.gz").write_bytes(DAMAGE[damage](raw))
    assert_tiny(load("mnist"))
    assert cached(world) == COMPLETE
    assert (
        gzip.decompress((world / "cache/vaetut/mnist" / f"{FILES[0]}.gz").read_bytes()) == content[FILES[0]]
    )


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_download_is_refused_and_leaves_nothing(world, content, mirrors, damage):
    for folder in mirrors[0]:
        write(folder, content)
        (folder / f"{FILES[1]}.gz").write_bytes(DAMAGE[damage](content[FILES[1]]))
    with pytest.raises(FileNotFoundError) as error:
        load("mnist")
    assert cached(world) == {f"{FILES[0]}.gz"}
    message = str(error.value)
    assert message.count("the file that it sent is damaged or") == 2
    for part in (
        *FILES,
        *module.SHA256["mnist"].values(),
        "VAETUT_DATA_DIR",
        "vaetut/mnist",
        "first/",
        "digits",
    ):
        assert part in message.replace(os.sep, "/")


def test_interrupted_download_leaves_nothing(world, content, mirrors, monkeypatch):
    write(mirrors[0][0], content)

    def interrupt(self, url, output_file, pooch):
        Path(output_file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("mnist")
    assert cached(world) == set()


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_cache_is_fetched_again(world, content, mirrors, damage):
    folder = write(world / "cache/vaetut/mnist", content)
    path = folder / f"{FILES[0]}.gz"
    path.write_bytes(DAMAGE[damage](content[FILES[0]]))
    with pytest.raises(FileNotFoundError, match=r"images-idx3-ubyte.gz is damaged or .*\n.*download=False"):
        load("mnist", download=False)
    assert path.read_bytes() == DAMAGE[damage](content[FILES[0]])
    with pytest.raises(FileNotFoundError, match=r"images-idx3-ubyte.gz is damaged or .*\n.*404"):
        load("mnist")  # the mirrors are empty: nothing may be lost
    assert path.read_bytes() == DAMAGE[damage](content[FILES[0]])
    write(mirrors[0][0], content)
    assert_tiny(load("mnist"))
    assert cached(world) == COMPLETE and len(mirrors[1]) == 3  # twice 404, then one file


def test_damaged_decompressed_file_beside_a_good_one(world, content):
    folder = write(world / "cache/vaetut/mnist", content)
    (folder / FILES[0]).write_bytes(content[FILES[0]][:-1])
    assert_tiny(load("mnist", download=False))
    assert (folder / f"{FILES[0]}.gz").exists()


def test_offline(world):
    with pytest.raises(FileNotFoundError, match="To continue without a network") as error:
        load("mnist")
    assert str(error.value).count("http://localhost:9/") == 3  # both mirrors, and where to get the files
    assert cached(world) == set()


def test_no_download_asks_no_server(world, content, mirrors):
    write(mirrors[0][0], content)
    with pytest.raises(FileNotFoundError, match="download=False"):
        load("mnist", download=False)
    assert not mirrors[1] and not (world / "cache").exists()


def test_cache_that_cannot_be_written(world, content, mirrors):
    write(mirrors[0][0], content)
    (world / "cache").write_text("a file where the folder should be")
    with pytest.raises(FileNotFoundError, match="cannot be written to"):
        load("mnist")


def test_files_at_the_same_time(world, content, mirrors):
    write(mirrors[0][0], content)
    results = []
    threads = [threading.Thread(target=lambda: results.append(load("mnist"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and cached(world) == COMPLETE
    for data in results:
        assert_tiny(data)


def test_progress_is_for_terminals(world, content, mirrors, capfd, monkeypatch):
    write(mirrors[0][0], content)
    monkeypatch.setattr(module, "is_terminal", lambda stream: True)
    load("mnist")
    assert "mnist: train-images-idx3-ubyte" in capfd.readouterr().err


@pytest.mark.parametrize("missing", [False, True])
def test_no_progress_in_a_pipe_or_without_a_stream(world, content, mirrors, capfd, monkeypatch, missing):
    write(mirrors[0][0], content)
    if missing:
        monkeypatch.setattr(sys, "stderr", None)  # as pythonw has it
    assert_tiny(load("mnist"))
    assert capfd.readouterr().err == ""


# --- other layouts


def test_the_folder_that_torchvision_writes(world, content):
    write(world / "data" / "MNIST" / "raw", content, compress=False)
    assert_tiny(load("mnist", root=world / "data"))


def test_junk_beside_a_good_file_is_passed_over(world, content):
    folder = write(world / "copy" / "mnist", content)
    (folder / FILES[0]).write_text("junk")  # looked at before the .gz
    assert_tiny(load("mnist", root=world / "copy"))
    write(world / "copy", content)
    (folder / f"{FILES[0]}.gz").write_text("junk too")
    assert_tiny(load("mnist", root=world / "copy"))  # the good one is a folder further


def test_files_of_another_data_set_are_none(world, content, monkeypatch):
    """The files of MNIST and Fashion-MNIST have the same names: a flat folder of one is no error for the other."""
    write(world / "flat", content)
    other = {file: idx(np.ones((2, 2, 2)) if "images" in file else [0, 1]) for file in FILES}
    digests = {file: hashlib.sha256(raw).hexdigest() for file, raw in other.items()}
    monkeypatch.setitem(module.SHA256, "fashion-mnist", digests)
    write(world / "cache" / "vaetut" / "fashion-mnist", other)
    monkeypatch.setenv("VAETUT_DATA_DIR", str(world / "flat"))
    assert load("fashion-mnist", download=False).name == "fashion-mnist"
    assert_tiny(load("mnist", download=False))
    with pytest.raises(FileNotFoundError, match=r"of fashion-mnist, in .*is another file, one of mnist"):
        load("fashion-mnist", root=world / "flat")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a file that cannot be read")
def test_unreadable_is_not_called_damaged(world, content):
    folder = write(world / "copy", content)
    (folder / f"{FILES[0]}.gz").chmod(0)
    with pytest.raises(ValueError, match="cannot be read"):
        load("mnist", root=folder)


# --- the IDX format


@pytest.mark.parametrize(
    "raw, message",
    [
        (b"", "must start with the IDX bytes"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00", "must start with the IDX bytes.*00 00 0d 01"),  # floats
        (b"\x00\x00\x08\x00", "must start with the IDX bytes"),  # no dimension
        (b"\x1f\x8b\x08\x03\x00\x00\x00\x00", "must start with the IDX bytes"),
        (b"\x00\x00\x08\x03\x00\x00\x00\x01", "ends inside its header, which has 16 bytes; got 8"),
        (idx([[1, 2], [3, 4]])[:-1], r"must hold 4 values \(2, 2\), got 3"),
        (idx([[1, 2], [3, 4]]) + b"\x00", r"must hold 4 values \(2, 2\), got 5"),
    ],
)
def test_idx_errors(raw, message):
    with pytest.raises(ValueError, match=f"some file {message}"):
        parse_idx(raw, "some file")


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3), (0, 2, 3)])
def test_idx_round_trip(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(parse_idx(idx(array), "x"), array) and parse_idx(idx(array), "x").shape == shape


@pytest.mark.parametrize("wrong", [idx([3, 1, 4, 1]), idx([[3, 1, 4, 1, 5]])])
def test_images_and_labels_that_do_not_fit(world, content, monkeypatch, wrong):
    content[FILES[1]] = wrong
    monkeypatch.setitem(module.SHA256["mnist"], FILES[1], hashlib.sha256(wrong).hexdigest())
    with pytest.raises(ValueError, match="train must be N images and N labels"):
        load("mnist", root=write(world / "copy", content))


# --- binarize


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_binarize(dtype):
    x = torch.linspace(0, 1, 11, dtype=dtype).expand(100_000, 11)
    drawn = binarize(x, generator=torch.Generator().manual_seed(0))
    assert drawn.dtype == dtype and drawn.shape == x.shape and set(drawn.unique().tolist()) == {0.0, 1.0}
    assert (drawn[:, 0] == 0).all() and (drawn[:, -1] == 1).all()
    error = (x[0] * (1 - x[0]) / len(x)).sqrt()[1:-1]
    assert ((drawn.mean(0) - x[0])[1:-1].abs() < 5 * error).all()
    assert not ((drawn.mean(0) - x[0] ** 1.1)[1:-1].abs() < 5 * error).all()  # the test has power
    assert torch.equal(drawn, binarize(x, "dynamic", torch.Generator().manual_seed(0)))
    assert not torch.equal(drawn, binarize(x, "dynamic", torch.Generator().manual_seed(1)))
    assert torch.equal(binarize(x[0], "threshold"), (torch.arange(11) >= 5).to(dtype))


def test_binarize_leaves_black_and_white_alone():
    x = torch.randint(0, 2, (50, 20)).float()
    assert torch.equal(binarize(x), x) and torch.equal(binarize(x, "threshold"), x)


@pytest.mark.parametrize(
    "x, how, error, message",
    [
        (torch.tensor([0.5, 1.1]), "dynamic", ValueError, r"x must lie in \[0, 1\].*divide 8-bit pixels"),
        (torch.tensor([-1e-3]), "threshold", ValueError, r"x must lie in \[0, 1\]"),
        (torch.tensor([float("nan")]), "dynamic", ValueError, r"x must lie in \[0, 1\]"),
        (torch.tensor([0, 255], dtype=torch.uint8), "dynamic", TypeError, "x must have dtype torch.float32"),
        ([0.5], "dynamic", TypeError, "x must be a torch.Tensor, got list"),
        (torch.tensor([0.5]), "tresh", ValueError, "how must be one of 'dynamic', 'threshold'"),
    ],
)
def test_binarize_errors(x, how, error, message):
    with pytest.raises(error, match=message):
        binarize(x, how)


def test_import_fetches_nothing():
    code = (
        "import sys, vaetut.data\n"
        "heavy = {'sklearn', 'pooch', 'requests'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
