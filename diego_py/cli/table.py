"""Columns of text, aligned, never wrapped and never cut: what a pipe reads is what a terminal shows. Pure."""

from __future__ import annotations

from collections.abc import Sequence

GAP = "  "


def align(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A line of titles and one a row; columns of numbers stand to the right."""
    columns = [[row[place] for row in rows] for place in range(len(titles))]
    numeric = [bool(column) and all(_is_number(cell) for cell in column) for column in columns]
    widths = [max(map(len, [title, *column])) for title, column in zip(titles, columns, strict=True)]
    lines = []
    for row in [titles, *rows]:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append(GAP.join(cells).rstrip())
    return lines


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).replace("-", "", 1).isdigit()
