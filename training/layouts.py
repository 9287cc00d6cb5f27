"""How things stand in a scene: in a booth, in a row, on shelves, in heaps, in a hand, or anywhere."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from boothsam.training.hands import grip, hand
from boothsam.training.lighting import clip
from boothsam.training.objects import Maker, make_object, real_product
from boothsam.training.packages import package, pouch
from boothsam.training.produce import fruit, grow, random_sort
from boothsam.training.shapes import Layer
from boothsam.training.sources import Sources
from boothsam.training.stage import Stage, trim, turn
from boothsam.training.textures import Rng
from boothsam.training.turned import bottle

Layout = Callable[[Rng, Stage, Sources], None]


def _thing(rng: Rng, side: float, sources: Sources) -> list[Layer]:
    return make_object(rng, max(12, int(side)), sources.photos, sources.cutouts, sources.favour)


def _size(rng: Rng, stage: Stage, low: float, high: float) -> float:
    """Side of a patch in pixels: log-uniform shares of the frame's shorter side."""
    return min(stage.size) * float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _light(rng: Rng) -> float:
    return float(rng.uniform(0.75, 1.12)) if rng.random() < 0.6 else 1.0


def camouflage(rng: Rng, stage: Stage, layers: list[Layer]) -> None:
    """Bring the still empty backdrop close to a thing's colour: white on white, dark on dark."""
    solid = layers[0].alpha > 0.5
    if solid.any() and float(stage.canvas.std((0, 1)).mean()) < 35:  # a busy photo would only turn strange
        wanted = np.median(layers[0].rgb[solid][::7], axis=0) + rng.normal(0, 6, 3).astype(np.float32)
        stage.canvas += (wanted - stage.canvas.mean((0, 1))) * np.float32(rng.uniform(0.8, 1.0))
        np.clip(stage.canvas, 0, 255, out=stage.canvas)


def standing(rng: Rng, stage: Stage, sources: Sources) -> None:
    """One to six things upright on a floor, the nearer ones lower and over the others; the product photo."""
    height, width = stage.size
    crowd = int(rng.choice([1, 2, 3, 4, 6], p=[0.46, 0.22, 0.16, 0.1, 0.06]))
    low, high = (0.45, 1.35) if crowd == 1 else (0.25, 0.95)
    feet = np.sort(rng.uniform(0.55, 1.02, crowd))
    middle = rng.uniform(0.35, 0.65)
    for index, foot in enumerate(feet):
        layers = trim(turn(_thing(rng, _size(rng, stage, low, high), sources), float(rng.normal(0, 1.5)), False))
        if index == 0 and rng.random() < 0.14:
            camouflage(rng, stage, layers)
        h, w = layers[0].alpha.shape
        x = rng.normal(middle, 0.12) if crowd == 1 else (index + rng.uniform(0.2, 0.8)) / crowd
        if crowd > 1 and rng.random() < 0.3:
            x = rng.uniform(0.1, 0.9)
        bottom = max(foot * height, min(0.97 * height, h + 0.02 * height)) if rng.random() < 0.85 else foot * height
        stage.put(rng, layers, int(x * width - w / 2), int(bottom - h), standing=True, light=_light(rng))


def scattered(rng: Rng, stage: Stage, sources: Sources) -> None:
    """One to six things anywhere, at any angle, over each other and over the border."""
    height, width = stage.size
    crowd = int(rng.choice([1, 2, 3, 4, 5, 6], p=[0.26, 0.2, 0.2, 0.14, 0.1, 0.1]))
    low, high = (0.25, 1.4) if crowd == 1 else (0.18, 1.0)
    for _ in range(crowd):
        angle = rng.normal(0, 5) if rng.random() < 0.6 else rng.uniform(0, 360)
        made = turn(_thing(rng, _size(rng, stage, low, high), sources), float(angle), bool(rng.random() < 0.2))
        layers = trim(made)
        h, w = layers[0].alpha.shape
        over = 0.35 if rng.random() < 0.3 else 0.02
        spans = width - w * (1 - 2 * over), height - h * (1 - 2 * over)
        x, y = (int(rng.uniform(min(0.0, s), max(0.0, s))) for s in spans)
        stage.put(rng, layers, x - int(w * over), y - int(h * over), standing=False, light=_light(rng))


def close_up(rng: Rng, stage: Stage, sources: Sources) -> None:
    """One thing that fills the frame or reaches over its border, perhaps with another in front of it."""
    height, width = stage.size
    for share in (rng.uniform(0.9, 1.8), rng.uniform(0.15, 0.5))[: 1 if rng.random() < 0.65 else 2]:
        layers = trim(turn(_thing(rng, share * min(stage.size), sources), float(rng.normal(0, 6)), False))
        if share > 0.6 and rng.random() < 0.14:
            camouflage(rng, stage, layers)
        h, w = layers[0].alpha.shape
        x, y = rng.normal(0.5, 0.1 if share > 0.6 else 0.3, 2)
        stage.put(rng, layers, int(x * width - w / 2), int(y * height - h / 2), standing=bool(rng.random() < 0.5))


