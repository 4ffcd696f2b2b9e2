"""What the demo pack is made of; `python -m stellar_export demo` builds it."""

from .families import DEFAULT_CLIP, FAMILIES
from .random_checkpoints import Sizes

SEED = 0
CLIP = DEFAULT_CLIP
MODELS = tuple(model for model in FAMILIES if model != "owlvit")  # until the service has goa

# Few distinct token rows: five text towers with 49,408 rows each would fill the pack with noise.
SIZES = Sizes(distinct_tokens=4096, dreamsim_width=16, owl_patch=28)
