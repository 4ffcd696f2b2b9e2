"""EGTR (naver-ai/egtr): a scene graph, read off the attention of a detector's queries to each other, for rfs.

The official checkpoint is a folder of training: `config.json` and the file that Lightning wrote. What is computed here
follows the paper (Im et al., *EGTR: Extracting Graph from Transformer for Scene Graph Generation*, CVPR 2024) and the
tensors of that file. Adjusting logits by the predicates' frequency is an option of the original's evaluation that is off.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import deformable_detr, layouts, preprocess
from .checkpoints import File, Folder
from .deformable_detr import Detector, Head, Objects
from .errors import ExportError
from .jobs import GraphJob, Request, picture_probe
from .manifest import IoSpec
from .nn import FP32, Embedding, Linear, Normalise, Precision
from .resnet import RESNET_50
from .weights import Weights, load_state_dict

CHECKPOINT = "naver-ai/egtr"
FOLDER = "egtr"
HINT = "the README of naver-ai/egtr links it (Google Drive; the one for Visual Genome); put its config.json and .ckpt there"

# What the weights' keys begin with: Lightning's module has the model as `model`.
PREFIX = "model"

# How many classes and predicates the published model for Visual Genome has. Their names are not in its files.
VISUAL_GENOME = (150, 50)
LABELS = Path(__file__).parent / "scene_labels" / "visual-genome.json"

# What the original's code assumes for a value that config.json leaves out.
DEFAULTS = dict(
    num_queries=300,
    d_model=256,
    encoder_layers=6,
    decoder_layers=6,
    encoder_ffn_dim=1024,
    decoder_ffn_dim=1024,
    encoder_attention_heads=8,
    decoder_attention_heads=8,
    num_feature_levels=4,
    encoder_n_points=4,
    decoder_n_points=4,
)
# Of these, only the value that all official models have.
FIXED = dict(
    model_type="deformable_detr",
    activation_function="relu",
    position_embedding_type="sine",
    dilation=False,
    two_stage=False,
    with_box_refine=False,
)

# By which the original is evaluated; preprocessor_config.json in the folder overrides it.
PREPROCESS = preprocess.Preprocess(
    preprocess.bounded(800, 1333, "bilinear"), preprocess.IMAGENET_MEAN, preprocess.IMAGENET_STD
)

# Probabilities after a sigmoid of logits that are sums of thousands of products, after places that are sampled
# between pixels: no unit vectors.
LOOSENESS = 10

# By how much the likeliest class of a query must lead in half precision for its pairs to be compared.
CLEAR_LEAD = 0.05

PUBLISHED = deformable_detr.Config(
    width=256,
    heads=8,
    queries=200,
    encoder_layers=6,
    decoder_layers=6,
    encoder_mlp=1024,
    decoder_mlp=1024,
    levels=4,
    encoder_points=4,
    decoder_points=4,
    classes=VISUAL_GENOME[0],
)


@dataclass(frozen=True)
class Config:
    """The detector's sizes and those of the relations."""

    detector: deformable_detr.Config
    predicates: int
    frequency_bias: bool
    """Whether the classes of a pair speak for its predicates (Zellers et al., *Neural Motifs*)."""


