use std::fs;

use tempfile::TempDir;

use super::*;
use crate::tensor::{Dtype, Tensor};
use crate::text::Cleaning;

const GRAPH: &[u8] = b"graph";
const MERGES: &[u8] = b"merges";

/// A pack folder with an image and a text graph. `edit` may change the manifest before it is
/// written.
fn pack(edit: impl FnOnce(String) -> String) -> (TempDir, Result<Pack, PackError>) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("graphs")).unwrap();
    fs::create_dir_all(dir.path().join("tokenizers")).unwrap();
    fs::write(dir.path().join("graphs/image.onnx"), GRAPH).unwrap();
    fs::write(dir.path().join("graphs/text.onnx"), GRAPH).unwrap();
    fs::write(dir.path().join("graphs/text.onnx.data"), b"weights").unwrap();
    fs::write(dir.path().join("tokenizers/merges.txt"), MERGES).unwrap();
    fs::write(dir.path().join("goldens.json"), b"{}").unwrap();
    fs::write(dir.path().join("pack.toml"), edit(manifest())).unwrap();
    let opened = Pack::open(dir.path());
    (dir, opened)
}

fn manifest() -> String {
    let (graph, merges) = (Sha::of(GRAPH), Sha::of(MERGES));
    let (data, goldens) = (Sha::of(b"weights"), Sha::of(b"{}"));
    format!(
        r#"
schema = 1
name = "demo"
weights = "demo"
exporter = "stellar_export 0.1.0"

[[tokenizer]]
name = "clip"
kind = "clip_bpe"
file = "tokenizers/merges.txt"
sha256 = "{merges}"

[[graph]]
role = "clip_l.image"
kind = "image"
precision = "fp32"
max_batch = 16
files = [{{ path = "graphs/image.onnx", sha256 = "{graph}" }}]
source = {{ checkpoint = "openai/clip-vit-large-patch14", revision = "local", file = "model.safetensors", sha256 = "{graph}" }}
inputs = [{{ name = "pixels", dtype = "u8", shape = [224, 224, 3] }}]
outputs = [{{ name = "embedding", dtype = "f32", shape = [768] }}, {{ name = "aesthetic", dtype = "f32", shape = [] }}]
geometry = {{ resize = "shortest_edge", height = 224, width = 224, filter = "bicubic", crop = "floor", dtype = "u8" }}

[[graph]]
role = "clip.text"
kind = "text"
precision = "fp16"
max_batch = 32
files = [{{ path = "graphs/text.onnx", sha256 = "{graph}" }}, {{ path = "graphs/text.onnx.data", sha256 = "{data}" }}]
source = {{ checkpoint = "random", revision = "local" }}
text = {{ tokenizer = "clip", cleaning = "hf_slow", context = 77, pad = 49407 }}
inputs = [{{ name = "input_ids", dtype = "i64", shape = [-1] }}]
outputs = [{{ name = "embedding", dtype = "f32", shape = [1280] }}]

[goldens]
file = "goldens.json"
sha256 = "{goldens}"
"#
    )
}

fn refused(edit: impl FnOnce(String) -> String) -> String {
    pack(edit).1.unwrap_err().to_string()
}

