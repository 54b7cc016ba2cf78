//! What goes to stdout and what to stderr; colour, `-q`, `-v`, `-`; and readers that go away.
use crate::{
    fixtures::{TINY, onnx, sandbox},
    sandbox::{Outcome, Sandbox},
};
use std::{
    io::{Write as _, pipe},
    process::Stdio,
};

const ESCAPE: char = '\x1b';

#[test]
fn help_and_version_are_results() {
    let sandbox = Sandbox::empty();
    assert!(sandbox.succeeds("--version").stdout.starts_with("graft "));
    let help = sandbox.succeeds("--help").stdout;
    let commands =
        help.lines().skip_while(|l| !l.starts_with("Commands:")).skip(1).take_while(|l| !l.is_empty());
    let names: Vec<&str> =
        commands.filter_map(|l| l.split_whitespace().next()).filter(|n| *n != "help").collect();
    assert!(names.len() >= 13, "{names:?}");
    let readme = include_str!("../../../../README.md");
    for name in names {
        assert!(sandbox.succeeds(&format!("{name} --help")).stdout.contains("Usage: graft"), "{name}");
        assert!(
            sandbox.succeeds(&format!("man {name}")).stdout.contains(&format!(".TH graft-{name} 1")),
            "{name}"
        );
        assert!(readme.contains(&format!("| `graft {name}")), "README's table lacks `graft {name}`");
    }
    assert_eq!(sandbox.graft("").code, 2);
}

#[test]
fn completions_and_manual() {
    let sandbox = Sandbox::empty();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = sandbox.succeeds(&format!("completions {shell}")).stdout;
        assert!(script.contains("inspect") && script.contains("trainable"), "{shell}");
    }
    let script = sandbox.succeeds("completions bash").stdout;
    sandbox.write("graft.bash", script);
    let check = std::process::Command::new("bash").arg("-n").arg(sandbox.path("graft.bash")).status();
    assert!(check.is_ok_and(|status| status.success()), "bash cannot read its completions");
    let page = sandbox.succeeds("man").stdout;
    assert!(page.contains(".TH graft 1") && page.contains("graft\\-train"), "{page}");
}

#[test]
fn quiet_verbose_and_colour() {
    let sandbox = sandbox();
    let train = |flags: &str, out: &str| {
        let line = format!(
            "{flags} train tiny.onnx --data data.jsonl --loss cross-entropy --targets up --steps 2 --out {out}"
        );
        sandbox.succeeds(&line)
    };
    let (quiet, plain, verbose) = (train("-q", "a"), train("", "b"), train("-v", "c"));
    assert_eq!(quiet.stderr, "");
    assert!(quiet.stdout.contains("2 steps, loss") && plain.stdout.contains("results in b"));
    assert!(plain.stderr.lines().count() < verbose.stderr.lines().count(), "{}", verbose.stderr);
    assert!(plain.stderr.contains("step 2/2") && verbose.stderr.contains(" ms  grad"), "{}", verbose.stderr);
    // Errors are said even so.
    assert!(sandbox.graft("-q inspect missing.onnx").stderr.contains("error[G0205]"));

    let line = |flags: &str| format!("{flags} inspect tiny.onnx --tree");
    assert!(!sandbox.succeeds(&line("")).stdout.contains(ESCAPE));
    assert!(sandbox.succeeds(&line("--color always")).stdout.contains(ESCAPE));
    assert!(sandbox.graft("--color always inspect missing.onnx").stderr.contains(ESCAPE));
    assert!(!sandbox.graft("--color never inspect missing.onnx").stderr.contains(ESCAPE));
    // A flag is nearer than a variable.
    for (flags, is_colored) in [("", false), ("--color always", true)] {
        let mut command = sandbox.command(&line(flags));
        command.env("NO_COLOR", "1");
        assert_eq!(Outcome::of(command, flags).stdout.contains(ESCAPE), is_colored, "{flags}");
    }
}

#[test]
fn models_come_from_stdin_and_go_to_stdout() {
    let sandbox = sandbox();
    let piped = |line: &str, input: &[u8]| {
        let mut child = sandbox.command(line).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Outcome::wait(child, line)
    };
    for input in [TINY.as_bytes(), &onnx(TINY)] {
        let outcome = piped("inspect - --json", input);
        assert_eq!(outcome.json()["nodes"], 5, "{}", outcome.stderr);
        let printed = piped("opt - -o -", input);
        assert!(printed.code == 0 && printed.stdout.starts_with("<ir_version: 8"), "{}", printed.stdout);
        let injected = piped("inject - --targets up -o -", input).stdout;
        assert_eq!(piped("inspect - --json", injected.as_bytes()).json()["adapters"][0]["target"], "enc.up");
    }
    for (input, code) in [("", "G0201"), ("<ir", "G0103"), ("words", "G0201")] {
        let outcome = piped("inspect -", input.as_bytes());
        assert!(outcome.code == 3 && outcome.stderr.contains(code), "{input}: {}", outcome.stderr);
    }
}

const TALKATIVE: &[&str] = &[
    "--help",
    "inspect tiny.onnx",
    "inspect tiny.onnx --text",
    "inspect tiny.onnx --json",
    "targets tiny.onnx",
    "methods",
    "explain",
    "man",
    "completions bash",
    "opt tiny.onnx",
    "verify tiny.onnx tiny.onnx",
    "bench tiny.onnx --batch 1 --seq 2 --steps 1",
];

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let sandbox = sandbox();
    for line in TALKATIVE {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut command = sandbox.command(line);
        command.stdout(writer);
        let outcome = Outcome::of(command, line);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{line}");
    }
    // Nobody can be told when stderr is gone; the exit code still tells.
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let mut command = sandbox.command("inspect missing.onnx");
    command.stderr(writer);
    assert_eq!(Outcome::of(command, "inspect").code, 1);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_stdout_is_a_failure() {
    let sandbox = sandbox();
    for line in TALKATIVE {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = sandbox.command(line);
        command.stdout(full);
        let outcome = Outcome::of(command, line);
        assert_eq!(outcome.code, 1, "{line}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("error[G0205]: stdout: "), "{line}: {}", outcome.stderr);
    }
}
