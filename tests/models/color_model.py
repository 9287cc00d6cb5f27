"""A model folder that segments by colour: real ONNX graphs under the shared contract, without any training.

The mask of a click is what is connected to it and coloured like it; a box asks for the colour at its centre and clips
the answer; background clicks take away what is nearer to their colour. The answers are exact and predictable, so that
tests of the command line and of `--auto` need neither a trained network nor a stand-in for the session.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
from boothsam.runtime.manifest import ModelManifest, record_files

CELLS = 128  # the photo's colours are averaged over cells of 8x8 frame pixels
_STEPS = 160  # growth per step is two cells: enough for any convex shape

_HEAD = '<ir_version: 9, opset_import: ["" : 19]>'

_ENCODER = f"""{_HEAD}
encoder (uint8[1024,1024,3] image, int32[2] size_hw) => (float[1,3,{CELLS},{CELLS}] image_embedding,
 float[1,1,{CELLS},{CELLS}] inside)
<float[3] mean = {{123.675, 116.28, 103.53}}, float[3] std = {{58.395, 57.12, 57.375}}, float zero = {{0}},
 int64[1] first = {{0}},
 int64[3] column = {{-1, 1, 1}}, int64[3] row = {{1, -1, 1}}, int32[1] start = {{0}}, int32[1] stop = {{1}},
 int32[1] end = {{2}},
 int32 begin = {{0}}, int32 side = {{1024}}, int32 step = {{1}}>
{{
  pixels = Cast<to = 1>(image)
  centred = Sub(pixels, mean)
  scaled = Div(centred, std)
  steps = Range(begin, side, step)
  rows = Reshape(steps, column)
  columns = Reshape(steps, row)
  height = Slice(size_hw, start, stop)
  width = Slice(size_hw, stop, end)
  above = Less(rows, height)
  left = Less(columns, width)
  within = And(above, left)
  kept = Where(within, scaled, zero)
  kept_chw = Transpose<perm = [2, 0, 1]>(kept)
  kept_nchw = Unsqueeze(kept_chw, first)
  image_embedding = AveragePool<kernel_shape = [8, 8], strides = [8, 8]>(kept_nchw)
  within_float = Cast<to = 1>(within)
  within_chw = Transpose<perm = [2, 0, 1]>(within_float)
  within_nchw = Unsqueeze(within_chw, first)
  inside = AveragePool<kernel_shape = [8, 8], strides = [8, 8]>(within_nchw)
}}
"""

_GROW = f"""
    seeds_grown = Loop(growth, keep_going, seeds) <body = grow (int64 step, bool go_in,
      float[P,4,{CELLS},{CELLS}] reached)
      => (bool go, float[P,4,{CELLS},{CELLS}] reached_next)
    {{
      go = Identity(go_in)
      wider = MaxPool<kernel_shape = [5, 5], pads = [2, 2, 2, 2]>(reached)
      reached_next = Mul(wider, similar_float)
    }}>
"""


def _decoder(with_mask: bool) -> str:
    extra_input = ", float[P,1,256,256] mask_input" if with_mask else ""
    last = "fine_raw = Add(fine, mask_share)" if with_mask else "fine_raw = Identity(fine)"
    mask = "mask_share = Mul(mask_input, small)" if with_mask else ""
    cells = CELLS * CELLS
    return f"""{_HEAD}
decoder (float[1,3,{CELLS},{CELLS}] image_embedding, float[1,1,{CELLS},{CELLS}] inside,
 float[P,N,2] point_coords, int32[P,N] point_labels{extra_input})
  => (float[P,4,256,256] low_res_masks, float[P,4] iou_predictions)