#[test]
fn every_field_of_a_manifest_is_read() {
    let (dir, opened) = pack(|manifest| manifest);
    let pack = opened.unwrap();
    assert_eq!((pack.name.as_str(), pack.weights), ("demo", Weights::Demo));
    let bytes = fs::read(dir.path().join("pack.toml")).unwrap();
    assert_eq!(pack.digest, Sha::of(&bytes));

    let image = pack.graph("clip_l.image").unwrap();
    assert_eq!(
        (image.kind, image.precision, image.max_batch),
        (GraphKind::Image, Precision::Fp32, 16)
    );
    assert_eq!(image.file(), dir.path().join("graphs/image.onnx"));
    assert_eq!(image.inputs[0].to_string(), "pixels u8[224, 224, 3]");
    assert_eq!(image.outputs[1].to_string(), "aesthetic f32[]");
    assert_eq!(image.geometry.unwrap().size(), Some((224, 224)));

    let text = pack.graph("clip.text").unwrap();
    assert_eq!(text.inputs[0].shape, [Dim::Dynamic]);
    let spec = text.text.as_ref().unwrap();
    assert_eq!((spec.cleaning, spec.context, spec.pad), (Cleaning::HfSlow, 77, 49407));
    let tokenizer = pack.tokenizer(&spec.tokenizer).unwrap();
    assert_eq!(tokenizer.file, dir.path().join("tokenizers/merges.txt"));
    assert_eq!(pack.goldens.unwrap().file, dir.path().join("goldens.json"));
    assert!(
        pack.graphs.iter().all(|graph| graph.role != "dino.image"),
        "missing graphs are not an error"
    );
}

#[test]
fn a_pack_without_graphs_is_valid() {
    let empty = "schema = 1\nname = \"e\"\nweights = \"official\"\nexporter = \"x\"\n";
    let pack = pack(|_| empty.into()).1.unwrap();
    assert_eq!((pack.weights, pack.graphs.len()), (Weights::Official, 0));
}

#[test]
fn a_changed_file_is_reported_with_both_hashes_and_a_remedy() {
    for (file, entry) in [
        ("graphs/image.onnx", "graph `clip_l.image`"),
        ("graphs/text.onnx.data", "graph `clip.text`"),
        ("tokenizers/merges.txt", "tokenizer `clip`"),
        ("goldens.json", "goldens"),
    ] {
        let (dir, opened) = pack(|manifest| manifest);
        opened.unwrap();
        let path = dir.path().join(file);
        let expected = Sha::of(&fs::read(&path).unwrap()).to_string();
        fs::write(&path, b"changed").unwrap();
        let error = Pack::open(dir.path()).unwrap_err().to_string();
        for part in
            [entry, file, &expected, &Sha::of(b"changed").to_string(), "copy the pack again"]
        {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }
}

#[test]
fn a_missing_file_is_reported_with_its_entry() {
    let (dir, _) = pack(|manifest| manifest);
    fs::remove_file(dir.path().join("graphs/text.onnx.data")).unwrap();
    let error = Pack::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("graph `clip.text`") && error.contains("text.onnx.data"), "{error}");
}

#[test]
fn the_error_for_a_folder_without_a_manifest_names_pack_toml() {
    let dir = tempfile::tempdir().unwrap();
    let error = Pack::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("pack.toml") && error.contains("packs/demo"), "{error}");
}

#[test]
fn another_schema_is_reported_even_if_it_has_unknown_fields() {
    let error = refused(|manifest| manifest.replace("schema = 1", "schema = 2\nfuture = true"));
    assert!(error.contains("schema 2") && error.contains("reads schema 1"), "{error}");
    let error = refused(|manifest| manifest.replace("schema = 1", ""));
    assert!(error.contains("missing field `schema`"), "{error}");
}

#[test]
fn an_unknown_field_is_refused_with_its_position() {
    let error =
        refused(|manifest| manifest.replace("max_batch = 16", "max_batch = 16\nmax_bach = 1"));
    assert!(error.contains("max_bach") && error.contains("line"), "{error}");
}

#[test]
fn paths_that_leave_the_pack_are_refused() {
    for path in ["../graphs/image.onnx", "graphs/../../x", "/etc/passwd", "", "."] {
        let error = refused(|manifest| manifest.replace("graphs/image.onnx", path));
        assert!(error.contains("leaves the pack's folder"), "{path}: {error}");
    }
}

