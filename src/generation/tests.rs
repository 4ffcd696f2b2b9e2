use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;

use super::fake::{Fakes, demo_pack, fakes};
use super::*;
use crate::engine::pack::generator_roles as roles;
use crate::engine::{Engine, EngineConfig, EngineTelemetry, Pack};
use crate::tensor::Tensor;
use crate::vision::DecodeLimits;

fn golden(name: &str) -> Bytes {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/packs/demo-generator/goldens/");
    std::fs::read(format!("{folder}{name}")).unwrap().into()
}

fn face() -> Subject {
    Subject { photo: golden("astronaut-face.jpg"), mask: None }
}

fn request(prompt: &str, subject: Option<Subject>) -> Request {
    Request {
        prompt: prompt.to_owned(),
        negative_prompt: None,
        person: subject.map(Person::Photo),
        settings: Settings { seed: 42, steps: 3, guidance: 5.0, width: 64, height: 64 },
    }
}

fn clown() -> Request {
    request("{} as a clown", Some(face()))
}

async fn make(fakes: &Fakes, request: &Request) -> Picture {
    fakes.generator.generate(request, |_| ()).await.unwrap()
}

/// The items that the denoiser ran, in order.
fn items(fakes: &Fakes) -> Vec<Vec<Tensor>> {
    fakes.denoiser.batches().into_iter().flatten().collect()
}

fn floats(tensor: &Tensor) -> &[f32] {
    let Tensor::F32 { data, .. } = tensor else { panic!("{tensor:?} is not f32") };
    data
}

#[tokio::test]
async fn a_request_has_one_image_and_everything_in_it_counts() {
    let fakes = fakes();
    let first = make(&fakes, &clown()).await;
    assert_eq!((first.width, first.height, first.pixels.len()), (64, 64, 3 * 64 * 64));
    assert_eq!(make(&fakes, &clown()).await, first);
    let mut others = vec![
        Request { prompt: "{} as a pirate".into(), ..clown() },
        Request { negative_prompt: Some("blurry".into()), ..clown() },
        Request { negative_prompt: Some(String::new()), ..clown() },
        request("{} as a clown", Some(Subject { photo: golden("rocket.jpg"), mask: None })),
        request(
            "{} as a clown",
            Some(Subject { mask: Some(golden("mask-colours.png")), ..face() }),
        ),
    ];
    let settings = clown().settings;
    for settings in [
        Settings { seed: 43, ..settings },
        Settings { steps: 4, ..settings },
        Settings { guidance: 4.0, ..settings },
        Settings { guidance: 1.0, ..settings },
    ] {
        others.push(Request { settings, ..clown() });
    }
    let mut seen = HashSet::from([first.pixels]);
    for other in others {
        assert!(seen.insert(make(&fakes, &other).await.pixels), "{other:?}");
    }
    // Only the low 32 bits of a seed count, as in PyTorch.
    let large = Settings { seed: (1 << 32) + 42, ..settings };
    assert!(!seen.insert(make(&fakes, &Request { settings: large, ..clown() }).await.pixels));
}

#[tokio::test]
async fn the_denoiser_runs_with_the_prompt_and_without_it() {
    let fakes = fakes();
    make(&fakes, &clown()).await;
    let ran = items(&fakes);
    assert_eq!(ran.len(), 6);
    let zeros =
        |item: &&Vec<Tensor>| item[2..4].iter().all(|t| floats(t).iter().all(|x| *x == 0.0));
    assert_eq!(ran.iter().filter(zeros).count(), 3, "nothing is zeros");
    assert_eq!(fakes.denoiser.sizes(), [2, 2, 2], "both share a batch");

    let negative = Request { negative_prompt: Some("blurry".into()), ..clown() };
    make(&fakes, &negative).await;
    assert_eq!(items(&fakes)[6..].iter().filter(zeros).count(), 0);

    let settings = Settings { guidance: 1.0, ..clown().settings };
    make(&fakes, &Request { settings, ..clown() }).await;
    assert_eq!(items(&fakes).len(), 6 + 6 + 3, "no guidance is half of the work");
}

