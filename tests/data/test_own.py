"""Data of one's own: what is read is what is in the files, and what does not fit names the file and the row."""

import csv
import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from vaetut.data import own
from vaetut.data.own import likelihood_for, read


def picture(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


def gray(n, height=4, width=3):
    return np.random.default_rng(0).integers(0, 256, (n, height, width)).astype(np.uint8)


def folder_of(path, arrays, label=lambda i: "", ending=".png"):
    for i, array in enumerate(arrays):
        picture(path / label(i) / f"{i:03}{ending}", array)
    return path


# --- a folder of images


def test_gray_images(tmp_path):
    pixels = gray(12)
    data = read(folder_of(tmp_path / "faces", pixels), test_share=0.25)
    assert data.image_shape == (4, 3) and data.name == "faces" and data.train.dtype == torch.float32
    is_test = np.arange(12) % 4 == 3  # evenly spread
    flat = torch.tensor(pixels.reshape(12, -1)).float() / 255
    assert torch.equal(data.train, flat[~is_test]) and torch.equal(data.test, flat[is_test])
    assert (data.train_labels == -1).all() and data.label_names == ()
    for part in ("12 images of 4 x 3 pixels", "divided by 255", "9 for training and 3 for testing"):
        assert part in data.summary
    assert likelihood_for(data) == ("bernoulli", "as all values are in [0, 1]")


def test_subfolders_are_labels(tmp_path):
    data = read(folder_of(tmp_path, gray(8), label=lambda i: "cat" if i % 2 else "ape"), test_share=0.25)
    assert data.label_names == ("ape", "cat") and "2 labels" in data.summary
    assert sorted([*data.train_labels.tolist(), *data.test_labels.tolist()]) == [0] * 4 + [1] * 4


def test_color(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3, 3)).astype(np.uint8)
    path = folder_of(tmp_path, pixels)
    picture(path / "zz.png", gray(1)[0])  # a gray one among them
    data = read(path)
    assert data.image_shape == (3, 4, 3) and data.train.shape == (6, 36)
    assert torch.equal(data.train[0].view(3, 4, 3), torch.tensor(pixels[0]).permute(2, 0, 1) / 255)
    assert "of 4 x 3 color pixels" in data.summary and likelihood_for(data)[0] == "isotropic"
    assert repr(data).endswith("of 4 x 3 color pixels)")


def test_images_are_brought_to_a_size(tmp_path):
    folder_of(tmp_path, [np.full((10, 20), 200), np.full((30, 8), 100), np.full((5, 5), 50)])
    with pytest.raises(
        ValueError,
        match=r"001.png has 30 x 8 pixels and .*000.png 10 x 20: give image_size \(--image-size\) to",
    ):
        read(tmp_path)
    data = read(tmp_path, image_size=(6, 4), test_share=0.4)
    assert data.image_shape == (6, 4)
    values = torch.cat([data.train, data.test]) * 255
    assert sorted(set(values.round().flatten().tolist())) == [50, 100, 200]


