//! What no compiler checks: sizes and openings of files, where `unsafe` may stand, and that every row of every table
//! is documented, tested and used.
use graft_ir::{Code, ops, opset};
use graft_tests::case::Case;
use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace lies around this crate").into()
}

/// Every text file of the repository with its path from the root; build outputs and hidden folders aside.
fn texts(suffixes: &[&str]) -> Vec<(String, String)> {
    let mut pending = vec![root()];
    let mut texts = Vec::new();
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).expect("the folder can be read") {
            let path = entry.expect("the entry can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_string();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    pending.push(path);
                }
            } else if suffixes.iter().any(|s| name.ends_with(s)) {
                let relative = path.strip_prefix(root()).expect("it lies below the root");
                let text = fs::read_to_string(&path).unwrap_or_default();
                texts.push((relative.to_string_lossy().replace('\\', "/"), text));
            }
        }
    }
    texts.sort();
    assert!(texts.len() > 3, "the repository was not found");
    texts
}

/// Rust files that people write.
fn sources() -> Vec<(String, String)> {
    texts(&[".rs"]).into_iter().filter(|(_, text)| !text.contains(concat!("@", "generated"))).collect()
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn files_are_short_and_say_what_they_hold() {
    let mut problems = Vec::new();
    let kernels = texts(&[".cu", ".cuh", ".cc", ".h"]);
    for (path, text) in sources().into_iter().chain(kernels) {
        let n = text.lines().count();
        if n > 500 {
            problems.push(format!("{path}: {n} lines, 500 is the most"));
        }
        // A module of tests is told by its name.
        if !text.starts_with("//! ") && !path.ends_with("tests.rs") {
            problems.push(format!("{path}: does not open with `//!` and what it holds"));
        }
        let spaces = text.lines().position(|l| l.ends_with([' ', '\t']));
        problems.extend(spaces.map(|i| format!("{path}:{}: the line ends in spaces", i + 1)));
    }
    report(problems);
}

#[test]
fn unsafe_code_keeps_to_its_places() {
    let keyword = concat!("unsa", "fe");
    let mut problems = Vec::new();
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            if !words.any(|w| w == keyword) {
                continue;
            }
            let allowed = path.starts_with("kernels/") || path == "crates/onnx/src/map.rs";
            let reason = &lines[i.saturating_sub(8)..=i];
            if !allowed {
                problems
                    .push(format!("{path}:{}: `{keyword}` outside of the kernels and the memory map", i + 1));
            } else if !reason.iter().any(|l| l.contains("SAFETY:") || l.contains("# Safety")) {
                problems.push(format!("{path}:{}: `{keyword}` without a `SAFETY:` comment", i + 1));
            }
        }
    }
    report(problems);
}

#[test]
fn nothing_points_at_one_machine() {
    // Written in two parts, so that this file does not find itself.
    let needles = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/tm", "p/g/"),
        concat!("index", "-url"),
        concat!("127.0", ".0.1"),
        concat!("local", "host"),
    ];
    let suffixes = [".rs", ".toml", ".md", ".py", ".sh", ".txt", ".onnxtxt", ".yml", ".json", ".jsonl"];
    let mut problems = Vec::new();
    for (path, text) in texts(&suffixes) {
        for (i, line) in text.lines().enumerate() {
            let found = needles.iter().find(|n| line.contains(**n));
            problems.extend(found.map(|n| format!("{path}:{}: `{n}`", i + 1)));
        }
    }
    report(problems);
}

/// Every file test, with its path below `files`.
fn cases() -> Vec<(String, Case)> {
    let files = texts(&[".onnxtxt"]).into_iter();
    files
        .filter_map(|(path, text)| Some((path.strip_prefix("tests/files/")?.to_string(), text)))
        .map(|(path, text)| {
            let case = Case::parse(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
            (path, case)
        })
        .collect()
}

fn is_positive(case: &Case) -> bool {
    !case.expected.contains("error: ") && case.expected.lines().all(|l| l != "unchanged")
}

#[test]
fn every_pass_and_method_has_file_tests() {
    let cases = cases();
    let mut problems = Vec::new();
    for pass in graft_passes::ALL {
        let stage = |c: &Case| {
            graft_passes::pipeline::parse(&c.passes).is_ok_and(|s| s.iter().any(|s| s.name == pass.name))
        };
        let own =
            || cases.iter().filter(|(path, c)| path.starts_with(&format!("{}/", pass.name)) && stage(c));
        if !own().any(|(_, c)| is_positive(c)) {
            problems.push(format!("tests/files/{}/ has no file in which the pass does something", pass.name));
        }
        if own().all(|(_, c)| is_positive(c)) {
            problems.push(format!(
                "tests/files/{}/ has no file in which the pass refuses or does nothing",
                pass.name
            ));
        }
    }
    for method in graft_passes::inject::METHODS {
        let named = format!("method={}", method.name);
        if !cases
            .iter()
            .any(|(path, c)| path.starts_with("inject/") && c.passes.contains(&named) && is_positive(c))
        {
            problems.push(format!("tests/files/inject/ has no file with `{named}`"));
        }
    }
    report(problems);
}

#[test]
fn tables_are_documented_and_sorted() {
    let mut problems = Vec::new();
    for def in ops::all() {
        if def.doc.is_empty() || def.doc.contains('\n') {
            problems.push(format!("op `{}`: its doc is not one line", def.name));
        }
    }
    let mut seen = HashSet::new();
    let twice = ops::all().filter(|def| !seen.insert((def.name, def.since)));
    problems.extend(twice.map(|def| format!("op `{}` since {} has two entries", def.name, def.since)));
    let names: Vec<&str> = graft_passes::ALL.iter().map(|p| p.name).collect();
    assert!(names.is_sorted() || names.len() < 2, "the passes are not in alphabetical order: {names:?}");
    assert!(opset::MOVED.is_sorted_by_key(|m| (m.op, m.attr)), "the moved attributes are not sorted");
    report(problems);
}

#[test]
fn every_error_code_is_unique_and_used() {
    let mut problems = Vec::new();
    let mut seen = HashSet::new();
    problems
        .extend(Code::ALL.iter().filter(|c| !seen.insert(c.id)).map(|c| format!("{} is there twice", c.id)));
    let sources = sources();
    let table = &sources.iter().find(|(path, _)| path == "crates/ir/src/error.rs").expect("the table").1;
    for code in Code::ALL {
        let row = table.lines().find(|l| l.contains(&format!("\"{}\"", code.id))).unwrap_or_default();
        let name = row.split_whitespace().next().unwrap_or_default();
        let used = format!("Code::{name}");
        let word = |text: &str| {
            text.match_indices(&used).any(|(i, _)| {
                !text[i + used.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            })
        };
        if !sources.iter().any(|(path, text)| path != "crates/ir/src/error.rs" && word(text)) {
            problems.push(format!("{} ({name}) is used nowhere", code.id));
        }
        if !code.explain.ends_with('.') {
            problems.push(format!("{}: its explanation is no sentence", code.id));
        }
    }
    report(problems);
}
