"""The exponential moving average (EMA) of a network's weights, which is what the demo weights are."""

import torch
from torch import nn

State = dict[str, torch.Tensor]


class MovingAverage:
    """Average of the weights of a network over its training steps.

    Early steps are forgotten faster: after step N the decay is at most (N + 1) / (N + 10).

    torch.optim.swa_utils.AveragedModel would give other weights: it starts from the weights after the first step, and
    it averages either no buffers or all of them, integer counters included.

    Attributes:
        state: The averaged state dict.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.state: State = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self._decay = decay
        self._steps = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Add the weights after a training step; integers, such as counters of batches, are copied."""
        decay = min(self._decay, (self._steps + 1) / (self._steps + 10))
        self._steps += 1
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)


def half_precision(state: State) -> State:
    """Return a state dict in half precision; integers stay integers."""
    return {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