def read_config(folder: Folder) -> Config:
    """Reads `config.json` as the original does."""
    config, where = folder.json("config.json"), folder.path / "config.json"
    for key, value in FIXED.items():
        if config.get(key, value) != value:
            raise ExportError(f"{where}: {key} is {config[key]!r}, only {value!r} is supported")
    sizes = {key: config.get(key, default) for key, default in DEFAULTS.items()}
    for key, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ExportError(f"{where}: {key} is {value!r}, expected a number from 1")
    predicates, classes = config.get("num_rel_labels"), len(config.get("id2label") or ())
    if not isinstance(predicates, int) or not classes:
        raise ExportError(
            f"{where}: no num_rel_labels or id2label, so this is the configuration of a detector and not of EGTR"
        )
    width, heads = sizes["d_model"], sizes["encoder_attention_heads"]
    if sizes["decoder_attention_heads"] != heads:
        raise ExportError(f"{where}: encoder_attention_heads and decoder_attention_heads differ")
    if width % deformable_detr.GROUPS or width % heads or width // 2 % 2:
        raise ExportError(
            f"{where}: d_model {width} is no multiple of {deformable_detr.GROUPS} and of {heads} heads"
        )
    if sizes["num_feature_levels"] < deformable_detr.OF_TRUNK:
        raise ExportError(f"{where}: num_feature_levels is less than {deformable_detr.OF_TRUNK}")
    return Config(
        detector=deformable_detr.Config(
            width=width,
            heads=heads,
            queries=sizes["num_queries"],
            encoder_layers=sizes["encoder_layers"],
            decoder_layers=sizes["decoder_layers"],
            encoder_mlp=sizes["encoder_ffn_dim"],
            decoder_mlp=sizes["decoder_ffn_dim"],
            levels=sizes["num_feature_levels"],
            encoder_points=sizes["encoder_n_points"],
            decoder_points=sizes["decoder_n_points"],
            classes=classes,
        ),
        predicates=predicates,
        frequency_bias=bool(config.get("use_freq_bias", True)),
    )


def is_official(c: Config, trunk: tuple[tuple[int, ...], int]) -> bool:
    """Whether the sizes, of the trunk too, are those of the published model for Visual Genome."""
    return (c.detector, trunk, c.predicates) == (PUBLISHED, RESNET_50, VISUAL_GENOME[1])


def checkpoint_file(folder: Path) -> Path:
    """The Lightning file: in the folder or in `checkpoints/`; of several the last epoch's, as the original takes."""
    found = sorted(folder.glob("*.ckpt")) or sorted(folder.glob("checkpoints/*.ckpt"))
    if not found:
        raise ExportError(f"{folder}: no .ckpt file there, nor in its folder checkpoints/")
    epochs = {int(m.group(1)): path for path in found if (m := re.match(r"epoch=(\d+)", path.name))}
    if len(found) > 1 and len(epochs) != len(found):
        raise ExportError(f"{folder}: several .ckpt files ({', '.join(p.name for p in found)}); leave the one to use")
    return epochs[max(epochs)] if epochs else found[0]


def load(path: Path) -> Weights:
    """The weights of a Lightning file, after a look whether they are EGTR's."""
    try:
        w = load_state_dict(path, "state_dict")
    except ExportError as error:
        if "Weights only" not in str(error):
            raise
        raise ExportError(
            f"{path}: Lightning kept objects in it that are no tensors and are not loaded, for they could run code. If you "
            'trust the file, save it again: torch.save({"state_dict": torch.load(path, weights_only=False)["state_dict"]}, path)'
        ) from error
    names = w.names()
    if not any(name.startswith(f"{PREFIX}.{PREFIX}.") for name in names):
        raise ExportError(f"{path}: no keys that begin with {PREFIX}.{PREFIX}., so these are not EGTR's weights")
    if not any(name.startswith(f"{PREFIX}.rel_predictor") for name in names):
        raise ExportError(
            f"{path}: weights of the detector that EGTR's training starts from; the trained EGTR is another file"
        )
    return w


def read_labels(folder: Folder, config: Config) -> dict:
    """The names of classes and predicates: `labels.json` in the folder, else those of Visual Genome."""
    wanted = (config.detector.classes, config.predicates)
    if (folder.path / "labels.json").is_file():
        labels, where = folder.json("labels.json"), folder.path / "labels.json"
    elif wanted == VISUAL_GENOME:
        labels, where = json.loads(LABELS.read_text()), LABELS
    else:
        raise ExportError(
            f"{folder.path}: a model of {wanted[0]} classes and {wanted[1]} predicates, which are not those of Visual "
            'Genome, needs labels.json: {"classes": […], "predicates": […]} in the order of its outputs'
        )
    found = tuple(len(labels.get(key, ())) for key in ("classes", "predicates"))
    if found != wanted:
        raise ExportError(f"{where}: names {found[0]} classes and {found[1]} predicates, the model has {wanted}")
    return {key: list(labels[key]) for key in ("classes", "predicates")}


