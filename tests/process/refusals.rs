//! Failed starts: each ends with exit code 1 and one message that says what to do.

use std::{fs, net::TcpListener};

use stellar_score::engine::pack::Sha;

use crate::harness::{Server, copied_pack, folder, read, run, serve};

#[test]
fn a_damaged_graph_is_named_with_its_file_and_both_hashes() {
    let folder = folder();
    let pack = copied_pack(folder.path());
    let file = pack.join("graphs/clip.text.onnx");
    let mut bytes = fs::read(&file).unwrap();
    let expected = Sha::of(&bytes).to_string();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let found = Sha::of(&bytes).to_string();
    assert!(read(&pack.join("pack.toml")).contains(&expected));
    run(serve(folder.path()).env("STELLAR_PACK", &pack)).failed(&[
        "graph `clip.text`",
        "graphs/clip.text.onnx",
        &expected,
        &found,
        "copy the pack again",
    ]);
}

#[test]
fn a_missing_file_of_the_pack_is_named() {
    let folder = folder();
    let pack = copied_pack(folder.path());
    fs::remove_file(pack.join("graphs/clip.image.onnx")).unwrap();
    run(serve(folder.path()).env("STELLAR_PACK", &pack)).failed(&[
        "graph `clip.image`",
        "graphs/clip.image.onnx",
        "No such file",
        "copy the whole pack folder again",
    ]);
}

#[test]
fn a_damaged_tokenizer_is_named() {
    let folder = folder();
    let pack = copied_pack(folder.path());
    let file = pack.join("tokenizers/clip-merges.txt");
    fs::write(&file, read(&file) + "x y\n").unwrap();
    run(serve(folder.path()).env("STELLAR_PACK", &pack))
        .failed(&["tokenizer `clip`", "clip-merges.txt"]);
}

#[test]
fn a_graph_that_is_not_onnx_is_named_despite_its_valid_hash() {
    let folder = folder();
    let pack = copied_pack(folder.path());
    let file = pack.join("graphs/clip_l.image.onnx");
    let before = Sha::of(&fs::read(&file).unwrap()).to_string();
    fs::write(&file, "no graph").unwrap();
    let manifest =
        read(&pack.join("pack.toml")).replace(&before, &Sha::of(b"no graph").to_string());
    fs::write(pack.join("pack.toml"), manifest).unwrap();
    run(serve(folder.path()).env("STELLAR_PACK", &pack))
        .failed(&["graph `clip_l.image`", "clip_l.image.onnx) failed to load"]);
}

#[test]
fn a_missing_pack_is_named_with_an_example() {
    let folder = folder();
    run(serve(folder.path()).env("STELLAR_PACK", "packs/nowhere")).failed(&[
        "packs/nowhere/pack.toml",
        "No such file",
        "packs/demo",
    ]);
}

#[test]
fn an_invalid_manifest_is_named_with_the_line() {
    let folder = folder();
    let pack = copied_pack(folder.path());
    fs::write(pack.join("pack.toml"), "schema = 1\nname = \n").unwrap();
    run(serve(folder.path()).env("STELLAR_PACK", &pack))
        .failed(&["pack.toml is not a valid", "line 2"]);
}

#[test]
fn an_unknown_key_of_the_configuration_is_named() {
    let folder = folder();
    let file = folder.path().join("own.toml");
    fs::write(&file, "[limits]\nprompt_byte = 3\n").unwrap();
    run(serve(folder.path()).arg("--config").arg(&file)).failed(&[
        "unknown field",
        "found `prompt_byte`",
        "did you mean `limits.prompt_bytes`?",
    ]);
}

#[test]
fn an_invalid_value_is_named_with_its_key() {
    let folder = folder();
    run(serve(folder.path()).env("STELLAR_LIMITS__REQUESTS", "0"))
        .failed(&["limits.requests = 0", "must be at least 1"]);
    run(serve(folder.path()).env("STELLAR_ENGINE__QUEUE", "0")).failed(&["engine.queue is 0"]);
    run(serve(folder.path()).env("STELLAR_LOG__FILTER", "a=b=c")).failed(&["log.filter"]);
}

#[test]
fn a_memory_limit_too_small_for_the_pack_is_refused_with_a_breakdown() {
    let folder = folder();
    run(serve(folder.path()).env("STELLAR_LIMITS__MEMORY_MIB", "600")).failed(&[
        "limits.memory_mib = 600",
        "pack `demo`",
        "uploads 1536",
        "engine.cache_bytes",
    ]);
}

#[test]
fn a_missing_configuration_file_is_named() {
    let folder = folder();
    run(serve(folder.path()).args(["--config", "/nowhere/own.toml"])).failed(&[
        "configuration file /nowhere/own.toml",
        "STELLAR_CONFIG_FILE",
        "No such file",
    ]);
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    run(serve(folder.path()).env("STELLAR_SERVER__LISTEN", &address)).failed(&[
        &format!("cannot listen on {address}"),
        "server.listen",
        "in use",
    ]);
}

#[test]
fn a_spool_in_use_is_named_before_any_model_is_loaded() {
    let folder = folder();
    let _server = Server::start(folder.path(), &[]);
    // Without a pack a start would fail as soon as it opened one.
    run(serve(folder.path()).env("STELLAR_PACK", "packs/nowhere"))
        .failed(&["is in use by another process", "store.spool"]);
}

#[test]
fn a_missing_runtime_library_is_named() {
    let folder = folder();
    run(serve(folder.path()).env("STELLAR_ENGINE__LIBRARY", "/nowhere/libonnxruntime.so"))
        .failed(&["/nowhere/libonnxruntime.so", "make setup"]);
}

#[test]
fn an_unsupported_database_is_refused_with_the_supported_ones() {
    let folder = folder();
    run(serve(folder.path()).env("STELLAR_STORE__URL", "mysql://me:secret@host/db"))
        .failed(&["neither sqlite nor postgres"]);
}

#[test]
fn an_unreachable_database_is_reported_without_its_password() {
    let folder = folder();
    // A port that was free a moment ago, without a listener.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://me:secret@127.0.0.1:{port}/db");
    let ran = run(serve(folder.path()).env("STELLAR_STORE__URL", url));
    assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
    ran.failed(&["cannot open the store"]);
}
