//! GPU setup and measurement, as far as they can be tested without a GPU.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::harness::{folder, program, run};

fn script(name: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join("scripts").join(name));
    command.current_dir(root).stdin(Stdio::null()).env_remove("STELLAR_GPU");
    command
}

#[test]
fn the_gpu_check_runs_on_the_cpu_and_resumes_after_an_interruption() {
    let out = folder();
    let dry = || {
        let mut command = script("gpu_check.sh");
        command.arg("dry").arg(out.path()).args(["--program", env!("CARGO_BIN_EXE_stellar-score")]);
        run(&mut command).printed()
    };
    let output = dry();
    let result: Value =
        serde_json::from_slice(&fs::read(out.path().join("result.json")).expect("a result"))
            .expect("a JSON document");
    assert_eq!(result["machine"]["provider"], "cpu");
    let graphs = result["graphs-demo"]["graphs"].as_array().expect("a list");
    assert!(graphs.len() > 10, "{output}");
    for graph in graphs {
        assert_eq!(graph["batches"].as_array().map(Vec::len), Some(2), "{graph}");
    }
    assert_eq!(result["graphs-demo"]["placement"].as_array().map(Vec::len), Some(20), "{output}");
    for load in ["4 clients", "known"] {
        assert!(result["service-demo"]["loads"][load]["scored"].as_u64() > Some(0), "{output}");
    }
    assert!(
        output.contains("4 clients") && output.contains("parity of the demo pack: passed"),
        "{output}"
    );
    // A second run repeats only failed and missing steps.
    fs::remove_file(out.path().join("toggle-lanes-1.json")).expect("it was there");
    let again = dry();
    assert!(
        again.contains("graphs-demo: done before") && again.contains("toggle-lanes-1: done in"),
        "{again}"
    );
}

#[test]
fn the_driver_version_decides_the_download() {
    let folder = folder();
    let file = folder.path().join("version");
    for (text, says) in [
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  \
                (x@y)  Tue Sep 23 10:11:16 UTC 2025",
            "nvidia-cudnn-cu13==",
        ),
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC \
                2024",
            "older than 580",
        ),
        ("no driver", "none"),
    ] {
        fs::write(&file, text).expect("a file");
        let printed = run(script("setup.sh").arg("gpu").arg(&file)).printed();
        assert!(printed.contains(says), "{text}: {printed}");
    }
    fs::write(&file, "no driver").expect("a file");
    assert!(
        run(script("setup.sh").arg("gpu").arg(&file).env("STELLAR_GPU", "1"))
            .printed()
            .contains("onnxruntime-gpu==")
    );
}

/// A library with code for these GPU architectures: an ELF file with one section, which holds a
/// container with one entry for each.
fn library(codes: &[(u32, &[u8])]) -> Vec<u8> {
    let mut container = Vec::new();
    for (architecture, code) in codes {
        let mut entry = vec![0; 64];
        entry[4..8].copy_from_slice(&64_u32.to_le_bytes());
        entry[8..16].copy_from_slice(&(code.len() as u64).to_le_bytes());
        entry[28..32].copy_from_slice(&architecture.to_le_bytes());
        container.extend(entry);
        container.extend(*code);
    }
    let mut section = 0xBA55_ED50_u32.to_le_bytes().to_vec();
    section.extend([1, 0, 16, 0]);
    section.extend((container.len() as u64).to_le_bytes());
    section.extend(container);
    let names = b"\0.nv_fatbin\0.shstrtab\0";
    let mut file = vec![0; 64];
    let (begins, named) = (64, 64 + section.len());
    file.extend(&section);
    file.extend(names);
    let headers = file.len() as u64;
    file[0x28..0x30].copy_from_slice(&headers.to_le_bytes());
    file[0x3a..0x40].copy_from_slice(&[64, 0, 3, 0, 2, 0]);
    for (name, at, size) in [(0_u32, 0, 0), (1, begins, section.len()), (12, named, names.len())] {
        let mut header = vec![0; 64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
        file.extend(header);
    }
    file
}

#[test]
fn only_the_code_of_other_gpus_is_zeroed() {
    let folder = folder();
    let (source, target) = (folder.path().join("in.so"), folder.path().join("out.so"));
    let whole = library(&[(80, b"ampere!!"), (90, b"hopper!!"), (120, b"blackwel")]);
    fs::write(&source, &whole).expect("a file");
    let thin = |architectures: &str| {
        let mut command = Command::new("python3");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/thin_cuda.py"));
        run(command.args([&source, &target]).arg(architectures))
    };
    assert_eq!(thin("90").printed().trim(), "8");
    let found = fs::read(&target).expect("a file");
    let mut expected = whole.clone();
    for gone in [&b"ampere!!"[..], b"blackwel"] {
        let at = whole.windows(8).position(|bytes| bytes == gone).expect("it is there");
        expected[at..at + 8].fill(0);
    }
    assert_eq!(found, expected);
    assert_ne!(thin("75").code, Some(0), "no code would remain");
}

#[test]
fn cuda_without_a_gpu_is_a_clear_error_and_auto_uses_the_cpu() {
    if Path::new("/dev/nvidiactl").exists() {
        return;
    }
    let graphs = ["bench", "graphs", "--only", "dino", "--batches", "1", "--runs", "1"];
    let mut command = program(&graphs);
    run(command.env("STELLAR_ENGINE__PROVIDER", "cuda"))
        .failed(&["`cuda`", "engine.provider = \"cpu\""]);
    let output = run(&mut program(&graphs)).printed();
    assert!(output.contains("cpu") && output.contains("items/s"), "{output}");
}