#[test]
fn inconsistent_entries_are_refused_with_the_reason() {
    let cases = [
        ("role = \"clip.text\"", "role = \"clip_l.image\"", "the role appears twice"),
        ("role = \"clip.text\"", "role = \"clip text\"", "a role must be one word"),
        ("tokenizer = \"clip\"", "tokenizer = \"bert\"", "no tokenizer `bert`"),
        ("max_batch = 16", "max_batch = 0", "`max_batch` is 0"),
        ("context = 77", "context = 1", "`context` is 1"),
        (
            "height = 224, width = 224",
            "height = 336, width = 336",
            "`geometry` makes u8[336, 336, 3]",
        ),
        (
            "\"pixels\", dtype = \"u8\"",
            "\"pixels\", dtype = \"f32\"",
            "`geometry` makes u8[224, 224, 3]",
        ),
        ("[224, 224, 3]", "[3, 224, 224]", "take [height, width, 3]"),
        ("\"input_ids\", dtype = \"i64\"", "\"input_ids\", dtype = \"u8\"", "take i64 ids"),
        ("\"aesthetic\"", "\"embedding\"", "`outputs` has `embedding` twice"),
        (
            "\"aesthetic\", dtype = \"f32\"",
            "\"aesthetic\", dtype = \"i64\"",
            "is i64, expected f32",
        ),
        ("[768]", "[0]", "a dimension must be positive, or -1"),
        ("text = {", "# text = {", "needs a `text` table"),
        ("geometry = {", "# geometry = {", "needs a `geometry`"),
        (
            "inputs = [{ name = \"input_ids\", dtype = \"i64\", shape = [-1] }]",
            "inputs = []",
            "`inputs` is empty",
        ),
    ];
    for (from, to, reason) in cases {
        let error = refused(|manifest| {
            assert!(manifest.contains(from), "{from}");
            manifest.replace(from, to)
        });
        assert!(error.contains(reason), "{to}: {error}");
    }
}

#[test]
fn a_malformed_sha_is_refused_with_the_expected_format() {
    let sha = Sha::of(MERGES).to_string();
    for wrong in ["", "12", &"g".repeat(64), &"ä".repeat(32)] {
        let error = refused(|manifest| manifest.replace(&sha, wrong));
        assert!(error.contains("64 hexadecimal digits"), "{wrong}: {error}");
    }
    assert_eq!(Sha::try_from(sha.to_uppercase()).unwrap(), Sha::of(MERGES));
}

#[test]
fn weights_are_identified_by_all_files_including_external_data() {
    let pack = pack(|manifest| manifest).1.unwrap();
    let (image, text) = (pack.graph("clip_l.image").unwrap(), pack.graph("clip.text").unwrap());
    // The two ONNX files have the same bytes and differ only in their external data.
    assert_ne!(image.weights_id(), text.weights_id());
    let mut copy = image.clone();
    copy.role = "clip.image".into();
    assert_eq!(copy.weights_id(), image.weights_id());
}

#[test]
fn items_that_do_not_fit_the_signature_are_refused_with_expected_and_found() {
    let pack = pack(|manifest| manifest).1.unwrap();
    let image = pack.graph("clip_l.image").unwrap();
    let pixels = |shape: &[usize], length: usize| {
        vec![Tensor::U8 { shape: shape.to_vec(), data: vec![0; length].into() }]
    };
    assert_eq!(image.refuse(&pixels(&[224, 224, 3], 224 * 224 * 3)), None);
    let (expected, found) = image.refuse(&pixels(&[336, 336, 3], 336 * 336 * 3)).unwrap();
    assert_eq!((expected.as_str(), found.as_str()), ("pixels u8[224, 224, 3]", "u8[336, 336, 3]"));
    assert!(image.refuse(&pixels(&[224, 224, 3], 7)).unwrap().1.contains('7'));
    assert!(image.refuse(&[]).is_some());
    assert!(image.refuse(&[Tensor::ones(Dtype::F32, vec![224, 224, 3])]).is_some());

    let text = pack.graph("clip.text").unwrap();
    let ids = |length| vec![Tensor::ones(Dtype::I64, vec![length])];
    assert_eq!(text.refuse(&ids(1)), None);
    assert_eq!(text.refuse(&ids(77)), None);
    let (expected, _) = text.refuse(&ids(78)).unwrap();
    assert!(expected.contains("1 to 77"), "{expected}");
    assert!(text.refuse(&ids(0)).is_some());
}

