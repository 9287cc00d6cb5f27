"""The student's decoder: prompts drawn as maps, fused with the image's features, masks and predicted IoUs out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from boothsam.training.appearance import DraftLikeness, PromptLikeness, paint, share_out
from boothsam.training.layers import DecoderBlock, GroupNorm, StudentConfig, up
from torch import Tensor, nn


class PromptMaps(nn.Module):
    """Draws prompts as maps on the coarse grid and says where to look for evidence.

    Points arrive in pixels of a `frame` x `frame` picture; SAM's 0.5 is added here. Labels as SAM's: 1 foreground,
    0 background, 2 and 3 a box's corners, -1 padding. forward -> maps (P, MAPS, G, G) and windows (P, 4, G * G): where
    foreground clicks, background clicks, the box's middle and the box's surroundings are, each summing to at most 1.
    """

    MAPS = 17
    WITHIN = 6  # which map is 1 inside the box
    NEAR, MIDDLE, FAR = 0.012, 0.05, 0.2

    def __init__(self, frame: int) -> None:
        super().__init__()
        self.frame = frame

    def _clicks(self, points: Tensor, chosen: Tensor, centres: Tensor) -> list[Tensor]:
        """Gaussians of three widths about the chosen points, (P, G, G) each, the largest where several reach."""
        dx = (centres[None, None, :] - points[:, :, 0:1]) ** 2
        dy = (centres[None, None, :] - points[:, :, 1:2]) ** 2
        maps = []
        for sigma in (self.NEAR, self.MIDDLE, self.FAR):
            row = torch.exp(dx * (-0.5 / sigma**2))
            column = torch.exp(dy * (-0.5 / sigma**2)) * chosen[:, :, None]
            maps.append((column[:, :, :, None] * row[:, :, None, :]).amax(1))
        return maps

    def forward(self, coords: Tensor, labels: Tensor, grid: int) -> tuple[Tensor, Tensor]:
        # One row that is no point: a mask prompt comes without any, and a maximum over nothing is not defined.
        marks = labels.float()
        coords = torch.cat([coords, coords.sum(1, keepdim=True) * 0], 1)
        labels = torch.cat([marks, marks.sum(1, keepdim=True) * 0 - 1], 1)
        points = (coords + 0.5) * (1.0 / self.frame)
        centres = (torch.arange(grid, dtype=torch.float32, device=coords.device) + 0.5) / grid
        one = (labels == 1).float()
        zero = (labels == 0).float()
        low, high = (labels == 2).float()[:, :, None], (labels == 3).float()[:, :, None]
        foreground = self._clicks(points, one, centres)
        background = self._clicks(points, zero, centres)
        has_box = high.amax(1)[:, :, None]  # (P, 1, 1)
        start, end = (points * low).sum(1), (points * high).sum(1)  # (P, 2)
        size = (end - start).clamp(min=1e-3)
        x, y = centres[None, None, :], centres[None, :, None]
        x0, y0, x1, y1 = (v[:, None, None] for v in (start[:, 0], start[:, 1], end[:, 0], end[:, 1]))
        w, h = size[:, 0][:, None, None], size[:, 1][:, None, None]
        inside = torch.minimum(torch.minimum(x - x0, x1 - x), torch.minimum(y - y0, y1 - y))
        u = ((x - x0) / w * 2 - 1).clamp(-2, 2) + 0 * y
        v = ((y - y0) / h * 2 - 1).clamp(-2, 2) + 0 * x
        middle = torch.exp(-2.5 * (u * u + v * v)) * has_box
        within = torch.sigmoid(inside * 60) * has_box
        around = torch.sigmoid((inside + 0.06) * 60) * has_box - within
        any_click = one.amax(1)[:, None, None]
        blank = torch.zeros_like(within)
        maps = torch.stack(
            [
                *foreground,
                *background,
                within,
                torch.tanh(inside * 4) * has_box,
                torch.tanh(inside * 25) * has_box,
                u * has_box,
                v * has_box,
                torch.sqrt(w * h) * has_box + blank,
                torch.log(w / h) * has_box * 0.5 + blank,
                has_box + blank,
                any_click + blank,
                zero.amax(1)[:, None, None] + blank,
                middle,
            ],
            1,
        )
        windows = torch.stack([foreground[0], background[0], middle, around.clamp(min=0)], 1).flatten(2)
        return maps, windows / (windows.sum(2, keepdim=True) + 1e-4)


class MaskEncoder(nn.Module):
    """Previous logits (P, 1, M, M) -> dense map (P, C, M / 8, M / 8); an image without one gets `nothing` instead."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(
            nn.Conv2d(2, 16, 2, 2), nn.ReLU(), nn.Conv2d(16, 32, 2, 2), nn.ReLU(), nn.Conv2d(32, channels, 1)
        )
        self.nothing = nn.Parameter(torch.zeros(channels))

    def forward(self, mask: Tensor) -> Tensor:
        mask = F.avg_pool2d(mask, 2)
        dense: Tensor = self.reduce(torch.cat([torch.tanh(mask * 0.25), torch.sigmoid(mask)], 1))
        return dense


