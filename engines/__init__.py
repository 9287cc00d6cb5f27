"""ONNX to reduced-precision ONNX to TensorRT engine. Nothing here yet: version 0.1 ships FP32 models for ONNX Runtime
only."""
