//! SIGINT while training: the first saves and ends, the second ends at once; what is resumed ends as if unbroken.
use crate::{
    fixtures::parity,
    sandbox::{Outcome, PATIENCE, Sandbox},
};
use std::{
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const STEPS: usize = 120;

fn line(flags: &str) -> String {
    let (model, data) = (parity("base.onnx"), parity("train.npz"));
    let task = "--label labels --loss cross-entropy --logits logits --batch 8 --rank 2 --lr 1e-2";
    format!("train {model} --data {data} {task} {flags}")
}

fn interrupt(child: &Child) {
    let status = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status();
    assert!(status.is_ok_and(|s| s.success()), "the signal can be sent");
}

/// Waits until `is_so`, but not while the process is gone.
fn wait_until(child: &mut Child, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "it did not come so far");
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was interrupted");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_interrupted_run_resumes_to_the_same_bytes() {
    let sandbox = Sandbox::empty();
    sandbox.succeeds(&line(&format!("--steps {STEPS} --out whole")));
    let broken = line(&format!("--steps {STEPS} --out broken"));
    let mut child = sandbox.command(&broken).spawn().unwrap();
    let metrics = sandbox.path("broken/metrics.jsonl");
    wait_until(&mut child, || std::fs::read(&metrics).is_ok_and(|text| text.contains(&b'\n')));
    interrupt(&child);
    let outcome = Outcome::wait(child, &broken);
    assert_eq!((outcome.code, outcome.crash()), (130, None), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("error[G0506]: interrupted after step "), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("--resume"), "{}", outcome.stderr);
    assert_ne!(sandbox.read("broken/state/state.safetensors"), sandbox.read("whole/state/state.safetensors"));
    sandbox.succeeds(&format!("{broken} --resume"));
    for file in ["adapter_model.safetensors", "adapter_config.json", "state/state.safetensors"] {
        assert_eq!(sandbox.read(&format!("broken/{file}")), sandbox.read(&format!("whole/{file}")), "{file}");
    }
    let steps = |name: &str| String::from_utf8(sandbox.read(name)).unwrap().lines().count();
    assert_eq!((steps("whole/metrics.jsonl"), steps("broken/metrics.jsonl")), (STEPS, STEPS));
    // Other settings are another run.
    let other = sandbox.graft(&format!("{broken} --resume --seed 7"));
    assert!(
        other.code == 3
            && other.stderr.contains("error[G0504]: ")
            && other.stderr.contains("`seed` was `0` and is `7`")
    );
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let sandbox = Sandbox::empty();
    let before = sandbox.content();
    // One step of very many batches, so that the first signal has to wait for its end.
    let line = line("--steps 1 --accumulate 1000000 --out run");
    let mut command = sandbox.command(&line);
    command.stderr(Stdio::from(std::fs::File::create(sandbox.path("said")).unwrap()));
    let mut child = command.spawn().unwrap();
    let said = || String::from_utf8(sandbox.read("said")).unwrap();
    wait_until(&mut child, || said().contains("1 steps"));
    thread::sleep(Duration::from_millis(50));
    interrupt(&child);
    thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "the first signal waits for the step");
    interrupt(&child);
    let start = Instant::now();
    let outcome = Outcome::wait(child, &line);
    assert_eq!(outcome.code, 130);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    std::fs::remove_file(sandbox.path("said")).unwrap();
    let left: Vec<_> =
        sandbox.content().into_keys().filter(|path| !before.contains_key(path) && path.is_file()).collect();
    assert!(left.is_empty(), "{left:?}");
}
