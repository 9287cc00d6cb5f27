"""The project's speed targets, measured by the lab in one file: `python -m benchmarks.targets`."""