def _choice(rng: Rng, sources: Sources, makers: list[Maker], shares: list[float]) -> Maker:
    usable = np.array([maker is not real_product or len(sources.cutouts) > 0 for maker in makers])
    weights = np.array(shares) * usable
    return makers[int(rng.choice(len(makers), p=weights / weights.sum()))]


def shelves(rng: Rng, stage: Stage, sources: Sources) -> None:
    """Boards of packages that touch their equals; every package is a thing of its own, the boards are backdrop."""
    height, width = stage.size
    boards = int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))
    step = height / (boards - rng.uniform(0.0, 0.35))
    deep = rng.random() < 0.6
    tone = np.full(3, rng.uniform(60, 240), np.float32) + rng.normal(0, 8, 3).astype(np.float32)
    stage.canvas *= np.float32(rng.uniform(0.25, 0.8))
    for board in range(boards + 1):
        floor = step * (board + 1) - rng.uniform(0, 0.05) * step
        x = -rng.uniform(0, 0.15) * width
        while x < width and not stage.full:
            tall = step * rng.uniform(0.55, 0.88)
            maker = _choice(rng, sources, [real_product, package, bottle, pouch], [0.22, 0.5, 0.22, 0.06])
            kind = trim(maker(rng, max(14, int(tall)), sources.photos, sources.cutouts))
            wide = kind[0].alpha.shape[1]
            count, gap = int(rng.integers(2, 8)), rng.choice([-0.03, 0.0, 0.02, 0.1]) * wide
            places = [x + k * (wide + gap) for k in range(count) if x + k * (wide + gap) < width]
            tall_in_pixels = kind[0].alpha.shape[0]
            for place in places if deep else ():  # the same package once more, further back in the dark
                back = int(place + rng.uniform(-0.05, 0.05) * wide), int(floor - 1.05 * tall_in_pixels)
                stage.put(rng, kind, *back, standing=True, light=0.55, shadow=False)
            for place in places:
                tilted = trim(turn(kind, float(rng.normal(0, 2)), False)) if rng.random() < 0.3 else kind
                top = int(floor - tilted[0].alpha.shape[0] + rng.normal(0, 0.006) * step)
                stage.put(rng, tilted, int(place), top, standing=True, light=rng.uniform(0.85, 1.08), shadow=False)
            x += count * (wide + gap)
            x += rng.choice([0.0, 0.02, 0.15]) * width
        _board(rng, stage, floor, step, tone)
    if rng.random() < 0.35:
        hold(rng, stage, sources)


