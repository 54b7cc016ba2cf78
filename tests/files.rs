//! Runs every `files/**/*.onnxtxt`: the text that passes make, and then the numbers; `BLESS=1` accepts new texts.
//!
//! See [`graft_tests::case`] for the form of a file. Besides its expectation each file is judged by running it, on
//! random inputs and weights, in f64: before and after agree on the outputs they share; after agrees with itself
//! inlined, for any weights; gradients agree with finite differences. Every text printed is parsed again, and comes
//! back the same from an ONNX file.
use graft_ir::{Graph, check, infer, parse, text};
use graft_passes::{Context, Pass, pipeline};
use graft_tests::{case::Case, judge, sample};
use std::{
    fs,
    path::{Path, PathBuf},
};

#[test]
fn files() {
    let mut paths = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("files"), &mut paths);
    assert!(!paths.is_empty(), "there are no file tests");
    let failures: Vec<String> =
        paths.iter().filter_map(|p| Some(format!("{}\n{}", p.display(), run(p).err()?))).collect();
    let n = (failures.len(), paths.len());
    assert!(
        failures.is_empty(),
        "{} of {} files failed; BLESS=1 accepts texts\n\n{}",
        n.0,
        n.1,
        failures.join("\n")
    );
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).expect("the folder can be read");
    for entry in entries {
        let path = entry.expect("the entry can be read").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|e| e == "onnxtxt") {
            paths.push(path);
        }
    }
    paths.sort();
}

fn run(path: &Path) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let case = Case::parse(&text)?;
    let (actual, after) = outcome(&case);
    if case.expected.trim_end() != actual.trim_end() {
        if std::env::var_os("BLESS").is_none() {
            let diff = graft_passes::diff::lines(&case.expected, &actual);
            return Err(format!("the text differs:\n{diff}"));
        }
        fs::write(path, case.with_expectation(&actual)).map_err(|e| e.to_string())?;
    }
    match after {
        Some(after) => numbers(&case, &after),
        None => Ok(()),
    }
}

/// What the passes said and made, as the file should expect it; the graph itself, unless it was refused.
fn outcome(case: &Case) -> (String, Option<Graph>) {
    let mut said = String::new();
    let result = parse(&case.source).and_then(|before| {
        check(&before)?;
        let mut log = |line: &str| said += &format!("says: {line}\n");
        apply(&case.passes, &before, case.kernels, &mut log).map(|after| (before, after))
    });
    match result {
        Err(e) => (format!("{said}error: {e}\n"), None),
        Ok((before, after)) => {
            let options = text::PrintOptions { types: case.types, ..text::PrintOptions::default() };
            let printed = text::print(&after, options);
            let same = !case.types && printed == before.to_string();
            (said + if same { "unchanged\n" } else { &printed }, Some(after))
        }
    }
}

fn apply(spec: &str, graph: &Graph, kernels: bool, log: &mut dyn FnMut(&str)) -> graft_ir::Result<Graph> {
    let has_kernel = move |_: &graft_ir::Node, _: &[Option<graft_ir::Type>]| kernels;
    let mut context = Context { log, has_kernel: &has_kernel, adapter: None, seed: 0 };
    let stages = pipeline::parse(spec)?;
    pipeline::run(graft_passes::ALL, &stages, graph, &mut context, &mut |_| ())
}

fn numbers(case: &Case, after: &Graph) -> Result<(), String> {
    let printed = after.to_string();
    let again = parse(&printed).map_err(|e| format!("the printed text does not parse: {e}"))?;
    if again.to_string() != printed {
        return Err("the printed text does not parse to itself".into());
    }
    if case.not_run.is_some() {
        return Ok(());
    }
    let mut before = parse(&case.source).map_err(|e| e.to_string())?;
    infer::infer(&mut before).map_err(|e| e.to_string())?;
    let known = sample::values(&before, &sample::Values::new(), &case.feeds, false)?;
    let made = sample::values(after, &known, &case.feeds, false)?;
    judge::same(&judge::run(&before, &known)?, &judge::run(after, &made)?)
        .map_err(|e| format!("before and after: {e}"))?;

    let random = sample::values(after, &known, &case.feeds, true)?;
    through_onnx(after, &random)?;
    let results = judge::run(after, &random)?;
    let is_inline = |p: &&Pass| p.name == "inline";
    if let Some(inline) = graft_passes::ALL.iter().find(is_inline) {
        let inlined = apply(inline.name, after, case.kernels, &mut |_| ()).map_err(|e| e.to_string())?;
        judge::same(&results, &judge::run(&inlined, &random)?).map_err(|e| format!("inlined: {e}"))?;
    }
    if case.passes.split(',').any(|p| p.trim().starts_with("grad")) {
        judge::gradients(after, &random)?;
    }
    Ok(())
}

/// The graph, written as ONNX and read again, has the same text; weights whose data the text leaves out are `values`.
fn through_onnx(graph: &Graph, values: &sample::Values) -> Result<(), String> {
    let mut whole = graph.clone();
    for &p in &graph.params {
        if whole[p].tensor.is_none() {
            let tensor = values[graph.name(p)].to_tensor().map_err(|e| e.to_string())?;
            whole[p].tensor = Some(tensor);
        }
    }
    let bytes = graft_onnx::to_bytes(&whole, None).map_err(|e| format!("as ONNX: {e}"))?;
    let read = graft_onnx::decode(bytes.into(), None).map_err(|e| format!("read from ONNX: {e}"))?;
    let [ours, theirs] = [whole.to_string(), read.graph.to_string()];
    if ours == theirs {
        return Ok(());
    }
    Err(format!("it comes back from ONNX as another text:\n{}", graft_passes::diff::lines(&ours, &theirs)))
}
