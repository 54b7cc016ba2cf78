//! `graft.json`: which base an adapter was trained on, and which module, node and initializer each of its parts belongs to.
use graft_ir::{Code, Error, Result, Tensor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, path::Path};

/// The version of the manifest's form.
pub const SCHEMA: &str = "graft.adapter/1";
/// What stands for the method where there is no adapter and the head alone was trained.
pub const NO_METHOD: &str = "none";

/// What `graft.json` says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: String,
    /// The version of graft that wrote it.
    pub graft: String,
    /// [`fingerprint`] of the targeted weights of the base model; of every linear's where there is no adapter.
    pub base: String,
    /// The adapter method, or [`NO_METHOD`].
    pub method: String,
    /// The method's options as given, in the spelling of the command line.
    pub options: BTreeMap<String, Vec<String>>,
    /// The trained head, where there is one: the options of the pass `head` that puts it on the base model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<BTreeMap<String, Vec<String>>>,
    /// How much of the model and of the adapter found its counterpart.
    pub coverage: Coverage,
    /// The adapted linears, by module path.
    pub modules: Vec<Module>,
}

/// How much of the model and of the adapter found its counterpart.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Coverage {
    /// Linears that the selector matched.
    pub targets: usize,
    /// Those that carry an adapter.
    pub adapted: usize,
    /// Tensors of the adapter that belong to no linear.
    pub unused: Vec<String>,
    /// The same as a sentence: `36/36 targets, 0 unused`.
    pub summary: String,
}

/// One adapted linear.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Module {
    /// Its module path, as the adapter's keys have it.
    pub path: String,
    /// Its node's name in the base model.
    pub node: String,
    /// The op of the node.
    pub op: String,
    /// The initializer that holds its weight.
    pub initializer: String,
    /// Its input size.
    #[serde(rename = "in")]
    pub d_in: usize,
    /// Its output size.
    #[serde(rename = "out")]
    pub d_out: usize,
    /// The keys of its tensors in `adapter_model.safetensors`, without the prefix.
    pub tensors: Vec<String>,
}

impl Coverage {
    /// `adapted` of `targets` linears, and what was left over.
    pub fn new(targets: usize, adapted: usize, unused: Vec<String>) -> Coverage {
        let summary = format!("{adapted}/{targets} targets, {} unused", unused.len());
        Coverage { targets, adapted, unused, summary }
    }
}

impl Manifest {
    /// Reads a `graft.json`.
    pub fn read(path: &Path) -> Result<Manifest> {
        let place = |e: Error| e.at(path.display().to_string());
        let text = std::fs::read_to_string(path)
            .map_err(|e| place(Error::new(Code::IO, format!("cannot read: {e}"))))?;
        let manifest: Manifest = serde_json::from_str(&text)
            .map_err(|e| place(Error::new(Code::ADAPTER, format!("not a manifest of ours: {e}"))))?;
        if manifest.schema != SCHEMA {
            let message = format!("the manifest's schema is `{}`, expected `{SCHEMA}`", manifest.schema);
            return Err(place(Error::new(Code::ADAPTER, message)));
        }
        Ok(manifest)
    }
    /// Writes a `graft.json` under a temporary name that is then renamed.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("a manifest is plain JSON");
        graft_onnx::atomic_write(path, (text + "\n").as_bytes())
    }
}

/// `sha256:` and the digest over the weights in the order given; each weight counts with its module path, its
/// initializer's name, its element type, its sizes and its bytes, every text and byte string after its length (u64,
/// little-endian).
pub fn fingerprint<'a>(weights: impl IntoIterator<Item = (&'a str, &'a str, &'a Tensor)>) -> String {
    let mut digest = Sha256::new();
    let mut field = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    for (path, name, tensor) in weights {
        field(path.as_bytes());
        field(name.as_bytes());
        field(tensor.dtype().name().as_bytes());
        field(format!("{:?}", tensor.dims()).as_bytes());
        field(tensor.data());
    }
    let hex: String = digest.finalize().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_depends_on_every_part() {
        let (a, b) = (Tensor::f32(&[2], &[1.0, 2.0]), Tensor::f32(&[2, 1], &[1.0, 2.0]));
        let prints = [
            fingerprint([("p", "n", &a)]),
            fingerprint([("q", "n", &a)]),
            fingerprint([("p", "m", &a)]),
            fingerprint([("p", "n", &b)]),
            fingerprint([("pn", "", &a)]),
            fingerprint([]),
        ];
        for (i, x) in prints.iter().enumerate() {
            assert_eq!(x.len(), 7 + 64);
            assert!(!prints[..i].contains(x));
        }
        assert_eq!(prints[0], fingerprint([("p", "n", &a)]));
    }

    #[test]
    fn a_manifest_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(crate::MANIFEST_FILE);
        let manifest = Manifest {
            schema: SCHEMA.into(),
            graft: "0.1.0".into(),
            base: fingerprint([]),
            method: "lora".into(),
            options: BTreeMap::from([("rank".into(), vec!["4".into()])]),
            head: Some(BTreeMap::from([("classes".into(), vec!["2".into()])])),
            coverage: Coverage::new(2, 2, Vec::new()),
            modules: vec![Module {
                path: "a.b".into(),
                node: "/a/b/MatMul".into(),
                op: "MatMul".into(),
                initializer: "onnx::MatMul_1".into(),
                d_in: 3,
                d_out: 4,
                tensors: vec!["a.b.lora_A.weight".into()],
            }],
        };
        assert_eq!(manifest.coverage.summary, "2/2 targets, 0 unused");
        manifest.write(&path).unwrap();
        assert_eq!(Manifest::read(&path).unwrap(), manifest);
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(Manifest::read(&path).unwrap_err().code, Code::ADAPTER);
    }
}
