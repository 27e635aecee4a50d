"""The explorers of every chapter by finger on a phone, and at a zoom of 200 %."""

import pytest
from in_browser import HOST, serve
from test_site import PAGES, SITE

BUILT = [page for page in PAGES if (SITE / page).exists()]
WITH_EXPLORERS = [
    page for page in BUILT if 'class="vaetut-explorer"' in (SITE / page).read_text(encoding="utf-8")
]


def test_every_chapter_but_one_has_an_explorer():
    assert BUILT == PAGES, "build the book first: make book"
    assert len(WITH_EXPLORERS) >= 14 and "book/index.html" in WITH_EXPLORERS


@pytest.fixture(scope="module", params=WITH_EXPLORERS)
def phone(request, browser):
    """A page on a phone, with what a browser's own bars leave of its height."""
    context = browser.new_context(
        viewport={"width": 390, "height": 664}, has_touch=True, is_mobile=True, device_scale_factor=2
    )
    page = context.new_page()
    page.route("**/*", serve)
    page.goto(HOST + request.param, wait_until="load")
    page.finger = context.new_cdp_session(page)
    yield page
    context.close()


def explorers(page):
    """Each explorer, scrolled to the middle of the screen, once its script has come."""
    for explorer in page.locator("main .vaetut-explorer").all():
        explorer.scroll_into_view_if_needed()
        explorer.locator(".vaetut-static").wait_for(state="detached")
        explorer.evaluate("e => e.scrollIntoView({block: 'center', behavior: 'instant'})")
        yield explorer


def swipe(page, x, y, across=0, down=0):
    """A finger that comes down at a place of the screen and moves; positive numbers go right and down."""

    def touch(kind, *points):
        page.finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": list(points)})

    touch("touchStart", {"x": x, "y": y})
    for part in range(1, 11):
        touch("touchMove", {"x": x + across * part / 10, "y": y + down * part / 10})
    page.wait_for_timeout(150)  # a finger that leaves while it moves would let the page roll on
    touch("touchMove", {"x": x + across, "y": y + down})
    touch("touchEnd")


def shown(explorer):
    """What the picture shows, in its words."""
    return explorer.evaluate(
        "e => e.querySelector('canvas.vaetut-digit')?.getAttribute('aria-label') ?? e.querySelector('img').alt"
    )


def values(explorer):
    return explorer.locator("input").evaluate_all(
        "all => all.map(e => e.type === 'radio' ? e.checked : e.value)"
    )


def test_a_swipe_that_scrolls_changes_nothing_and_one_along_the_track_moves(phone):
    for explorer in explorers(phone):
        for slider in explorer.locator("input[type=range]").all():
            before, top = (values(explorer), shown(explorer)), phone.evaluate("scrollY")
            box = slider.bounding_box()
            x, y = box["x"] + 0.8 * box["width"], box["y"] + box["height"] / 2
            swipe(phone, x, y, down=-150)
            phone.wait_for_function("top => Math.abs(scrollY - top) > 50", arg=top)
            assert (values(explorer), shown(explorer)) == before
            explorer.evaluate("e => e.scrollIntoView({block: 'center', behavior: 'instant'})")
            box = slider.bounding_box()
            share = slider.evaluate("e => (e.value - e.min) / (e.max - e.min)")
            here, goal = (0.1, 0.9) if share < 0.5 else (0.9, 0.1)
            y = box["y"] + box["height"] / 2
            swipe(phone, box["x"] + here * box["width"], y, across=(goal - here) * box["width"])
            beyond = "([e, right]) => (e.value - e.min) / (e.max - e.min) > 0.5 === right"
            phone.wait_for_function(beyond, arg=[slider.element_handle(), goal > 0.5])
            assert shown(explorer) != before[1]


def test_a_tap_chooses(phone):
    for explorer in explorers(phone):
        for label in explorer.locator(".vaetut-options label").all():
            label.tap()  # the click comes after the finger has left
            phone.wait_for_function("e => e.checked", arg=label.locator("input").element_handle())


def test_a_finger_drags_the_mark_over_the_plane(phone):
    for explorer in explorers(phone):
        for pad in explorer.locator(".vaetut-pad").all():
            box = pad.bounding_box()
            middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            swipe(phone, *middle, across=box["width"] / 4, down=-box["height"] / 4)
            there = "all => all.every(e => Math.abs(e.value / e.max - 0.5) < 0.05)"  # half-way to the corner
            sliders = explorer.evaluate_handle("e => [...e.querySelectorAll('input')]")
            phone.wait_for_function(there, arg=sliders)


@pytest.mark.parametrize("size", [(390, 664), (720, 450)], ids=["phone", "200 %"])
def test_picture_and_sliders_are_in_view_together(phone, size):
    phone.set_viewport_size({"width": size[0], "height": size[1]})
    for explorer in explorers(phone):
        explorer.evaluate("e => scrollBy(0, e.getBoundingClientRect().bottom - innerHeight)")
        box, bar = explorer.bounding_box(), phone.locator(".bd-header-article").bounding_box()
        assert box["y"] >= max(0, bar["y"] + bar["height"]) and box["width"] <= size[0]
        picture = explorer.locator("img, canvas.vaetut-digit").filter(visible=True).last.bounding_box()
        assert picture["height"] >= 100 and picture["width"] >= 100
    phone.set_viewport_size({"width": 390, "height": 664})
