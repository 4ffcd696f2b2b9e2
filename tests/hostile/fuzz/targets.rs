//! The parsers, each with valid seeds.

use std::{fs, path::Path};

use axum::{
    body::Body,
    http::{Request, header},
};
use stellar_score::{
    dataset::{Dataset, SampleFolders, SampleSize, Sources, make_sample, prepare},
    engine::Pack,
    scoring::Metadata,
    text::relations::relations,
    toolkit::{self, Generation},
    upload::read_folder,
    vision::{DecodeLimits, decode, read_header},
};

use super::driver::fuzz;
use crate::{
    harness::{App, ONE_GRAPH},
    support::{form::Form, images::png},
};

pub(super) fn files(folder: &str, most_bytes: u64) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<_> =
        fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.retain(|path| path.metadata().is_ok_and(|of| of.is_file() && of.len() <= most_bytes));
    paths.into_iter().map(|path| fs::read(path).expect("a file")).collect()
}

pub(super) fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn images() {
    // Small images, so that headers and entropy coding take most of the time, and not pixels.
    let limits =
        DecodeLimits { max_pixels: 1 << 20, max_memory: 64 << 20, ..DecodeLimits::default() };
    let words: [&[u8]; 9] = [
        b"IHDR",
        b"IDAT",
        b"PLTE",
        b"tRNS",
        b"acTL",
        b"VP8X",
        b"ALPH",
        b"\xff\xc4",
        b"Exif\0\0MM\0*",
    ];
    let mut seeds = files("packs/demo/goldens", 40 << 10);
    seeds.extend(files("tests/data/vision/decode", 40 << 10));
    fuzz("images", seeds, &words, |bytes| {
        for bytes in [bytes, &with_right_sums(bytes)] {
            if let Ok(image) = decode(bytes, &limits) {
                let header = read_header(bytes, &limits).expect("what decodes has a header");
                assert_eq!((header.width, header.height), (image.width, image.height));
            }
        }
    });
}

/// Corrects the checksums of a PNG: with wrong ones, decoding ends at the first changed chunk.
fn with_right_sums(png: &[u8]) -> Vec<u8> {
    let mut bytes = png.to_vec();
    let mut at = 8;
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().expect("4 bytes")) as usize;
        let Some(end) = at.checked_add(8 + length).filter(|end| end + 4 <= bytes.len()) else {
            break;
        };
        let sum = crc32(&bytes[at + 4..end]);
        bytes[end..end + 4].copy_from_slice(&sum.to_be_bytes());
        at = end + 4;
    }
    bytes
}

/// The checksum of PNG: section 5.5 and annex D of its specification.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
}

#[test]
fn an_unchanged_png_keeps_its_checksums() {
    let png = png(1);
    assert_eq!(with_right_sums(&png), png);
}

#[test]
fn forms() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let app = runtime.block_on(App::start());
    let seed = Form::new()
        .file("image", png(1))
        .field("prompt", "a person")
        .field("metadata", r#"{"attributes":{"Young":true}}"#)
        .field("metrics", ONE_GRAPH)
        .field("method", "m");
    let kind = Form::content_type();
    let words: [&[u8]; 5] = [
        b"Content-Disposition: form-data; name=\"image\"\r\n\r\n",
        b"filename=",
        b"reference[]",
        b"\r\n--",
        b"--",
    ];
    fuzz("forms", vec![seed.finish()], &words, |bytes| {
        let request = Request::post("/v1/score").header(header::CONTENT_TYPE, &*kind);
        let request = request.body(Body::from(bytes.to_vec())).expect("a valid request");
        let response = runtime.block_on(app.send(request));
        assert!(response.status.as_u16() < 500, "{}", response.status);
    });
}

/// Fuzzes bodies of routes that accept JSON or CSV; every input goes to every route.
fn bodies(name: &str, kind: &str, routes: &[(&str, &str)], seeds: &[&str], words: &[&[u8]]) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let app = runtime.block_on(App::start());
    fuzz(name, texts(seeds), words, |bytes| {
        for (method, path) in routes {
            let request =
                Request::builder().method(*method).uri(*path).header(header::CONTENT_TYPE, kind);
            let request = request.body(Body::from(bytes.to_vec())).expect("a valid request");
            let response = runtime.block_on(app.send(request));
            assert!(response.status.as_u16() < 500, "{method} {path}: {}", response.status);
        }
    });
}