#[test]
fn a_sample_fits_its_own_graph() {
    let pack = pack(|manifest| manifest).1.unwrap();
    for graph in &pack.graphs {
        assert_eq!(graph.refuse(&graph.sample()), None, "{}", graph.role);
    }
}

#[test]
fn large_files_are_hashed_like_small_ones() {
    let (dir, _) = pack(|manifest| manifest);
    // Three and a half reads.
    let bytes: Vec<u8> = (0..3_670_017_u32).map(|at| (at % 251) as u8).collect();
    let path = dir.path().join("large");
    fs::write(&path, &bytes).unwrap();
    assert_eq!(verify::digest(&path).unwrap(), Sha::of(&bytes));
}

const LABELS: &str = r#"{"classes": ["person", "dog"], "predicates": ["on", "near", "riding"]}"#;

/// A pack with a grounding graph, its text graph and a scene graph.
fn scene_pack(labels: &str, edit: impl FnOnce(String) -> String) -> Result<Pack, PackError> {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("labels")).unwrap();
    fs::write(dir.path().join("graph.onnx"), GRAPH).unwrap();
    fs::write(dir.path().join("merges.txt"), MERGES).unwrap();
    fs::write(dir.path().join("labels/relations.json"), labels).unwrap();
    let (graph, merges, labels) = (Sha::of(GRAPH), Sha::of(MERGES), Sha::of(labels.as_bytes()));
    let common = format!(
        r#"precision = "fp32"
max_batch = 2
files = [{{ path = "graph.onnx", sha256 = "{graph}" }}]
source = {{ checkpoint = "random", revision = "local" }}"#
    );
    let manifest = format!(
        r#"
schema = 1
name = "scene"
weights = "demo"
exporter = "x"

[[tokenizer]]
name = "clip"
kind = "clip_bpe"
file = "merges.txt"
sha256 = "{merges}"

[[graph]]
role = "owlvit.text"
kind = "text"
{common}
inputs = [{{ name = "input_ids", dtype = "i64", shape = [16] }}]
outputs = [{{ name = "embedding", dtype = "f32", shape = [32] }}]
text = {{ tokenizer = "clip", cleaning = "hf_fast", context = 16, pad = 0 }}

[[graph]]
role = "owlvit.image"
kind = "grounding"
{common}
inputs = [{{ name = "pixels", dtype = "u8", shape = [56, 56, 3] }}, {{ name = "queries", dtype = "f32", shape = [-1, 32] }}]
outputs = [{{ name = "logits", dtype = "f32", shape = [16, -1] }}, {{ name = "boxes", dtype = "f32", shape = [16, 4] }}]
geometry = {{ resize = "exact", height = 56, width = 56, filter = "bicubic", crop = "none", dtype = "u8" }}

[[graph]]
role = "relations"
kind = "image"
{common}
inputs = [{{ name = "pixels", dtype = "u8", shape = [-1, -1, 3] }}]
outputs = [{{ name = "classes", dtype = "f32", shape = [5, 2] }}, {{ name = "boxes", dtype = "f32", shape = [5, 4] }}, {{ name = "relation", dtype = "f32", shape = [5, 5, 3] }}, {{ name = "connectivity", dtype = "f32", shape = [5, 5] }}]
geometry = {{ resize = "bounded", shortest = 80, longest = 133, filter = "bilinear", crop = "none", dtype = "u8" }}
backend = "egtr"
labels = {{ path = "labels/relations.json", sha256 = "{labels}" }}
"#
    );
    fs::write(dir.path().join("pack.toml"), edit(manifest)).unwrap();
    let pack = Pack::open(dir.path())?;
    // The folder is deleted when this function returns, so labels are read now.
    assert_eq!(pack.read_labels("relations")?, Some(Labels::parse(LABELS).unwrap()));
    Ok(pack)
}

