"""Images of a dataset with an ELITE checkpoint, against a loop that follows ELITE's inference step by step."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPO
from PIL import Image
from stellar_score.dataset import Dataset
from torch.nn.functional import layer_norm, leaky_relu, linear
from training import IMAGE_KEYS, SIDE, diffusers, killed_when, stellar_dataset
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModel

from stellar_train import cli, elite, generations, images
from stellar_train.base import Base
from stellar_train.configuration import Configuration
from stellar_train.errors import TrainError
from stellar_train.lms import LmsScheduler
from stellar_train.local import Local, LocalMapper

LONG = "{} walking slowly along a very long road that leads over " + "seven hills and " * 30
PROMPTS = ("{} as a clown skiing, 4k", "a red bus in the rain", LONG)
STEPS, GUIDANCE, WORDS = 6, 3.0, 5


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return stellar_dataset(tmp_path_factory.mktemp("dataset") / "dataset", PROMPTS, masks=True)


@pytest.fixture(scope="module")
def mapper(tiny_sd, tmp_path_factory) -> Path:
    """A global_mapper.pt alone, as the original's: random words, and other to_k and to_v than the base's."""
    torch.manual_seed(0)
    fresh = elite.GlobalMapper(32, 32, diffusers.UNet2DConditionModel.from_pretrained(tiny_sd / "unet"), hidden=16)
    path = tmp_path_factory.mktemp("elite") / elite.FILE
    torch.save({key: tensor + 0.1 * torch.randn_like(tensor) for key, tensor in fresh.state_dict().items()}, path)
    return path


def settings(base: Path, dataset: Path, checkpoint: Path, **generation) -> Configuration:
    found = Configuration("images")
    found.values["base"]["folder"] = str(base)
    found.values["data"] |= {"dataset": str(dataset), "photos": "first", "background": "black"}
    found.values["model"]["checkpoint"] = str(checkpoint)
    found.values["generation"] |= {"kind": "T", "steps": STEPS, "guidance": GUIDANCE, "size": SIDE, "device": "cpu"}
    found.values["generation"] |= generation
    return found


@pytest.fixture(scope="module")
def made(tiny_sd, dataset, mapper, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "images"
    images.generate(settings(tiny_sd, dataset, mapper), out, quiet=True)
    return out


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


@pytest.fixture(scope="module")
def local_mapper(tiny_sd, tmp_path_factory) -> Path:
    """A local_mapper.pt of random weights."""
    torch.manual_seed(1)
    fresh = LocalMapper(32, 32, diffusers.UNet2DConditionModel.from_pretrained(tiny_sd / "unet"), hidden=16)
    path = tmp_path_factory.mktemp("elite-local") / "local_mapper.pt"
    torch.save({key: 3 * tensor for key, tensor in fresh.state_dict().items()}, path)
    return path


class Reference:
    """ELITE's inference with the libraries' own modules: words as new tokens, LMS by numerical integration."""

    def __init__(self, base: Path, mapper: Path):
        self.state = torch.load(mapper)
        self.unet = diffusers.UNet2DConditionModel.from_pretrained(base / "unet")
        for path, module in self.unet.named_modules():
            if path.endswith("attn2"):
                for part in ("to_k", "to_v"):
                    getattr(module, part).weight.data = self.state[f"{path.replace('.', '_')}_{part}.weight"]
        self.vae = diffusers.AutoencoderKL.from_pretrained(base / "vae")
        self.vision = CLIPVisionModel.from_pretrained(base / "image_encoder")
        self.text = CLIPTextModel.from_pretrained(base / "text_encoder")
        self.tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
        self.new = [f"<word-{n}>" for n in range(WORDS)]
        self.near = False
        self.tokenizer.add_tokens(self.new)
        self.text.resize_token_embeddings(len(self.tokenizer))

    def words(self, photo: Image.Image) -> torch.Tensor:
        return torch.cat(
            [
                self.mlp(self.state, f"mapping_{n}", state[:, :1])
                + self.mlp(self.state, f"mapping_patch_{n}", state[:, 1:]).mean(dim=1, keepdim=True)
                for n, state in enumerate(self.states(photo))
            ],
            dim=1,
        )[0, : len(self.new)]

    def states(self, photo: Image.Image) -> list[torch.Tensor]:
        pixels = np.asarray(photo.resize((224, 224), Image.Resampling.BICUBIC), np.float64) / 255
        pixels = (pixels - [0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
        found = self.vision(torch.tensor(pixels.transpose(2, 0, 1)[None]).float(), output_hidden_states=True)
        # Of four layers: 1/6, 1/3, 1/2 and 2/3 behind the last.
        return [found.last_hidden_state, *(found.hidden_states[n] for n in (1, 1, 2, 3))]

    def mlp(self, weights: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
        for layer in (0, 3):
            x = linear(x, *(weights[f"{name}.{layer}.{part}"] for part in ("weight", "bias")))
            of_norm = (weights[f"{name}.{layer + 1}.{part}"] for part in ("weight", "bias"))
            x = leaky_relu(layer_norm(x, x.shape[-1:], *of_norm))
        return linear(x, weights[f"{name}.6.weight"], weights[f"{name}.6.bias"])

    @torch.no_grad()
    def look_near(self, path: Path, photo: Image.Image, mask: np.ndarray, strength: float, prompt: str) -> None:
        """Puts a local mapping into cross-attention, for images of one prompt with one word."""
        self.new, weights = self.new[:1], torch.load(path)
        mlp, states = self.mlp, self.states(photo)
        vectors = sum(
            mlp(weights, f"mapping_{n}", state[:, :1]) + mlp(weights, f"mapping_patch_{n}", state[:, 1:])
            for n, state in enumerate(states)
        ) / len(states)
        side = int(vectors.shape[1] ** 0.5)
        rows = np.arange(side) * len(mask) // side
        vectors = vectors * torch.tensor(mask[rows][:, rows].astype(np.float32)).reshape(1, -1, 1)
        ids = self.tokenizer(prompt.replace("{}", self.new[0])).input_ids
        at = ids.index(self.tokenizer.convert_tokens_to_ids(self.new[0]))

        def split(x: torch.Tensor, heads: int) -> torch.Tensor:
            return x.unflatten(-1, (heads, -1)).transpose(1, 2)

        def attend(name: str, module: torch.nn.Module):
            to_k, to_v = (weights[f"{name.replace('.', '_')}_to_{part}.weight"] for part in "kv")

            def forward(hidden_states, encoder_hidden_states, **_):
                query = split(module.to_q(hidden_states), module.heads)
                scale = query.shape[-1] ** -0.5
                key, value = (split(to(encoder_hidden_states), module.heads) for to in (module.to_k, module.to_v))
                chances = (query @ key.mT * scale).softmax(dim=-1)
                found = chances @ value
                if self.near:
                    key, value = (split(vectors @ to.T, module.heads) for to in (to_k, to_v))
                    share = strength * chances[..., at] / chances[..., at].max()
                    found = found + share[..., None] * ((query @ key.mT * scale).softmax(dim=-1) @ value)
                return module.to_out[0](found.transpose(1, 2).flatten(2))

            return forward

        for name, module in self.unet.named_modules():
            if name.endswith("attn2"):
                module.forward = attend(name, module)

    def context(self, prompt: str, words: torch.Tensor) -> torch.Tensor:
        rows = self.tokenizer.convert_tokens_to_ids(self.new)
        self.text.get_input_embeddings().weight.data[rows] = words
        ids = self.tokenizer(
            prompt.replace("{}", "".join(self.new)), padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        return self.text(ids).last_hidden_state

    @torch.no_grad()
    def image(self, prompt: str, photo: Image.Image) -> np.ndarray:
        context, nothing = self.context(prompt, self.words(photo)), self.context("", torch.zeros(len(self.new), 32))
        levels = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        kept = torch.cumprod(1 - levels, dim=0).double().numpy()
        timesteps = np.linspace(999, 0, STEPS)
        sigmas = [*np.interp(timesteps, np.arange(1000), np.sqrt((1 - kept) / kept)), 0.0]
        noise = torch.randn((1, 4, SIDE // 8, SIDE // 8), generator=torch.Generator().manual_seed(42))
        latents, noises = noise * sigmas[0], []
        for step, time in enumerate(timesteps):
            scaled = latents / (sigmas[step] ** 2 + 1) ** 0.5
            self.near = True
            with_text = self.unet(scaled, torch.tensor(time).float(), context).sample
            self.near = False
            without = self.unet(scaled, torch.tensor(time).float(), nothing).sample
            noises = [without + GUIDANCE * (with_text - without), *noises[:3]]
            # Gauss and Legendre's rule is exact for these polynomials.
            nodes, weights = np.polynomial.legendre.leggauss(4)
            half = (sigmas[step + 1] - sigmas[step]) / 2
            at = sigmas[step] + half * (nodes + 1)
            known = sigmas[step::-1][:4]
            for k, each in enumerate(noises):
                others = [other for n, other in enumerate(known) if n != k]
                basis = np.prod([(at - other) / (known[k] - other) for other in others], axis=0)
                latents = latents + float(half * np.sum(weights * basis)) * each
        image = self.vae.decode(latents / 0.18215).sample[0]
        return ((image / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()


def on_black(folder: Path) -> Image.Image:
    photo, mask = (np.asarray(Image.open(folder / name).convert("RGB")) for name in ("0.jpg", "0_bg.png"))
    return Image.fromarray(photo * (mask.max(axis=2, keepdims=True) > 0))


def test_the_images_are_those_of_elites_inference(tiny_sd, dataset, mapper, made):
    reference, shown = Reference(tiny_sd, mapper), {}
    for person in ("000", "001"):
        for n, prompt in enumerate(PROMPTS):
            found = np.asarray(Image.open(made / f"{person}-0-{n:02}.png"), np.float64)
            wanted = reference.image(f"{prompt} of kind t", on_black(dataset / person))
            assert wanted.std() > 20
            off = np.abs(found - wanted)
            assert off.max() <= 1 and (off > 0).mean() < 0.01, (person, n, off.max())
            shown[person, n] = found
    # Only the photo differs, and not where the prompt has no place for it.
    assert np.abs(shown["000", 0] - shown["001", 0]).max() > 1
    assert np.array_equal(shown["000", 1], shown["001", 1])


def test_lms_is_diffusers_own():
    """With the runs that scripts/diffusion_fixtures.py stored, where scipy was."""
    schedulers = json.loads((REPO / "tests" / "data" / "diffusion" / "schedule.json").read_text())["schedulers"]
    stored = [s for s in schedulers if s["schedule"]["kind"] == "lms"]
    assert {s["schedule"]["spacing"] for s in stored} == {"leading", "linspace"}
    for each in stored:
        run = each["run"]
        scheduler = LmsScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing=each["schedule"]["spacing"],
            steps_offset=1,
        )
        # A second run begins anew.
        for _ in range(2):
            scheduler.set_timesteps(len(run["predictions"]))
            latents = torch.tensor(run["noise"]) * scheduler.init_noise_sigma
            for time, inputs, noise in zip(scheduler.timesteps, run["inputs"], run["predictions"], strict=True):
                assert torch.allclose(scheduler.scale_model_input(latents, time), torch.tensor(inputs), atol=1e-5)
                (latents,) = scheduler.step(torch.tensor(noise), time, latents, return_dict=False)
            assert torch.allclose(latents, torch.tensor(run["latents"]), atol=2e-5)


def test_the_folder_is_that_of_the_other_methods(dataset, made):
    about = json.loads((made / "001-0-00.json").read_text())
    assert about.keys() >= IMAGE_KEYS
    assert (about["model_name"], about["prompt"]) == ("elite", f"{PROMPTS[0]} of kind t")
    assert (about["steps"], about["guidance_scale"], about["model_seed"]) == (STEPS, GUIDANCE, 42)
    auxiliary = about["aux_metadata"]
    assert (auxiliary["words"], auxiliary["sampler"], auxiliary["side"]) == (WORDS, "lms", SIDE)
    # It is not known what the authors' file was trained on.
    assert auxiliary["excludes_evaluation"] is None
    assert "flags" not in auxiliary
    text = json.loads(Image.open(made / "001-0-00.png").text["stellar-score"])
    assert auxiliary.pop("photo_digest")
    assert text["generated"] is True and text["aux_metadata"] == auxiliary
    samples = Dataset(dataset, made, "first").samples()
    assert [sample["name"] for sample in samples] == sorted(path.stem for path in made.glob("*.png"))
    assert len(samples) == 2 * len(PROMPTS)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_image(tiny_sd, dataset, mapper, made, tmp_path):
    prompt = {"prompts": [f"{PROMPTS[0]} of kind t"], "categories": [["x"]], "detectables": [["clown"]]}
    small = stellar_dataset(tmp_path / "dataset", PROMPTS[:1], masks=True)
    assert json.loads((small / "000" / "prompts_t.json").read_text()) == prompt
    images.generate(settings(tiny_sd, small, mapper), tmp_path / "again", quiet=True)
    again = pictures(tmp_path / "again")
    assert len(again) == 2 and again == {name: pictures(made)[name] for name in again}
    images.generate(settings(tiny_sd, small, mapper, seed=7), tmp_path / "other", quiet=True)
    assert not set(again.values()) & set(pictures(tmp_path / "other").values())
    with pytest.raises(TrainError, match="another model_seed"):
        images.generate(settings(tiny_sd, small, mapper), tmp_path / "other", quiet=True)


def test_a_folder_with_an_image_of_another_prompt_is_refused(tiny_sd, dataset, mapper, made, tmp_path):
    out = Path(shutil.copytree(made, tmp_path / "out"))
    about = json.loads((out / "001-0-00.json").read_text())
    (out / "001-0-00.json").write_text(json.dumps({**about, "prompt": "{} as a pirate"}))
    with pytest.raises(TrainError, match="is for another prompt or photo"):
        images.generate(settings(tiny_sd, dataset, mapper), out, quiet=True)


def test_a_folder_of_another_precision_is_refused(tiny_sd, dataset, mapper, made):
    with pytest.raises(TrainError, match="another aux_metadata"):
        images.generate(settings(tiny_sd, dataset, mapper, precision="bf16"), made, quiet=True)


@pytest.mark.parametrize("changed", ["0.jpg", "0_bg.png"])
def test_a_folder_of_a_photo_or_mask_that_was_replaced_is_refused(tiny_sd, dataset, mapper, made, tmp_path, changed):
    own = Path(shutil.copytree(dataset, tmp_path / "dataset"))
    images.generate(settings(tiny_sd, own, mapper), made, quiet=True)
    Image.new("RGB", (64, 64), (9, 200, 9)).save(own / "001" / changed)
    with pytest.raises(TrainError, match=r"001-0-00\.json was generated from another photo or mask"):
        images.generate(settings(tiny_sd, own, mapper), made, quiet=True)


def test_a_mask_that_was_added_counts_where_masks_are_read(tiny_sd, mapper, tmp_path):
    bare, masked = stellar_dataset(tmp_path / "bare", PROMPTS[:1]), stellar_dataset(tmp_path / "masked", masks=True)
    given = settings(tiny_sd, bare, mapper, steps=1)
    for background in ("black", "photo"):
        given.values["data"]["background"] = background
        images.generate(given, tmp_path / background, quiet=True)
    shutil.copy(masked / "000" / "0_bg.png", bare / "000")
    images.generate(given, tmp_path / "photo", quiet=True)
    given.values["data"]["background"] = "black"
    with pytest.raises(TrainError, match="another photo or mask"):
        images.generate(given, tmp_path / "black", quiet=True)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"'])
def test_a_json_file_that_is_no_object_is_named(tmp_path, text):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(TrainError, match=r"other\.json is not a JSON object"):
        generations.refuse_other_settings(tmp_path, {})


def test_without_a_mask_the_whole_photo_counts_and_the_image_says_so(tiny_sd, mapper, tmp_path):
    bare = stellar_dataset(tmp_path / "bare", PROMPTS[:1])
    shutil.copy(stellar_dataset(tmp_path / "masked", masks=True) / "001" / "0_bg.png", bare / "001" / "0_bg.png")
    out = tmp_path / "out"
    images.generate(settings(tiny_sd, bare, mapper), out, quiet=True)
    flags = [json.loads((out / f"{n}-0-00.json").read_text())["aux_metadata"].get("flags") for n in ("000", "001")]
    assert flags == [["unmasked"], None]
    found = np.asarray(Image.open(out / "000-0-00.png"), np.float64)
    photo = Image.open(bare / "000" / "0.jpg").convert("RGB")
    assert np.abs(found - Reference(tiny_sd, mapper).image(f"{PROMPTS[0]} of kind t", photo)).max() <= 1
    # Flags are no other settings: it goes on.
    (out / "001-0-00.png").unlink()
    images.generate(settings(tiny_sd, bare, mapper), out, quiet=True)
    assert len(pictures(out)) == 2


def test_the_background_is_that_of_the_training(tiny_sd, mapper, tmp_path):
    """Ours is trained on photos on black, the original on whole photos."""
    small = stellar_dataset(tmp_path / "dataset", PROMPTS[:1], masks=True)
    trained = tmp_path / "trained"
    trained.mkdir()
    shutil.copy(mapper, trained / elite.FILE)
    (trained / elite.CONFIG).write_text('{"schema": 1}')
    whole = Image.open(small / "000" / "0.jpg").convert("RGB")
    reference, images_of = Reference(tiny_sd, mapper), {}
    for checkpoint, photo in ((mapper, whole), (trained, on_black(small / "000"))):
        given = settings(tiny_sd, small, checkpoint)
        given.values["data"]["background"] = "auto"
        out = tmp_path / f"of-{checkpoint.name}"
        images.generate(given, out, quiet=True)
        about = json.loads((out / "000-0-00.json").read_text())["aux_metadata"]
        assert about["background"] == ("photo" if photo is whole else "black") and "flags" not in about
        images_of[checkpoint] = np.asarray(Image.open(out / "000-0-00.png"), np.float64)
        wanted = reference.image(f"{PROMPTS[0]} of kind t", photo)
        assert np.abs(images_of[checkpoint] - wanted).max() <= 1
    assert np.abs(images_of[mapper] - images_of[trained]).max() > 1
    given.values["data"]["background"] = "white"
    with pytest.raises(TrainError, match="choose auto, black, photo"):
        images.generate(given, tmp_path / "out", quiet=True)


def test_a_killed_generation_goes_on_with_the_same_images(tiny_sd, dataset, mapper, made, tmp_path):
    out = tmp_path / "broken"
    killed_when(lambda: len(list(out.glob("*.json"))) > 1, images.generate, settings(tiny_sd, dataset, mapper), out)
    first = (out / "000-0-00.png").stat().st_mtime_ns
    images.generate(settings(tiny_sd, dataset, mapper), out, quiet=True)
    assert pictures(out) == pictures(made)
    assert (out / "000-0-00.png").stat().st_mtime_ns == first


def without(name: str):
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


KEY = "mid_block_attentions_0_transformer_blocks_0_attn2_to_k.weight"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (without("mapping_3.4.bias"), r"mapping_3\.4\.bias"),
        (without(KEY), KEY),
        (without("mapping_0.0.weight"), "not a mapping of ELITE"),
        (lambda state: state | {"other": torch.ones(1)}, "other"),
        (lambda state: state | {KEY: torch.ones(2, 2)}, KEY),
        (lambda state: state | {"mapping_0.6.weight": torch.ones(3, 16)}, "its words have 3 values"),
        (lambda state: state | {"mapping_1.0.weight": torch.ones(16, 7)}, r"mapping_1\.0\.weight"),
        (lambda state: state | {"mapping_0.0.weight": torch.ones(16)}, r"mapping_0\.0\.weight has the shape \[16\]"),
        (lambda state: state | {"mapping_0.6.weight": torch.ones(())}, r"mapping_0\.6\.weight has the shape \[\]"),
        (lambda state: {"words": 5}, "not a state dict"),
    ],
)
def test_a_checkpoint_with_wrong_keys_is_refused(tiny_sd, dataset, mapper, tmp_path, change, problem):
    wrong = tmp_path / elite.FILE
    torch.save(change(torch.load(mapper)), wrong)
    with pytest.raises(TrainError, match=problem):
        images.generate(settings(tiny_sd, dataset, wrong), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_checkpoint_and_another_base_are_refused(tiny_base, tiny_sd, dataset, mapper, tmp_path):
    with pytest.raises(TrainError, match=r"global_mapper\.pt is not there"):
        images.generate(settings(tiny_sd, dataset, tmp_path), tmp_path / "out", quiet=True)
    (tmp_path / elite.FILE).write_text("not weights")
    with pytest.raises(TrainError, match="cannot be read as weights"):
        images.generate(settings(tiny_sd, dataset, tmp_path), tmp_path / "out", quiet=True)
    with pytest.raises(TrainError, match="ELITE is for Stable Diffusion 1"):
        images.generate(settings(tiny_base, dataset, mapper), tmp_path / "out", quiet=True)


def test_layers_that_the_tower_does_not_have_are_refused(tiny_sd, dataset, mapper, tmp_path):
    folder = tmp_path / "trained"
    folder.mkdir()
    shutil.copy(mapper, folder / elite.FILE)
    (folder / elite.CONFIG).write_text('{"schema": 1, "layers": {"image_encoder": [-1, 1, 2, 3, 5]}}')
    with pytest.raises(TrainError, match=r"layers \[5\]: the vision tower image_encoder has hidden states 0 to 4"):
        images.generate(settings(tiny_sd, dataset, folder), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_images_from_the_command_line(tiny_sd, mapper, tmp_path, capsys):
    small = stellar_dataset(tmp_path / "dataset", PROMPTS[:1])
    out = tmp_path / "out"
    arguments = ["images", "--base", tiny_sd, "--checkpoint", mapper, "--data", small, "--out", out]
    arguments += [part for s in ("kind=H", "steps=2", f"size={SIDE}") for part in ("--set", f"generation.{s}")]
    assert cli.main([str(each) for each in arguments]) == 0
    assert "001-1-01: 4 of 4" in capsys.readouterr().err
    assert len(pictures(out)) == 4
    assert json.loads((out / "001-1-01.json").read_text())["is_stellar_t"] is False
    assert cli.main([str(each) for each in [*arguments, "--set", "generation.steps=0"]]) == 1
    assert "generation.steps = 0" in capsys.readouterr().err


def test_with_the_local_mapping_the_images_are_those_of_elites_inference(tiny_sd, mapper, local_mapper, tmp_path):
    prompts = ("a café photo of {}, smiling", "a red bus in the rain")
    small = stellar_dataset(tmp_path / "dataset", prompts, masks=True)
    given = settings(tiny_sd, small, mapper)
    given.values["data"]["background"] = "auto"
    images.generate(given, tmp_path / "global", quiet=True)
    given.values["model"]["local_mapper"] = str(local_mapper)
    out = tmp_path / "local"
    images.generate(given, out, quiet=True)
    about = json.loads((out / "000-0-00.json").read_text())["aux_metadata"]
    # The global mapping reads the whole photo, the local one the person.
    assert (about["words"], about["background"], about["local_strength"]) == (1, "photo", 0.8)
    for person in ("000", "001"):
        whole = Image.open(small / person / "0.jpg").convert("RGB")
        mask = np.asarray(Image.open(small / person / "0_bg.png").convert("RGB")).max(axis=2) > 0
        reference, prompt = Reference(tiny_sd, mapper), f"{prompts[0]} of kind t"
        reference.look_near(local_mapper, on_black(small / person), mask, 0.8, prompt)
        found = np.asarray(Image.open(out / f"{person}-0-00.png"), np.float64)
        off = np.abs(found - reference.image(prompt, whole))
        assert off.max() <= 1 and (off > 0).mean() < 0.01, off.max()
        assert np.abs(found - np.asarray(Image.open(tmp_path / "global" / f"{person}-0-00.png"), np.float64)).max() > 5
        # Without the person in the prompt there is nothing to look at.
        plain = (folder / f"{person}-0-01.png" for folder in (out, tmp_path / "global"))
        assert len({Image.open(path).tobytes() for path in plain}) == 1
    with pytest.raises(TrainError, match="another aux_metadata"):
        given.values["model"]["strength"] = 0.5
        images.generate(given, out, quiet=True)


def test_images_with_a_local_mapping_do_not_depend_on_each_other(tiny_sd, local_mapper):
    """Two images of a batch, as the largest value of the attention is each one's own."""
    base = Base(tiny_sd, torch.device("cpu"))
    local = Local(local_mapper, base, 0.8)
    torch.manual_seed(0)
    sample, context, vectors = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 32), torch.randn(2, 196, 32)
    with torch.no_grad():
        plain = base.unet(sample, torch.tensor(500.0), context).sample
        with local.looked_at(vectors, 4):
            both = base.unet(sample, torch.tensor(500.0), context).sample
        for n in range(2):
            one = slice(n, n + 1)
            with local.looked_at(vectors[one], 4):
                alone = base.unet(sample[one], torch.tensor(500.0), context[one]).sample
                # Before it, the unconditional half is as it was.
                halves = base.unet(sample[[1 - n, n]], torch.tensor(500.0), context[[1 - n, n]]).sample
            assert torch.allclose(alone, both[one], atol=1e-5)
            assert torch.allclose(halves[1:], both[one], atol=1e-5)
            assert torch.allclose(halves[:1], plain[1 - n : 2 - n], atol=1e-5)
            assert (alone - plain[one]).abs().max() > 1e-3


def test_a_local_mapping_that_does_not_fit_is_refused(tiny_sd, dataset, mapper, local_mapper, tmp_path):
    given = settings(tiny_sd, dataset, mapper)
    wrong = tmp_path / "local_mapper.pt"
    for state, problem in (
        (None, "is not there"),
        (without("mapping_patch_2.3.weight")(torch.load(local_mapper)), r"mapping_patch_2\.3\.weight"),
        (torch.load(local_mapper) | {"other": torch.ones(1)}, "other"),
    ):
        if state is not None:
            torch.save(state, wrong)
        given.values["model"]["local_mapper"] = str(wrong)
        with pytest.raises(TrainError, match=problem):
            images.generate(given, tmp_path / "out", quiet=True)
    given.values["model"] |= {"local_mapper": str(local_mapper), "strength": -1.0}
    with pytest.raises(TrainError, match="strength"):
        images.generate(given, tmp_path / "out", quiet=True)
