//! Adapters that PEFT 0.21.2 wrote: read, and written again to the same content.
use graft_adapter::{Adapter, MODEL_FILE, Targets, load, save};
use graft_ir::{Code, DType};
use std::path::{Path, PathBuf};

fn parity(method: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/parity").join(method).join("init")
}

/// Adapters that PEFT wrote, and a key that tells the method.
const BY_PEFT: [(&str, &str, &str); 5] = [
    ("lora", "use_rslora", "false"),
    ("rslora", "use_rslora", "true"),
    ("dora", "use_dora", "true"),
    ("bone", "init_weights", "true"),
    ("bat", "init_weights", "\"bat\""),
];

#[test]
fn peft_directories_make_the_round_trip() {
    for (method, key, value) in BY_PEFT {
        let adapter = load(&parity(method)).unwrap();
        assert_eq!(adapter.warnings, Vec::<String>::new());
        assert_eq!(adapter.config.keys[key].to_string(), value, "{method}");
        assert_eq!(adapter.config.rank, 4);
        assert_eq!(
            adapter.config.targets,
            Targets::List(["key", "query", "value", "dense"].map(String::from).into())
        );
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &adapter.config, &adapter.tensors).unwrap();
        assert_eq!(load(dir.path()).unwrap(), adapter);
        let ours = std::fs::read(dir.path().join(MODEL_FILE)).unwrap();
        let theirs = std::fs::read(parity(method).join(MODEL_FILE)).unwrap();
        assert_eq!(ours, theirs, "{method}: the bytes are PEFT's own");
    }
}

#[test]
fn tensors_are_in_pytorchs_orientation() {
    let adapter = load(&parity("lora")).unwrap();
    assert_eq!((adapter.config.alpha, adapter.tensors.len()), (Some(8.0), 26));
    let a = &adapter.tensors["bert.encoder.layer.0.output.dense.lora_A.weight"];
    assert_eq!((a.dtype(), a.dims()), (DType::Float, &[4, 160][..]));
}

#[test]
fn minimal_directories_of_others_make_the_round_trip() {
    for (method, peft_type, n) in
        [("hydra", "LORA", 65), ("tri", "TRIADAPTLORA", 52), ("salora", "SALORA", 39)]
    {
        let adapter = load(&parity(method)).unwrap();
        assert_eq!((adapter.config.peft_type.as_str(), adapter.tensors.len()), (peft_type, n));
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &adapter.config, &adapter.tensors).unwrap();
        assert_eq!(load(dir.path()).unwrap(), adapter);
    }
}

#[test]
fn damaged_directories_are_errors() {
    let whole = parity("lora");
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(load(dir.path()).unwrap_err().code, Code::ADAPTER);
    std::fs::copy(whole.join("adapter_config.json"), dir.path().join("adapter_config.json")).unwrap();
    assert_eq!(load(dir.path()).unwrap_err().code, Code::ADAPTER);
    std::fs::write(dir.path().join("adapter_model.bin"), b"pickle").unwrap();
    assert!(load(dir.path()).unwrap_err().message.contains("a pickle"));
    let bytes = std::fs::read(whole.join(MODEL_FILE)).unwrap();
    for cut in [0, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(dir.path().join(MODEL_FILE), &bytes[..cut]).unwrap();
        assert_eq!(load(dir.path()).unwrap_err().code, Code::ADAPTER, "cut at {cut}");
    }
    let Adapter { .. } = load(&whole).unwrap();
}
