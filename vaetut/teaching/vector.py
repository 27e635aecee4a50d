"""Frames of `vaetut.explore` as drawings: SVG whose parts the frames share. Used, through `explore`, in every chapter.

A frame differs from the next in a curve and a few numbers. Everything else, the letters' outlines above all, is kept
once, so that sixty frames take little more space than one, and each is sharp at any size.
"""

import base64
import io
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backend_bases import GraphicsContextBase, RendererBase
from matplotlib.colors import rgb2hex
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, Transform
from PIL import Image

DPI = 100  # of the page: a figure 5 in wide takes 500 CSS pixels
UNIT = 10  # units of a drawing for each of these: coordinates are whole numbers
LETTER = 200  # units in which the outlines of letters are written, for each font size

_COMMANDS: dict[int, tuple[str, int]] = {  # for each code of matplotlib's paths, and its number of points
    int(Path.MOVETO): ("m", 1),
    int(Path.LINETO): ("l", 1),
    int(Path.CURVE3): ("q", 2),
    int(Path.CURVE4): ("c", 3),
    int(Path.CLOSEPOLY): ("z", 1),
}


class Drawings(NamedTuple):
    """The frames of one explorer.

    Attributes:
        size: width and height of each, in CSS pixels.
        shared: what every frame begins with: outlines of letters, shapes of markers, frames of clipping.
        parts: pieces of SVG.
        frames: for each frame the positions of its pieces, in the order in which they are drawn.
    """

    size: tuple[int, int]
    shared: str
    parts: list[str]
    frames: list[list[int]]

    def document(self, frame: int) -> str:
        """One frame as an SVG file."""
        width, height = self.size
        return (
            f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
            f"viewBox='0 0 {width * UNIT} {height * UNIT}'><defs>{self.shared}</defs>"
            + "".join(self.parts[i] for i in self.frames[frame])
            + "</svg>"
        )

    def address(self, frame: int) -> str:
        """One frame as the address of a picture."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.document(frame).encode()).decode("ascii")


class Sheet:
    """Takes figures of one size, and gives their drawings."""

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None
        self.shared: dict[Any, tuple[str, str]] = {}
        self.parts: dict[str, int] = {}
        self.frames: list[list[int]] = []

    def add(self, figure: Figure) -> None:
        """Draw one more frame.

        Raises:
            ValueError: if the figure has another size than those before.
        """
        inches = tuple(figure.get_size_inches().tolist())
        size = round(inches[0] * DPI), round(inches[1] * DPI)
        if self.size is not None and self.size != size:
            a, b = (" x ".join(f"{n / DPI:g}" for n in s) + " in" for s in (self.size, size))
            raise ValueError(f"draw must return figures of one size, got {a} and {b}")
        self.size = size
        images = [(image, image.get_interpolation()) for ax in figure.axes for image in ax.images]
        for image, _ in images:
            image.set_interpolation("none")  # its own pixels, which the browser enlarges
        dpi, figure.dpi = figure.dpi, DPI
        renderer = _Renderer(self, size)
        figure.draw(renderer)
        figure.dpi = dpi
        for image, interpolation in images:
            image.set_interpolation(interpolation)
        self.frames.append([self.parts.setdefault(part, len(self.parts)) for part in renderer.pieces])

    def drawings(self) -> Drawings:
        """All frames so far."""
        parts, frames = _joined(list(self.parts), self.frames)
        return Drawings(self.size or (0, 0), "".join(text for _, text in self.shared.values()), parts, frames)

    def share(self, key: Any, tag: str, text: str) -> str:
        """The id of a shared element with this ``key``, which is made from ``tag`` and ``text`` at the first call."""
        if key not in self.shared:
            name = f"{tag[0]}{len(self.shared)}"
            self.shared[key] = name, f"<{tag} id='{name}'{text}"
        return self.shared[key][0]


def _joined(parts: list[str], frames: list[list[int]]) -> tuple[list[str], list[list[int]]]:
    """The same drawings, with parts joined that stand side by side in every frame that has one of them."""
    after: dict[int, set[int]] = {}
    before: dict[int, set[int]] = {}
    for frame in frames:
        for a, b in zip([-1, *frame], [*frame, -1], strict=True):
            after.setdefault(a, set()).add(b)
            before.setdefault(b, set()).add(a)

    def next_of(a: int) -> int:
        (b,) = after[a] if len(after[a]) == 1 else (-1,)
        return b if b != -1 and before[b] == {a} else -1

    heads = [a for a in range(len(parts)) if not any(next_of(b) == a for b in before[a] if b != -1)]
    place: dict[int, int] = {}
    joined: list[str] = []
    for a in heads:
        place[a] = len(joined)
        pieces = [parts[a]]
        while (a := next_of(a)) != -1:
            pieces.append(parts[a])
        joined.append("".join(pieces))
    return joined, [[place[a] for a in frame if a in place] for frame in frames]


class _Renderer(RendererBase):
    """Draws one figure as pieces of SVG, the vertical axis downwards, in tenths of a pixel."""

    def __init__(self, sheet: Sheet, size: tuple[int, int]) -> None:
        super().__init__()
        self.sheet, self.size = sheet, size
        self.pieces: list[str] = []

    # What matplotlib asks a renderer

    def flipy(self) -> bool:
        return False

    def get_canvas_width_height(self) -> tuple[int, int]:
        return self.size

    def points_to_pixels(self, points: Any) -> Any:
        return points * DPI / 72

    def option_image_nocomposite(self) -> bool:
        return True

    def option_scale_image(self) -> bool:
        return True

    def draw_path(self, gc: Any, path: Path, transform: Transform, rgbFace: Any = None) -> None:
        outline = self._outline(gc, path, transform, rgbFace)
        if outline:
            self._put(gc, f"<path d='{outline}'{self._style(gc, rgbFace)}/>")

    def draw_markers(
        self,
        gc: Any,
        marker_path: Path,
        marker_trans: Transform,
        path: Path,
        trans: Transform,
        rgbFace: Any = None,
    ) -> None:
        places = trans.transform(path.vertices)
        near = (places > -DPI).all(1) & (places < np.add(self.size, DPI)).all(1)  # false for nan
        places = places[near]
        if len(places) == 1:  # a path of one point and its marker is drawn by no browser inside of a clip
            self.draw_path(gc, marker_path, marker_trans + Affine2D().translate(*places[0]), rgbFace)
        elif len(places):
            style = self._style(gc, rgbFace)
            shape = outline_of(marker_path, marker_trans + Affine2D().scale(UNIT, -UNIT))
            text = f" markerUnits='userSpaceOnUse' overflow='visible'><path d='{shape}'{style}/></marker>"
            name = self.sheet.share((shape, style), "marker", text)
            at = "".join(f" marker-{where}='url(#{name})'" for where in ("start", "mid", "end"))
            self._put(gc, f"<path d='{outline_of(Path(places), self._flip())}' fill='none'{at}/>")

    def draw_image(self, gc: Any, x: float, y: float, im: Any, transform: Any = None) -> None:
        height, width = im.shape[:2]
        if not width or not height:
            return
        buffer = io.BytesIO()
        gray = (im[..., 3] == 255).all() and (im[..., :1] == im[..., :3]).all()
        Image.fromarray(im[..., 0] if gray else im).save(buffer, format="PNG", optimize=True)
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        scaled = Affine2D().scale(width, height) if transform is None else transform
        whole = Affine2D().scale(1 / width, 1 / height) + scaled + Affine2D().translate(x, y) + self._flip()
        numbers = " ".join(
            f"{number:.6g}" for number in np.asarray(whole.get_affine().get_matrix())[:2].T.ravel()
        )
        opacity = f" opacity='{gc.get_alpha():g}'" if gc.get_alpha() not in (None, 1) else ""
        self._put(
            gc,
            f"<image width='{width}' height='{height}' transform='matrix({numbers})'{opacity} "
            "preserveAspectRatio='none' style='image-rendering:crisp-edges;image-rendering:pixelated' "
            f"href='data:image/png;base64,{data}'/>",
        )

    def draw_text(
        self,
        gc: Any,
        x: float,
        y: float,
        s: str,
        prop: Any,
        angle: float,
        ismath: Any = False,
        mtext: Any = None,
    ) -> None:
        to_path = self._text2path
        if ismath:
            letters, outlines, bars = to_path.get_glyphs_mathtext(prop, s)
        else:
            font = get_font(findfont(prop))
            font.set_size(to_path.FONT_SCALE, to_path.DPI)
            letters, outlines, bars = to_path.get_glyphs_with_font(font, s)
        fine = LETTER / to_path.FONT_SCALE
        flip = Affine2D().scale(fine, -fine)
        pieces = []
        for name, place, raised, size in letters:
            outline = outline_of(Path(*outlines[name]), flip)
            if outline:
                letter = self.sheet.share(name, "path", f" d='{outline}'/>")
                at = f" x='{round(place * fine)}'" + (
                    f" y='{round(-raised * fine)}'" if round(raised * fine) else ""
                )
                if size != 1:
                    at = f" transform='translate({round(place * fine)} {round(-raised * fine)})scale({size:.4g})'"
                pieces.append(f"<use href='#{letter}'{at}/>")
        pieces += [f"<path d='{outline_of(Path(*bar), flip)}'/>" for bar in bars]
        if pieces:
            scale = self.points_to_pixels(prop.get_size_in_points()) / LETTER * UNIT
            turn = f"rotate({-angle:g})" if angle else ""
            where = f"translate({round(x * UNIT)} {round((self.size[1] - y) * UNIT)}){turn}scale({scale:.5g})"
            self._put(gc, f"<g transform='{where}'{_paint('fill', gc.get_rgb(), gc)}>{''.join(pieces)}</g>")

    # Their pieces

    def _flip(self) -> Affine2D:
        return Affine2D().scale(UNIT, -UNIT).translate(0, self.size[1] * UNIT)

    def _outline(self, gc: Any, path: Path, transform: Transform, face: Any) -> str:
        width, height = self.size
        line = face is None
        cleaned = path.cleaned(
            transform=transform,
            remove_nans=True,
            clip=(-DPI, -DPI, width + DPI, height + DPI) if line else None,
            simplify=line and path.should_simplify,
            curves=True,
            stroke_width=self.points_to_pixels(gc.get_linewidth()),
            snap=gc.get_snap(),
        )
        return outline_of(cleaned, self._flip())

    def _style(self, gc: Any, face: Any) -> str:
        style = " fill='none'" if face is None else _paint("fill", face, gc)
        if not gc.get_linewidth():
            return style
        style += _paint("stroke", gc.get_rgb(), gc)
        style += f" stroke-width='{self.points_to_pixels(gc.get_linewidth()) * UNIT:.4g}'"
        offset, dashes = gc.get_dashes()
        if dashes is not None:
            pattern = (self.points_to_pixels(n) * UNIT for n in dashes)
            style += f" stroke-dasharray='{' '.join(f'{n:.4g}' for n in pattern)}'"
            if offset:
                style += f" stroke-dashoffset='{self.points_to_pixels(offset) * UNIT:.4g}'"
        if gc.get_joinstyle() != "miter":
            style += f" stroke-linejoin='{gc.get_joinstyle()}'"
        if gc.get_capstyle() != "butt":
            style += (
                f" stroke-linecap='{ {'projecting': 'square'}.get(gc.get_capstyle(), gc.get_capstyle()) }'"
            )
        return style

    def _clip(self, gc: GraphicsContextBase) -> str:
        path, transform = gc.get_clip_path()
        box = gc.get_clip_rectangle()
        if path is not None and transform is not None:
            outline = outline_of(path, transform + self._flip())
        elif box is not None:
            outline = outline_of(
                Path.unit_rectangle(),
                Affine2D().scale(box.width, box.height).translate(box.x0, box.y0) + self._flip(),
            )
        else:
            return ""
        return self.sheet.share(("clip", outline), "clipPath", f"><path d='{outline}'/></clipPath>")

    def _put(self, gc: GraphicsContextBase, body: str) -> None:
        clip = self._clip(gc)
        self.pieces.append(f"<g clip-path='url(#{clip})'>{body}</g>" if clip else body)


def outline_of(path: Any, transform: Transform) -> str:
    """A path as the ``d`` of SVG, in whole numbers, each point relative to the one before."""
    vertices = np.asarray(transform.transform(path.vertices))
    points: list[list[int]] = np.where(np.isfinite(vertices), vertices, 0).round().astype(int).tolist()
    codes: list[int]
    if path.codes is not None:
        codes = np.asarray(path.codes).tolist()
    else:
        codes = [int(Path.MOVETO)] + [int(Path.LINETO)] * (len(points) - 1) if points else []
    text: list[str] = []
    here, first, last = [0, 0], [0, 0], ""
    i = 0
    while i < len(codes) and codes[i] != Path.STOP:
        command, count = _COMMANDS[codes[i]]
        ends, i = points[i : i + count], i + count
        if command == "z":
            text.append("z")
            here = first
        elif command == last == "l" and ends[0] == here:
            continue  # shorter than a tenth of a pixel
        else:
            numbers = [point[k] - here[k] for point in ends for k in (0, 1)]
            written = "".join(str(n) if n < 0 or not j else f" {n}" for j, n in enumerate(numbers))
            text.append((command if command != last else " " if numbers[0] >= 0 else "") + written)
            here = ends[-1]
            first = here if command == "m" else first
        last = command
    return "".join(text)


def _paint(what: str, color: Any, gc: Any) -> str:
    alpha = gc.get_alpha() if gc.get_forced_alpha() else (color[3] if len(color) == 4 else 1)
    return f" {what}='{rgb2hex(color)}'" + (f" {what}-opacity='{alpha:.3g}'" if alpha != 1 else "")