def _board(rng: Rng, stage: Stage, floor: float, step: float, tone: np.ndarray) -> None:
    """A shelf's front edge with price tags, in front of what stands behind it."""
    y0, y1 = int(floor), int(floor + max(3.0, step * rng.uniform(0.03, 0.12)))
    if y0 >= stage.size[0] or y0 < 0:
        return
    stage.canvas[y0:y1] = tone * np.float32(rng.uniform(0.7, 1.1))
    stage.canvas[y0 : y0 + 1] *= np.float32(0.6)
    stage.instances[y0:y1], stage.parts[y0:y1] = 0, 0
    x = int(rng.uniform(0, 0.2) * stage.size[1])
    while x < stage.size[1]:
        wide = int((y1 - y0) * rng.uniform(1.2, 2.5)) + 2
        stage.canvas[y0 + 1 : y1 - 1, x : x + wide] = np.float32(rng.uniform(200, 250))
        stage.canvas[(y0 + y1) // 2 : y1 - 2, x + wide // 3 : x + wide - 2] *= np.float32(0.4)
        x += wide + int(rng.uniform(0.05, 0.3) * stage.size[1])


def heap(rng: Rng, stage: Stage, sources: Sources) -> None:
    """Many of one or two kinds over each other, filling the frame, a crate or a corner of it."""
    height, width = stage.size
    maker = _choice(rng, sources, [fruit, real_product, package, bottle, pouch], [0.62, 0.2, 0.08, 0.05, 0.05])
    side = min(stage.size) * float(np.exp(rng.uniform(np.log(0.13), np.log(0.42))))
    if maker is fruit:  # one sort, grown differently each time; now and then two
        sorts = [random_sort(rng) for _ in range(1 if rng.random() < 0.8 else 2)]
        kinds = [
            grow(rng, int(side * rng.uniform(0.85, 1.15)), sources.photos, sorts[k % len(sorts)]) for k in range(6)
        ]
    else:
        kinds = [maker(rng, max(12, int(side)), sources.photos, sources.cutouts) for _ in range(2)]
    whole = rng.random() < 0.6
    box = (0.0, 0.0, 1.0, 1.0) if whole else (*rng.uniform(0.0, 0.35, 2), *rng.uniform(0.6, 1.0, 2))
    pace = side * rng.uniform(0.55, 0.85)
    if rng.random() < 0.5:
        stage.canvas *= np.float32(rng.uniform(0.2, 0.6))
    turning = rng.random() < 0.7
    y = box[1] * height
    while y < box[3] * height + (pace if whole else 0):
        x = box[0] * width + rng.uniform(0, pace)
        while x < box[2] * width + (pace if whole else 0):
            if rng.random() < 0.93:
                kind = kinds[int(rng.integers(len(kinds)))]
                # Drawn fruit is lit from one side already, so it must not be turned much.
                spread = 35 if maker is fruit else 6
                angle = rng.uniform(0, 360) if turning and maker is not fruit else rng.normal(0, spread)
                layers = trim(turn(kind, float(angle), False))
                h, w = layers[0].alpha.shape
                jitter = rng.normal(0, 0.12 * side, 2)
                place = int(x - w / 2 + jitter[0]), int(y - h / 2 + jitter[1])
                stage.put(rng, layers, *place, standing=False, light=float(rng.uniform(0.7, 1.1)))
            x += pace
        y += pace
    if rng.random() < 0.25:
        _edge(rng, stage)
    if rng.random() < 0.15:
        hold(rng, stage, sources)


def _edge(rng: Rng, stage: Stage) -> None:
    """The side of a crate before the heap: a band along one border, backdrop."""
    height = stage.size[0]
    band = int(rng.uniform(0.04, 0.2) * height)
    tone = np.array([rng.uniform(60, 200)] * 3, np.float32) * np.array([1.0, 0.85, 0.65], np.float32)
    view = np.s_[height - band :] if rng.random() < 0.7 else np.s_[:, : int(band * 0.8) + 1]
    stage.canvas[view] = tone
    stage.instances[view], stage.parts[view] = 0, 0


def hold(rng: Rng, stage: Stage, sources: Sources) -> None:
    """A hand that holds one thing up before everything else: palm behind it, digits in front; they make no group."""
    height, width = stage.size
    side = int(max(stage.size) * rng.uniform(0.3, 0.95))
    maker = _choice(rng, sources, [real_product, package, bottle, fruit, pouch], [0.42, 0.26, 0.12, 0.15, 0.05])
    small = maker is fruit
    if small:
        side = int(side * 0.6)
    thing = maker(rng, max(24, side), sources.photos, sources.cutouts)
    thing = trim(turn(thing, float(rng.normal(0, 10)), False))[:1]
    h, w = thing[0].alpha.shape
    x = int(rng.normal(0.5, 0.08) * width - w / 2)
    y = int(rng.normal(0.48, 0.08) * height - h / 2)
    filled = np.zeros((height, width), np.float32)
    view, inner = clip(filled, x, y, h, w)
    if view is None or inner is None:
        return
    filled[view] = thing[0].alpha[inner]
    back, front = grip(rng, filled, max(2.0, max(h, w) * rng.uniform(*((0.13, 0.26) if small else (0.085, 0.135)))))
    middle = Layer(np.zeros((height, width, 3), np.float32), filled, np.zeros((height, width), np.uint8), False)
    middle.rgb[view], middle.parts[view] = thing[0].rgb[inner], thing[0].parts[inner]
    if thing[0].through is not None:
        middle.through = np.zeros((height, width), np.float32)
        middle.through[view] = thing[0].through[inner]
    dark = np.asarray(cv2.GaussianBlur(front.alpha, (0, 0), max(1.0, side * 0.012)), np.float32)
    middle.rgb *= (1 - dark * np.float32(rng.uniform(0, 0.5)))[..., None]
    shadow = bool(rng.random() < 0.3)
    stage.put(rng, [back, middle, front], 0, 0, standing=False, light=_light(rng), shadow=shadow)


def reach_in(rng: Rng, stage: Stage, sources: Sources) -> None:
    """A hand that comes in over the border, over whatever is there."""
    height, width = stage.size
    side = int(min(stage.size) * rng.uniform(0.35, 0.9))
    border = int(rng.integers(3))  # bottom, left, right
    angle = (0.0, -90.0, 90.0)[border] + float(rng.normal(0, 10))
    layers = turn(hand(rng, max(24, side), sources.photos, sources.cutouts), angle, False)
    h, w = layers[0].alpha.shape
    over = rng.uniform(0.12, 0.4)
    x = (int(rng.uniform(0, 1) * width - w / 2), int(-over * w), int(width - (1 - over) * w))[border]
    y = int(height - (1 - over) * h) if border == 0 else int(rng.uniform(0.1, 0.9) * height - h / 2)
    stage.put(rng, layers, x, y, standing=False, light=_light(rng))


LAYOUTS: tuple[tuple[Layout, float], ...] = (
    (standing, 0.36),
    (scattered, 0.17),
    (close_up, 0.12),
    (shelves, 0.11),
    (heap, 0.12),
    (hold, 0.12),
)


def arrange(rng: Rng, stage: Stage, sources: Sources) -> None:
    """Fill the stage by a random layout."""
    shares = np.array([share for _, share in LAYOUTS])
    LAYOUTS[int(rng.choice(len(LAYOUTS), p=shares / shares.sum()))][0](rng, stage, sources)
    if rng.random() < 0.05:
        reach_in(rng, stage, sources)