#[test]
fn json_bodies() {
    let routes = [
        ("POST", "/v1/methods"),
        ("POST", "/v1/runs"),
        ("POST", "/v1/preferences"),
        ("PUT", "/v1/datasets/d/prompts"),
    ];
    let seeds = [
        r#"{"name":"m","description":"two\nlines"}"#,
        r#"{"method":"m","run":"r","dataset":"d","split":"test","metrics":["ips"],"settings":{"steps":50}}"#,
        r#"{"preferences":[{"question":"overall","annotator":"a","name":"n","run_a":"0197a7c6-6f00-7000-8000-000000000001","run_b":"0197a7c6-6f00-7000-8000-000000000002","preferred":"a"}]}"#,
        r#"{"preferences":[{"question":"identity","annotator":"a","name":"n","run":"0197a7c6-6f00-7000-8000-000000000001","rating":4.5}]}"#,
        r#"{"prompts":[{"identity":"0","prompt":"{} riding a horse","kind":"T","categories":["sports"],"detectables":["horse"],"relations":[["person","riding","horse"]]}]}"#,
    ];
    bodies(
        "json_bodies",
        "application/json",
        &routes,
        &seeds,
        &[b"prompts", b"preferences", b"null", b"[[", b"{}"],
    );
}

#[test]
fn preferences_as_csv() {
    let seeds = [
        "question,annotator,name,run_a,run_b,preferred\noverall,ada,1,0197a7c6-6f00-7000-8000-000000000001,0197a7c6-6f00-7000-8000-000000000002,tie\n",
        "question,annotator,name,run,rating\nobject,\"a, \
            b\",1,0197a7c6-6f00-7000-8000-000000000001,4.5\n",
    ];
    bodies(
        "preferences_as_csv",
        "text/csv",
        &[("POST", "/v1/preferences")],
        &seeds,
        &[b"preferred", b"rating", b"\"\"", b"\xef\xbb\xbf"],
    );
}

#[test]
fn metadata_and_prompts() {
    let seeds = texts(&[
        r#"{"attributes":{"Young":1,"Male":-1},"detectables":["horse"],"relations":[["person","riding","horse"]]}"#,
        r#"{"identity":"000","prompt_kind":"T","categories":["sports"],"dataset":"people"}"#,
        "a man riding a horse next to a tree, under a bridge and behind two dogs",
        "masterpiece, best quality, 8k, (person:1.2) wearing a hat, holding an umbrella",
    ]);
    let words: [&[u8]; 6] =
        [b"attributes", b"relations", b"riding", b" on top of ", b", and ", b"\xc3\xa9"];
    fuzz("metadata_and_prompts", seeds, &words, |bytes| {
        if let Ok(metadata) = serde_json::from_slice::<Metadata>(bytes)
            && let Ok(clean) = metadata.clean(256)
        {
            assert_eq!(clean.clone().clean(256).as_ref(), Ok(&clean), "cleaning is idempotent");
        }
        // The routes refuse longer prompts.
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(8_192)]);
        for relation in relations(&text) {
            assert!(!relation.subject.is_empty());
        }
    });
}

#[test]
fn tables() {
    let seeds = texts(&[
        ",name,clip_t,clip_i,clip_n\n0,a,0.1,0.2,0.3\n1,b,nan,,-1e3\n",
        ",name,aesthetic_score\n0,\"a, b\",5.25\n",
        ",name,Young_target,Young_pred\n0,a,1,-1\n",
        "name,aesthetic_score\na,5.25\n",
    ]);
    fuzz("tables", seeds, &[b"name", b"clip_t", b"_target", b"\"\"", b"\xef\xbb\xbf"], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        for name in [None, Some("aesthetic_score.csv")] {
            if let Ok(table) = toolkit::parse(&text, name, 1_000) {
                assert!(table.names.len() <= 1_000);
                // A written table reads back unchanged.
                let again = toolkit::parse(&table.write(), None, 1_000);
                assert_eq!(again.map(|again| again.names), Ok(table.names));
            }
        }
    });
}

