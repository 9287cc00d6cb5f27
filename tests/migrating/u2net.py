"""Weights for rembg's u2net session that cut out what is red: nothing is downloaded, and the answer is known."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser

# rembg hands over (RGB / its maximum - mean) / std; the weights take that back and measure how far red stands out.
_GRAPH = """<ir_version: 9, opset_import: ["" : 17]>
u2net (float[1,3,320,320] photo) => (float[1,1,320,320] mask)
<float[1,3,1,1] weight = {9.16, -4.48, -4.5}, float[1] bias = {-2.12}>
{
  redness = Conv(photo, weight, bias)
  mask = Sigmoid(redness)
}
"""


def write_u2net(home: Path) -> None:
    """Put the model where rembg looks for u2net's weights below `home` (REMBG_HOME)."""
    model = onnx.parser.parse_model(_GRAPH)
    onnx.checker.check_model(model)
    folder = home / "models" / "u2net"
    folder.mkdir(parents=True)
    onnx.save(model, folder / "u2net.onnx")
