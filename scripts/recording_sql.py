"""The statements with which the service accepts and records samples on PostgreSQL, for scripts/layouts_bench.py.

They are those of src/store/accepting.rs (`accept`), src/store/group_commit.rs (`record`) and src/store/faces.rs
(`faces`), with literals where the service binds arguments. `LAYOUTS` are the ways to store scores that are compared.
"""

import hashlib
import json
import random
import time
import uuid
from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

PACK = "a" * 64
METRICS = ["aesthetic", "clip_i", "clip_n", "clip_t", "copy_paste", "dino", "dreamsim", "goa", "hpsv1", "hpsv2"]
METRICS += ["image_reward", "ips", "pick_score", "rfs", "sis"]
# From the change of the run's row, which locks it, until the log is flushed: psql prints the milliseconds.
LOCKED = "SELECT clock_timestamp() AS began \\gset\n"
RELEASED = "SELECT 1000 * extract(epoch FROM clock_timestamp() - :'began') AS held \\gset\n\\echo held :held\n"
NOW = "'2026-11-29 12:00:00+00'"
FOLDER = "bucket"


class Sample(NamedTuple):
    id: str
    run: str
    name: str
    image: str
    photo: str
    scores: Tuple[float, ...]


def uuid7(draw: random.Random) -> str:
    """An id as the service gives it: it begins with the time, so that rows are inserted at the end of an index."""
    value = time.time_ns() // 1_000_000 << 80 | 7 << 76 | draw.getrandbits(12) << 64 | 2 << 62 | draw.getrandbits(62)
    return str(uuid.UUID(int=value))


