"""What the demo pack is made of; `python -m stellar_export demo` builds it, `drawn_world` trains it."""

from collections.abc import Sequence
from pathlib import Path

from . import random_checkpoints
from .drawn_world.weights import FOLDER
from .families import DEFAULT_CLIP, FAMILIES
from .random_checkpoints import Sizes

SEED = 0
CLIP = DEFAULT_CLIP
MODELS = tuple(FAMILIES)

# Few distinct token rows: five text towers with 49,408 rows each would fill the pack with noise.
SIZES = Sizes(distinct_tokens=1024, dreamsim_width=16, owl_patch=28, patch=28, tower_patch=28)

MIT = """\
MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def make_checkpoints(root: Path, models: Sequence[str] = MODELS, trained: bool = True) -> None:
    """Writes the demo pack's checkpoints: random ones, with the weights that were trained on drawings."""
    random_checkpoints.make(root, SEED, SIZES, list(models), CLIP, trained=FOLDER if trained else None)


# What of the pack is other people's work, and what the rest was made from.
NOTICE = f"""\
The scores of this pack mean nothing for photographs or for the images of a generator.

Its models were trained on drawings: those of the crate stellar-drawings of this
repository, by export/stellar_export/drawn_world. They tell right from wrong in such
drawings; docs/METRICS.md says how well. The weights of graphs/relations.onnx are random
numbers. The people of the drawings are one portrait, warped and tinted
(goldens/astronaut-face.jpg, NASA, public domain).

Of others are:

graphs/faces.pnet.onnx, graphs/faces.rnet.onnx, graphs/faces.onet.onnx
    The weights of MTCNN as published in facenet-pytorch 2.6.0, rearranged.
    Copyright (c) 2019 Timothy Esler. MIT License, below.
tokenizers/clip-merges.txt
    The vocabulary of CLIP. Copyright (c) 2021 OpenAI. MIT License, below.
tokenizers/bert-vocab.txt
    The vocabulary of bert-base-uncased, by Google. Apache License, Version 2.0:
    http://www.apache.org/licenses/LICENSE-2.0
goldens/*.jpg, *.png, *.webp
    Public domain or CC0; export/stellar_export/pictures/README.md of the repository
    of stellar-score names the source of each.

{MIT}"""
