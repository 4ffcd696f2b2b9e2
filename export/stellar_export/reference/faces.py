"""ips and sis by facenet-pytorch."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import nn

from ..checkpoints import Checkpoints
from . import Sample, Scorer, Scores, fit, require

# The smallest side of which MTCNN makes a pyramid; below it, facenet-pytorch fails.
LEAST_SIDE = 20


def embedding_model(path: Path) -> nn.Module:
    """facenet-pytorch's InceptionResnetV1; layers get the sizes that their weights have, for slim random models."""
    from facenet_pytorch import InceptionResnetV1

    state = torch.load(path, map_location="cpu", weights_only=True)
    state = {k: v for k, v in state.items() if not k.startswith("logits.")}
    return fit(InceptionResnetV1(pretrained=None), state)


def faces_scorer(checkpoints: Checkpoints) -> Scorer:
    """The toolkit's: every face of MTCNN with its default thresholds counts, on a margin of 0.9 pixels.

    As the service defines them, and unlike the toolkit: photos without a face are left out, and pictures too small for
    MTCNN have none.
    """
    require("facenet_pytorch")
    from facenet_pytorch import MTCNN

    from ..faces import EMBEDDING

    detector = MTCNN(margin=0.9, keep_all=True, device="cpu").eval()
    path = checkpoints.local(*EMBEDDING)
    assert path is not None, "the graphs were made from it"
    model = embedding_model(path)

    @torch.inference_mode()
    def embeddings(picture: Image.Image) -> torch.Tensor | None:
        crops = detector(picture) if min(picture.size) >= LEAST_SIDE else None
        return None if crops is None else model(crops)

    def score(sample: Sample) -> Scores:
        image = embeddings(sample.image())

        def ips(photo: torch.Tensor) -> float:
            return 0.0 if image is None else (image @ photo.T).max().item()

        scores = {}
        if sample.reference is not None and (reference := embeddings(sample.reference_image())) is not None:
            scores["ips"] = ips(reference)
        if found := [e for e in map(embeddings, sample.photos()) if e is not None]:
            scores["sis"] = min(map(ips, found))
        return scores

    return score