def test_images_stand_upright(tmp_path):
    """A camera notes how it was held."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    for i in range(2):
        Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / f"{i}.png", exif=exif)
    data = read(tmp_path, image_size=(2, 1), test_share=0.5)
    assert data.train.tolist() == [[0.0, 1.0]]


def test_sixteen_bits(tmp_path):
    for i in range(2):
        Image.fromarray(np.array([[0, 13107], [65535, 1]], np.uint16)).save(tmp_path / f"{i}.png")
    data = read(tmp_path, test_share=0.5)
    assert torch.allclose(data.train, torch.tensor([[0.0, 13107, 65535, 1]]) / 65535)


@pytest.mark.parametrize("kind", ["<u2", ">u2", "pt", "npz"])
def test_sixteen_bit_arrays_are_scaled_as_images_are(tmp_path, kind):
    pixels = np.arange(6 * 12, dtype=np.uint16).reshape(6, 3, 4) * 900
    path = tmp_path / ("x." + kind if kind in ("pt", "npz") else "x.npy")
    if kind == "pt":
        torch.save(torch.from_numpy(pixels), path)
    elif kind == "npz":
        np.savez(path, x=pixels)
    else:
        np.save(path, pixels.astype(kind))
    data = read(path)
    assert torch.allclose(data.train, torch.from_numpy(pixels[:5].reshape(5, 12) / 65535).float())
    assert "values from 0 to 0.9750" in data.summary and "16-bit values divided by 65535" in data.summary
    assert data.high == pixels.max() / 65535


def test_what_is_no_sixteen_bit_image_is_not_scaled(tmp_path):
    counts = np.arange(72, dtype=np.uint16).reshape(6, 12)
    np.save(tmp_path / "counts.npy", counts)  # flat rows
    assert read(tmp_path / "counts.npy").train.max() == 59
    assert read(tmp_path / "counts.npy", image_size=(3, 4)).train.max() == torch.tensor(59 / 65535)
    np.save(tmp_path / "bits.npy", (counts % 2).reshape(6, 3, 4))
    assert read(tmp_path / "bits.npy").train.max() == 1
    np.save(tmp_path / "signed.npy", counts.reshape(6, 3, 4).astype(np.int16))
    assert read(tmp_path / "signed.npy").train.max() == 59


def test_black_and_white(tmp_path):
    for i in range(4):
        Image.fromarray(gray(4)[i] > 100).save(tmp_path / f"{i}.png")
    data = read(tmp_path)
    assert set(data.train.flatten().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda p: (p / "notes.txt").write_text("x"), "has no images: no file ends with .png"),
        (
            lambda p: [folder_of(p, gray(2)), (p / "bad.png").write_text("no")],
            "bad.png cannot be read as an image",
        ),
        (lambda p: cut(folder_of(p, gray(2, 40, 40)) / "001.png"), "001.png cannot be read as an image"),
        (
            lambda p: [folder_of(p, gray(2)), folder_of(p / "cat", gray(2))],
            "000.png lies beside the folders cat",
        ),
        (lambda p: folder_of(p, gray(1)), "has 1 row, too few"),
    ],
)
def test_folder_that_does_not_fit(tmp_path, prepare, message):
    prepare(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path)
    assert str(tmp_path) in str(error.value)


def cut(path):
    path.write_bytes(path.read_bytes()[:-600])


def test_hidden_files_and_others_are_left_out(tmp_path):
    folder_of(tmp_path, gray(4))
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.png").write_text("no image")
    (tmp_path / "notes.txt").write_text("x")
    assert "1 other files ignored" in read(tmp_path).summary


# --- arrays


@pytest.mark.parametrize(
    ("array", "shape", "first"),
    [
        (gray(6).reshape(6, 12), (12,), lambda a: a[0] / 255),
        (gray(6), (4, 3), lambda a: a[0] / 255),
        (gray(6)[..., None], (4, 3), lambda a: a[0] / 255),
        (gray(6)[:, None], (4, 3), lambda a: a[0] / 255),
        (np.stack([gray(6)] * 3, -1), (3, 4, 3), lambda a: np.moveaxis(a[0], -1, 0) / 255),
        (np.stack([gray(6, 5, 4)] * 3, 1), (3, 5, 4), lambda a: a[0] / 255),
        (gray(6) > 9, (4, 3), lambda a: a[0]),
        ((gray(6) > 9).astype(np.uint8), (4, 3), lambda a: a[0]),  # 0 and 1 are no 255ths
        (np.random.default_rng(0).normal(size=(6, 5)), (5,), lambda a: a[0]),
        (np.arange(30).reshape(6, 5), (5,), lambda a: a[0]),
        (np.random.default_rng(0).normal(size=(6, 5)).astype(np.float16), (5,), lambda a: a[0]),
    ],
)
@pytest.mark.parametrize("kind", ["npy", "npz", "pt"])
def test_arrays(tmp_path, array, shape, first, kind):
    path = tmp_path / f"data.{kind}"
    if kind == "npy":
        np.save(path, array)
    elif kind == "npz":
        np.savez(path, array)
    else:
        torch.save(torch.tensor(array), path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = read(path)
    assert data.image_shape == shape and data.train.shape == (5, int(np.prod(shape)))
    assert data.train.dtype == torch.float32 and data.train.is_contiguous()
    assert torch.allclose(data.train[0], torch.tensor(np.asarray(first(array), np.float32)).flatten())
    data.train.zero_()  # the caller's own
    assert read(path).train.abs().sum() > 0


def test_labels_and_a_split_of_its_own(tmp_path):
    x = gray(8)
    np.savez(tmp_path / "a.npz", x=x, y=np.array(list("abcdabcd")))
    data = read(tmp_path / "a.npz", test_share=0.25)
    assert data.label_names == ("a", "b", "c", "d") and data.train_labels.tolist() == [0, 1, 2, 0, 1, 2]
    np.savez(tmp_path / "b.npz", x_train=x[:6], y_train=range(6), x_test=x[6:], y_test=[3, 4])
    data = read(tmp_path / "b.npz")
    assert len(data.train) == 6 and data.test_labels.tolist() == [3, 4]
    torch.save((torch.tensor(x), torch.arange(8)), tmp_path / "c.pt")
    assert sorted(read(tmp_path / "c.pt").train_labels.tolist()) != [-1] * 7


def test_rows_that_are_images(tmp_path):
    np.save(tmp_path / "a.npy", gray(6).reshape(6, 12))
    assert read(tmp_path / "a.npy", image_size=(4, 3)).image_shape == (4, 3)
    assert read(tmp_path / "a.npy", image_size=(2, 2)).image_shape == (3, 2, 2)
    with pytest.raises(
        ValueError,
        match=r"image_size \(--image-size\) 5 x 5 does not fit .*a.npy, whose rows have 12 numbers",
    ):
        read(tmp_path / "a.npy", image_size=(5, 5))


def test_csv(tmp_path):
    rows = np.round(np.random.default_rng(0).normal(size=(6, 3)), 3)
    for name, head, mark in (
        ("a", [], ","),
        ("b", ["u", "v", "w"], ","),
        ("c", [], ";"),
        ("d", ["u", "v", "w"], "\t"),
    ):
        with open(tmp_path / f"{name}.csv", "w", newline="") as file:
            writer = csv.writer(file, delimiter=mark)
            writer.writerows([head] * bool(head) + rows.tolist())
        data = read(tmp_path / f"{name}.csv")
        assert torch.allclose(data.train, torch.tensor(rows[:5]).float())
        assert likelihood_for(data)[0] == "gaussian"
    (tmp_path / "e.csv").write_text("u,label,v\n1,cat,2\n3,ape,4\n")
    data = read(tmp_path / "e.csv", test_share=0.5)
    assert data.label_names == ("ape", "cat") and data.train.tolist() == [[1, 2]] and data.train_labels == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "1,2\n3,x\n", "a.csv, line 2, column 2 must be a number, got 'x'"),
        ("a.csv", "u,v\n1,2\n3\n", "a.csv, line 3 must have 2 columns, like the first line, got 1"),
        ("a.csv", "u,v\n", "has a line of names but no numbers"),
        ("a.csv", "", "is empty"),
        ("a.csv", "1,2\n3,nan\n4,5\n", r"a.csv must hold finite numbers, row 1 \(counted from 0\) has NaN"),
        ("a.npy", "no", "a.npy cannot be read as an array"),
        ("a.npz", "no", "a.npz cannot be read as arrays"),
        ("a.pt", "no", "a.pt cannot be read as tensors"),
        ("a.txt", "1 2", "a.txt must be a folder of images, or a file that ends with .npy, .npz, .pt, .csv"),
    ],
)
def test_file_that_does_not_fit(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5), "one datapoint a row"),
        (np.zeros((0, 5)), "one datapoint a row"),
        (np.zeros((2, 3, 4, 5, 6)), r"\[N, height, width\]"),
        (np.zeros((5, 2), complex), "real numbers"),
        (np.array([["a", "b"]]), "real numbers"),
        (np.array([[1.0, 2.0], [np.inf, 0.0]]), "row 1"),
        (np.array([[object()], [object()]]), "cannot be read as an array"),  # pickled: code
    ],
)
def test_array_that_does_not_fit(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path / "a.npy")
    assert "a.npy" in str(error.value)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read(tmp_path / "nothing")


def test_constant_columns_are_no_gaussians(tmp_path):
    values = np.random.default_rng(0).normal(size=(20, 4))
    values[:, 2] = 7
    np.save(tmp_path / "a.npy", values)
    likelihood, why = likelihood_for(read(tmp_path / "a.npy"))
    assert likelihood == "isotropic" and "1 of 4" in why


def test_a_large_array_stays_in_its_file(tmp_path, monkeypatch):
    array = gray(60)
    np.save(tmp_path / "a.npy", array)
    small = read(tmp_path / "a.npy")
    monkeypatch.setattr(own, "_IN_MEMORY", 100)
    monkeypatch.setattr(own, "_CHUNK", 50)  # many chunks
    large = read(tmp_path / "a.npy")
    assert isinstance(large.train, own.Rows) and large.train.shape == (50, 12)
    assert large.summary == small.summary and torch.equal(large.test, small.test)
    assert torch.equal(torch.stack([large.train[i] for i in range(50)]), small.train)
    assert torch.equal(large.train.__getitems__([3, 1]), small.train[[3, 1]])


def test_many_images_stay_8_bit_values(tmp_path, monkeypatch):
    folder_of(tmp_path, gray(12))
    small = read(tmp_path)
    monkeypatch.setattr(own, "_IN_MEMORY", 100)
    large = read(tmp_path)
    assert isinstance(large.train, own.Rows) and large.train.array.dtype == np.uint8
    assert large.summary == small.summary and torch.equal(large.test, small.test)
    assert torch.equal(large.train.__getitems__(list(range(10))), small.train)


def test_a_large_jpeg_is_decoded_at_a_lower_resolution(tmp_path, monkeypatch):
    for i in range(4):  # two halves, dark and light, which every resolution shows
        pixels = np.full((800, 1600), 40 + i, np.uint8)
        pixels[:, 800:] = 200
        Image.fromarray(pixels).save(tmp_path / f"{i}.jpg", quality=95)
    decoded = []
    fit = ImageOps.fit
    monkeypatch.setattr(ImageOps, "fit", lambda image, *rest: decoded.append(image.size) or fit(image, *rest))
    x = read(tmp_path, image_size=(8, 16)).train.view(-1, 8, 16)
    assert max(decoded)[0] <= 200  # 1600 / 8
    torch.testing.assert_close(x[0, :, :6], torch.full((8, 6), 40 / 255), atol=2 / 255, rtol=0)
    torch.testing.assert_close(x[0, :, 10:], torch.full((8, 6), 200 / 255), atol=2 / 255, rtol=0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white(tmp_path, mode):
    for i in range(4):
        pixels = np.full((4, 3, 4), (10, 20, 30, 255), np.uint8)
        pixels[0] = (90, 0, 0, 0)  # transparent, over some color
        image = Image.fromarray(pixels)
        if mode == "P":
            image = image.quantize(8, method=Image.Quantize.FASTOCTREE)
        image.convert(mode).save(tmp_path / f"{i}.png")
    data = read(tmp_path)
    x = data.train.view(-1, *data.image_shape)
    assert (x[..., 0, :] == 1).all() and (x[..., 1:, :] < 0.2).all()


def test_numbers_beyond_float32_are_refused(tmp_path):
    x = np.ones((6, 2))
    x[4, 1] = 1e39
    np.save(tmp_path / "a.npy", x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"a\.npy must hold finite numbers, row 4"):
            read(tmp_path / "a.npy")


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    """Not left out without a word."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name / "1.png")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path) == str(tmp_path / "b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError) as found:
        own.read(tmp_path)
    assert found.value.filename == str(tmp_path / "b")
