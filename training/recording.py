"""A function of tensors that is recorded once as a CUDA graph and replayed.

A small network's step is hundreds of short kernels, and launching them one by one takes longer than running them.
"""

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UPS = 3
"""Calls before the recording, in which libraries choose their kernels and the optimizer makes its state."""


class RecordingError(RuntimeError):
    """A function launches what a CUDA graph cannot hold."""


class Recorded:
    """Calls ``function(*inputs)`` as it is for the first few times; then replays what one more call launched.

    The inputs keep their shapes, and the function reads nothing else that changes but what it holds in tensors: no
    number that is drawn or computed on the host. Dropout goes on drawing from torch's own generator, seeded as ever.
    What is returned are copies, which the next call leaves alone. Raises RecordingError where the function does what no
    graph can hold, such as waiting for the device.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]):
        self.function, self.calls = function, 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: tuple[Tensor, ...] = ()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self.calls += 1
        if self.calls <= WARM_UPS:
            return self._call_aside(*inputs)
        if self.graph is None:
            self.inputs = tuple(one.clone() for one in inputs)
            self.graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(self.graph):
                    self.outputs = self.function(*self.inputs)
            except RuntimeError as error:
                reason = str(error).strip().partition("\n")[0]
                raise RecordingError(
                    f"a step cannot be recorded as a CUDA graph ({reason}): set record=false"
                ) from error
        for held, given in zip(self.inputs, inputs, strict=True):
            held.copy_(given)
        self.graph.replay()
        return tuple(one.clone() for one in self.outputs)

    def _call_aside(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The function on a stream of its own, as a recording runs it."""
        main, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            outputs = self.function(*inputs)
        main.wait_stream(side)
        return outputs