class Decoder(nn.Module):
    """Prompts and an image's features -> (P, 4, S/4, S/4) logits and (P, 4) predicted IoUs.

    Token 0 is the single mask; 1 to 3 are candidates for whole, part and group, as in SAM.
    """

    TOKENS = 4
    HEADS = 8

    def __init__(self, config: StudentConfig, frame: int = 1024) -> None:
        super().__init__()
        width, deep = config.embedding, config.deep
        self.prompts = PromptMaps(frame)
        self.masks = MaskEncoder(width)
        self.key = nn.Conv2d(width, 64, 1)
        self.query = nn.Linear(width, 64)
        self.draw = nn.Conv2d(PromptMaps.MAPS + 4 * self.HEADS, width, 1)
        self.evidence = nn.Sequential(nn.Linear(4 * width, width), nn.ReLU(), nn.Linear(width, 2 * width))
        self.enter = DecoderBlock(width, 48)
        self.down_32 = nn.Conv2d(width, deep, 2, 2)
        self.block_32a = nn.Sequential(DecoderBlock(deep, 64), DecoderBlock(deep, 64))
        self.block_64 = nn.Sequential(DecoderBlock(deep, 64), DecoderBlock(deep, 64))
        self.context = nn.Sequential(nn.Linear(deep, deep), nn.ReLU(), nn.Linear(deep, deep))
        self.block_32b = DecoderBlock(deep, 64)
        self.up_16 = nn.Conv2d(deep, width, 1)
        self.leave = DecoderBlock(width, 48)
        self.up_8 = nn.Conv2d(width, config.features_16, 1)
        self.norm_8 = GroupNorm(config.features_16)
        self.fine_8 = nn.Conv2d(config.features_16, config.features_16, 3, padding=1)
        self.up_4 = nn.Conv2d(config.features_16, config.features_8, 1)
        self.fine_4 = nn.Conv2d(config.features_8, config.features_8, 3, padding=1)
        self.coarse = nn.Conv2d(config.features_16, self.TOKENS, 1)
        self.fine = nn.Conv2d(config.features_8, self.TOKENS, 1)
        self.up_2 = nn.Conv2d(config.features_8, config.features_4, 1)
        self.fine_2 = nn.Conv2d(config.features_4, config.features_4, 3, padding=1)
        self.sharp = nn.Conv2d(config.features_4, self.TOKENS, 1)
        nn.init.normal_(self.sharp.weight, std=0.02)
        self.likeness, self.draft = PromptLikeness(), DraftLikeness()
        kinds = PromptLikeness.KINDS
        self.like_32 = _silent(nn.Conv2d(kinds, width, 1))
        self.like_16 = _silent(nn.Conv2d(kinds, config.features_16, 1))
        self.like_8 = _silent(nn.Conv2d(kinds, config.features_8, 1))
        self.repaint_8 = _silent(nn.Conv2d(2 * self.TOKENS, config.features_4, 1))
        self.repaint_4 = _silent(nn.Conv2d(self.TOKENS, config.features_4, 1))
        self.finer_2 = _silent(nn.Conv2d(config.features_4, config.features_4, 3, padding=1))
        self.direct = _silent(nn.Conv2d(self.TOKENS, self.TOKENS, 1))
        self.separation = nn.Linear(2, 128, bias=False)
        nn.init.zeros_(self.separation.weight)
        pooled = 2 * config.features_16 + width + 4
        self.iou = nn.Sequential(
            nn.Linear(pooled, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, self.TOKENS)
        )

    def forward(
        self,
        embedding: Tensor,
        features_16: Tensor,
        features_8: Tensor,
        features_4: Tensor,
        looks_8: Tensor,
        looks_4: Tensor,
        coords: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        has_mask: Tensor | None = None,
        image_of: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode P prompts.

        embedding (B, C, G, G), features_16, _8 and _4 of 2, 4 and 8 times that side, looks_8 and _4 of 4 and 8 times;
        coords (P, N, 2) in frame pixels; labels (P, N). mask (P, 1, 8G, 8G) holds previous logits; with `has_mask` (P,)
        only the prompts marked 1 use theirs. image_of (P,), ascending, says which image a prompt belongs to; without
        it B is 1.
        """
        grid = int(embedding.shape[2])
        maps, windows = self.prompts(coords, labels, grid)
        looks_16 = F.avg_pool2d(looks_8, 2)
        ratios = self._like_prompt(coords, labels, looks_16, image_of)
        keys = self.key(embedding)
        e8, e4, e2 = features_16, features_8, features_4
        if image_of is not None:
            embedding, keys, e8, e4, e2 = (t[image_of] for t in (embedding, keys, e8, e4, e2))
        flat = embedding.flatten(2).transpose(1, 2)  # (B or P, G*G, C)
        seen = torch.matmul(windows.to(flat.dtype), flat)  # (P, 4, C)
        alike = self._similarity(seen, keys, grid)
        x = embedding + self.draw(torch.cat([maps.to(alike.dtype), alike], 1))
        scale, shift = self.evidence(seen.flatten(1)).chunk(2, 1)
        x = x * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        x = x + self._dense(mask, has_mask) + self.like_32(paint(ratios, F.avg_pool2d(looks_16, 2), image_of))
        x16 = self.enter(x)
        x32 = self.block_32a(self.down_32(x16))
        x64 = self.block_64(F.avg_pool2d(x32, 2))
        x64 = x64 + self.context(x64.mean((2, 3)))[:, :, None, None]
        x32 = self.block_32b(x32 + up(x64))
        x16 = self.leave(x16 + up(self.up_16(x32)))
        x8 = F.relu(self.norm_8(up(self.up_8(x16)) + e8) + self.like_16(paint(ratios, looks_16, image_of)))
        x8 = x8 + F.relu(self.fine_8(x8))
        x4 = F.relu(up(self.up_4(x8)) + e4 + self.like_8(paint(ratios, looks_8, image_of)))
        x4 = x4 + F.relu(self.fine_4(x4))
        draft = self.fine(x4) + up(self.coarse(x8))
        share = F.avg_pool2d(torch.sigmoid(draft.detach().float()), 2)  # (P, 4, 2G, 2G)
        same_8, apart = self.draft(share, looks_16.float(), image_of)
        same_4, _ = self.draft(share, F.avg_pool2d(looks_4, 4).float(), image_of)
        painted_8 = torch.cat([paint(same_8, looks_8, image_of), torch.tanh(draft * 0.3)], 1)
        painted_4 = paint(same_4, looks_4, image_of)
        x2 = F.relu(up(self.up_2(x4) + self.repaint_8(painted_8)) + e2 + self.repaint_4(painted_4))
        x2 = x2 + F.relu(self.fine_2(x2))
        x2 = x2 + F.relu(self.finer_2(x2))
        logits = (self.sharp(x2) + self.direct(painted_4) + up(draft)).float()
        return logits, self._scores(share, apart, x8.float(), x16.float())

    def _like_prompt(self, coords: Tensor, labels: Tensor, looks: Tensor, image_of: Tensor | None) -> Tensor:
        maps, windows = self.prompts(coords, labels, int(looks.shape[2]))
        within = share_out(maps[:, PromptMaps.WITHIN : PromptMaps.WITHIN + 1])
        answer: Tensor = self.likeness(torch.cat([windows, within], 1), looks.float(), image_of)
        return answer

    def _similarity(self, seen: Tensor, keys: Tensor, grid: int) -> Tensor:
        """How much every place looks like the four pieces of evidence, per head: (P, 4 * HEADS, G, G)."""
        depth = keys.shape[1] // self.HEADS
        query = self.query(seen).reshape(-1, 4, self.HEADS, depth).transpose(1, 2)  # (P, H, 4, d)
        spread = keys.reshape(-1, self.HEADS, depth, grid * grid)
        likeness = torch.matmul(query * (1.0 / depth**0.5), spread)  # (P, H, 4, G*G)
        return likeness.reshape(-1, 4 * self.HEADS, grid, grid)

    def _dense(self, mask: Tensor | None, has_mask: Tensor | None) -> Tensor:
        nothing = self.masks.nothing[None, :, None, None]
        if mask is None:
            return nothing
        dense: Tensor = self.masks(mask)
        if has_mask is None:
            return dense
        used = has_mask.to(dense.dtype)[:, None, None, None]
        return dense * used + nothing * (1 - used)

    def _scores(self, share: Tensor, apart: Tensor, x8: Tensor, x16: Tensor) -> Tensor:
        """Predicted IoU of each token from the features inside its mask and on its rim, its size and its sureness."""
        count = float(share.shape[2] * share.shape[3])
        share = share.flatten(2)  # (P, 4, 4G*G)
        rim = share * (1 - share)
        features = x8.flatten(2).transpose(1, 2)  # (P, 4G*G, C8)
        area, doubt = share.sum(2, keepdim=True), rim.sum(2, keepdim=True)
        within = torch.matmul(share, features) / (area + 1.0)
        border = torch.matmul(rim, features) / (doubt + 1.0)
        sure = torch.cat(
            [
                torch.sqrt(area / count),
                doubt / (area + 1.0),
                torch.sqrt(doubt / count),
                share.amax(2, keepdim=True),
            ],
            2,
        )
        whole = x16.mean((2, 3))[:, None, :] + 0 * area
        first, *others = self.iou
        hidden = first(torch.cat([within, border, whole, sure], 2)) + self.separation(apart)
        for layer in others:
            hidden = layer(hidden)  # (P, 4, TOKENS) in the end: the token's own on the diagonal
        return torch.sigmoid((hidden * torch.eye(self.TOKENS, device=hidden.device)).sum(2))


def _silent(layer: nn.Conv2d) -> nn.Conv2d:
    """A convolution that answers nothing yet, so that it can be added to a trained decoder."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
