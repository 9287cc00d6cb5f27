"""Does a SAM runtime keep SAM's rules? Questions with stored answers of the original authors' code.

    python -m boothsam.conformance --predictor package.module:factory --model DIR

asks any object with segment_anything's `set_image` and `predict`, over the tiny trained SAM in DIR; docs/conformance.md
tells how to connect one. `golden_vectors()` has the rules one function at a time, for runtimes in other languages too.
"""

from boothsam.conformance.cases import CASES, Case
from boothsam.conformance.runner import Result, run
from boothsam.conformance.vectors import golden_vectors

__all__ = ["CASES", "Case", "Result", "golden_vectors", "run"]
