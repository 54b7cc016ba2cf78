//! Commands that write: whole files or none, and the old file where the new one cannot be finished.
use crate::{
    fixtures::{parity, sandbox},
    sandbox::Outcome,
};

/// Files end at 4 KiB, as on a disk that is full; the signal that says so is ignored, so that writing fails.
const FULL_DISK: &str = "trap '' XFSZ; ulimit -f 8; ulimit -v 8388608";

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let sandbox = sandbox();
    sandbox.write("old.onnx", "old");
    let model = parity("base.onnx");
    let before = sandbox.content();
    for line in [
        format!("inject {model} --targets query -o out.onnx"),
        format!("opt {model} -o out.onnx"),
        format!("opt {model} -o out.onnxtxt"),
        format!("merge {model} --adapter {} --force -o old.onnx", parity("lora/init")),
    ] {
        let outcome = Outcome::of(sandbox.command_after(FULL_DISK, &line), &line);
        assert_eq!(outcome.code, 1, "{line}: {}", outcome.stderr);
        assert!(
            outcome.stderr.contains("error[G0205]: ") && outcome.stderr.contains("File too large"),
            "{}",
            outcome.stderr
        );
        assert_eq!(outcome.crash(), None, "{line}");
        assert_eq!(sandbox.content(), before, "{line}");
    }
}

#[test]
fn a_full_disk_while_training_ends_the_run_with_whole_files() {
    let sandbox = sandbox();
    let (model, data) = (parity("base.onnx"), parity("train.npz"));
    let line = format!(
        "train {model} --data {data} --label labels --loss cross-entropy --logits logits --steps 3 --out run"
    );
    let outcome = Outcome::of(sandbox.command_after(FULL_DISK, &line), &line);
    assert_eq!((outcome.code, outcome.crash()), (1, None), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("error[G0205]: "), "{}", outcome.stderr);
    let leftovers = sandbox.content().into_keys().filter(|path| path.extension().is_some_and(|e| e == "tmp"));
    assert_eq!(leftovers.collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new());
    // With room again, the run can be begun anew.
    sandbox.succeeds(&format!("{line} --force"));
}

#[test]
fn force_replaces() {
    let sandbox = sandbox();
    for line in [
        "inject tiny.onnx --targets up -o taken.onnx",
        "merge tiny.onnx --adapter adapter -o taken.onnx",
        "opt tiny.onnx -o taken.onnx",
        "run tiny.onnx --inputs in.npz -o taken.npz",
    ] {
        for name in ["taken.onnx", "taken.npz"] {
            sandbox.write(name, "mine");
        }
        assert_eq!(sandbox.graft(line).code, 2, "{line}");
        sandbox.succeeds(&format!("{line} --force"));
        let taken = if line.starts_with("run") { "taken.npz" } else { "taken.onnx" };
        assert_ne!(sandbox.read(taken), b"mine", "{line}");
    }
    let line = "train tiny.onnx --data data.jsonl --loss cross-entropy --targets up --steps 1 --out run";
    sandbox.succeeds(line);
    assert_eq!(sandbox.graft(line).code, 2);
    sandbox.succeeds(&format!("{line} --force"));
}

#[test]
fn pictures() {
    let sandbox = sandbox();
    sandbox.succeeds("inject tiny.onnx --targets up --rank 2 -o adapted.onnx");
    for (line, words) in [
        ("render adapted.onnx -o a.svg --depth 2", &["<svg ", "enc.up", "lora rank 2", "#fdebd0"][..]),
        ("render adapted.onnx -o all.svg --depth 9", &["<svg ", "/enc/up/MatMul", "Tanh", "float[2, 4]"]),
        ("render adapted.onnx -o near.dot --around /enc/up/MatMul --hops 1", &["digraph", "ReduceMean"]),
    ] {
        sandbox.succeeds(line);
        let file = line.split(' ').nth(3).unwrap();
        let text = String::from_utf8(sandbox.read(file)).unwrap();
        words.iter().for_each(|word| assert!(text.contains(word), "{line}: no {word} in {text}"));
    }
    assert!(!String::from_utf8(sandbox.read("near.dot")).unwrap().contains("Tanh"));
}

#[test]
fn the_way_from_a_model_to_a_merged_one() {
    let sandbox = sandbox();
    sandbox.succeeds("train tiny.onnx --data data.jsonl --loss cross-entropy --targets up --rank 2 --lr 0.05 --steps 20 --out run");
    sandbox.succeeds("inject tiny.onnx --adapter run -o adapted.onnx");
    sandbox.succeeds("merge tiny.onnx --adapter run --verify -o merged.onnx");
    sandbox.succeeds("verify adapted.onnx merged.onnx");
    assert_eq!(sandbox.graft("verify tiny.onnx merged.onnx").code, 6);
    sandbox.succeeds("run merged.onnx --inputs in.npz -o out.npz --profile");
    sandbox.succeeds("run merged.onnx --inputs in.npz -o out.safetensors");
    let outputs = |name: &str| graft_adapter::tensors::read(&sandbox.path(name)).unwrap();
    assert_eq!(outputs("out.npz"), outputs("out.safetensors"));
    assert_eq!(outputs("out.npz")["logits"].dims(), [2, 3]);
}