class RelationHead(nn.Module):
    """What the queries asked each other → for each pair, whether and how it is related.

    A pair (i, j) has a source in each decoder layer and in its end, of the subject's query and the object's key:
    [a_i; b_j]. A gate weighs the sources, and two small networks read their sum. As the gate and the networks' first
    layers are linear in the two halves, they are applied to a_i and b_j before those meet: instead of sources
    `[Q, Q, layers + 1, 2·d]` only weights `[Q, Q, layers + 1]` are made.
    """

    def __init__(self, w: Weights, c: Config, precision: Precision):
        super().__init__()
        width, layers = c.detector.width, c.detector.decoder_layers
        self.asks, self.answers = (
            nn.ModuleList(
                layouts.linear(w, f"{PREFIX}.{name}.{i}", width, width, precision) for i in range(layers)
            )
            for name in ("proj_q", "proj_k")
        )
        self.subject = layouts.linear(w, f"{PREFIX}.final_sub_proj", width, width, precision)
        self.object = layouts.linear(w, f"{PREFIX}.final_obj_proj", width, width, precision)
        gate = layouts.linear(w, f"{PREFIX}.rel_predictor_gate", 1, 2 * width, precision)
        self.relation = Head(w, f"{PREFIX}.rel_predictor", 2 * width, width, c.predicates, precision)
        self.connectivity = Head(w, f"{PREFIX}.connectivity_layer", 2 * width, width, 1, precision)
        first = [gate, self.relation.layers[0], self.connectivity.layers[0]]
        # `[2·d, 1 + d + d]`: a column for the gate, then the hidden units of the two networks.
        joined = torch.cat([layer.weight.to(layer.compute) for layer in first], dim=1)
        self.of_subject, self.of_object = (
            Linear(half.t(), None, precision) for half in joined.split(width, dim=0)
        )
        for head in (self.relation, self.connectivity):
            head.layers = head.layers[1:]
        self.gate_bias = gate.bias
        self.hidden_bias = nn.Parameter(torch.cat([layer.bias for layer in first[1:]]), requires_grad=False)
        self.classes = c.detector.classes
        # One class more than there are: the original's table has a last row and column for "nothing".
        table = w.take(f"{PREFIX}.triplet_dist", self.classes + 1, self.classes + 1, c.predicates)
        self.bias = Embedding(table.flatten(0, 1), precision) if c.frequency_bias else None

    def forward(self, objects: Objects) -> tuple[Tensor, Tensor]:
        """Probabilities `[N,Q,Q,P]` and `[N,Q,Q]`."""
        sources = [layer(x) for layer, x in zip(self.asks, objects.asked, strict=True)]
        targets = [layer(x) for layer, x in zip(self.answers, objects.answered, strict=True)]
        a = self.of_subject(torch.stack([*sources, self.subject(objects.states)], dim=2))
        b = self.of_object(torch.stack([*targets, self.object(objects.states)], dim=2))
        # [N, i, j, layers + 1]
        gate = torch.sigmoid(a[..., 0].unsqueeze(2) + b[..., 0].unsqueeze(1) + self.gate_bias)
        summed = torch.matmul(gate, a[..., 1:])
        summed = summed + torch.matmul(gate.transpose(1, 2), b[..., 1:]).transpose(1, 2)
        hidden = F.relu(summed + self.hidden_bias)
        width = hidden.shape[-1] // 2
        relation = self.rest(self.relation, hidden[..., :width])
        connectivity = self.rest(self.connectivity, hidden[..., width:])
        if self.bias is not None:
            best = objects.logits.argmax(dim=-1)
            relation = relation + self.bias(best.unsqueeze(2) * (self.classes + 1) + best.unsqueeze(1))
        return torch.sigmoid(relation), torch.sigmoid(connectivity.squeeze(-1))

    @staticmethod
    def rest(head: Head, hidden: Tensor) -> Tensor:
        """The layers behind the first one."""
        second, third = head.layers
        return third(F.relu(second(hidden)))