#[tokio::test]
async fn sizes_are_rows_and_columns_in_that_order() {
    let fakes = fakes();
    let settings = Settings { width: 96, height: 32, ..clown().settings };
    let picture = make(&fakes, &Request { settings, ..clown() }).await;
    assert_eq!((picture.width, picture.height, picture.latents.len()), (96, 32, 4 * 4 * 12));
    let item = &items(&fakes)[0];
    assert_eq!(item[0].shape(), [4, 4, 12]);
    assert_eq!((item[1].shape(), floats(&item[1])), ([].as_slice(), [667.0].as_slice()));
    assert_eq!(item[2].shape(), [77, 72]);
    assert_eq!(floats(&item[4]), [32.0, 96.0, 0.0, 0.0, 32.0, 96.0]);
}

#[tokio::test]
async fn steps_of_images_and_timesteps_share_batches_and_change_nothing() {
    let alone = fakes();
    let settings = Settings { steps: 7, seed: 1, ..clown().settings };
    let other = Request { settings, ..request("a dog", None) };
    let expected = (make(&alone, &clown()).await, make(&alone, &other).await);
    let together = fakes();
    assert_eq!(join(make(&together, &clown()), make(&together, &other)).await, expected);
    let batches = together.denoiser.batches();
    let mixed = batches.iter().filter(|batch| {
        batch.iter().map(|item| floats(&item[1])[0].to_bits()).collect::<HashSet<_>>().len() > 1
    });
    assert!(mixed.count() > 0, "{:?}", together.denoiser.sizes());
}

#[tokio::test]
async fn dropping_the_future_stops_between_two_steps() {
    let fakes = Arc::new(fakes());
    fakes.denoiser.hold();
    let (steps, told) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&fakes));
    let counted = Arc::clone(&steps);
    let task = tokio::spawn(async move {
        told.generator.generate(&clown(), |done| counted.store(done, Ordering::SeqCst)).await
    });
    while fakes.denoiser.batches().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    fakes.denoiser.release();
    // Another image passes through the same queue afterwards.
    make(&fakes, &request("a dog", None)).await;
    assert_eq!(steps.load(Ordering::SeqCst), 0);
    assert!(items(&fakes).len() <= 2 + 6, "{:?}", fakes.denoiser.sizes());
}

#[tokio::test]
async fn steps_are_told_in_order() {
    let fakes = fakes();
    let told = std::sync::Mutex::new(Vec::new());
    fakes.generator.generate(&clown(), |step| told.lock().unwrap().push(step)).await.unwrap();
    assert_eq!(told.into_inner().unwrap(), [1, 2, 3]);
}

#[tokio::test]
async fn words_are_cached_until_the_photo_is_forgotten_and_texts_with_them_are_not() {
    let fakes = fakes();
    make(&fakes, &clown()).await;
    // Words, two texts, the decoder.
    assert_eq!(fakes.others.batches().len(), 4);
    make(&fakes, &clown()).await;
    assert_eq!(fakes.others.batches().len(), 7, "texts and decoder run again");
    make(&fakes, &Request { prompt: "{} as a pirate".into(), ..clown() }).await;
    assert_eq!(fakes.others.batches().len(), 10, "the words are those of the photo");
    let photo = crate::content::ContentHash::of(&face().photo);
    assert_eq!(fakes.generator.engine().forget(&HashSet::from([photo])), 1);
}

#[tokio::test]
async fn flags_say_what_is_not_as_expected() {
    let fakes = fakes();
    let flags = async |request: &Request| -> Vec<&str> {
        make(&fakes, request).await.flags.into_iter().map(ImageFlag::code).collect()
    };
    assert_eq!(flags(&clown()).await, ["unmasked"]);
    let masked = Subject { mask: Some(golden("mask-colours.png")), ..face() };
    assert_eq!(flags(&request("{} as a clown", Some(masked))).await, [""; 0]);
    assert_eq!(flags(&request("a dog", None)).await, ["no_placeholder"]);
    assert_eq!(flags(&request("a dog", Some(face()))).await, ["no_placeholder"]);
    let long = "very ".repeat(100);
    let long = Request { negative_prompt: Some(long.clone()), ..request(&long, None) };
    assert_eq!(flags(&long).await, ["no_placeholder", "truncated", "negative_truncated"]);
}

