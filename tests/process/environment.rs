//! The program in foreign folders and environments.

use std::fs;

use crate::harness::{Server, folder, program, read, run};

#[test]
fn kubernetes_service_variables_do_not_prevent_the_start() {
    let folder = folder();
    let variables = [
        ("STELLAR_SCORE_PORT", "tcp://10.0.0.1:80"),
        ("STELLAR_SCORE_SERVICE_HOST", "10.0.0.1"),
        ("STELLAR_SCORE_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("STELLAR_SERVER__LISTN", "0.0.0.0:1"),
    ];
    let server = Server::start(folder.path(), &variables);
    assert_eq!(server.get("/livez").status, 200);
    server.terminate();
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("WARN")).collect();
    let [warning] = warnings.as_slice() else { panic!("one warning in {log}") };
    assert!(
        warning.contains("STELLAR_SERVER__LISTN (did you mean STELLAR_SERVER__LISTEN?)"),
        "{warning}"
    );
    assert!(!warning.contains("STELLAR_SCORE_"), "{warning}");
}

#[test]
fn a_variable_name_cannot_inject_a_log_line() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("STELLAR_SERVER__LISTN\nforged\u{1b}[2J", "x")]);
    server.terminate();
    let (_, log) = server.ended();
    assert!(log.contains("\\nforged") && !log.contains('\u{1b}'), "{log:?}");
    assert!(!log.lines().any(|line| line.starts_with("forged")), "{log}");
}

#[test]
fn a_log_in_a_file_has_no_colour_codes() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    server.terminate();
    let (_, log) = server.ended();
    assert!(log.contains("listening") && !log.contains('\u{1b}'), "{log:?}");
}

#[test]
fn the_program_ignores_packs_and_libraries_in_the_working_directory() {
    let folder = folder();
    // Anyone could have put these into a shared folder.
    let trap = folder.path().join(".runtime/libonnxruntime.so.99.0.0");
    fs::create_dir_all(trap.parent().unwrap()).unwrap();
    fs::write(&trap, "not a library").unwrap();
    fs::create_dir_all(folder.path().join("packs/demo")).unwrap();
    fs::write(folder.path().join("packs/demo/pack.toml"), "not a pack").unwrap();
    let image = format!("{}/packs/demo/goldens/astronaut.jpg", env!("CARGO_MANIFEST_DIR"));
    let mut command = program(&["score", "--image", &image, "--metrics", "aesthetic"]);
    let printed = run(command.current_dir(folder.path()).env_remove("ORT_DYLIB_PATH")).printed();
    assert!(printed.contains("aesthetic") && printed.contains("pack demo"), "{printed}");
    assert_eq!(read(&trap), "not a library");
}
