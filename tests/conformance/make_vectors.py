"""Ask the original authors' functions and write down their answers: runtime/conformance/data/vectors.npz.

    python -m tests.conformance.make_vectors

Keys are kind/case/field; `boothsam.conformance.vectors` says what each kind holds. Inputs are stored beside the
answers, so that an implementation in any language can be tested from the file alone.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from boothsam.conformance.vectors import VECTORS
from numpy.typing import NDArray

from tests.models.tiny_sam import load_tiny_sam
from tests.reference.segment_anything_reference import batched_nms, load_reference

Arrays = dict[str, Any]


def sizes(reference: Any) -> Arrays:
    """Every rounding case: sides around exact halves and 1024, extreme ratios; none whose short side rounds to 0."""
    random = np.random.default_rng(1)
    pairs = [(h, w) for h in (1, 2, 3, 63, 64, 341, 682, 683, 1023, 1024, 1025) for w in (64, 1000, 1024, 1025, 2048)]
    pairs += [(1500, 2250), (4000, 6000), (3024, 4032), (480, 640), (333, 1000), (20, 4000)]
    # k + 1/2 exactly: the short side is an odd number of halves of the scale.
    pairs += [(2 * k + 1, 2048) for k in (1, 10, 100, 500, 1000)] + [(4 * k + 2, 4096) for k in (1, 300)]
    pairs += [tuple(random.integers(8, 6000, 2)) for _ in range(200)]
    pairs += [(w, h) for h, w in pairs]
    found = [reference.ResizeLongestSide.get_preprocess_shape(int(h), int(w), 1024) for h, w in pairs]
    kept = [(p, f) for p, f in zip(pairs, found, strict=True) if min(f) > 0]
    return {"sizes/all/original_hw": [p for p, _ in kept], "sizes/all/input_hw": [f for _, f in kept]}


def resizes(reference: Any) -> Arrays:
    """Small pictures through `apply_image`: shrinking (antialiased), enlarging, odd sizes, one-pixel sides."""
    random = np.random.default_rng(2)
    stripes = np.indices((61, 83)).sum(0) % 2 * 255
    cases = {
        "shrink_noise": (random.integers(0, 256, (96, 128, 3)), 32),
        "shrink_stripes": (np.stack([stripes, 255 - stripes, stripes // 2], -1), 24),
        "shrink_odd": (random.integers(0, 256, (67, 101, 3)), 40),
        "shrink_a_little": (random.integers(0, 256, (30, 41, 3)), 40),
        "portrait": (random.integers(0, 256, (75, 50, 3)), 32),
        "enlarge": (random.integers(0, 256, (9, 12, 3)), 40),
        "one_row": (random.integers(0, 256, (1, 60, 3)), 33),
        "same": (random.integers(0, 256, (20, 32, 3)), 32),
    }
    out: Arrays = {}
    for name, (image, side) in cases.items():
        pixels = image.astype(np.uint8)
        out |= {f"resize/{name}/image": pixels, f"resize/{name}/image_size": side}
        out[f"resize/{name}/resized"] = reference.ResizeLongestSide(side).apply_image(pixels)
    return out


def coordinates(reference: Any) -> Arrays:
    """Points and boxes through `apply_coords` and `apply_boxes`, as the predictor hands them on (float32)."""
    random = np.random.default_rng(3)
    out: Arrays = {}
    for h, w in ((480, 640), (640, 480), (333, 1000), (64, 64), (20, 4000), (1500, 2250), (2250, 1500), (1024, 1024)):
        points = np.concatenate([random.uniform(0, 1, (5, 2)) * (w, h), [[0, 0], [w - 1, h - 1], [w, h]]])
        boxes = np.sort(random.uniform(0, 1, (4, 2, 2)), 1).reshape(4, 4) * (w, h, w, h)
        transform = reference.ResizeLongestSide(1024)
        key = f"coordinates/{h}x{w}"
        out |= {f"{key}/original_hw": (h, w), f"{key}/points": points, f"{key}/boxes_xyxy": boxes}
        out[f"{key}/points_in_frame"] = transform.apply_coords(points, (h, w)).astype(np.float32)
        out[f"{key}/boxes_in_frame"] = transform.apply_boxes(boxes, (h, w)).astype(np.float32)
    return out


def tokens(sam: Any) -> Arrays:
    """Frame coordinates and labels of every sparse token, and the embedding the reference makes of them.

    The reference appends its padding point inside the prompt encoder, so coordinates and labels are read off there.
    """
    points = torch.tensor([[[500.0, 375.0], [12.5, 700.25]]])
    labels = torch.tensor([[1, 0]])
    box = torch.tensor([[100.0, 50.0, 900.0, 700.0]])
    encoder = sam.prompt_encoder
    cases = {
        "one_click": ((points[:, :1], labels[:, :1]), None),
        "two_clicks": ((points, labels), None),
        "box": (None, box),
        "box_and_click": ((points[:, :1], labels[:, :1]), box),
        "box_and_two_clicks": ((points, labels), box),
    }
    out: Arrays = {}
    for name, (given, boxes) in cases.items():
        coords = [] if given is None else [given[0][0]]
        kinds = [] if given is None else [given[1][0]]
        if given is not None and boxes is None:
            coords.append(torch.zeros(1, 2))
            kinds.append(torch.tensor([-1]))
        if boxes is not None:
            coords.append(boxes.reshape(2, 2))
            kinds.append(torch.tensor([2, 3]))
        sparse, dense = encoder(points=given, boxes=boxes, masks=None)
        if sparse.shape[1] != sum(len(c) for c in coords):
            raise AssertionError(
                f"{name}: the reference made {sparse.shape[1]} tokens, {sum(len(c) for c in coords)} listed"
            )
        out |= {
            f"tokens/{name}/point_coords": torch.cat(coords)[None],
            f"tokens/{name}/point_labels": torch.cat(kinds)[None],
        }
        out[f"tokens/{name}/sparse_embedding"] = sparse
        out[f"tokens/{name}/dense_embedding_00"] = dense[0, :, 0, 0]
        for field, value in (("points", given and given[0]), ("labels", given and given[1]), ("box_xyxy", boxes)):
            if value is not None:
                out[f"tokens/{name}/{field}"] = value
    weights = [encoder.not_a_point_embed.weight, *(e.weight for e in encoder.point_embeddings)]
    out["tokens/weights/label_embeddings"] = torch.cat(weights)
    out["tokens/weights/positions"] = encoder.pe_layer.positional_encoding_gaussian_matrix
    out["tokens/weights/no_mask"] = encoder.no_mask_embed.weight[0]
    return out


def normalising(sam: Any) -> Arrays:
    """`Sam.preprocess` on a small uint8 picture in the 1024 frame: the corner that holds it; padding is checked."""
    image = np.random.default_rng(4).integers(0, 256, (6, 10, 3)).astype(np.uint8)
    frame = sam.preprocess(torch.from_numpy(image.transpose(2, 0, 1).copy()).float())
    if frame.shape != (3, 1024, 1024) or frame[:, 6:].any() or frame[:, :, 10:].any():
        raise AssertionError("the reference padded with something else than zeros at the right and bottom")
    return {"normalise/small/image": image, "normalise/small/frame_8x12": frame[:, :8, :12]}


def low_res_logits() -> NDArray[np.float32]:
    """(256, 256) logits with blobs, thin parts and exact zeros: multiples of 1/64, which float16 holds exactly."""
    y, x = np.mgrid[0:256, 0:256].astype(np.int64)
    disc = 6400 - (x - 90) ** 2 - (y - 70) ** 2
    bar = 400 - abs(x + y - 300) * 25
    ripple = (x * 7 + y * 13) % 32 - 16
    return (np.clip(np.maximum(disc // 4, bar), -1200, 1200) + ripple).astype(np.float32) / 64


def upscaling(sam: Any) -> Arrays:
    """`Sam.postprocess_masks`: 256 -> 1024 -> crop -> photo, logits and the mask > 0."""
    low_res = low_res_logits()
    out: Arrays = {"upscale/input/low_res": low_res.astype(np.float16)}
    for h, w in ((48, 64), (64, 43), (33, 100), (1, 20), (300, 400), (1024, 683), (1000, 1500), (2250, 1500)):
        shape = load_reference().utils.transforms.ResizeLongestSide.get_preprocess_shape(h, w, 1024)
        logits = sam.postprocess_masks(torch.from_numpy(low_res)[None, None], shape, (h, w))[0, 0]
        stride = max(1, max(h, w) // 60)
        key = f"upscale/{h}x{w}"
        out |= {f"{key}/original_hw": (h, w), f"{key}/stride": stride, f"{key}/logits": logits[::stride, ::stride]}
        out[f"{key}/mask_counts"] = _amg().mask_to_rle_pytorch((logits > 0)[None])[0]["counts"]
    return out


def _amg() -> Any:
    load_reference()
    return importlib.import_module("segment_anything.utils.amg")


def masks() -> Arrays:
    """Run lengths, area, box, stability and small regions of hand-made and random masks."""
    random = np.random.default_rng(5)
    cases = {name: np.zeros((5, 7), np.bool_) for name in ("empty", "first_pixel", "last_pixel", "one_column")}
    cases["first_pixel"][0, 0] = cases["last_pixel"][-1, -1] = True
    cases["one_column"][:, 3] = True
    cases |= {
        "full": np.ones((4, 6), np.bool_),
        "noise": random.random((17, 23)) < 0.5,
        "one_row": random.random((1, 9)) < 0.5,
    }
    cases["blob"] = low_res_logits()[::8, ::8] > 0
    amg = _amg()
    out: Arrays = {}
    for name, mask in cases.items():
        rle = amg.mask_to_rle_pytorch(torch.from_numpy(mask)[None])[0]
        box = amg.batched_mask_to_box(torch.from_numpy(mask))
        out |= {
            f"rle/{name}/mask": mask,
            f"rle/{name}/counts": rle["counts"],
            f"rle/{name}/area": amg.area_from_rle(rle),
        }
        out |= {f"rle/{name}/box_xyxy": box, f"rle/{name}/box_xywh": amg.box_xyxy_to_xywh(box)}
    logits = torch.from_numpy(low_res_logits())[None]
    for offset in (0.25, 1.0, 4.0):
        out[f"stability/{offset}/offset"] = offset
        out[f"stability/{offset}/score"] = amg.calculate_stability_score(logits, 0.0, offset)[0]
    speckled = (low_res_logits()[::4, ::4] > 0) ^ (random.random((64, 64)) < 0.06)
    only_specks = random.random((32, 32)) < 0.04
    for name, mask, area, mode in (
        ("holes", speckled, 12, "holes"),
        ("islands", speckled, 12, "islands"),
        ("all_small", only_specks, 50, "islands"),
        ("nothing_small", cases["blob"], 1, "islands"),
    ):
        cleaned, changed = amg.remove_small_regions(mask, area, mode)
        key = f"regions/{name}"
        out |= {f"{key}/mask": mask, f"{key}/area": area, f"{key}/mode": mode, f"{key}/cleaned": cleaned}
        out[f"{key}/changed"] = changed
    corners = random.integers(0, 80, (40, 2))
    boxes = np.concatenate([corners, corners + random.integers(0, 50, (40, 2))], 1).astype(np.float32)
    scores = random.integers(0, 20, 40).astype(np.float32) / 20
    kept = batched_nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.zeros(40), 0.7)
    return out | {"nms/random/boxes_xyxy": boxes, "nms/random/scores": scores, "nms/random/kept": kept}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=VECTORS)
    out = parser.parse_args().out
    reference, sam = load_reference().utils.transforms, load_tiny_sam()
    with torch.no_grad():
        answers = sizes(reference) | resizes(reference) | coordinates(reference) | tokens(sam) | normalising(sam)
        answers |= upscaling(sam) | masks()
    arrays = {key: np.asarray(v.detach() if isinstance(v, torch.Tensor) else v) for key, v in answers.items()}
    out.parent.mkdir(exist_ok=True)
    np.savez_compressed(out, **arrays)
    print(f"{out}: {len(arrays)} arrays, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
