"""How much longer a core takes to multiply half precision than float32, as an engine's linear layers do.

    python -m tests.benchmarks.half_precision

A product of 8 x 1024 by 1024 x 4096 by torch in one thread, as a rank on a CPU core computes it.
"""

from __future__ import annotations

import time

from serve.launch.cpu_dtype import multiplies_bfloat16

TRIES = 5


def main() -> None:
    """Print the times, and what is said of this processor."""
    import torch

    torch.set_num_threads(1)
    took_ms = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        a, b = torch.ones(8, 1024, dtype=dtype), torch.ones(1024, 4096, dtype=dtype)
        seen = []
        for _ in range(1 + TRIES):
            began_s = time.perf_counter()
            a @ b
            seen.append(1e3 * (time.perf_counter() - began_s))
        took_ms[dtype] = min(seen[1:])
        print(f"{dtype}: {took_ms[dtype]:.2f} ms, {took_ms[dtype] / took_ms[torch.float32]:.1f} x float32")
    print("told as", "able" if multiplies_bfloat16() else "unable", "to multiply half precision")


if __name__ == "__main__":
    main()
