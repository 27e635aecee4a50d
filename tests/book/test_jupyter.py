"""Chapters in JupyterLab 4 with ipywidgets 8, and in Notebook 6.5 with ipywidgets 7.7.1, which is what Colab has.

Each is driven in Chromium: all cells from top to bottom, explorers by mouse and by key, `.live()`. `make lab` and
`make colab` build the two environments; where one is not there, its tests are skipped and say so.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from in_browser import chromium

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = ["00-a-vae-in-half-an-hour", "02-variational-lower-bound", "11-variational-autoencoder"]
MINUTES = float(os.environ.get("VAETUT_JUPYTER_MINUTES", 5))  # for a chapter; more on a machine that is busy
LIVE = """\
from vaetut import explore, plots


def line(slope):
    figure, ax = plots.subplots(height=2)
    ax.plot([0, 1], [0, slope])
    ax.set(ylim=(0, 4))
    return figure


explore(line, alt="A line of slope {slope}.", slope=[0.0, 2.0, 4.0]).live()
"""
pytestmark = [pytest.mark.browser, pytest.mark.slow]


class Lab:
    """JupyterLab 4; its application is a global of the page."""

    environment, target = "lab", "lab"
    options = ("lab", "--LabApp.expose_app_in_browser=True", "--IdentityProvider.token=")
    address = "lab/tree/{}?reset"
    output = ".jp-OutputArea-output"

    def __init__(self, page):
        self.page = page

    def wait_until_ready(self):
        self.page.wait_for_function(
            "() => { const p = window.jupyterapp?.shell.currentWidget; return p?.content?.model?.cells?.length"
            " && p.sessionContext.session?.kernel?.status === 'idle' }"
        )

    def run_all(self):
        self.page.evaluate("() => jupyterapp.commands.execute('notebook:run-all-cells')")

    def state(self):
        """For each code cell its execution count and the names of errors."""
        return self.page.evaluate(
            "() => [...jupyterapp.shell.currentWidget.content.model.cells].filter(c => c.type === 'code').map(c =>"
            " [c.executionCount, c.outputs.toJSON().filter(o => o.output_type === 'error').map(o => o.ename)])"
        )

    def show(self, index):
        """Bring a cell to the middle of the window: Lab draws only what is near."""
        self.page.evaluate(
            "async i => { const n = jupyterapp.shell.currentWidget.content; n.activeCellIndex = i;"
            " await n.scrollToItem(i, 'center', 0) }",
            index,
        )

    def add_cell(self, source):
        self.page.evaluate(
            "async source => { const n = jupyterapp.shell.currentWidget.content;"
            " n.activeCellIndex = n.model.cells.length - 1;"
            " await jupyterapp.commands.execute('notebook:insert-cell-below');"
            " n.activeCell.model.sharedModel.setSource(source);"
            " await jupyterapp.commands.execute('notebook:run-cell') }",
            source,
        )

    def cells(self):
        return self.page.evaluate(
            "() => [...jupyterapp.shell.currentWidget.content.model.cells].map(c => c.type === 'code' &&"
            " JSON.stringify(c.outputs.toJSON()).includes('vaetut-explorer'))"
        )


class Notebook:
    """Notebook 6.5, which is what Colab's own front end grew from."""

    environment, target = "colab", "colab"
    options = ("notebook", "--NotebookApp.token=", "--NotebookApp.password=")
    address = "notebooks/{}"
    output = ".output_subarea"

    def __init__(self, page):
        self.page = page

    def wait_until_ready(self):
        self.page.wait_for_function(
            "() => window.Jupyter?.notebook?.kernel?.is_connected() && Jupyter.notebook.get_cells().length > 5"
        )

    def run_all(self):
        self.page.evaluate("() => Jupyter.notebook.execute_all_cells()")

    def state(self):
        return self.page.evaluate(
            "() => Jupyter.notebook.get_cells().filter(c => c.cell_type === 'code').map(c =>"
            " [Number(c.input_prompt_number) || null,"
            " c.output_area.outputs.filter(o => o.output_type === 'error').map(o => o.ename)])"
        )

    def show(self, index):
        self.page.evaluate(
            "i => Jupyter.notebook.get_cell(i).element[0].scrollIntoView({block: 'center'})", index
        )

    def add_cell(self, source):
        self.page.evaluate(
            "source => { const n = Jupyter.notebook, c = n.insert_cell_at_bottom('code');"
            " c.set_text(source); c.execute() }",
            source,
        )

    def cells(self):
        return self.page.evaluate(
            "() => Jupyter.notebook.get_cells().map(c => c.cell_type === 'code' &&"
            " JSON.stringify(c.output_area.outputs).includes('vaetut-explorer'))"
        )


