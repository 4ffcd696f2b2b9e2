"""The linear multistep method of order 4, with which ELITE generates.

diffusers' `LMSDiscreteScheduler` needs scipy, for its numerical integrals. The integrands are polynomials, so here the
integrals are exact. Timesteps, noise levels and scales are those of its Euler schedule, which are the same.
"""

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler
from numpy.polynomial import Polynomial
from torch import Tensor

ORDER = 4


class LmsScheduler(EulerDiscreteScheduler):
    """x(σ′) = x(σ) + Σ_k ε_k ∫ L_k: L_k are the Lagrange polynomials of up to 4 noise levels, the present one first."""

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        super().set_timesteps(num_inference_steps, device)
        self.noises: list[Tensor] = []

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        """The latents of the next noise level, in a tuple, as diffusers' pipeline asks for them."""
        if return_dict:
            raise NotImplementedError("only return_dict=False, which diffusers' pipelines use")
        if self.step_index is None:
            self._init_step_index(timestep)
        at = self.step_index
        self.noises = [model_output.float(), *self.noises][:ORDER]
        weights = coefficients(self.sigmas.double().numpy(), at, len(self.noises))
        moved = sample.float() + sum(weight * noise for weight, noise in zip(weights, self.noises, strict=True))
        self._step_index = at + 1
        return (moved.to(model_output.dtype),)


def coefficients(sigmas: np.ndarray, at: int, order: int) -> list[float]:
    """∫ L_k from σ[at] to σ[at + 1] of the noise levels σ[at], σ[at − 1], … of the last `order` steps."""
    levels = [sigmas[at - k] for k in range(order)]
    found = []
    for k, level in enumerate(levels):
        others = levels[:k] + levels[k + 1 :]
        divisor = np.prod([level - other for other in others])
        whole = (Polynomial.fromroots(others) / divisor if others else Polynomial([1.0])).integ()
        found.append(float(whole(sigmas[at + 1]) - whole(sigmas[at])))
    return found
