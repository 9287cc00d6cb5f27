"""Charts as inline SVG: no scripts, no fonts, no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

# Told apart by people who see few colours, too (Okabe and Ito's palette, without its yellow).
COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#d55e00", "#777777")
_WIDTH = 920


def bars(groups: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """Horizontal stacked bars, one per group, the sum written behind each."""
    most = max((sum(parts.values()) for parts in groups.values()), default=0.0) or 1.0
    left, width, row = 190, 620, 34
    lines = []
    for index, (name, parts) in enumerate(groups.items()):
        y, x = index * row + 4, float(left)
        lines.append(f'<text x="{left - 8}" y="{y + 18}" text-anchor="end">{escape(name)}</text>')
        for part, colour in zip(parts, COLOURS, strict=False):
            span = width * parts[part] / most
            lines.append(
                f'<rect x="{x:.1f}" y="{y}" width="{span:.1f}" height="26" fill="{colour}">'
                f"<title>{escape(part)}: {parts[part]:.1f} {unit}</title></rect>"
            )
            x += span
        lines.append(f'<text x="{x + 8:.1f}" y="{y + 18}">{sum(parts.values()):.0f} {unit}</text>')
    said = ", ".join(f"{name} {sum(parts.values()):.0f} {unit}" for name, parts in groups.items())
    return _svg(row * len(groups) + 8, said, lines)


def scatter(points: Mapping[str, tuple[float, float]], x_label: str, y_label: str) -> str:
    """One dot per name at (x, y), x from 0 on; the names stand in a key, since dots may lie on each other."""
    left, right, top, bottom = 70, _WIDTH - 330, 16, 250
    most = 4 * _rounded_up(max((x for x, _ in points.values()), default=1.0) / 3.8)
    low, high = _span([y for _, y in points.values()])
    lines = [
        f'<path d="M{left},{top}V{bottom}H{right}" fill="none" stroke="currentColor"/>',
        f'<text x="{(left + right) / 2:.0f}" y="{bottom + 40}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text transform="translate(16 {(top + bottom) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>",
    ]
    for step in range(5):
        x, y = left + step / 4 * (right - left), bottom - step / 4 * (bottom - top)
        lines += [
            f'<text x="{x:.0f}" y="{bottom + 19}" text-anchor="middle">{step / 4 * most:.0f}</text>',
            f'<text x="{left - 6}" y="{y + 5:.0f}" text-anchor="end">{low + step / 4 * (high - low):.4f}</text>',
        ]
    for index, (name, (x, y)) in enumerate(points.items()):
        at_x, at_y = left + x / most * (right - left), bottom - (y - low) / (high - low) * (bottom - top)
        colour, said = COLOURS[index % len(COLOURS)], f"{name}: {x:.0f}, {y:.4f}"
        # As many corners as names tell apart where colours come again.
        lines.append(_mark(at_x, at_y, index // len(COLOURS), colour, said))
        lines.append(_mark(right + 24, top + 10 + 24 * index, index // len(COLOURS), colour, said))
        lines.append(f'<text x="{right + 38}" y="{top + 15 + 24 * index}">{escape(name)}</text>')
    return _svg(max(bottom + 50, top + 24 * len(points) + 10), f"{x_label}, {y_label}", lines)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """A range of y that holds the values and is never empty."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = max(0.1 * (high - low), 0.001)
    return low - room, min(high + room, 1.0) if high <= 1 else high + room


def _rounded_up(value: float) -> float:
    """To the next number with two digits; 1 for nothing."""
    if value <= 0:
        return 1.0
    unit = float(10 ** (math.floor(math.log10(value)) - 1))
    return math.ceil(value / unit) * unit


def _mark(x: float, y: float, shape: int, colour: str, said: str) -> str:
    title = f"<title>{escape(said)}</title>"
    if shape % 2:
        return f'<rect x="{x - 6:.1f}" y="{y - 6:.1f}" width="12" height="12" fill="{colour}">{title}</rect>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" fill="{colour}">{title}</circle>'


def _svg(height: int, said: str, lines: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(said)}">{"".join(lines)}</svg>'
