"""A folder of generated images, read back by the program itself."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from conftest import PROGRAM, ROOT
from PIL import Image

from stellar_score import Dataset, DatasetError
from stellar_score.dataset import format_prompt


def image(seed):
    return numpy.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=numpy.uint8)


def program(*arguments, check=True):
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="session")
def stellar(tmp_path_factory):
    """A synthetic dataset in the Stellar layout: 3 people with 2 photos, 4 prompts each."""
    folder = tmp_path_factory.mktemp("stellar")
    program("dataset", "synthesize", "--out", folder / "sample", "--identities", 3, "--prompts", 4)
    sources = ("--download", folder / "sample/download", "--prompts", folder / "sample/prompts")
    program("dataset", "prepare", *sources, "--out", folder / "stellar")
    return folder / "stellar"


@pytest.fixture
def manifest(tmp_path, goldens):
    """A dataset with a manifest: names and paths of every kind."""
    folder = tmp_path / "mine"
    (folder / "photos/deep").mkdir(parents=True)
    data = (goldens / "astronaut-face.jpg").read_bytes()
    for name in ("photos/ada-1.jpg", "photos/deep/ada-2.jpg", "bob.jpg"):
        (folder / name).write_bytes(data)
    lines = [
        {"identity": "ada/ü", "photo": "photos/ada-1.jpg", "attributes": {"Young": True, "Male": False}},
        {"identity": "ada/ü", "photo": "photos/deep/ada-2.jpg", "attributes": {"Young": True, "Male": False}},
        {"identity": "bob", "photo": "bob.jpg", "name": "only one", "attributes": {"Young": False, "Male": True}},
        {"prompt": "{} on a horse", "kind": "T", "categories": ["sports"], "detectables": ["horse"]},
        {"prompt": "{0} and {0} {{}}", "relations": [["person", "beside", "person"]]},
        {"identity": "bob", "prompt": "{} asleep", "kind": "quiet"},
    ]
    (folder / "dataset.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return folder


def generate(dataset, **options):
    for job in dataset.jobs(**options):
        dataset.save(image(job.index), job, seed=job.seed)


def samples_of(client, run):
    return {each["name"]: each["content"] for each in client.open_run(run).samples()}


@pytest.mark.parametrize("layout", ["stellar", "manifest"])
def test_the_program_and_the_client_send_the_same_samples(layout, request, service, client, tmp_path):
    """The content hash covers image, prompt, photos and all metadata."""
    folder = request.getfixturevalue(layout)
    dataset = Dataset(folder, out=tmp_path / "generations")
    generate(dataset)
    done = program(
        "submit",
        "--server",
        f"http://127.0.0.1:{service.port}",
        "--method",
        f"program-{layout}",
        "--dataset",
        folder,
        "--images",
        tmp_path / "generations",
        "--metrics",
        "clip_t",
    )
    assert "problem" not in done.stderr
    assert "note" not in done.stderr.replace("note: the demo pack", "")
    with client.run(f"client-{layout}", metrics=["clip_t"]) as run:
        assert run.add_folder(dataset, progress=False) == len(dataset)
    mine, theirs = samples_of(client, run.id), samples_of(client, f"program-{layout}")
    assert mine == theirs
    assert len(mine) == len(dataset) == {"stellar": 24, "manifest": 7}[layout]
    run.finish()
    assert run.wait(timeout=60)["counts"]["scored"] == len(dataset)
    assert run.summary() == client.open_run(f"program-{layout}").summary()


def test_what_a_generator_needs(stellar, tmp_path):
    jobs = list(Dataset(stellar, out=tmp_path).jobs())
    first = jobs[0]
    assert (first.name, first.identity, first.kind, first.index) == ("000-0-00", "000", "T", 0)
    assert [job.name for job in jobs[:3]] == ["000-0-00", "000-1-00", "000-0-01"]
    assert first.prompt.startswith("a person ")
    assert first.template.startswith("{} ")
    assert first.prompt_for("sks") == first.prompt.replace("a person", "sks")
    assert first.photo == stellar / "000/0.jpg"
    assert first.others == [stellar / "000/1.jpg"]
    assert first.mask == stellar / "000/0_bg.png"
    assert first.mask.is_file()
    assert first.photo.is_file()
    assert first.seed == next(Dataset(stellar, out=tmp_path).jobs()).seed
    assert len({job.seed for job in jobs}) == len(jobs)
    assert len(first.metadata["attributes"]) == 8
    assert {job.name for job in Dataset(stellar, tmp_path, photos="first").jobs()} == {
        job.name for job in jobs if "-0-" in job.name
    }


def test_ranks_share_the_work_and_kinds_choose_it(stellar, tmp_path):
    dataset = Dataset(stellar, tmp_path)
    parts = [[job.name for job in dataset.jobs(rank=rank, world=3)] for rank in range(3)]
    assert sorted(name for part in parts for name in part) == sorted(job.name for job in dataset.jobs())
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    kinds = [{job.name for job in dataset.jobs(kind=kind)} for kind in ("T", "H")]
    assert kinds[0] | kinds[1] == {job.name for job in dataset.jobs()}
    assert not kinds[0] & kinds[1]
    with pytest.raises(ValueError, match="rank 3 of 3"):
        next(dataset.jobs(rank=3, world=3))


def test_a_script_that_is_started_again_makes_only_what_is_missing(stellar, tmp_path):
    dataset = Dataset(stellar, tmp_path)
    jobs = list(dataset.jobs())
    for job in jobs[:5]:
        dataset.save(image(0), job)
    (tmp_path / f"{jobs[1].name}.json").unlink()
    (tmp_path / f"{jobs[3].name}.png").unlink()
    left = [job.name for job in Dataset(stellar, tmp_path).jobs()]
    assert left == [job.name for job in (jobs[1], jobs[3], *jobs[5:])]
    assert Dataset(stellar, tmp_path).all_jobs() == jobs
    assert len(dataset.samples()) == 3


def test_a_killed_script_leaves_no_half_of_a_file(stellar, tmp_path):
    """The program lists every damaged or unpaired file, so it judges what a kill leaves behind."""
    script = f"""
