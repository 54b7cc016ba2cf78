//! `graft demo`, run as a user runs it.
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn graft(args: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_graft"))
        .args(args)
        .current_dir(folder)
        .output()
        .expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "exit code {:?}: {errors}", output.status.code());
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// The second cell of the row that begins with `name`, in the table of losses.
fn loss(text: &str, name: &str) -> f64 {
    let row =
        text.lines().find(|line| line.split_whitespace().next() == Some(name)).expect("the row is there");
    row.split_whitespace().nth(1).and_then(|cell| cell.parse().ok()).expect("a number")
}

#[test]
fn the_demo_learns_and_what_it_says_is_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let text = stdout(&graft(&["demo", "--steps", "20", "--out", "a"], dir.path()));
    let [before, adapted, merged] =
        ["whale.onnx", "adapted.onnx", "merged.onnx"].map(|name| loss(&text, name));
    assert!(merged < before - 0.05, "{text}");
    assert!((merged - adapted).abs() < 2e-4, "the table shows four digits\n{text}");

    let files =
        text.lines().filter_map(|line| line.split_whitespace().next()).filter(|word| word.starts_with("a/"));
    let files: Vec<&str> = files.collect();
    assert_eq!(files.len(), 7, "{text}");
    files.iter().for_each(|file| assert!(dir.path().join(file).exists(), "{file}"));
    for file in ["adapter_model.safetensors", "adapter_config.json", "metrics.jsonl", "loss.svg"] {
        assert!(dir.path().join("a/adapter").join(file).exists(), "{file}");
    }
    let page = fs::read_to_string(dir.path().join("a/comparison/comparison.html")).expect("the comparison");
    for method in ["bat", "bone", "hydra", "lora", "salora", "tri"] {
        assert!(loss(&text, method) >= 1.0, "its rank\n{text}");
        assert!(page.contains(&format!("<td>{method}</td>")), "{method}");
    }
    stdout(&graft(&["verify", "a/adapted.onnx", "a/merged.onnx"], dir.path()));
    let worse = graft(&["verify", "a/whale.onnx", "a/merged.onnx"], dir.path());
    assert_eq!(worse.status.code(), Some(6), "the training changed the model");

    let commands: Vec<&str> = text.lines().skip_while(|line| *line != "next, try").skip(1).collect();
    assert_eq!(commands.len(), 3, "{text}");
    for command in commands {
        let typed = Command::new("sh").args(["-c", command]).current_dir(dir.path()).output();
        stdout(&typed.expect("there is a shell"));
    }
}

#[test]
fn the_same_seed_gives_the_same_results() {
    let dir = tempfile::tempdir().expect("a folder");
    let made = |out: &str, seed: &str, threads: &str| {
        let args = ["demo", "--steps", "3", "--out", out, "--seed", seed, "--threads", threads];
        let text = stdout(&graft(&args, dir.path()));
        let said = |from: &str, to: &str| {
            let (_, rest) = text.split_once(from).expect("the sample begins");
            rest.split_once(to).expect("the sample ends").0.to_string()
        };
        let adapter = fs::read(dir.path().join(out).join("adapter/adapter_model.safetensors"));
        (
            adapter.expect("an adapter"),
            said("whale.onnx says", "merged.onnx says"),
            said("merged.onnx says", "max_rel"),
        )
    };
    let one = made("one", "7", "1");
    assert!(one == made("two", "7", "2"), "other bytes with other threads");
    let other = made("other", "8", "2");
    assert!(one.0 != other.0 && one.1 != other.1, "the seed has no effect");
}

#[test]
fn nothing_is_overwritten_or_left_behind() {
    let dir = tempfile::tempdir().expect("a folder");
    let code = |args: &[&str]| graft(args, dir.path()).status.code();
    assert_eq!(code(&["demo", "--method", "lira"]), Some(2));
    assert_eq!(code(&["demo", "--precision", "f16"]), Some(2));
    assert_eq!(code(&["demo", "--threads", "0"]), Some(2));
    assert_eq!(code(&["demo", "--steps", "0"]), Some(2));
    assert_eq!(fs::read_dir(dir.path()).expect("the folder").count(), 0);
    fs::create_dir(dir.path().join("graft-demo")).expect("a folder");
    fs::write(dir.path().join("graft-demo/merged.onnx"), "mine").expect("a file");
    let refused = graft(&["demo", "--steps", "1"], dir.path());
    assert_eq!(refused.status.code(), code(&["run", "x", "--inputs", "y", "-o", "graft-demo/merged.onnx"]));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--force"));
    assert_eq!(fs::read(dir.path().join("graft-demo/merged.onnx")).expect("the file"), b"mine");
    assert_eq!(code(&["demo", "--steps", "1", "--force"]), Some(0));
    assert_ne!(fs::read(dir.path().join("graft-demo/merged.onnx")).expect("the file"), b"mine");
}