@contextlib.contextmanager
def server(front, folder):
    """A notebook server of this environment in the folder; its address."""
    program = ROOT / "_build" / front.environment / "bin" / "jupyter"
    if not program.exists():
        pytest.skip(f"NOT TESTED IN JUPYTER: no {program.parents[1].relative_to(ROOT)} (make {front.target})")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JUPYTER", "IPYTHON", "PYTEST")) and name != "MPLBACKEND"
    }
    if front is Notebook:
        clean.pop("PYTHONPATH", None)  # its package is the installed wheel
    home = {"JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTER_DATA_DIR": str(folder / "data")}
    home |= {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_RUNTIME_DIR": str(folder / "runtime")}
    name, *options = front.options
    command = [
        str(program),
        name,
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        *options,
    ]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=clean | home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"http://127.0.0.1:{port}/"
            until = time.monotonic() + 60 * MINUTES
            while process.poll() is None and not answers(address):
                assert time.monotonic() < until, (folder / "server.log").read_text()
                time.sleep(0.3)
            assert process.poll() is None, (folder / "server.log").read_text()
            yield address
        finally:
            process.terminate()
            process.wait(60 * MINUTES)


def answers(address):
    try:
        with urllib.request.urlopen(f"{address}api", timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module", params=[Lab, Notebook], ids=["lab", "notebook"])
def running(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param.environment)
    for chapter in CHAPTERS:
        shutil.copy(ROOT / "book" / f"{chapter}.ipynb", folder)
    with server(request.param, folder) as address:
        yield request.param, address


@pytest.fixture(scope="module", params=CHAPTERS, ids=lambda chapter: chapter[:2])
def chapter(request, running, browser):
    """A chapter whose cells have all run."""
    kind, address = running
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address + kind.address.format(f"{request.param}.ipynb"))
    front = kind(page)
    front.wait_until_ready()
    front.run_all()
    until = time.monotonic() + 60 * MINUTES
    while any(count is None for count, _ in front.state()) and time.monotonic() < until:
        if any(errors for _, errors in front.state()):
            break
        page.wait_for_timeout(500)
    front.wrong = wrong
    yield front
    page.close()


def test_every_cell_runs(chapter):
    state = chapter.state()
    assert [errors for _, errors in state if errors] == []
    assert [count for count, _ in state] == list(range(1, len(state) + 1))
    assert chapter.wrong == []


def picture(explorer):
    """What the explorer shows, as pixels."""
    return explorer.locator("img:visible, svg:visible, canvas:visible").first.screenshot()


def test_explorers_move_by_key_and_by_mouse(chapter):
    places = [i for i, found in enumerate(chapter.cells()) if found]
    assert places
    for place in places:
        chapter.show(place)
        explorer = chapter.page.locator(".vaetut-explorer:visible").first
        explorer.wait_for()
        found = chapter.page.locator(".vaetut-explorer:visible")
        middles = [
            abs((box["y"] + box["height"] / 2) - 450) for e in found.all() if (box := e.bounding_box())
        ]
        explorer = found.nth(middles.index(min(middles)))
        slider = explorer.locator("input[type=range]:visible").first
        if not slider.count():
            continue
        slider.scroll_into_view_if_needed()
        slider.focus()
        slider.press("Home")
        first = picture(explorer)
        slider.press("ArrowRight")
        assert picture(explorer) != first, f"cell {place}: an arrow key does not move the picture"
        assert slider.evaluate("e => document.activeElement === e"), "the key went to the notebook instead"
        box = slider.bounding_box()
        slider.click(position={"x": box["width"] - 4, "y": box["height"] / 2})
        assert slider.evaluate("e => e.value === e.max")
        assert picture(explorer) != first, f"cell {place}: the mouse does not move the picture"


def test_live_sliders_draw_what_lies_between(chapter):
    chapter.add_cell(LIVE)
    handle = chapter.page.locator(".widget-slider .noUi-handle, .widget-slider .ui-slider-handle").last
    handle.wait_for()
    handle.scroll_into_view_if_needed()
    image = chapter.page.locator(".widget-box img, .widget-vbox img").last  # each frame is a new element
    before = image.get_attribute("alt")
    handle.focus()
    handle.press("ArrowRight")
    until = time.monotonic() + 60 * MINUTES
    while (now := image.get_attribute("alt")) == before and time.monotonic() < until:
        chapter.page.wait_for_timeout(200)
    slope = float(re.fullmatch(r"A line of slope ([\d.]+)\.", now)[1])
    assert slope % 2, "one step is a tenth of the distance between the explorer's values"