class SceneGraph(nn.Module):
    """Pixels `u8[N,H,W,3]` → objects, and the relation of every ordered pair of them."""

    def __init__(self, w: Weights, c: Config, pre: preprocess.Preprocess, precision: Precision, trunk: Precision):
        super().__init__()
        self.detector = Detector(w, PREFIX, c.detector, Normalise(pre.mean, pre.std), precision, trunk)
        self.head = RelationHead(w, c, precision)
        w.take(f"{PREFIX}.rel_dist", c.predicates)  # how frequent predicates are: for adjusting logits only
        # Counters of training, which the original forgets where a batch norm is within a `downsample`.
        w.finish(r".*\.num_batches_tracked")

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        objects = self.detector(pixels)
        relation, connectivity = self.head(objects)
        return torch.softmax(objects.logits, dim=-1), objects.boxes, relation, connectivity


def settled(outputs: Sequence[np.ndarray]) -> list[np.ndarray | bool]:
    """Which values rounding to half precision moves a little: of pairs only those whose classes are clear.

    The likeliest class picks a row of the frequency bias, and where two are equally likely the last bit decides.
    """
    classes = np.sort(outputs[0], axis=-1)
    clear = classes[..., -1] - classes[..., -2] > CLEAR_LEAD
    return [True, True, (clear[:, :, None] & clear[:, None, :])[..., None], True]


def graphs(request: Request) -> Iterator[GraphJob]:
    """rfs: objects and their relations."""
    folder = request.checkpoints.files_folder(FOLDER, HINT)
    config, path = read_config(folder), checkpoint_file(folder.path)
    labels = read_labels(folder, config)
    own = (folder.path / "preprocessor_config.json").is_file()
    pre = preprocess.read_bounded(folder) if own else PREPROCESS
    w = load(path)
    # Always in single precision: sampling between pixels needs it, and the largest logit picks a row of the bias. On a
    # GPU the trunk, whose convolutions are most of the arithmetic, may be in half precision.
    trunk = request.precision if request.gpu else FP32
    module = SceneGraph(w, config, pre, FP32, trunk)
    queries, sizes = config.detector.queries, config.detector
    shortest, longest = pre.geometry["shortest"], pre.geometry["longest"]
    # A picture of the published size takes seconds; batches are for small models.
    large = sizes.width * shortest * longest > 2**26
    # The largest picture, one that lies, and one so narrow that the coarsest levels are one place wide.
    sides = [(shortest, longest), (longest * 3 // 4, shortest), (longest, max(longest // 60, 1))]
    yield GraphJob(
        roles=["relations"],
        kind="image",
        module=module,
        inputs=[IoSpec("pixels", "u8", (-1, -1, 3))],
        outputs=[
            IoSpec("classes", "f32", (queries, sizes.classes)),
            IoSpec("boxes", "f32", (queries, 4)),
            IoSpec("relation", "f32", (queries, queries, config.predicates)),
            IoSpec("connectivity", "f32", (queries, queries)),
        ],
        example=picture_probe(2, 96, 136, 0),
        probes=[picture_probe(1 if large or i == 0 else 3, *side, i) for i, side in enumerate(sides)],
        source=File(CHECKPOINT, path, "local").source(),
        official=is_official(config, module.detector.trunk.sizes),
        geometry=pre.geometry,
        max_batch=1 if large else 4,
        free=True,
        looseness=LOOSENESS,
        backend="egtr",
        labels=labels,
        precision=trunk,
        settled=settled if trunk != FP32 and config.frequency_bias else None,
    )