import sys; sys.path.insert(0, {str(Path(sys.modules["stellar_score"].__file__).parent.parent)!r})
from stellar_score import Dataset, Pixels, pixels
dataset = Dataset({str(stellar)!r}, {str(tmp_path)!r})
# A file that takes a while to write.
data = pixels.encode_png(Pixels(2000, 1000, bytes(6_000_000)), 0)
print("ready", flush=True)
while True:
    for job in list(dataset.jobs()):
        dataset.save(data, job)
    for file in dataset.out.glob("0*"):
        file.unlink()
"""
    for wait in (0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1):
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        child.stdout.readline()
        try:
            child.wait(wait)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        for file in tmp_path.glob("0*.png"):
            assert file.read_bytes().endswith(b"IEND\xaeB`\x82"), file
        for file in tmp_path.glob("0*.json"):
            json.loads(file.read_text())
    generate(Dataset(stellar, tmp_path))
    assert len(Dataset(stellar, tmp_path).samples()) == 24


def test_files_are_kept_as_they_are_and_replaced_by_other_formats(stellar, tmp_path, goldens):
    dataset = Dataset(stellar, tmp_path)
    job = next(dataset.jobs())
    saved = dataset.save(goldens / "coffee.jpg", job, steps=20, model_name="mine")
    assert saved == tmp_path / f"{job.name}.jpg"
    assert saved.read_bytes() == (goldens / "coffee.jpg").read_bytes()
    about = json.loads((tmp_path / f"{job.name}.json").read_text())
    assert (about["steps"], about["model_name"], about["is_stellar_t"]) == (20, "mine", True)
    assert set(about["attributes"].values()) <= {1, -1}
    assert dataset.is_done(job)
    dataset.save(image(1), job)
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"{job.name}.json", f"{job.name}.png"]
    (tmp_path / "plain").touch()
    assert os.stat(tmp_path / f"{job.name}.png").st_mode == os.stat(tmp_path / "plain").st_mode
    with pytest.raises(ValueError, match="neither PNG, JPEG nor WebP"):
        dataset.save(b"GIF89a", job)
    with pytest.raises(ValueError, match="prompt: these keys belong to the layout"):
        dataset.save(image(1), job, prompt="other")


def test_a_folder_of_another_dataset_is_refused(stellar, manifest, tmp_path):
    dataset = Dataset(stellar, tmp_path / "out")
    job = next(dataset.jobs())
    dataset.save(image(0), job)
    path = tmp_path / f"out/{job.name}.json"
    text = path.read_text()
    for key, value in (("prompt", "another"), ("image_path", "x/000/1.jpg")):
        path.write_text(json.dumps({**json.loads(text), key: value}))
        with pytest.raises(DatasetError, match="another prompt or photo"):
            list(Dataset(stellar, tmp_path / "out").jobs())
    path.write_text(json.dumps({**json.loads(text), "image_path": "D:\\data\\000\\0.jpg"}))
    assert job.name not in [each.name for each in Dataset(stellar, tmp_path / "out").jobs()]
    with pytest.raises(ValueError, match="name the folder"):
        list(Dataset(stellar).jobs())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 1 is not JSON"),
        ("{}", "neither `photo` nor `prompt`"),
        ('{"identity": "a", "photo": "../x.jpg"}', "below the folder"),
        ('{"identity": "a", "photo": "x.jpg"}', "there is no file x.jpg"),
        ('{"identity": " ", "photo": "bob.jpg"}', "`identity` is missing or empty"),
        ('{"identity": "a", "photo": "bob.jpg", "attribute": {}}', "unknown key `attribute`"),
        ('{"identity": "eve", "prompt": "{}"}', "no photo of identity 'eve'"),
        ('{"prompt": "{style} of {}"}', "line 1: the prompt .* has a brace"),
    ],
)
def test_problems_of_a_manifest_are_named_with_their_line(manifest, line, words):
    text = (manifest / "dataset.jsonl").read_text()
    (manifest / "dataset.jsonl").write_text(line + "\n" + text)
    with pytest.raises(DatasetError, match=words):
        Dataset(manifest)
    assert program("dataset", "check", manifest, check=False).returncode != 0, "the program refuses it too"


def test_photos_of_a_manifest_have_the_masks_that_are_named_or_beside_them(manifest):
    for mask in ("photos/ada-1_bg.png", "drawn.png"):
        Image.fromarray(image(0)).save(manifest / mask)
    text = (manifest / "dataset.jsonl").read_text()
    (manifest / "dataset.jsonl").write_text(text.replace('"bob.jpg",', '"bob.jpg", "mask": "drawn.png",'))
    masks = {identity: [photo.mask for photo in photos] for identity, photos in Dataset(manifest).photos.items()}
    assert masks == {"ada/ü": [manifest / "photos/ada-1_bg.png", None], "bob": [manifest / "drawn.png"]}
    program("dataset", "check", manifest)


def test_photos_of_a_manifest_do_not_share_a_mask_that_no_line_names(manifest):
    for name in ("bob.png", "bob_bg.png"):
        Image.fromarray(image(0)).save(manifest / name)
    path, text = manifest / "dataset.jsonl", (manifest / "dataset.jsonl").read_text()
    other = {"identity": "eve", "photo": "bob.png"}
    path.write_text(text + json.dumps(other))
    words = "line 8: bob.jpg and bob.png have the same mask bob_bg.png: rename one of them, or name their masks"
    with pytest.raises(DatasetError, match=words):
        Dataset(manifest)
    # One that is named may be that of several photos, and a photo may be that of several people.
    path.write_text(text + json.dumps({**other, "mask": "bob_bg.png"}))
    assert Dataset(manifest).photos["eve"][0].mask == manifest / "bob_bg.png"
    path.write_text(text + json.dumps({"identity": "eve", "photo": "bob.jpg"}))
    assert Dataset(manifest).photos["eve"][0].mask == manifest / "bob_bg.png"


def test_photos_that_cannot_be_told_apart_are_refused(manifest, goldens):
    (manifest / "other/photos").mkdir(parents=True)
    (manifest / "other/photos/ada-1.jpg").write_bytes((goldens / "coffee.jpg").read_bytes())
    with open(manifest / "dataset.jsonl", "a") as file:
        file.write('{"identity": "eve", "photo": "other/photos/ada-1.jpg"}\n')
    with pytest.raises(DatasetError, match="same folder and file name"):
        Dataset(manifest)


def test_a_folder_that_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"neither folders 000, 001, … as in Stellar, nor a file dataset\.jsonl"):
        Dataset(tmp_path)


@pytest.mark.parametrize(
    "prompt",
    ["{} as a clown", "no person", "{0} and {0}", "{{}} for {}", "é {} 字", "", "{{{}}}", "}}{{"],
)
def test_prompts_are_formatted_as_python_does(prompt):
    assert format_prompt(prompt) == prompt.format("a person")


@pytest.mark.parametrize(
    "prompt",
    ["{style}", "{} and {}", "{} and {0}", "{0} and {}", "an open {", "a closed }", "{:>10}", "{1}", "{!r}", "}{"],
)
def test_other_braces_are_refused(prompt):
    with pytest.raises(DatasetError, match="brace"):
        format_prompt(prompt)