def samples(count: int, run: str, seed: int) -> List[Sample]:
    """New samples of a run: ten images a photo, and one score of each metric."""
    draw, made = random.Random(seed), []
    for at in range(count):
        image, photo = (
            hashlib.sha256(repr((seed, run, *part)).encode()).hexdigest() for part in ((at,), ("photo", at // 10))
        )
        scores = tuple(draw.random() for _ in METRICS)
        made.append(Sample(uuid7(draw), run, f"{seed:05}-{at:06}", image, photo, scores))
    return made


def rows(given: Sequence[Sequence[str]]) -> str:
    return ", ".join(f"({', '.join(row)})" for row in given)


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def sample_row(of: Sample) -> List[str]:
    """What pending_samples and samples have in common: id, run, name, content, prompt, image."""
    return [*map(text, (of.id, of.run, of.name, of.image[::-1], "a person riding a horse near Saturn", of.image))]


METADATA = text(json.dumps({"identity": "person 17", "prompt_kind": "T"}))


def accept(group: Sequence[Sample]) -> str:
    """Accepts samples in one transaction. The service accepts one at a time; more are what group commit would send."""
    run, photos = text(group[0].run), sorted({sample.photo for sample in group})
    files = sorted({(sample.image, 0) for sample in group} | {(photo, 1) for photo in photos})
    listed = ", ".join(map(text, photos))
    names = ", ".join(text(sample.name) for sample in group)
    state = [METADATA, text(PACK), text(FOLDER), "'waiting'", "0", NOW, NOW]
    pending = [[*sample_row(of), text(json.dumps([of.photo])), "'[]'", *state] for of in group]
    kept = rows([[text(FOLDER), run, text(image), str(photo), "1500000", "NULL"] for image, photo in files])
    return f"""BEGIN;
SELECT methods.name, runs.name, state, pack, waiting FROM runs JOIN methods ON methods.id = runs.method
    WHERE runs.id = {run} FOR KEY SHARE OF runs;
SELECT id, content, state FROM pending_samples WHERE run = {run} AND name IN ({names}) FOR NO KEY UPDATE;
SELECT id, content FROM samples WHERE run = {run} AND name IN ({names});
INSERT INTO packs (digest, name, weights, created) VALUES ({text(PACK)}, 'bench', 'official', {NOW})
    ON CONFLICT (digest) DO NOTHING;
INSERT INTO kept_files (folder, run, image, photo, bytes, key_id) VALUES {kept}
    ON CONFLICT (folder, run, image) DO UPDATE SET photo = GREATEST(excluded.photo, kept_files.photo);
SELECT image FROM kept_files WHERE photo = 1 AND folder = {text(FOLDER)} AND run = {run} AND image IN ({listed});
INSERT INTO pending_samples (id, run, name, content, prompt, image, reference_hashes, auxiliary_hashes, metadata, pack,
    folder, state, attempts, due, created) VALUES {rows(pending)} ON CONFLICT (run, name) DO NOTHING;
UPDATE runs SET waiting = waiting + {len(group)}, pack = COALESCE(pack, {text(PACK)}),
    service_version = COALESCE(service_version, 'bench') WHERE id = {run} AND (pack IS NULL OR pack = {text(PACK)});
{LOCKED}COMMIT;
{RELEASED}"""


def one_row_a_score(group: Sequence[Sample]) -> str:
    given = rows(
        [[text(of.id), text(metric), "1", repr(value)] for of in group for metric, value in zip(METRICS, of.scores)]
    )
    return f"""INSERT INTO scores (sample, metric, pack, metric_version, value, reason, flags, service_version, created)
    SELECT CAST(column1 AS uuid), column2, {text(PACK)}, column3, column4, NULL, '[]', 'bench', {NOW}
    FROM (VALUES {given}) AS given
    ON CONFLICT (sample, metric, pack) DO UPDATE SET metric_version = excluded.metric_version, value = excluded.value,
    reason = excluded.reason, flags = excluded.flags, service_version = excluded.service_version,
    created = excluded.created;
"""


def array(of: Sample) -> str:
    return "'{" + ",".join(map(repr, of.scores)) + "}'"


def one_row_a_sample(group: Sequence[Sample]) -> str:
    given = rows([[text(of.id), "1", array(of), NOW] for of in group])
    return f"INSERT INTO score_rows (sample, score_set, numbers, created) VALUES {given};\n"


def one_row_as_json(group: Sequence[Sample]) -> str:
    given = rows([[text(of.id), "1", text(json.dumps(of.scores)), NOW] for of in group])
    return f"INSERT INTO score_rows (sample, score_set, numbers, created) VALUES {given};\n"


def one_row_partitioned(group: Sequence[Sample]) -> str:
    given = rows([[text(of.run), text(of.id), "1", array(of), NOW] for of in group])
    return f"INSERT INTO score_rows (run, sample, score_set, numbers, created) VALUES {given};\n"


LAYOUTS: Dict[str, Callable[[Sequence[Sample]], str]] = {
    "scores": one_row_a_score,
    "array": one_row_a_sample,
    "json": one_row_as_json,
    "partitioned": one_row_partitioned,
}


def summaries(group: Sequence[Sample]) -> str:
    """Adds to the running summaries of a run, as src/store/summaries/running.rs does."""
    values = []
    for place, metric in enumerate(METRICS):
        numbers = [of.scores[place] for of in group]
        distances = [number - numbers[0] for number in numbers]
        sums = [numbers[0], sum(distances), sum(distance * distance for distance in distances)]
        values.append([text(group[0].run), text(PACK), text(metric), "1", str(len(group)), "0", *map(repr, sums)])
    return f"""INSERT INTO summaries (run, pack, metric, metric_version, n, nulls, pivot, total, squares)
    VALUES {rows(values)} ON CONFLICT (run, pack, metric, metric_version) DO UPDATE SET
    n = summaries.n + excluded.n, nulls = summaries.nulls + excluded.nulls,
    pivot = CASE WHEN summaries.n = 0 THEN excluded.pivot ELSE summaries.pivot END,
    total = CASE WHEN summaries.n = 0 THEN excluded.total WHEN excluded.n = 0 THEN summaries.total
        ELSE summaries.total + (excluded.total + excluded.n * (excluded.pivot - summaries.pivot)) END,
    squares = CASE WHEN summaries.n = 0 THEN excluded.squares WHEN excluded.n = 0 THEN summaries.squares
        ELSE summaries.squares + (excluded.squares + 2 * (excluded.pivot - summaries.pivot) * excluded.total
            + excluded.n * (excluded.pivot - summaries.pivot) * (excluded.pivot - summaries.pivot)) END;
"""


def record(group: Sequence[Sample], layout: str, evidence: int) -> str:
    """Records pending samples of one run in one transaction, with so many bytes of evidence each."""
    run = text(group[0].run)
    group = sorted(group, key=lambda sample: sample.name)
    images = rows([[f"CAST({run} AS uuid)", text(sample.image)] for sample in group])
    ids = ", ".join(text(sample.id) for sample in group)
    photos = sorted((sample.id, sample.photo) for sample in group)
    needed = ", ".join(text(image) for image in sorted({of for sample in group for of in (sample.image, sample.photo)}))
    full = [[*sample_row(of), "1024", "1024", text(json.dumps([of.photo])), "'[]'", METADATA, NOW] for of in group]
    of_evidence = ""
    if evidence:
        # Compressed bytes look random.
        found = [[text(uuid7(random.Random(of.id))), text(of.id), text(PACK), bytea(evidence, of.id)] for of in group]
        of_evidence = f"INSERT INTO evidence (id, sample, pack, evidence) VALUES {rows(found)};\n"
    return f"""BEGIN;
SELECT runs.id FROM runs WHERE runs.id IN ({run}) ORDER BY runs.id FOR KEY SHARE OF runs;
SELECT run, image FROM kept_files WHERE photo = 0 AND (run, image) IN (VALUES {images}) ORDER BY run, image, folder
    FOR NO KEY UPDATE;
SELECT id FROM pending_samples WHERE state = 'waiting' AND id IN ({ids}) ORDER BY id FOR NO KEY UPDATE;
SELECT image, created FROM faces WHERE graphs = {text(PACK)} AND image IN ({needed}) ORDER BY image FOR KEY SHARE;
INSERT INTO packs (digest, name, weights, created) VALUES ({text(PACK)}, 'bench', 'official', {NOW})
    ON CONFLICT (digest) DO NOTHING;
INSERT INTO samples (id, run, name, content, prompt, image, width, height, reference_hashes, auxiliary_hashes, metadata,
    created) VALUES {rows(full)} ON CONFLICT (run, name) DO NOTHING RETURNING id;
INSERT INTO sample_photos (sample, image) VALUES {rows([[text(id), text(photo)] for id, photo in photos])};
DELETE FROM pending_samples WHERE id IN ({ids});
DELETE FROM kept_files WHERE photo = 0 AND (run, image) IN (VALUES {images})
    AND NOT EXISTS (SELECT 1 FROM pending_samples WHERE pending_samples.run = kept_files.run
    AND pending_samples.image = kept_files.image AND pending_samples.state = 'waiting');
{LAYOUTS[layout](group)}{of_evidence}UPDATE runs SET revision = revision + {len(group)}, scored = scored + {len(group)},
    waiting = waiting - {len(group)} WHERE id = {run};
{LOCKED}{summaries(group)}COMMIT;
{RELEASED}"""


def bytea(count: int, seed: str) -> str:
    return f"'\\x{random.Random(seed).randbytes(count).hex()}'"


def faces(group: Sequence[Sample], size: int) -> str:
    """Stores the faces of images in one transaction; the service has one for each image. A face has a box, landmarks
    and an embedding of 512 numbers."""
    images = ", ".join(text(of.image) for of in group)
    given = rows([[text(of.image), text(PACK), bytea(size, of.id), NOW] for of in group])
    return f"""BEGIN;
SELECT image FROM kept_files WHERE image IN ({images}) FOR KEY SHARE;
INSERT INTO faces (image, graphs, faces, created) VALUES {given}
    ON CONFLICT (image, graphs) DO UPDATE SET faces = excluded.faces, created = excluded.created;
COMMIT;
"""


def read(group: Sequence[Sample]) -> str:
    """Takes pulled ids: reads their pending rows and counts the attempts (src/store/attempts.rs). A crash may lose it."""
    ids = ", ".join(text(of.id) for of in group)
    return f"""BEGIN;
SET LOCAL synchronous_commit = off;
SELECT pending_samples.id, pending_samples.run, methods.name AS method_name, runs.name AS run_name,
    metrics, pending_samples.name, content, prompt, image, reference_hashes, auxiliary_hashes, metadata, attempts, due,
    deaths + begun AS deaths, begun
    FROM pending_samples JOIN runs ON runs.id = pending_samples.run JOIN methods ON methods.id = runs.method
    WHERE pending_samples.state = 'waiting' AND pending_samples.id IN ({ids}) ORDER BY pending_samples.id
    FOR NO KEY UPDATE OF pending_samples;
UPDATE pending_samples SET deaths = deaths + begun, begun = 1 WHERE id IN ({ids});
COMMIT;
"""