#[test]
fn generations() {
    let seeds = texts(&[
        r#"{"attributes":{"Male":1},"categories":["sports"],"detectables":["tree"],"image_path":"stellar/000/0.jpg","index":0,"is_stellar_t":true,"model_name":"m","prompt":"{} riding a horse","save_name":"000-0-00","steps":0}"#,
    ]);
    fuzz("generations", seeds, &[b"save_name", b"{}", b"{0}", b"is_stellar_t"], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(generation) = Generation::parse(&text) {
            assert!(
                generation
                    .photo()
                    .is_none_or(|(folder, name)| !folder.is_empty() && !name.is_empty())
            );
        }
        drop(toolkit::format_prompt(&text));
    });
}

#[test]
fn pack_manifests() {
    let folder = tempfile::tempdir().expect("a folder");
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/demo/pack.toml");
    let seed = fs::read(demo).expect("the demo pack");
    // The folder has no graphs: a valid manifest fails at its first file.
    fuzz(
        "pack_manifests",
        vec![seed],
        &[b"[[graph]]", b"max_batch", b"geometry", b"\"\"\"", b"inf"],
        |bytes| {
            fs::write(folder.path().join("pack.toml"), bytes).expect("a file");
            drop(Pack::open(folder.path()));
        },
    );
}

/// A synthetic dataset in this folder.
fn dataset(root: &Path) -> SampleFolders {
    make_sample(root, SampleSize { identities: 1, prompts: 2 }).expect("a synthetic dataset")
}

/// Replaces one of these files in turn with each input and calls `look`.
fn in_place_of(name: &str, files: &[&Path], words: &[&[u8]], look: impl Fn()) {
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).expect("a file")).collect();
    let originals = seeds.clone();
    let mut turn = 0;
    fuzz(name, seeds, words, |bytes| {
        turn = (turn + 1) % files.len();
        fs::write(files[turn], bytes).expect("a file");
        look();
        fs::write(files[turn], &originals[turn]).expect("a file");
    });
}

#[test]
fn celeba_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = dataset(&folder.path().join("sample"));
    let at = |name: &str| made.download.join(name);
    let prompt = |name: &str| made.prompts.join(name);
    let files = [
        at("CelebA-HQ-to-CelebA-mapping.txt"),
        at("classification_label/CelebAMask-HQ-attribute-anno.txt"),
        at("classification_label/combined_annotation_hq.txt"),
        at("identity/identity_CelebA-HQ.txt"),
        at("image.zip"),
        prompt("celebahq_ids.txt"),
        prompt("stellar_t.json"),
    ];
    let files = files.each_ref().map(std::path::PathBuf::as_path);
    let out = folder.path().join("out");
    in_place_of(
        "celeba_files",
        &files,
        &[b" 1", b" -1", b".jpg", b"PK\x01\x02", b"PK\x05\x06"],
        || {
            let sources = Sources {
                download: made.download.clone(),
                prompts: made.prompts.clone(),
                out: out.clone(),
            };
            drop(prepare(&sources, &DecodeLimits::default(), |_, _| {}));
            drop(fs::remove_dir_all(&out));
        },
    );
}

#[test]
fn dataset_folders() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = dataset(&folder.path().join("sample"));
    let out = folder.path().join("out");
    let sources = Sources {
        download: made.download.clone(),
        prompts: made.prompts.clone(),
        out: out.clone(),
    };
    prepare(&sources, &DecodeLimits::default(), |_, _| {}).expect("a dataset");
    let (whole, _) = Dataset::open(&out).expect("a dataset");
    let mut files: Vec<_> = fs::read_dir(out.join("000"))
        .expect("a folder")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let generation =
        fs::read_dir(&made.generations).expect("a folder").flatten().map(|entry| entry.path());
    files.extend(
        generation.filter(|path| path.extension().is_some_and(|kind| kind == "json")).take(1),
    );
    files.retain(|path| path.extension().is_some_and(|kind| kind == "json"));
    files.sort();
    let files: Vec<&Path> = files.iter().map(std::path::PathBuf::as_path).collect();
    in_place_of("dataset_folders", &files, &[b"attributes", b"prompt", b"identity", b"{}"], || {
        drop(Dataset::open(&out));
        drop(read_folder(&made.generations, &whole));
    });
}
