//! Import, then export: what comes out is what went in, message by message, whether types were inferred in between or
//! not. With `GRAFT_MODELS` set to a folder, every `.onnx` file under it is put to the same test.
use graft_onnx::{ExternalData, SaveOptions, proto::ModelProto};
use prost::Message as _;
use std::path::{Path, PathBuf};

fn parity(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/parity").join(name)
}

/// Equal encodings: floats that are NaN are equal to themselves there.
fn encoding(bytes: &[u8]) -> Vec<u8> {
    ModelProto::decode(bytes).unwrap().encode_to_vec()
}

/// Saves beside the original, where references to external data stay valid.
fn check(path: &Path) {
    let original = encoding(&std::fs::read(path).unwrap());
    let mut model = graft_onnx::load(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let out = path.with_extension(format!("{}.out", std::process::id()));
    let options = SaveOptions { force: true, ..SaveOptions::default() };
    let save_and_compare = |model: &graft_onnx::Model, when: &str| {
        let saved = model.save(&out, &options);
        let written = std::fs::read(&out);
        let _ = std::fs::remove_file(&out);
        saved.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(encoding(&written.unwrap()) == original, "{}: {when} the export differs", path.display());
    };
    save_and_compare(&model, "untouched");
    // Ops that are ill-typed may be refused; what was inferred before that still must not change the model.
    let _ = graft_ir::infer::infer(&mut model.graph);
    save_and_compare(&model, "with types inferred");
}

fn in_temporary_folder(path: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join(path.file_name().unwrap());
    std::fs::copy(path, &copy).unwrap();
    check(&copy);
}

#[test]
fn parity_models() {
    in_temporary_folder(&parity("base.onnx"));
    in_temporary_folder(&parity("base_dynamo.onnx"));
}

#[test]
fn the_bytes_of_these_are_the_same_too() {
    for name in ["base.onnx", "base_dynamo.onnx"] {
        let original = std::fs::read(parity(name)).unwrap();
        let model = graft_onnx::load(&parity(name)).unwrap();
        assert!(graft_onnx::to_bytes(&model.graph, Some(&model)).unwrap() == original, "{name}");
    }
}

/// Without an origin every message is made anew, and means the same.
#[test]
fn made_anew_it_means_the_same() {
    for name in ["base.onnx", "base_dynamo.onnx"] {
        let model = graft_onnx::load(&parity(name)).unwrap();
        let bytes = graft_onnx::to_bytes(&model.graph, None).unwrap();
        let again = graft_onnx::decode(bytes.into(), None).unwrap();
        assert_eq!(again.graph.to_string(), model.graph.to_string(), "{name}");
        for (a, b) in again.graph.params.iter().zip(&model.graph.params) {
            assert_eq!(again.graph[*a].tensor, model.graph[*b].tensor, "{name}");
        }
    }
}

#[test]
fn weights_in_a_file_beside_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let model = graft_onnx::load(&parity("base.onnx")).unwrap();
    let options = SaveOptions { external: ExternalData::Auto, threshold: 100_000, ..SaveOptions::default() };
    let path = folder.path().join("m.onnx");
    model.save(&path, &options).unwrap();
    assert!(path.metadata().unwrap().len() < 100_000);
    check(&path);
    let again = graft_onnx::load(&path).unwrap();
    for (a, b) in again.graph.params.iter().zip(&model.graph.params) {
        assert_eq!(again.graph[*a].tensor, model.graph[*b].tensor);
    }
    // Elsewhere, the file of weights comes along; and all of it goes back into one file.
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    let moved = folder.path().join("sub/moved.onnx");
    again.save(&moved, &SaveOptions::default()).unwrap();
    assert!(folder.path().join("sub/moved.onnx.data").exists());
    check(&moved);
    let moved = graft_onnx::load(&moved).unwrap();
    let original = std::fs::read(parity("base.onnx")).unwrap();
    let single = graft_onnx::to_bytes(&moved.graph, Some(&moved)).unwrap();
    assert!(encoding(&single) == encoding(&original));
}

#[test]
fn models_of_a_folder() {
    let Some(root) = std::env::var_os("GRAFT_MODELS") else {
        report("GRAFT_MODELS is not set: only the committed models were checked");
        return;
    };
    let mut models = Vec::new();
    find(Path::new(&root), &mut models);
    assert!(!models.is_empty(), "no .onnx file under {}", root.display());
    models.sort();
    for model in &models {
        check(model);
    }
    report(&format!("{} models are the same after import and export", models.len()));
}

fn find(folder: &Path, models: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, models);
        } else if path.extension().is_some_and(|e| e == "onnx") {
            models.push(path);
        }
    }
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn report(line: &str) {
    eprintln!("{line}");
}