<int32 is_foreground = {{1}}, int32 is_background = {{0}}, int32 is_first = {{2}}, int32 is_last = {{3}},
 float half = {{0.5}},
 float zero = {{0}}, float one = {{1}}, float eight = {{8}}, float last_cell = {{{CELLS - 1}}},
 float far = {{1000}}, float width = {{{CELLS}}},
 float outside = {{-8}}, float sharp = {{6}}, float small = {{0.05}}, float high = {{1}}, float low = {{-1}},
 int64[1] axis0 = {{0}}, int64[1] axis1 = {{1}}, int64[1] axis2 = {{2}}, int64[2] rows_columns = {{2, 3}},
 int64[1] last_axis = {{-1}},
 int64[2] colour_rows = {{3, {cells}}}, int64[4] everywhere = {{3, 1, 1, {cells}}}, int64[4] plane = {{-1, 1,
 {CELLS}, {CELLS}}},
 int64[2] row_major = {{1, {cells}}}, int64 begin = {{0}}, int64 end = {{{cells}}}, int64 step = {{1}},
 int64 cell_side = {{{CELLS}}},
 int64 growth = {{{_STEPS}}}, bool keep_going = {{1}}, float[1,4,1,1] reach = {{0.7, 0.3, 0.7, 1.4}},
 float[4] scales = {{1, 1, 2, 2}},
 int64[4] four_tokens = {{1, 4, 1, 1}}, int64[1] x_start = {{0}}, int64[1] y_start = {{1}}, int64[1] y_end = {{2}}>
{{
  foreground = Equal(point_labels, is_foreground)
  background = Equal(point_labels, is_background)
  first = Equal(point_labels, is_first)
  last = Equal(point_labels, is_last)
  first_float = Cast<to = 1>(first)
  last_float = Cast<to = 1>(last)
  first_weight = Unsqueeze(first_float, axis2)
  last_weight = Unsqueeze(last_float, axis2)
  first_all = Mul(point_coords, first_weight)
  last_all = Mul(point_coords, last_weight)
  corner0 = ReduceSum<keepdims = 0>(first_all, axis1)
  corner1 = ReduceSum<keepdims = 0>(last_all, axis1)
  boxes = ReduceSum<keepdims = 1>(first_float, axis1)
  has_box = Greater(boxes, zero)
  corner_sum = Add(corner0, corner1)
  centre = Mul(corner_sum, half)
  centre_point = Unsqueeze(centre, axis1)
  coords = Concat<axis = 1>(point_coords, centre_point)
  wanted = Concat<axis = 1>(foreground, has_box)
  no_box = Not(has_box)
  never = And(has_box, no_box)
  unwanted = Concat<axis = 1>(background, never)
  cells_raw = Div(coords, eight)
  cells_floor = Floor(cells_raw)
  cells = Clip(cells_floor, zero, last_cell)
  cell_x = Slice(cells, x_start, y_start, axis2)
  cell_y = Slice(cells, y_start, y_end, axis2)
  cell_rows = Mul(cell_y, width)
  flat = Add(cell_rows, cell_x)
  flat_2d = Squeeze(flat, axis2)
  index = Cast<to = 7>(flat_2d)
  colours = Reshape(image_embedding, colour_rows)
  asked = Gather<axis = 1>(colours, index)
  asked_4d = Unsqueeze(asked, last_axis)
  colours_4d = Reshape(colours, everywhere)
  difference = Sub(colours_4d, asked_4d)
  square = Mul(difference, difference)
  distance_square = ReduceSum<keepdims = 0>(square, axis0)
  distance = Sqrt(distance_square)
  wanted_3d = Unsqueeze(wanted, last_axis)
  unwanted_3d = Unsqueeze(unwanted, last_axis)
  to_wanted = Where(wanted_3d, distance, far)
  to_unwanted = Where(unwanted_3d, distance, far)
  near = ReduceMin<keepdims = 0>(to_wanted, axis1)
  near_unwanted = ReduceMin<keepdims = 0>(to_unwanted, axis1)
  taken = Less(near_unwanted, near)
  flat_steps = Range(begin, end, step)
  place = Reshape(flat_steps, row_major)
  place_y = Div(place, cell_side)
  place_x = Mod(place, cell_side)
  px_cell = Cast<to = 1>(place_x)
  py_cell = Cast<to = 1>(place_y)
  px_mid = Add(px_cell, half)
  py_mid = Add(py_cell, half)
  px = Mul(px_mid, eight)
  py = Mul(py_mid, eight)
  x0 = Slice(corner0, x_start, y_start, axis1)
  y0 = Slice(corner0, y_start, y_end, axis1)
  x1 = Slice(corner1, x_start, y_start, axis1)
  y1 = Slice(corner1, y_start, y_end, axis1)
  right_of = GreaterOrEqual(px, x0)
  left_of = LessOrEqual(px, x1)
  below = GreaterOrEqual(py, y0)
  above = LessOrEqual(py, y1)
  in_x = And(right_of, left_of)
  in_y = And(below, above)
  in_box = And(in_x, in_y)
  box_allows = Or(in_box, no_box)
  inside_flat = Reshape(inside, row_major)
  in_photo = Greater(inside_flat, half)
  allowed = And(box_allows, in_photo)
  not_taken = Not(taken)
  open = And(allowed, not_taken)
  near_plane = Reshape(near, plane)
  open_plane = Reshape(open, plane)
  slack = Sub(reach, near_plane)
  slope = Mul(slack, sharp)
  logit_all = Clip(slope, outside, eight)
  logit_open = Where(open_plane, logit_all, outside)
  similar = Greater(logit_open, zero)
  similar_float = Cast<to = 1>(similar)
  index_3d = Unsqueeze(index, last_axis)
  here = Equal(index_3d, place)
  here_wanted = And(here, wanted_3d)
  here_float = Cast<to = 1>(here_wanted)
  seed_flat = ReduceMax<keepdims = 0>(here_float, axis1)
  seed_plane = Reshape(seed_flat, plane)
  seeds = Expand(seed_plane, four_tokens)
  {_GROW.strip()}
  joined = Greater(seeds_grown, zero)
  apart = Min(logit_open, outside)
  coarse = Where(joined, logit_open, apart)
  fine = Resize<mode = "linear">(coarse, , scales)
  {mask}
  {last}
  low_res_masks = Identity(fine_raw)
  sure = Greater(low_res_masks, high)
  likely = Greater(low_res_masks, low)
  sure_float = Cast<to = 1>(sure)
  likely_float = Cast<to = 1>(likely)
  sure_area = ReduceSum<keepdims = 0>(sure_float, rows_columns)
  likely_area = ReduceSum<keepdims = 0>(likely_float, rows_columns)
  likely_safe = Max(likely_area, one)
  iou_predictions = Div(sure_area, likely_safe)
}}
"""


def build_color_model(folder: Path) -> Path:
    """Write the model into `folder` (created) and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {"encoder": _ENCODER, "decoder": _decoder(False), "decoder_mask": _decoder(True)}
    for name, text in graphs.items():
        model = onnx.parser.parse_model(text)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(folder / f"{name}.onnx"))
    manifest = ModelManifest(
        name="color",
        variant="color",
        licence="Apache-2.0",
        graphs={"fp32": {name: f"{name}.onnx" for name in graphs}},
        embedding=("image_embedding", "inside"),
        files=record_files(folder),
        origin={"source": "tests/models/color_model.py"},
    )
    manifest.save(folder)
    return folder
