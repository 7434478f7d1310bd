"""Groups of bars as SVG, written by hand: no library is needed to draw rectangles."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

WIDTH, LEFT, TOP, ROW, BAR, GAP = 760, 120, 56, 16, 12, 14
COLOURS = ("#1f6feb", "#79b8ff", "#bf8700", "#8c959f")


def bars(title: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """One group below the other; the longest bar takes the width."""
    names = list(next(iter(groups.values())))
    most = max(max(group.values()) for group in groups.values()) or 1.0
    scale = (WIDTH - LEFT - 60) / most
    lines = [_text(12, 20, title, 13)]
    for number, name in enumerate(names):
        x = LEFT + 150 * number
        lines += [_bar(x, 32, 10, COLOURS[number]), _text(x + 16, 42, name)]
    y = TOP
    for group, values in groups.items():
        lines.append(_text(12, y + ROW * len(names) / 2 + 4, group))
        for number, value in enumerate(values.values()):
            length = max(1.0, value * scale)
            lines += [_bar(LEFT, y, length, COLOURS[number]), _text(LEFT + length + 6, y + 10, f"{value:.1f}", 11)]
            y += ROW
        y += GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" font-family="sans-serif">'
    background = f'<rect width="{WIDTH}" height="{y}" fill="white"/>'
    return "\n".join([head, background, *lines, "</svg>", ""])


def _bar(x: float, y: float, length: float, colour: str) -> str:
    return f'<rect x="{x:.0f}" y="{y:.0f}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>'


def _text(x: float, y: float, text: str, size: int = 12) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}">{escape(text)}</text>'
