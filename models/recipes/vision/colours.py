"""Colours and their names: wide ranges of shades, with gaps between them where people would not agree."""

from __future__ import annotations

from colorsys import hsv_to_rgb
from dataclasses import dataclass
from random import Random

RGB = tuple[int, int, int]  # 0 to 255
_CELL = 8  # shades are kept out of training by cubes of this edge
_EVERY = 7  # one cube in so many


@dataclass(frozen=True, slots=True)
class Shades:
    """All that one name means, as ranges of hue (degrees; below 0 goes on from 360), saturation and value."""

    name: str
    hue: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]

    def pick(self, rng: Random, unseen: bool) -> RGB:
        """Any of them; of those kept out of training if `unseen`, else of the others."""
        while True:
            hue, saturation, value = (rng.uniform(*span) for span in (self.hue, self.saturation, self.value))
            red, green, blue = (round(255 * part) for part in hsv_to_rgb(hue / 360 % 1, saturation, value))
            if held_out((red, green, blue)) == unseen:
                return red, green, blue


COLOURS = (
    Shades("red", (-12, 9), (0.8, 1), (0.6, 1)),
    Shades("orange", (22, 40), (0.8, 1), (0.85, 1)),
    Shades("yellow", (50, 63), (0.6, 1), (0.85, 1)),
    Shades("green", (90, 150), (0.5, 1), (0.35, 1)),
    Shades("blue", (205, 245), (0.6, 1), (0.45, 1)),
    Shades("purple", (268, 302), (0.5, 1), (0.4, 0.8)),
    Shades("pink", (322, 352), (0.22, 0.6), (0.9, 1)),
    Shades("brown", (15, 32), (0.5, 0.9), (0.3, 0.6)),
    Shades("black", (0, 360), (0, 1), (0, 0.1)),
    Shades("white", (0, 360), (0, 0.04), (0.95, 1)),
    Shades("grey", (0, 360), (0, 0.08), (0.35, 0.78)),
)
NAMES = tuple(shades.name for shades in COLOURS)


def held_out(shade: RGB) -> bool:
    """Whether this shade is kept for the evaluation. Pure red, green, blue, yellow, black and white are not."""
    red, green, blue = (part // _CELL for part in shade)
    return (red + 3 * green + 5 * blue) % _EVERY == 1
