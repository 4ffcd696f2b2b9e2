//! `stellar-score dataset masks`: masks of one's own photos, compared with rembg's arithmetic as
//! `scripts/mask_fixtures.py` repeats it with Pillow.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;
use stellar_score::vision::{self, DecodeLimits};

use crate::harness::{copy, folder, program, read, run};

const PHOTOS: [&str; 3] = ["astronaut-face.jpg", "rocket.jpg", "turned.jpg"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The demo generator pack with a graph for masks.
fn pack(at: &Path) -> String {
    let (pack, data) = (at.join("pack"), repository().join("tests/data/mask"));
    copy(&repository().join("packs/demo-generator"), &pack);
    let graph = "generator.mask.onnx";
    fs::copy(data.join(graph), pack.join("graphs").join(graph)).expect("a copy");
    let manifest = pack.join("pack.toml");
    let text = read(&manifest) + "\n" + &read(&data.join("graph.toml"));
    fs::write(manifest, text).expect("the manifest");
    pack.display().to_string()
}

/// A dataset of three photos without masks.
fn photos(at: &Path) -> PathBuf {
    let dataset = at.join("people");
    fs::create_dir(&dataset).expect("a folder");
    for name in PHOTOS {
        let photo = repository().join("packs/demo-generator/goldens").join(name);
        fs::copy(photo, dataset.join(name)).expect("a copy");
    }
    let lines = PHOTOS.map(|name| json!({"identity": name, "photo": name}).to_string());
    let manifest = lines.join("\n") + "\n{\"prompt\": \"{} asleep\"}\n";
    fs::write(dataset.join("dataset.jsonl"), manifest).expect("the manifest");
    dataset
}

fn masks(pack: &str, path: &Path) -> crate::harness::Ran {
    run(&mut program(&["dataset", "masks", "--pack", pack, &path.display().to_string()]))
}

fn pixels(file: &Path) -> vision::Image {
    vision::decode(&fs::read(file).expect("a mask"), &DecodeLimits::default()).expect("an image")
}

#[test]
fn masks_equal_those_of_pillow_and_generate_uses_them() {
    let folder = folder();
    let (pack, dataset) = (pack(folder.path()), photos(folder.path()));
    assert_eq!(masks(&pack, &dataset).printed(), "3 masks written\n");
    for name in PHOTOS {
        let stem = name.strip_suffix(".jpg").expect("a JPEG");
        let expected = repository().join(format!("tests/data/mask/{stem}.png"));
        let (ours, expected) = (pixels(&dataset.join(format!("{stem}_bg.png"))), pixels(&expected));
        assert_eq!((ours.width, ours.height), (expected.width, expected.height), "{name}");
        let differ = ours.pixels.iter().zip(&expected.pixels).filter(|(a, b)| a != b).count();
        // A level that another kernel rounds to the other side of the threshold.
        assert!(differ * 1000 <= ours.pixels.len(), "{name}: {differ} of {}", ours.pixels.len());
        let person = expected.pixels.iter().filter(|level| **level > 0).count();
        assert!(person > 0 && person < expected.pixels.len(), "{name}");
    }
    assert_eq!(masks(&pack, &dataset).printed(), "every photo has a mask\n");

    let out = folder.path().join("out").display().to_string();
    let path = dataset.display().to_string();
    let given = ["--dataset", &path, "--out", &out, "--steps", "1", "--size", "64"];
    let arguments = [&["generate", "--pack", &pack][..], &given].concat();
    let printed = run(&mut program(&arguments)).printed();
    assert!(printed.contains("3 images") && !printed.contains("flags"), "{printed}");
}

#[test]
fn photos_that_fail_do_not_stop_the_others_and_packs_without_the_graph_say_so() {
    let folder = folder();
    let (pack, dataset) = (pack(folder.path()), photos(folder.path()));
    fs::write(dataset.join("rocket.jpg"), "no image").expect("a damaged photo");
    let ran = masks(&pack, &dataset);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert_eq!(ran.stdout, "2 masks written\n");
    assert!(ran.stderr.contains("rocket.jpg: the photo cannot be used"), "{}", ran.stderr);
    assert!(dataset.join("turned_bg.png").is_file() && !dataset.join("rocket_bg.png").exists());

    let demo = repository().join("packs/demo-generator").display().to_string();
    masks(&demo, &dataset).failed(&["no graph `generator.mask`"]);
    masks(&pack, &dataset.join("none.jpg")).failed(&["there is no file or folder"]);
    // A photo by itself.
    let photo = folder.path().join("alone.jpg");
    fs::copy(dataset.join("turned.jpg"), &photo).expect("a copy");
    assert_eq!(masks(&pack, &photo).printed(), "1 mask written\n");
    assert!(folder.path().join("alone_bg.png").is_file());
}