#[tokio::test]
async fn what_cannot_be_generated_is_refused_with_what_to_do() {
    let fakes = fakes();
    let settings = clown().settings;
    let with = |settings| Request { settings, ..clown() };
    let photo = |photo: &'static [u8], mask: Option<&'static [u8]>| {
        let subject = Subject { photo: photo.into(), mask: mask.map(Into::into) };
        request("{} as a clown", Some(subject))
    };
    let black = {
        let empty = Picture {
            width: 2,
            height: 2,
            pixels: vec![0; 12],
            latents: Vec::new(),
            flags: std::collections::BTreeSet::new(),
        };
        Bytes::from(empty.png(&fakes.generator.provenance(settings)).unwrap())
    };
    let no_foreground = Subject { mask: Some(black), ..face() };
    let cases = [
        (request("{} as a clown", None), "photo is missing"),
        (request("{style}", None), "prompt has a brace"),
        (request("{0} and {0}", Some(face())), "prompt has several placeholders"),
        (with(Settings { width: 65, ..settings }), "width is 65: it must be a multiple of 32"),
        (with(Settings { height: 0, ..settings }), "height is 0"),
        (with(Settings { width: 1 << 40, ..settings }), "at most 2048"),
        (with(Settings { steps: 0, ..settings }), "steps is 0"),
        (with(Settings { steps: 1001, ..settings }), "steps is 1001: it must be 1 to 1000"),
        (with(Settings { guidance: f32::NAN, ..settings }), "guidance is NaN"),
        (with(Settings { guidance: -1.0, ..settings }), "guidance is -1"),
        (photo(b"no image", None), "the photo cannot be used"),
        (photo(b"no image", Some(b"no image")), "the photo cannot be used"),
        (request("{}", Some(no_foreground)), "mask has no foreground"),
    ];
    for (request, reason) in cases {
        let error = fakes.generator.generate(&request, |_| ()).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }
    assert!(items(&fakes).is_empty());
    let mask = Subject { mask: Some(Bytes::from_static(b"no image")), ..face() };
    let error = fakes.generator.generate(&request("{}", Some(mask)), |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("the mask cannot be used"), "{error}");
    let noise = fakes.generator.generate_from(&clown(), vec![0.0; 7], |_| ()).await.unwrap_err();
    assert!(noise.to_string().contains("has 7 values, expected 256"), "{noise}");
}

#[test]
fn a_pack_that_scores_does_not_generate() {
    let pack = Pack::open(concat!(env!("CARGO_MANIFEST_DIR"), "/packs/demo")).unwrap();
    let telemetry = EngineTelemetry::register(&prometheus::Registry::new()).unwrap();
    let engine =
        Engine::with_backends(&[], &EngineConfig::default(), &telemetry, |_| unreachable!());
    let error = Generator::new(engine.unwrap(), Arc::new(pack), DecodeLimits::default());
    let Err(error) = error else { panic!("it has no [generator] table") };
    assert!(error.to_string().contains("no [generator] table"), "{error}");
}

#[tokio::test]
async fn a_pack_without_words_takes_prompts_without_a_person() {
    let mut pack = demo_pack();
    pack.graphs.retain(|graph| graph.role != roles::WORDS);
    let telemetry = EngineTelemetry::register(&prometheus::Registry::new()).unwrap();
    let engine =
        Engine::with_backends(&pack.graphs, &EngineConfig::default(), &telemetry, |spec| {
            Box::new(crate::engine::fake::FakeBackend::new(spec, <_>::default()))
        });
    let generator =
        Generator::new(engine.unwrap(), Arc::new(pack), DecodeLimits::default()).unwrap();
    let error = generator.check(&clown()).unwrap_err().to_string();
    assert!(error.contains("makes no words of photos"), "{error}");
    assert!(generator.check(&request("a dog", None)).is_ok());
}
