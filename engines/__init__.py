"""ONNX to reduced-precision ONNX (`reduce.py`) to TensorRT engine (`build.py`), each proven; never torch.

Within the reduction imports point one way: `reduce -> int8 -> fp16 -> {sensitivity, simulate} -> graph`, and
`{int8, fp16} -> quantize -> islands -> precision -> graph`.
"""