#[test]
fn grounding_and_scene_graphs_are_read_and_their_samples_fit() {
    let pack = scene_pack(LABELS, |manifest| manifest).unwrap();
    let shapes = |role| {
        pack.graph(role).unwrap().sample().iter().map(|t| t.shape().to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(shapes("owlvit.text"), [[16]]);
    assert_eq!(shapes("owlvit.image"), [vec![56, 56, 3], vec![8, 32]]);
    assert_eq!(shapes("relations"), [[80, 133, 3]]);
    assert!(pack.graphs.iter().all(|graph| graph.refuse(&graph.sample()).is_none()));
    let scene = pack.graph("relations").unwrap();
    assert_eq!(
        (scene.backend.as_deref(), SceneForm::of(scene)),
        (Some("egtr"), Ok(SceneForm::Pairs))
    );
    let pixels = |height, width| vec![Tensor::ones(Dtype::U8, vec![height, width, 3])];
    assert_eq!(scene.refuse(&pixels(1, 266)), None);
    assert!(scene.refuse(&pixels(267, 1)).is_some());
}

#[test]
fn triplets_with_a_nothing_column_fit_the_labels() {
    let pairs = "{ name = \"classes\", dtype = \"f32\", shape = [5, 2] }, { name = \"boxes\", \
        dtype = \"f32\", shape = [5, 4] }, { name = \"relation\", dtype = \"f32\", shape = [5, 5, \
        3] }, { name = \"connectivity\", dtype = \"f32\", shape = [5, 5] }";
    let output =
        |name, width| format!("{{ name = \"{name}\", dtype = \"f32\", shape = [7, {width}] }}");
    let triplets = [
        output("subject", 3),
        output("object", 3),
        output("predicate", 4),
        output("subject_boxes", 4),
        output("object_boxes", 4),
    ];
    let pack = scene_pack(LABELS, |manifest| {
        assert!(manifest.contains(pairs));
        manifest.replace(pairs, &triplets.join(", "))
    });
    assert_eq!(SceneForm::of(pack.unwrap().graph("relations").unwrap()), Ok(SceneForm::Triplets));
}

#[test]
fn inconsistent_scene_graphs_are_refused() {
    for (from, to, reason) in [
        (
            "shape = [5, 2]",
            "shape = [5, 4]",
            "the labels have 2 names for the last dimension of classes",
        ),
        ("shape = [5, 5, 3]", "shape = [5, 5, 5]", "the labels have 3 names"),
        ("shape = [5, 5, 3]", "shape = [5, 6, 3]", "the same, fixed number of queries"),
        ("\"connectivity\"", "\"links\"", "returns either classes"),
        ("backend = \"egtr\"", "", "both `labels` and a `backend`"),
        ("shape = [-1, -1, 3]", "shape = [64, 64, 3]", "`geometry` makes u8[any, any, 3]"),
        ("shape = [-1, 32]", "shape = [-1, 31]", "graph `owlvit.text` returns embedding"),
        ("shape = [-1, 32]", "shape = [4, 32]", "a grounding graph must take"),
        ("shape = [16, -1]", "shape = [15, -1]", "a grounding graph must take"),
        ("shape = [56, 56, 3]", "shape = [57, 56, 3]", "`geometry` makes u8[56, 56, 3]"),
    ] {
        let error = scene_pack(LABELS, |manifest| {
            assert!(manifest.contains(from), "{from}");
            manifest.replace(from, to)
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains(reason), "{to}: {error}");
    }
    for (labels, reason) in [
        ("{}", "not a labels document"),
        (r#"{"classes": [], "predicates": ["on"]}"#, "`classes` is empty"),
        (r#"{"classes": ["a", "a"], "predicates": ["on"]}"#, "has `a` twice"),
        (r#"{"classes": ["a", "b"], "predicates": ["on", " "]}"#, "blank"),
    ] {
        let error = scene_pack(labels, |manifest| manifest).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("relations.json"), "{labels}: {error}");
    }
}
