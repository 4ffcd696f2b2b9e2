//! Pickles: what is scored, and what is wrong with the others.

use super::{close, data, image, outputs, start, told};
use crate::{
    harness::{ONE_GRAPH, tells},
    support::form::Form,
};

#[tokio::test]
async fn pickles_of_every_client_and_protocol_are_scored() {
    let app = start().await;
    let expected = app.clip_rewards().await;
    let mut aesthetic = Vec::new();
    for at in 0..3 {
        let form = Form::new().file("image", image(at));
        aesthetic.push(app.value(ONE_GRAPH, form).await / 10.0);
    }
    for protocol in 2..=5 {
        let of = |name: &str| data(&format!("{name}.p{protocol}.pkl"));
        // verl-omni, deepgen with its slash, and flow_grpo with and without prompts.
        close(&outputs(&app.post_bytes("/rl/pickle/clip", of("one")).await), &expected[..1]);
        close(&outputs(&app.post_bytes("/rl/pickle/clip/", of("batch")).await), &expected);
        for numpy in ["1.26", "2.2"] {
            let body = of(&format!("unified.numpy{numpy}"));
            close(&outputs(&app.post_bytes("/rl/pickle/clip", body).await), &expected);
        }
        close(&outputs(&app.post_bytes("/rl/pickle/aesthetic", of("deqa")).await), &aesthetic);
        // deepgen's images before and after an edit: the former are references.
        let edited = outputs(&app.post_bytes("/rl/pickle/ip", of("edit")).await);
        let mut by_hand = Vec::new();
        for at in 0..2 {
            let form = Form::new().file("image", image(at + 1)).file("reference", image(at));
            by_hand.push(app.value("clip_i", form).await);
        }
        close(&edited, &by_hand);
    }
    // Nothing was stored but the samples of POST /v1/score.
    assert_eq!(app.get("/v1/runs").await.ok()["runs"].as_array().map(Vec::len), Some(0));
    let failed = r#"stellar_adapter_items_total{outcome="failed",protocol="pickle"}"#;
    assert!(app.number(failed).await.abs() < f64::EPSILON);
    let scored = r#"stellar_adapter_items_total{outcome="scored",protocol="pickle"}"#;
    assert!((app.number(scored).await - 60.0).abs() < f64::EPSILON);
}

/// The pickle of a dict with images and prompts, at protocol 4.
fn pickle(images: &[&[u8]], prompts: &[&str]) -> Vec<u8> {
    let mut bytes = b"\x80\x04}(\x8c\x06images](".to_vec();
    for image in images {
        bytes.push(b'B');
        bytes.extend(u32::try_from(image.len()).unwrap().to_le_bytes());
        bytes.extend(*image);
    }
    bytes.extend(b"e\x8c\x07prompts](");
    for prompt in prompts {
        bytes.push(b'X');
        bytes.extend(u32::try_from(prompt.len()).unwrap().to_le_bytes());
        bytes.extend(prompt.bytes());
    }
    bytes.extend(b"eu.");
    bytes
}

#[tokio::test]
async fn what_is_wrong_with_a_pickle_is_told_as_a_pickle() {
    let app = start().await;
    let one = image(0);
    let long = "x".repeat(10_000);
    let batch = |second: &[u8], prompt: &str| pickle(&[&one, second, &one], &["a", prompt, "c"]);
    let numbers = pickle(&[], &[]);
    for (body, words) in [
        (b"\x80\x04cposix\nsystem\nX\x02\0\0\0id\x85R.".to_vec(), &["posix system"][..]),
        (b"\x80\x02cbuiltins\neval\n)\x81.".to_vec(), &["builtins eval"]),
        (b"\x80\x04Px\n.".to_vec(), &["PERSID"]),
        (b"{\"images\": []}".to_vec(), &["protocol"]),
        (Vec::new(), &["truncated"]),
        (b"\x80\x04]. ".to_vec(), &["follow"]),
        (b"\x80\x04].".to_vec(), &["list", "dict"]),
        (b"\x80\x04}.".to_vec(), &["`images`"]),
        (b"\x80\x04}\x8c\x06images\x8c\x01xs.".to_vec(), &["`images`", "str"]),
        (b"\x80\x04}\x8c\x06images]\x8c\x01xas.".to_vec(), &["images[0]", "str"]),
        (pickle(&[&one], &["a", "b"]), &["`prompts`", "2", "1"]),
        (batch(b"no image", "b"), &["images[1]"]),
        (batch(&one[..300], "b"), &["images[1]", "truncated"]),
        (batch(&one, "nul \0"), &["images[1]", "U+0000"]),
        (batch(&one, &long), &["images[1]", "longer"]),
    ] {
        let answer = app.post_bytes("/rl/pickle/clip", body).await;
        assert_eq!(answer.status, 400, "{words:?}");
        tells(&told("/rl/pickle/", &answer), words);
    }
    let answer = app.post_bytes("/rl/pickle/clip", numbers).await;
    assert_eq!(answer.status, 422, "no images");
    // A metric that needs what the client does not send.
    let answer = app.post_bytes("/rl/pickle/ip", data("batch.p4.pkl")).await;
    tells(&told("/rl/pickle/", &answer), &["images[0]", "no_reference", "images[2]"]);
    // An adapter that is not there: what to add.
    for path in ["/rl/pickle/nope", "/rl/pickle/nope/"] {
        let answer = app.post_bytes(path, data("one.p4.pkl")).await;
        assert_eq!(answer.status, 404);
        tells(&told(path, &answer), &["`nope`", "[[rewards.adapter]]", "`aesthetic`", "`clip`"]);
    }
}

/// A pickle that names one image and one prompt so many times.
fn shared(image: &[u8], prompt: &str, count: usize) -> Vec<u8> {
    let lengths = [image.len(), prompt.len()].map(|it| u32::try_from(it).unwrap().to_le_bytes());
    let mut bytes = [b"\x80\x04}(\x8c\x06images](B", &lengths[0][..], image, b"\x94"].concat();
    bytes.extend(b"h\0".repeat(count - 1));
    bytes.extend([b"e\x8c\x07prompts](X", &lengths[1][..], prompt.as_bytes(), b"\x94"].concat());
    bytes.extend(b"h\x01".repeat(count - 1));
    bytes.extend(b"eu.");
    bytes
}

#[tokio::test]
async fn an_image_or_prompt_that_is_named_many_times_is_read_once() {
    let app = start().await;
    // Four gigabytes if each were read, and as many for whoever copies prompts first.
    let file = [b"P6\n800 800\n255\n", &vec![7; 3 * 800 * 800][..]].concat();
    let scores = outputs(&app.post_bytes("/rl/pickle/clip", shared(&file, "a horse", 2000)).await);
    assert_eq!(scores.len(), 2000);
    assert!(scores.iter().all(|score| score.to_bits() == scores[0].to_bits()));
    let long = "x".repeat(1 << 20);
    let answer = app.post_bytes("/rl/pickle/clip", shared(&file, &long, 50_000)).await;
    assert_eq!(answer.status, 422);
    tells(&told("/rl/pickle/", &answer), &["more than 2048 images"]);
    let answer = app.post_bytes("/rl/pickle/clip", shared(&file, &long, 100_001)).await;
    assert_eq!(answer.status, 400);
    tells(&told("/rl/pickle/", &answer), &["on the stack"]);
}
