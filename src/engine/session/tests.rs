use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::tiny::{self, Attribute, Node, Outlet};
use super::*;
use crate::engine::fake;
use crate::engine::{EngineConfig, EngineTelemetry, FeatureRequest, Pack, ProviderChoice};

/// Writes a graph into `dir` and returns its path.
fn write(dir: &Path, nodes: &[Node<'_>], inputs: &[Outlet<'_>], outputs: &[Outlet<'_>]) -> PathBuf {
    let path = dir.join("tiny.onnx");
    fs::write(&path, tiny::model(nodes, inputs, outputs)).unwrap();
    path
}

fn runtime() -> Runtime {
    Runtime::load(&EngineConfig::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// A graph from images of 4 × 4 pixels to `mean`, the mean of each channel, and `log`, its
/// logarithm. The latter is minus infinity for a black channel.
fn channel_means(dir: &Path) -> GraphSpec {
    let nodes = [
        Node {
            op: "Cast",
            inputs: &["pixels"],
            outputs: &["float"],
            attributes: &[("to", Attribute::Int(1))],
        },
        Node {
            op: "ReduceMean",
            inputs: &["float"],
            outputs: &["mean"],
            attributes: &[("axes", Attribute::Ints(&[1, 2])), ("keepdims", Attribute::Int(0))],
        },
        Node { op: "Log", inputs: &["mean"], outputs: &["log"], attributes: &[] },
    ];
    let file = write(
        dir,
        &nodes,
        &[("pixels", Dtype::U8, &[-1, 4, 4, 3])],
        &[("mean", Dtype::F32, &[-1, 3]), ("log", Dtype::F32, &[-1, 3])],
    );
    let outputs =
        vec![fake::tensor("mean", Dtype::F32, &[3]), fake::tensor("log", Dtype::F32, &[3])];
    at(file, fake::image("tiny.image", outputs))
}

/// A graph from texts to the scalar `mean`, the mean of their ids.
fn id_sums(dir: &Path) -> GraphSpec {
    let nodes = [
        Node {
            op: "Cast",
            inputs: &["input_ids"],
            outputs: &["float"],
            attributes: &[("to", Attribute::Int(1))],
        },
        Node {
            op: "ReduceMean",
            inputs: &["float"],
            outputs: &["mean"],
            attributes: &[("axes", Attribute::Ints(&[1])), ("keepdims", Attribute::Int(0))],
        },
    ];
    let file =
        write(dir, &nodes, &[("input_ids", Dtype::I64, &[-1, -1])], &[("mean", Dtype::F32, &[-1])]);
    at(file, fake::text("tiny.text", vec![fake::tensor("mean", Dtype::F32, &[])]))
}

fn at(file: PathBuf, mut spec: GraphSpec) -> GraphSpec {
    spec.files[0].path = file;
    spec
}

fn image(values: [u8; 3]) -> Vec<Tensor> {
    vec![Tensor::U8 { shape: vec![4, 4, 3], data: values.repeat(16).into() }]
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn refused(spec: &GraphSpec) -> String {
    OnnxBackend::load(&runtime(), spec).err().expect("the graph must not load").to_string()
}

#[test]
fn images_are_stacked_and_each_item_gets_its_own_outputs() {
    let dir = dir();
    let mut backend = OnnxBackend::load(&runtime(), &channel_means(dir.path())).unwrap();
    let images: Vec<_> = (1..=4).map(|value| image([value, 2 * value, 3 * value])).collect();
    for batch in [&images[..1], &images[..], &images[1..3]] {
        let results = backend.run(batch).unwrap();
        assert_eq!(results.len(), batch.len());
        for (item, features) in batch.iter().zip(results) {
            let Tensor::U8 { data, .. } = &item[0] else { panic!("images only") };
            let expected: Vec<f32> = data[..3].iter().copied().map(f32::from).collect();
            assert_eq!(features.values("mean").unwrap(), expected);
            assert_eq!(features.get("mean").unwrap().shape, [3]);
        }
    }
}

/// A graph from texts to the scalar `rows`, the number of rows of the whole run.
fn row_counts(dir: &Path) -> GraphSpec {
    let node = |op, inputs, outputs| Node { op, inputs, outputs, attributes: &[] };
    let nodes = [
        Node {
            attributes: &[("to", Attribute::Int(1))],
            ..node("Cast", &["input_ids"], &["float"])
        },
        Node {
            attributes: &[("axes", Attribute::Ints(&[1])), ("keepdims", Attribute::Int(0))],
            ..node("ReduceMean", &["float"], &["mean"])
        },
        node("Sub", &["mean", "mean"], &["zeros"]),
        node("Exp", &["zeros"], &["ones"]),
        Node {
            attributes: &[("axes", Attribute::Ints(&[0])), ("keepdims", Attribute::Int(1))],
            ..node("ReduceL1", &["ones"], &["count"])
        },
        node("Mul", &["ones", "count"], &["rows"]),
    ];
    let file =
        write(dir, &nodes, &[("input_ids", Dtype::I64, &[-1, -1])], &[("rows", Dtype::F32, &[-1])]);
    at(file, fake::text("tiny.text", vec![fake::tensor("rows", Dtype::F32, &[])]))
}

#[test]
fn fixed_batches_have_the_shape_of_the_largest_however_many_items_there_are() {
    let dir = dir();
    let mut spec = row_counts(dir.path());
    spec.max_batch = 5;
    let rows = |config: &EngineConfig, items: usize| {
        let runtime = Runtime::load(config).unwrap_or_else(|error| panic!("{error}"));
        let mut backend = OnnxBackend::load(&runtime, &spec).unwrap();
        let item = vec![Tensor::I64 { shape: vec![3], data: vec![7; 3].into() }];
        let results = backend.run(&vec![item; items]).unwrap();
        assert_eq!(results.len(), items);
        results.iter().map(|one| one.scalar("rows").unwrap()).collect::<Vec<_>>()
    };
    let fixed = EngineConfig { batching: Batching::Fixed, ..EngineConfig::default() };
    for items in 1..=5 {
        assert_eq!(rows(&fixed, items), vec![5.0; items]);
        assert_eq!(rows(&EngineConfig::default(), items), vec![items as f32; items]);
    }
}

#[test]
fn texts_of_any_length_have_scalar_outputs() {
    let dir = dir();
    let mut backend = OnnxBackend::load(&runtime(), &id_sums(dir.path())).unwrap();
    for length in [1, 5, 16] {
        let text =
            |id: i64| vec![Tensor::I64 { shape: vec![length], data: vec![id; length].into() }];
        let results = backend.run(&[text(7), text(40_000)]).unwrap();
        assert_eq!(results[0].scalar("mean"), Some(7.0));
        assert_eq!(results[1].scalar("mean"), Some(40_000.0));
        assert!(results[0].get("mean").unwrap().shape.is_empty());
    }
}

#[tokio::test]
async fn an_infinity_in_one_item_fails_only_that_item() {
    let dir = dir();
    let spec = channel_means(dir.path());
    let telemetry = EngineTelemetry::register(&prometheus::Registry::new()).unwrap();
    let engine = crate::engine::Engine::with_backends(
        &[spec],
        &EngineConfig::default(),
        &telemetry,
        |spec| Box::new(OnnxBackend::load(&runtime(), spec).unwrap()),
    )
    .unwrap();
    let ask = |value: u8| {
        let input = crate::content::ContentHash::of(&[value]);
        let item = image([value, 1, 1]);
        let prepare = async move { Ok::<_, std::convert::Infallible>(item) };
        engine.feature(FeatureRequest::new("tiny.image", input, prepare))
    };
    let (black, grey, white) = tokio::join!(ask(0), ask(100), ask(255));
    let error = black.unwrap_err().to_string();
    assert!(error.contains("`tiny.image`") && error.contains("`log`"), "{error}");
    assert_eq!(grey.unwrap().features.values("mean"), Some(&[100.0, 1.0, 1.0][..]));
    assert_eq!(white.unwrap().features.values("mean"), Some(&[255.0, 1.0, 1.0][..]));
}

type Edit = fn(&mut GraphSpec);

#[test]
fn a_signature_that_differs_from_the_manifest_is_refused_with_expected_and_found() {
    let dir = dir();
    let good = channel_means(dir.path());
    OnnxBackend::load(&runtime(), &good).unwrap();
    let with = |edit: Edit| {
        let mut spec = good.clone();
        edit(&mut spec);
        refused(&spec)
    };
    let cases: [(Edit, &[&str]); 6] = [
        (|spec| spec.inputs[0].name = "image".into(), &["`pixels`", "image u8"]),
        (|spec| spec.inputs[0].dtype = Dtype::F32, &["pixels f32[4, 4, 3]", "Tensor<u8>"]),
        (|spec| spec.inputs[0].shape[1] = Dim::Fixed(5), &["u8[4, 5, 3]", "4, 4, 3"]),
        (|spec| spec.inputs[0].shape.truncate(2), &["u8[4, 4]", "4, 4, 3"]),
        (|spec| spec.outputs[0].shape[0] = Dim::Fixed(4), &["mean f32[4]", "`mean`"]),
        (
            |spec| spec.outputs[1].name = "embedding".into(),
            &["embedding f32[3]", "`mean`", "`log`"],
        ),
    ];
    for (edit, parts) in cases {
        let error = with(edit);
        for part in
            parts.iter().chain(&["graph `tiny.image`", "tiny.onnx", "export the pack again"])
        {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }
}

#[test]
fn a_fixed_batch_dimension_is_refused() {
    let dir = dir();
    let nodes = [Node { op: "Identity", inputs: &["x"], outputs: &["y"], attributes: &[] }];
    let file =
        write(dir.path(), &nodes, &[("x", Dtype::F32, &[1, 3])], &[("y", Dtype::F32, &[1, 3])]);
    let mut spec = at(file, fake::image("tiny.joint", vec![fake::tensor("y", Dtype::F32, &[3])]));
    spec.inputs = vec![fake::tensor("x", Dtype::F32, &[3])];
    let error = refused(&spec);
    assert!(error.contains("x f32[3] after the batch") && error.contains("1, 3"), "{error}");
}

#[test]
fn a_graph_that_fails_its_warm_up_fails_the_start() {
    let dir = dir();
    // The logarithm of x - x = 0 is minus infinity.
    let nodes = [
        Node { op: "Sub", inputs: &["x", "x"], outputs: &["zero"], attributes: &[] },
        Node { op: "Log", inputs: &["zero"], outputs: &["y"], attributes: &[] },
    ];
    let file =
        write(dir.path(), &nodes, &[("x", Dtype::F32, &[-1, 3])], &[("y", Dtype::F32, &[-1, 3])]);
    let mut spec = at(file, fake::image("tiny.joint", vec![fake::tensor("y", Dtype::F32, &[3])]));
    spec.inputs = vec![fake::tensor("x", Dtype::F32, &[3])];
    let error = refused(&spec);
    assert!(error.contains("warm-up with a batch of 1") && error.contains("not finite"), "{error}");
}

#[test]
fn a_file_that_is_not_a_graph_is_named() {
    let dir = dir();
    let mut spec = channel_means(dir.path());
    fs::write(spec.file(), b"no graph").unwrap();
    assert!(refused(&spec).contains("graph `tiny.image`"));
    spec.files[0].path = dir.path().join("absent.onnx");
    assert!(refused(&spec).contains("absent.onnx"));
}

#[test]
fn a_missing_provider_is_an_error_without_a_fallback() {
    for (provider, name) in
        [(ProviderChoice::Cuda, "`cuda`"), (ProviderChoice::TensorRt, "`tensorrt`")]
    {
        let config = EngineConfig { provider, ..EngineConfig::default() };
        // A machine with a GPU and its libraries passes.
        let Err(error) = Runtime::load(&config) else { continue };
        let error = error.to_string();
        assert!(error.contains(name) && error.contains("engine.provider = \"cpu\""), "{error}");
    }
}

#[test]
fn the_probe_convolution_is_correct() {
    assert_eq!(runtime().convolve(Provider::Cpu), Ok(()));
}

#[test]
fn batches_are_padded_to_powers_of_two_or_the_largest() {
    assert_eq!(buckets(1), [1]);
    assert_eq!(buckets(8), [1, 2, 4, 8]);
    assert_eq!(buckets(24), [1, 2, 4, 8, 16, 24]);
    let dir = dir();
    let config = EngineConfig { pad_batches: true, ..EngineConfig::default() };
    let mut spec = channel_means(dir.path());
    spec.max_batch = 6;
    let mut padded = OnnxBackend::load(&Runtime::load(&config).unwrap(), &spec).unwrap();
    let mut exact = OnnxBackend::load(&runtime(), &spec).unwrap();
    assert_eq!(padded.buckets, [1, 2, 4, 6]);
    for count in 1..=6 {
        let batch: Vec<_> = (0..count).map(|at| image([at + 1, 2 * at + 1, 3 * at + 1])).collect();
        let (padded, exact) = (padded.run(&batch).unwrap(), exact.run(&batch).unwrap());
        assert_eq!(padded.len(), batch.len());
        for (padded, exact) in padded.iter().zip(&exact) {
            assert_eq!(padded.values("mean").unwrap(), exact.values("mean").unwrap(), "{count}");
        }
    }
}

#[test]
fn a_graph_runs_on_the_cpu_if_any_of_its_roles_is_configured_to() {
    let mut runtime = runtime();
    runtime.provider = Provider::Cuda;
    for (roles, provider) in [
        ("clip.image", Provider::Cuda),
        ("faces.pnet", Provider::Cpu),
        ("clip.image+faces.onet", Provider::Cpu),
        ("faces.embedding", Provider::Cuda),
    ] {
        assert_eq!(runtime.provider_of(roles), provider, "{roles}");
    }
}

#[test]
fn an_invalid_library_is_an_error_that_says_what_to_do() {
    let dir = dir();
    let path = dir.path().join("libonnxruntime.so");
    fs::write(&path, b"not a library").unwrap();
    let config = EngineConfig { library: Some(path), ..EngineConfig::default() };
    let error = Runtime::load(&config).err().unwrap().to_string();
    assert!(error.contains("libonnxruntime.so") && error.contains("make setup"), "{error}");
}

fn demo() -> Pack {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/demo");
    Pack::open(dir).unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test]
async fn the_demo_pack_starts_serves_every_role_and_has_clip_embeddings_of_unit_length() {
    let pack = demo();
    let telemetry = EngineTelemetry::register(&prometheus::Registry::new()).unwrap();
    let engine = crate::engine::Engine::start(&pack, &EngineConfig::default(), &telemetry).unwrap();
    for graph in &pack.graphs {
        let item = noise(graph, 1, 7);
        let input = crate::content::ContentHash::of(graph.role.as_bytes());
        let prepare = async move { Ok::<_, std::convert::Infallible>(item) };
        let request = FeatureRequest::new(&graph.role, input, prepare);
        let feature = engine.feature(request).await.unwrap();
        for output in &graph.outputs {
            assert!(feature.features.get(&output.name).is_some(), "{} {}", graph.role, output.name);
        }
        if graph.role.starts_with("clip") {
            let embedding = feature.features.values("embedding").unwrap();
            let norm = embedding.iter().map(|value| value * value).sum::<f32>().sqrt();
            assert!((norm - 1.0).abs() < 1e-5, "{}: {norm}", graph.role);
        }
    }
    let status = engine.status();
    assert!(status.iter().all(|lane| lane.healthy && lane.items >= 1));
    assert!(
        status.iter().all(|lane| Path::new(&lane.file).starts_with("graphs")),
        "paths within the pack"
    );
    engine.drain().await;
}

/// An item that differs by seed.
///
/// Texts have `length` tokens, up to the context, without masked ones. Dynamic sides of images have
/// 24 + `length` pixels, where 24 is enough for every detector.
fn noise(spec: &GraphSpec, seed: u64, length: usize) -> Vec<Tensor> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let tokens = spec.text.as_ref().map_or(length, |text| length.min(text.context));
    let fill = |spec: &TensorSpec| {
        let fixed = |dim: &Dim| match dim {
            Dim::Fixed(length) => *length,
            Dim::Dynamic if spec.dtype == Dtype::I64 => tokens,
            Dim::Dynamic => 24 + length,
        };
        let shape: Vec<usize> = spec.shape.iter().map(fixed).collect();
        let count = shape.iter().product();
        match spec.dtype {
            Dtype::U8 => Tensor::U8 { shape, data: (0..count).map(|_| next() as u8).collect() },
            Dtype::I64 if spec.name.contains("mask") => Tensor::ones(Dtype::I64, shape),
            // Ids below the size of the smallest vocabulary.
            Dtype::I64 => {
                Tensor::I64 { shape, data: (0..count).map(|_| (next() % 1000) as i64).collect() }
            }
            Dtype::F32 => Tensor::F32 {
                shape,
                data: (0..count).map(|_| next() as f32 / u64::MAX as f32).collect(),
            },
        }
    };
    spec.inputs.iter().map(fill).collect()
}

proptest! {
    // Sessions are created once, and only batches vary by case.
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn batch_size_and_order_never_change_a_real_result(
        seeds in prop::collection::vec(0..6_u64, 1..9),
        length in 2..20_usize,
    ) {
        thread_local! {
            static BACKENDS: std::cell::RefCell<Vec<(GraphSpec, OnnxBackend)>> = std::cell::RefCell::new(
                demo()
                    .graphs
                    .into_iter()
                    .map(|spec| (spec.clone(), OnnxBackend::load(&runtime(), &spec).unwrap()))
                    .collect(),
            );
        }
        BACKENDS.with_borrow_mut(|backends| {
            for (spec, backend) in backends {
                let items: Vec<_> = seeds.iter().map(|&seed| noise(spec, seed, length)).collect();
                let together = backend.run(&items).unwrap();
                for (item, together) in items.iter().zip(&together) {
                    let alone = backend.run(std::slice::from_ref(item)).unwrap();
                    for ((name, one), (_, other)) in alone[0].iter().zip(together.iter()) {
                        for (a, b) in one.data.iter().zip(&other.data) {
                            // A batch uses other matrix product kernels than a single item, so the
                            // last bits may differ. Scores are checked to 1e-4.
                            prop_assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{} {name}: {a} \
                                {b}", spec.role);
                        }
                    }
                }
                prop_assert_eq!(&backend.run(&items).unwrap(), &together, "runs differ");
            }
            Ok(())
        })?;
    }
}
