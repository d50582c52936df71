"""ZeroGPU's decorator on a Space that has it, and nothing elsewhere."""

import os
from collections.abc import Callable
from typing import TypeVar

Work = TypeVar("Work", bound=Callable)


def on_gpu(work: Work) -> Work:
    """The function, run with a borrowed GPU on a ZeroGPU Space and unchanged anywhere else."""
    if not os.environ.get("SPACES_ZERO_GPU"):
        return work
    import spaces  # only there on such Spaces

    return spaces.GPU(work)
