//! The command line around what was trained: the head alone, models written by `train`, heads that come along.
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn data(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/parity").join(path);
    path.display().to_string()
}

fn graft(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_graft")).args(arguments).output().expect("the binary starts")
}

/// The exit code and what was said on stderr.
fn refused(arguments: &[&str]) -> (i32, String) {
    let output = graft(arguments);
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into())
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let output = graft(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into()
}

const HEAD: [&str; 2] = ["--head", "classify:3,pool=none,from=logits"];

/// `train` on the parity model for three steps, with `flags`.
fn train<'a>(model: &'a str, rows: &'a str, out: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    let run =
        ["train", model, "--data", rows, "--label", "labels", "--loss", "cross-entropy", "--steps", "3"];
    [&run[..], &["--out", out], flags].concat()
}

/// A folder with a run that trained a head, and maybe an adapter.
fn trained(dir: &Path, name: &str, method: &str) -> String {
    let out = dir.join(name).display().to_string();
    let (model, rows) = (data("base.onnx"), data("train.npz"));
    succeeds(&train(&model, &rows, &out, &[&["--method", method][..], &HEAD].concat()));
    out
}

#[test]
fn flags_that_do_not_fit_the_method_are_usage_errors() {
    let (model, rows) = (data("base.onnx"), data("train.npz"));
    for (flags, wanted) in [
        (vec!["--method", "none"], "there must be a head to train"),
        (vec!["--method", "none", "--logits", "logits"], "there must be a head to train"),
        (vec!["--method", "none", "--rank", "4", HEAD[0], HEAD[1]], "`--method none` makes no adapter"),
        (vec!["--method", "none", "--export", "merged.onnx", HEAD[0], HEAD[1]], "nothing to merge"),
        (vec!["--export", "model.onnx", HEAD[0], HEAD[1]], "merged=model.onnx"),
        (vec!["--method", "nome", HEAD[0], HEAD[1]], "`nome`"),
    ] {
        let (code, said) = refused(&train(&model, &rows, "never-made", &flags));
        assert_eq!(code, 2, "{flags:?}: {said}");
        assert!(said.contains(wanted), "{flags:?}: {said}");
        assert!(!PathBuf::from("never-made").exists(), "{flags:?}");
    }
}

#[test]
fn none_is_no_adapter_method_but_can_be_found() {
    assert!(!succeeds(&["methods"]).contains("none "), "`graft methods` lists adapters");
    assert!(succeeds(&["train", "--help"]).contains("`none`"));
}

#[test]
fn a_head_that_was_trained_alone_can_be_put_on_but_not_merged() {
    let dir = tempfile::tempdir().expect("a folder");
    let (model, out) = (data("base.onnx"), trained(dir.path(), "alone", "none"));
    let file = dir.path().join("headed.onnx").display().to_string();
    let (code, said) = refused(&["merge", &model, "--adapter", &out, "-o", &file]);
    assert_eq!(code, 5);
    assert!(said.contains("there is nothing to merge") && said.contains("graft inject"), "{said}");
    succeeds(&["inject", &model, "--adapter", &out, "-o", &file]);
    assert!(succeeds(&["inspect", &file]).contains("graft.logits float[batch, 3]"));
    let (code, said) = refused(&["inject", &model, "--adapter", &out, "--no-head", "-o", &file, "--force"]);
    assert_eq!(code, 3, "{said}");
}

#[test]
fn the_trained_head_comes_along_unless_it_is_left_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let (model, out) = (data("base.onnx"), trained(dir.path(), "both", "lora"));
    let file = |name: &str| dir.path().join(name).display().to_string();
    for (command, name) in [("merge", "merged.onnx"), ("inject", "adapted.onnx")] {
        let (with, without) = (file(name), file(&format!("bare-{name}")));
        succeeds(&[command, &model, "--adapter", &out, "-o", &with]);
        assert!(succeeds(&["inspect", &with]).contains("graft.logits"), "{command}");
        succeeds(&[command, &model, "--adapter", &out, "--no-head", "-o", &without]);
        assert!(!succeeds(&["inspect", &without]).contains("graft.logits"), "{command}");
    }
    succeeds(&["verify", &file("adapted.onnx"), &file("merged.onnx"), "--tol", "1e-5"]);
    succeeds(&["merge", &model, "--adapter", &out, "-o", &file("again.onnx"), "--verify", "--tol", "1e-5"]);

    let (half, twice) = (format!("{out}=0.5"), file("twice.onnx"));
    let halves = ["merge", &model, "--adapter", &half, "--adapter", &half, "-o", &twice];
    let (code, said) = refused(&halves);
    assert_eq!(code, 2);
    assert!(said.contains("--no-head"), "{said}");
    succeeds(&[&halves[..], &["--no-head"]].concat());
    succeeds(&["verify", &file("bare-merged.onnx"), &twice, "--tol", "1e-5"]);
}

#[test]
fn a_dry_run_says_what_would_be_done_and_writes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let (model, rows, out) =
        (data("base.onnx"), data("train.npz"), dir.path().join("out").display().to_string());
    let said = succeeds(&train(&model, &rows, &out, &["--rank", "2", HEAD[0], HEAD[1], "--dry-run"]));
    for wanted in
        ["13 linear nodes carry an adapter", "trainable: ", "memory: ", "25 batches an epoch, 3 steps"]
    {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    let said = succeeds(&["inject", &model, "--rank", "2", "--targets", "query", "--dry-run"]);
    let row = "bert.encoder.layer.1.attention.self.query  lora       2     16         256";
    assert!(said.contains(row), "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("the folder").count(), 0);
}

#[test]
fn a_file_may_hold_the_flags_and_those_of_the_command_line_win() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (model, settings, out) = (data("base.onnx"), file("run.toml"), file("out"));
    let text = format!(
        "data = '{}'\nlabel = 'labels'\nloss = 'cross-entropy'\nlogits = 'logits'\nsteps = 9\nrank = 2\nexport = ['{}']",
        data("train.npz"),
        file("merged.onnx")
    );
    std::fs::write(&settings, &text).expect("a file");
    let said = succeeds(&["train", &model, "-c", &settings, "--steps", "2", "--out", &out]);
    assert!(said.starts_with("2 steps"), "{said}");
    assert!(dir.path().join("merged.onnx").exists());
    std::fs::write(&settings, text + "\nlearning-rate = 1").expect("a file");
    let (code, said) = refused(&["train", &model, "-c", &settings, "--out", &file("other")]);
    assert_eq!(code, 2);
    assert!(said.contains("there is no flag `learning-rate`") && said.contains("nearest: `"), "{said}");
    assert_eq!(refused(&["train", &model, "-c", &file("none.toml"), "--out", &file("other")]).0, 1);
}
