"""Characters drawn from the fonts that matplotlib ships, each time bent in another way, on clutter and noise.

No file is needed and no class is rare: there are well over a thousand characters, and any number of them makes a task.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from nas_gym.files import checksum, load_tensors, save_tensors
from nas_gym.types import Floats

Pixels = NDArray[np.uint8]

CLASSES = 62  # by default: the digits, the capital and the small letters; they are the clutter of all classes
SIDE = 16  # pixels, by default
TRAIN, VALID, TEST = 100, 40, 40  # drawings of each class

SEED = 0  # of all drawings
FACES = (
    *("Sans", "Sans-Bold", "Sans-Oblique", "Sans-BoldOblique"),
    *("SansMono", "SansMono-Bold", "SansMono-Oblique", "SansMono-BoldOblique"),
    *("Serif", "Serif-Bold", "Serif-Italic", "Serif-BoldItalic"),
)
CATEGORIES = ("Nd", "Lu", "Ll", "Lo")  # Unicode's: decimal digits, and letters that stand for themselves
CANVAS, EM, BASELINE = 64, 50, 47  # pixels: of the upright character's image, its size, and the row it stands on
SAMPLES = 3  # of a pixel, in either direction


@dataclass(frozen=True)
class Drawing:
    """How a character is drawn; what is said to be largest is drawn uniformly up to there, to either side.

    The values were chosen for a wide spread of accuracies between random cells and little noise of their trainings (see
    docs/evaluators.md). Paper of different greys or faint ink would add noise: small networks then learn nothing for a
    while, and how long is a matter of luck.

    Attributes:
        rotation: largest angle, in degrees.
        stretch: largest factor by which the width and, apart from it, the height is changed.
        shear: largest horizontal shift of a point, as a share of its height.
        shift: largest shift to the side, up or down, as a share of the image's side.
        pieces: number of other characters of which a piece shows at the border.
        paper: grey level of the paper.
        contrast: smallest and largest difference between ink and paper, in grey levels.
        noise: standard deviation of the noise of a pixel, in grey levels.
    """

    rotation: float = 12.0
    stretch: float = 1.1
    shear: float = 0.15
    shift: float = 0.1
    pieces: int = 1
    paper: float = 200.0
    contrast: tuple[float, float] = (120.0, 160.0)
    noise: float = 8.0


DRAWING = Drawing()


def characters() -> Iterator[tuple[str, Pixels]]:
    """The characters in the order of Unicode, with what `upright` makes of them.

    They are those of the categories that all faces have. Of those that look the same in any face, such as the Latin A,
    the Greek and the Cyrillic, there is only the first.
    """
    fonts = _fonts()
    seen: set[tuple[int, bytes]] = set()
    for code in sorted(set.intersection(*(set(font.get_charmap()) for font in fonts))):
        if unicodedata.category(chr(code)) in CATEGORIES:
            drawn = upright(chr(code), fonts)
            looks = {(face, image.tobytes()) for face, image in enumerate(drawn)}
            if not looks & seen:
                yield chr(code), drawn
            seen |= looks


def _fonts() -> list[Any]:
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [FT2Font(str(folder / f"DejaVu{face}.ttf")) for face in FACES]
    for font in fonts:
        font.set_size(EM, 72)
    return fonts


def upright(character: str, fonts: Sequence[Any]) -> Pixels:
    """A character in every face, as uint8 ``[faces, CANVAS, CANVAS]``: ink is 255.

    It is centred between left and right; its size and its height above the line are the font's, so that o and O differ.
    """
    drawn = np.zeros((len(fonts), CANVAS, CANVAS), dtype=np.uint8)
    for canvas, font in zip(drawn, fonts, strict=True):
        font.set_text(character, 0.0)
        font.draw_glyphs_to_bitmap(antialiased=True)
        image = np.asarray(font.get_image())
        bottom = BASELINE + round(font.get_descent() / 64)  # a descent is in 64ths of a pixel
        first = bottom - image.shape[0], (CANVAS - image.shape[1]) // 2
        image = image[max(-first[0], 0) :, max(-first[1], 0) :]
        place = canvas[max(first[0], 0) :, max(first[1], 0) :][: image.shape[0], : image.shape[1]]
        place[:] = image[: place.shape[0], : place.shape[1]]
    return drawn


def draw(character: str, own: Pixels, others: Pixels, side: int) -> Pixels:
    """Draws a character many times; the drawings depend on nothing but the arguments.

    Args:
        character: the character.
        own: it in every face, uint8 ``[faces, CANVAS, CANVAS]``.
        others: the characters of the clutter, uint8 ``[characters, faces, CANVAS, CANVAS]``.
        side: of the images, in pixels.

    Returns:
        uint8 ``[TRAIN + VALID + TEST, side, side]``.
    """
    rng, n = np.random.default_rng([SEED, ord(character)]), TRAIN + VALID + TEST

    face = rng.integers(len(FACES), size=n)
    coverage = bend(own[face], _bends(rng, n), rng.uniform(-DRAWING.shift, DRAWING.shift, (n, 2)), side)
    for _ in range(DRAWING.pieces):
        piece = others[rng.integers(len(others), size=n), rng.integers(len(FACES), size=n)]
        angle, distance = rng.uniform(0, 2 * math.pi, n), rng.uniform(0.45, 0.6, n)
        place = distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        coverage = np.maximum(coverage, bend(piece, _bends(rng, n), place, side))
    ink = rng.uniform(*DRAWING.contrast, (n, 1, 1)) * coverage
    grey = DRAWING.paper - ink + rng.normal(0, DRAWING.noise, coverage.shape)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _bends(rng: np.random.Generator, n: int) -> Floats:
    """Random linear maps from a place in a drawing to one in the upright character, float64 ``[n, 2, 2]``."""
    angle = np.radians(rng.uniform(-DRAWING.rotation, DRAWING.rotation, n))
    shear = rng.uniform(-DRAWING.shear, DRAWING.shear, n)
    width, height = np.exp(rng.uniform(-1, 1, (2, n)) * math.log(DRAWING.stretch))
    cos, sin = np.cos(angle), np.sin(angle)
    rows = [(cos - shear * sin) / width, (sin + shear * cos) / width, -sin / height, cos / height]
    return np.stack(rows, axis=1).reshape(n, 2, 2)


def bend(images: Pixels, bends: Floats, shifts: Floats, side: int) -> Floats:
    """Bends and moves images, and reduces them to another size.

    Args:
        images: uint8 ``[n, CANVAS, CANVAS]``.
        bends: maps from a place in the result to one in the image, both from the centre, float64 ``[n, 2, 2]``.
        shifts: to the right and down, as shares of the side, float64 ``[n, 2]``.
        side: of the result, in pixels.

    Returns:
        The share of each pixel that is ink, float64 ``[n, side, side]``.
    """
    axis = (np.arange(side * SAMPLES) + 0.5) * (2 / (side * SAMPLES)) - 1  # grid_sample has the sides at -1 and 1
    x, y = (axis - 2 * shift[:, None] for shift in shifts.T)
    x, y = x[:, None, :], y[:, :, None]
    grid = np.stack([row[:, 0, None, None] * x + row[:, 1, None, None] * y for row in (bends[:, 0], bends[:, 1])], -1)
    ink = F.grid_sample(torch.from_numpy(images / 255)[:, None], torch.from_numpy(grid), align_corners=False)
    bent: Floats = F.avg_pool2d(ink, SAMPLES)[:, 0].numpy()
    return bent


# ---------------------------------------------------------------------- the task's images


def count_characters() -> int:
    """The number of classes that there are."""
    return sum(1 for _ in characters())


def read_glyphs(numbers: Sequence[int], side: int, cache: Path) -> tuple[tuple[str, ...], Tensor]:
    """The drawings of some characters, from the cache or drawn and written there.

    A cached file that is damaged is made anew; a cache that cannot be written is done without.

    Args:
        numbers: of the characters, ascending.
        side: of the images, in pixels.
        cache: folder.

    Returns:
        The characters, and their drawings, uint8 ``[drawings, characters, 1, side, side]``.
    """
    found = dict(enumerate(islice(characters(), max(numbers[-1] + 1, CLASSES))))
    names = tuple(found[number][0] for number in numbers)
    path = cache / f"glyphs-{_version(names, side)}.pt"
    shape = TRAIN + VALID + TEST, len(names), 1, side, side
    try:
        images = load_tensors(path)
        if isinstance(images, Tensor) and images.dtype == torch.uint8 and images.shape == shape:
            return names, images
    except (OSError, ValueError):
        pass  # not there, or damaged
    others = np.stack([found[number][1] for number in range(CLASSES)])
    drawn = np.stack([draw(*found[number], others, side) for number in numbers], axis=1)
    images = torch.from_numpy(drawn).unsqueeze(2)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        save_tensors(path, images)
    except OSError:
        pass  # a full disk or a folder of others: the next one draws again
    return names, images


def _version(names: Sequence[str], side: int) -> str:
    """A text that changes with anything that the drawings depend on."""
    import matplotlib
    from matplotlib.ft2font import __freetype_version__ as freetype

    libraries = matplotlib.__version__, freetype, np.__version__, torch.__version__
    return checksum(repr((names, side, SEED, TRAIN, VALID, TEST, CANVAS, EM, BASELINE, SAMPLES, DRAWING, libraries)))
