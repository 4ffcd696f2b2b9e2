"""The base model's noise schedule as numbers, so that the service need not repeat torch's arithmetic.

torch's float32 `linspace` and `cumprod` differ from other libraries' in the last bit of many values, so the pack has
the table itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import ExportError

KINDS = {"EulerDiscreteScheduler": "euler", "LMSDiscreteScheduler": "lms"}
SPACINGS = ("leading", "linspace")
# Options of diffusers' schedulers that the service does not have, with the values that leave them off.
OFF = {
    "use_karras_sigmas": (False, None),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "rescale_betas_zero_snr": (False, None),
    "interpolation_type": ("linear", None),
    "final_sigmas_type": ("zero", None),
    "timestep_type": ("discrete", None),
}


def table(config: Mapping, origin: str) -> dict:
    """The content of `scheduler.json` for a `scheduler_config.json`.

    `sigmas[t]` is √((1−ᾱ)/ᾱ) of timestep t as float32 in diffusers. Raises `ExportError` for a schedule that the
    service does not follow.
    """
    from diffusers import EulerDiscreteScheduler

    name = config.get("_class_name")
    if name not in KINDS:
        raise ExportError(f"{origin}: {name} is not supported, only {' and '.join(KINDS)}")
    # Of both kinds: they have the same options, defaults and table, and diffusers' LMS cannot be made without scipy.
    scheduler = EulerDiscreteScheduler.from_config({k: v for k, v in config.items() if k != "_class_name"})
    found = scheduler.config
    for option, off in OFF.items():
        if found.get(option) not in off:
            raise ExportError(f"{origin}: {option} = {found[option]!r} is not supported, only {off[0]!r}")
    if found.prediction_type != "epsilon":
        raise ExportError(f"{origin}: prediction_type {found.prediction_type!r} is not supported, only 'epsilon'")
    if found.timestep_spacing not in SPACINGS:
        raise ExportError(
            f"{origin}: timestep_spacing {found.timestep_spacing!r} is none of {', '.join(SPACINGS)}"
        )
    products = scheduler.alphas_cumprod
    sigmas = ((1 - products) / products) ** 0.5
    return dict(
        kind=KINDS[name],
        spacing=found.timestep_spacing,
        steps_offset=found.steps_offset,
        train_timesteps=found.num_train_timesteps,
        prediction=found.prediction_type,
        sigmas=sigmas.tolist(),
    )
