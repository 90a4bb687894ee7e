"""Pictures: one plain colour, or two halves; what a projector sees of them, and their files."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TypeVar

from .colours import COLOURS, RGB, Shades

PATCHES = 4  # of a picture, of which each is seen as one colour: upper left, upper right, lower left, lower right


T = TypeVar("T")


def seen(shade: RGB) -> list[float]:
    """A shade as the projector gets it, from -1 to 1."""
    return [part / 127.5 - 1 for part in shade]


class Layout(StrEnum):
    PLAIN = "plain"
    SIDES = "sides"  # left and right
    LEVELS = "levels"  # above and below


@dataclass(frozen=True, slots=True)
class Picture:
    """A layout, with the name and shade of its first colour and of its second; of a plain one both are the same."""

    layout: Layout
    names: tuple[str, str]
    shades: tuple[RGB, RGB]

    def spread(self, pair: tuple[T, T]) -> tuple[T, ...]:
        """What belongs to the first and to the second colour, as the four patches have it."""
        first, second = pair
        return {
            Layout.PLAIN: (first, first, first, first),
            Layout.SIDES: (first, second, first, second),
            Layout.LEVELS: (first, first, second, second),
        }[self.layout]

    def patches(self) -> list[list[float]]:
        """The colours of the patches, from -1 to 1: what llama.cpp makes of the file, for training without it."""
        return [seen(shade) for shade in self.spread(self.shades)]

    def png(self, width: int, height: int) -> bytes:
        """The picture as a file."""
        first, second = (bytes(shade) for shade in self.shades)
        left, top = width // 2, height // 2
        if self.layout is Layout.LEVELS:
            rows = [first * width] * top + [second * width] * (height - top)
        else:
            rows = [first * left + second * (width - left)] * height
        return png(width, height, rows)


def picture(rng: Random, layout: Layout, unseen: bool) -> Picture:
    """A picture of random colours; two halves never bear the same name."""
    one, other = rng.sample(COLOURS, 2)
    return painted(rng, layout, one, one if layout is Layout.PLAIN else other, unseen)


def painted(rng: Random, layout: Layout, one: Shades, other: Shades, unseen: bool) -> Picture:
    """A picture in random shades of these colours."""
    first = one.pick(rng, unseen)
    second = first if layout is Layout.PLAIN else other.pick(rng, unseen)
    return Picture(layout, (one.name, other.name), (first, second))


def png(width: int, height: int, rows: list[bytes]) -> bytes:
    """Rows of RGB pixels as a PNG file (https://www.w3.org/TR/png-3/)."""
    eight_bit_rgb = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = ((b"IHDR", eight_bit_rgb), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
