"""`explore_decoder`: what the page computes is what torch computes, by mouse, finger and key."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from vaetut import VAE
from vaetut.experiments.plane import mnist_decoder
from vaetut.teaching.decoder import explore_decoder

ALT = "A mark at ({z_1}, {z_2}), and its image."


def network(*modules):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(2, 7), nn.ReLU(), nn.Linear(7, 5), nn.Sigmoid(), nn.Linear(5, 12), *modules
    )


DECODERS = {
    "three activations": (network(), (3, 4)),
    "no bias": (nn.Sequential(nn.Linear(2, 6, bias=False), nn.Tanh(), nn.Linear(6, 4)).double(), (2, 2)),
    "one layer": (nn.Sequential(nn.Linear(2, 6)), (3, 2)),
    "chapter 11": (VAE(data_dim=64, latent_dim=2, hidden_dim=100).decoder, (8, 8)),
    "MNIST": mnist_decoder(),
}


@pytest.fixture(params=DECODERS)
def shown(request, browser):
    decoder, shape = DECODERS[request.param]
    page = browser.new_page(viewport={"width": 700, "height": 800})
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.set_content(f"<!doctype html>{explore_decoder(decoder, shape, ALT, tiles=3)._repr_html_()}")
    yield decoder, shape, page
    page.close()
    assert page.problems == []


def pixels(page):
    return np.array(page.evaluate("[...document.querySelector('.vaetut-explorer').vaetutPixels]"))


def move(page, code):
    page.evaluate(
        """code => [...document.querySelectorAll("input")].forEach((slider, i) => {
            slider.value = code[i]; slider.dispatchEvent(new Event("input", {bubbles: true}));
        })""",
        code,
    )


def probabilities(decoder, code):
    example = next(decoder.parameters())
    with torch.no_grad():
        return decoder(torch.tensor(code).to(example)).sigmoid().double().numpy()


def test_the_page_computes_what_torch_computes(shown):
    decoder, shape, page = shown
    for code in ([0.0, 0.0], [1.5, -0.75], [-3.0, 2.95]):
        move(page, code)
        expected = probabilities(decoder, code)
        assert np.abs(pixels(page) - expected).max() < 2e-6  # weights of 32 bits
        drawn = page.evaluate(
            """() => { const c = document.querySelector(".vaetut-digit");
                return [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]; }"""
        )
        levels = np.reshape(drawn, (*shape, 4))
        assert np.abs(levels[..., 0] - 255 * (1 - expected.reshape(shape))).max() < 0.51
        assert (levels[..., :3] == levels[..., :1]).all() and (levels[..., 3] == 255).all()  # gray
        other = probabilities(decoder, [code[1] + 0.5, code[0]])  # a page that swaps them would be noticed
        assert np.abs(pixels(page) - other).max() > 1e-3


def test_the_plane_is_paved_with_images_where_they_belong(shown):
    decoder, (rows, columns), page = shown
    drawn = page.evaluate(
        """() => { const c = document.querySelector(".vaetut-pad canvas");
            return [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]; }"""
    )
    plane = np.reshape(drawn, (3 * rows, 3 * columns, 4))[..., 0]
    for row, z_2 in enumerate((2.0, 0.0, -2.0)):
        for column, z_1 in enumerate((-2.0, 0.0, 2.0)):
            tile = plane[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
            expected = 255 * (1 - probabilities(decoder, [z_1, z_2])).reshape(rows, columns)
            assert np.abs(tile - expected).max() < 0.51


@pytest.fixture
def page(browser):
    made = explore_decoder(
        network(), (3, 4), ALT, points=torch.tensor([[1.0, 1.0], [9.0, 0.0]]), start=(0.5, -0.5)
    )
    page = browser.new_page(viewport={"width": 390, "height": 844})
    html = made._repr_html_()
    page.set_content(f"<!doctype html><div id=one>{html}</div><div id=copy>{html}</div>")
    yield page
    page.close()


def state(page, where="#one"):
    root = page.locator(where)
    return (
        root.locator("output").all_inner_texts(),
        [slider.get_attribute("aria-valuetext") for slider in root.locator("input").all()],
        root.get_by_role("img").get_attribute("aria-label"),
    )


def at(z_1, z_2):
    return [z_1, z_2], [z_1, z_2], f"A mark at ({z_1}, {z_2}), and its image."


def test_it_begins_where_start_says_and_two_copies_are_independent(page):
    assert state(page) == state(page, "#copy") == at("0.50", "−0.50")
    move_first = page.locator("#one input").first
    move_first.focus()
    page.keyboard.press("ArrowLeft")
    assert state(page) == at("0.45", "−0.50") and state(page, "#copy") == at("0.50", "−0.50")
    page.keyboard.press("End")
    assert state(page) == at("3.00", "−0.50")
    assert page.locator("#one [aria-live]").inner_text() == at("3.00", "−0.50")[2]


def test_the_mouse_drags_and_stops_at_the_edge(page):
    box = page.locator("#one .vaetut-pad").bounding_box()

    def go(across, down):
        page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"])

    go(0.75, 0.25)
    page.mouse.down()
    assert [float(v.replace("−", "-")) for v in state(page)[0]] == pytest.approx([1.5, 1.5], abs=0.04)
    go(0.5, 3)
    assert state(page)[0][1] == "−3.00"
    page.mouse.up()
    before = state(page)
    go(0.1, 0.1)
    assert state(page) == before


def test_a_finger_that_scrolls_changes_nothing(page):
    before = state(page)
    pad = page.locator("#one .vaetut-pad")
    pad.dispatch_event("pointerdown", {"pointerId": 1, "button": 0, "clientX": 30, "clientY": 60})
    assert state(page) != before
    pad.dispatch_event("pointercancel", {})
    assert state(page) == before
    slider = page.locator("#one input").first
    slider.dispatch_event("pointerdown", {})
    slider.evaluate("e => { e.value = 2; e.dispatchEvent(new Event('input')); }")
    assert state(page) == at("2.00", "−0.50")
    slider.dispatch_event("pointercancel", {})
    assert state(page) == before


def test_it_fits_a_phone_and_a_zoom(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator(".vaetut-static").count() == 0
    assert not page.locator("#one img").is_visible()
    assert all(slider.bounding_box()["height"] >= 44 for slider in page.locator("input").all())
    page.set_viewport_size({"width": 720, "height": 450})  # 1440 x 900 at 200 %
    assert page.locator("#one .vaetut-explorer").bounding_box()["height"] <= 450


def test_points_outside_of_the_plane_are_left_out(page):
    dots = page.locator("#one .vaetut-dots").get_attribute("d")
    assert dots == "M66.67 33.33h0"


def test_a_page_saved_by_a_browser_still_works(page, browser):
    copy = browser.new_page()
    copy.set_content(page.content())
    assert copy.locator("#one .vaetut-plane").count() == 1
    copy.locator("#one input").first.focus()
    copy.keyboard.press("ArrowRight")
    assert state(copy)[0][0] == "0.55"
    copy.close()


def test_without_scripts_a_picture_stays(browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_content(explore_decoder(network(), (3, 4), ALT)._repr_html_())
    assert page.locator("img").get_attribute("alt") == at("0.00", "0.00")[2]
    assert page.locator(".vaetut-static").is_visible()
    context.close()


def test_weights_are_bytes_where_they_can_be():
    for name, limit in (("MNIST", 130_000), ("chapter 11", 60_000)):
        decoder, shape = DECODERS[name]
        made = explore_decoder(decoder, shape, ALT)
        assert len(json.dumps(made.layers)) < limit
        scales = [(layer[2], layer[4]) for layer in made.layers]
        assert all((a > 0) == (b > 0) == (name == "MNIST") for a, b in scales)


def test_the_output_is_the_same_every_time_and_has_a_picture_for_other_viewers():
    one, two = (explore_decoder(network(), (3, 4), ALT, tiles=2) for _ in "ab")
    bundle, metadata = one._repr_mimebundle_()
    assert one._repr_html_() == two._repr_html_() == bundle["text/html"]
    assert bundle["image/png"].startswith(b"\x89PNG") and metadata["image/png"]["width"] == 500
    assert repr(one) == bundle["text/plain"] == "DecoderExplorer(3 x 4 pixels, 3 layers)"
    assert not re.search(r"\s(id|onclick)=\"", bundle["text/html"])


GOOD = {"decoder": network(), "image_shape": (3, 4), "alt": ALT}
BAD = {
    "another layer": ({"decoder": nn.Sequential(nn.Linear(2, 12), nn.Dropout())}, TypeError, "got Dropout"),
    "two activations": ({"decoder": nn.Sequential(nn.Linear(2, 9), nn.ReLU(), nn.Tanh())}, TypeError, "got Tanh"),
    "probabilities": ({"decoder": network(nn.Sigmoid())}, TypeError, "must end with a Linear layer"),
    "empty": ({"decoder": nn.Sequential()}, TypeError, "must end with a Linear layer"),
    "three latent": ({"decoder": nn.Sequential(nn.Linear(3, 12))}, ValueError, "codes of length 2, got 3"),
    "shape": ({"image_shape": (3, 5)}, ValueError, "3 x 5 = 15 pixels, got 12"),
    "alt": ({"alt": "A mark at {z_1}."}, ValueError, "alt must hold"),
    "points": ({"points": torch.zeros(3)}, ValueError, r"points must have shape \[count, 2\], got \[3\]"),
    "start": ({"start": (0.0, 4.0)}, ValueError, "start must lie between -3 and 3"),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(changed, error, message):
    with pytest.raises(error, match=message):
        explore_decoder(**{**GOOD, **changed})
