"""What a page looks like, in numbers: sizes of targets, contrast of texts, width; of what is visible."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

MIN_TARGET, MIN_CONTRAST = 48, 4.5

_VISIBLE = """
const visible = (element) => {
  if (!element.checkVisibility({opacityProperty: true, visibilityProperty: true})) return false;
  if (element.closest('[inert]')) return false;
  const r = element.getBoundingClientRect();
  return r.width > 1 && r.height > 1 && r.right > 0 && r.bottom > 0 && r.left < innerWidth && r.top < innerHeight;
};
const name = (e) => e.tagName.toLowerCase() + (e.dataset.testid ? '#' + e.dataset.testid : '.' + e.className)
  + ' "' + (e.getAttribute('aria-label') || e.textContent || '').trim().slice(0, 40) + '"';
"""

_TARGETS = """() => {
%s
const wanted = 'button, a[href], input, select, textarea, summary, [tabindex]:not([tabindex="-1"]),'
  + '[role=button], [role=switch], [role=radio], [role=tab], [role=slider], [role=checkbox]';
const found = [];
for (const element of document.querySelectorAll(wanted)) {
  // A box or a radio is as large as the label that also works it.
  const target = element.matches('input') && element.closest('label') ? element.closest('label') : element;
  if (!visible(target) || element.matches('input[type=file], input[type=hidden]')) continue;
  const r = target.getBoundingClientRect();
  const out = Math.max(-r.left, r.right - innerWidth, 0);
  found.push({name: name(target), width: r.width, height: r.height, out});
}
return found;
}"""

# What lies below a text is looked up where the text is, since overlays lie over the photo and not in it. A picture or
# film below a half-transparent ground may be white or black: the worse of the two counts.
_CONTRAST = """() => {
%s
const all = new CSSStyleSheet();
all.replaceSync('* { pointer-events: auto !important; transition: none !important; animation: none !important }');
document.adoptedStyleSheets.push(all);
const probe = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
const colours = new Map();
const colour = (text) => {
  if (!colours.has(text)) {
    probe.clearRect(0, 0, 1, 1);
    probe.fillStyle = text;
    probe.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = probe.getImageData(0, 0, 1, 1).data;
    colours.set(text, [r, g, b, a / 255]);
  }
  return colours.get(text);
};
const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
const luminance = ([r, g, b]) => {
  const f = (c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
};
const ratio = (a, b) => {
  const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p);
  return (x + 0.05) / (y + 0.05);
};
const empty = (picture) => {
  if (picture.matches('video')) return !picture.srcObject && !picture.currentSrc;
  if (picture.matches('img')) return !picture.naturalWidth;
  const small = new OffscreenCanvas(8, 8).getContext('2d', {willReadFrequently: true});
  small.drawImage(picture, 0, 0, 8, 8);
  return small.getImageData(0, 0, 8, 8).data.every((byte) => byte === 0);
};
const grounds = (element, x, y) => {
  const layers = [];
  const stack = document.elementsFromPoint(x, y);
  const from = stack.indexOf(element);
  if (from < 0) return null;  // something else covers this text
  for (const below of stack.slice(from)) {
    const picture = below.matches('canvas, img, video') && !empty(below);
    if (below !== element && picture) return [[255, 255, 255, 1], [0, 0, 0, 1]].map(
      (last) => layers.reduceRight((ground, layer) => over(layer, ground), last));
    const style = getComputedStyle(below);
    const stops = style.backgroundImage.match(/(?:rgba?|oklch|oklab|color)\\([^()]*\\)/g);
    if (style.backgroundImage.includes('gradient') && stops) {
      const ends = stops.map(colour);
      return ends.map((last) => layers.reduceRight((ground, layer) => over(layer, ground), over(last, [0, 0, 0, 1])));
    }
    const ground = colour(style.backgroundColor);
    if (ground[3] > 0) layers.push(ground);
    if (ground[3] === 1) break;
  }
  return [layers.reduceRight((ground, layer) => over(layer, ground), [255, 255, 255, 1])];
};
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || element.matches('script, style, noscript, template, option')) continue;
  if (!visible(element) || element.closest(':disabled, [aria-disabled=true]')) continue;
  const range = document.createRange();
  range.selectNodeContents(walker.currentNode);
  const rect = [...range.getClientRects()].find((r) => r.width > 1 && r.height > 1);
  if (!rect) continue;
  const below = grounds(element, rect.left + Math.min(4, rect.width / 2), rect.top + rect.height / 2);
  if (!below) continue;
  const text = colour(getComputedStyle(element).color);
  const contrast = Math.min(...below.map((ground) => ratio(over(text, ground), ground)));
  found.push({name: name(element), contrast});
}
document.adoptedStyleSheets.pop();
return found;
}"""


def _targets(page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate(_TARGETS % _VISIBLE)
    assert found, "no control is visible"
    return found


def cut_off_targets(page: Page) -> list[str]:
    """Controls that stick out of the window to the left or right, where nothing can be scrolled."""
    return [f"{t['name']} by {t['out']:.0f}" for t in _targets(page) if t["out"] > 1]


def small_targets(page: Page) -> list[str]:
    """Visible controls below 48 x 48 CSS pixels; the page must have some controls at all."""
    return [
        f"{t['name']} {t['width']:.1f}x{t['height']:.1f}"
        for t in _targets(page)
        if min(t["width"], t["height"]) < MIN_TARGET - 0.01
    ]


def faint_texts(page: Page) -> list[str]:
    """Visible texts, of controls that work, whose contrast is below 4.5."""
    found: list[dict[str, Any]] = page.evaluate(_CONTRAST % _VISIBLE)
    assert found, "no text is visible"
    return [f"{t['name']} {t['contrast']:.2f}" for t in found if t["contrast"] < MIN_CONTRAST]


def overhang(page: Page) -> int:
    """CSS pixels by which the page is wider than its window."""
    return int(page.evaluate("document.scrollingElement.scrollWidth - innerWidth"))
