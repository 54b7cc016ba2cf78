//! llama.cpp's GGUF with a LoRA: tensors `<llama.cpp's name>.weight.lora_a` and `.lora_b`, one alpha for all.
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>
use super::{Content, Form, Format, Loras, Naming, unknown_tensors};
use crate::Lora;
use bytes::Bytes;
use graft_ir::{Code, DType, Error, Result, Tensor, count};
use std::collections::BTreeMap;

pub(super) const FORMAT: Format = Format {
    name: "gguf",
    about: "llama.cpp's LoRA",
    extension: "gguf",
    form: Form::Loras,
    is_it: |source| source.bytes.starts_with(MAGIC),
    read: |source, naming| read(&source.bytes, naming).map(Content::Loras),
    write: |content, naming| match content {
        Content::Loras(loras) => Ok(vec![("", write(loras, naming)?)]),
        _ => FORMAT.refuse(),
    },
};

const MAGIC: &[u8] = b"GGUF";
const VERSION: u32 = 3;
/// Where the data of a tensor may begin.
const ALIGN: usize = 32;

/// Element types and their numbers in ggml.
const DTYPES: &[(DType, u32)] =
    &[(DType::Float, 0), (DType::Float16, 1), (DType::Bfloat16, 30), (DType::Double, 28)];

/// An architecture of llama.cpp: how it calls the modules of which models.
struct Architecture {
    /// `general.architecture`.
    names: &'static [&'static str],
    /// What stands before the number of a layer.
    layers: &'static str,
    /// The rest of a module's path, and of llama.cpp's name, in a layer.
    modules: &'static [(&'static str, &'static str)],
}

/// Those whose weights llama.cpp takes as they are. (It reorders the rows of `llama`'s queries and keys, by the number of
/// heads, which an adapter does not tell.)
const ARCHITECTURES: &[Architecture] = &[
    Architecture {
        names: &["bert"],
        layers: "encoder.layer.",
        modules: &[
            ("attention.self.query", "attn_q"),
            ("attention.self.key", "attn_k"),
            ("attention.self.value", "attn_v"),
            ("attention.output.dense", "attn_output"),
            ("intermediate.dense", "ffn_up"),
            ("output.dense", "ffn_down"),
        ],
    },
    Architecture {
        names: &["gpt2"],
        layers: "h.",
        modules: &[
            ("attn.c_attn", "attn_qkv"),
            ("attn.c_proj", "attn_output"),
            ("mlp.c_fc", "ffn_up"),
            ("mlp.c_proj", "ffn_down"),
        ],
    },
    Architecture {
        names: &["qwen2", "qwen3", "gemma", "gemma2", "gemma3", "llama"],
        layers: "layers.",
        modules: &[
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("self_attn.o_proj", "attn_output"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
            ("mlp.down_proj", "ffn_down"),
        ],
    },
];

/// The modules of `llama` whose rows are reordered.
const REORDERED: &[&str] = &["attn_q", "attn_k"];

impl Architecture {
    /// The architecture asked for; where none is, the only one that knows one of these paths.
    fn of(naming: &Naming, loras: &Loras) -> Result<(&'static str, &'static Architecture)> {
        let all = || ARCHITECTURES.iter().flat_map(|a| a.names.iter().map(move |name| (*name, a)));
        let fits = |a: &Architecture| loras.loras.keys().any(|path| a.renamed(path).is_some());
        let mut found =
            all().filter(|(name, a)| naming.architecture.as_ref().map_or_else(|| fits(a), |n| n == name));
        let first = found.next();
        first.filter(|_| found.next().is_none()).ok_or_else(|| {
            let message = match &naming.architecture {
                Some(name) => format!("llama.cpp's architecture `{name}` is not known here"),
                None => "the modules do not tell one of llama.cpp's architectures".into(),
            };
            let names: Vec<&str> = all().map(|(name, _)| name).collect();
            let help = format!("give --architecture: one of `{}`", names.join("`, `"));
            Error::new(if first.is_some() { Code::USAGE } else { Code::ADAPTER_FEATURE }, message).help(help)
        })
    }
    /// llama.cpp's name of a module.
    fn renamed(&self, path: &str) -> Option<String> {
        self.modules.iter().find_map(|(module, name)| {
            let (before, layer) = path.strip_suffix(module)?.strip_suffix('.')?.rsplit_once(self.layers)?;
            let layer: usize = layer.parse().ok()?;
            (before.is_empty() || before.ends_with('.')).then(|| format!("blk.{layer}.{name}"))
        })
    }
    /// The end of the path of a module that llama.cpp calls so.
    fn path(&self, renamed: &str) -> Option<String> {
        let (layer, name) = renamed.strip_prefix("blk.")?.split_once('.')?;
        let layer: usize = layer.parse().ok()?;
        let (module, _) = self.modules.iter().find(|row| row.1 == name)?;
        Some(format!("{}{layer}.{module}", self.layers))
    }
}

/// Refuses what llama.cpp stores in another order.
fn check_order(architecture: &str, renamed: &str) -> Result<()> {
    if architecture == "llama" && REORDERED.iter().any(|name| renamed.ends_with(name)) {
        let message =
            format!("llama.cpp reorders the rows of `{renamed}` by heads, of which an adapter knows nothing");
        return Err(Error::new(Code::ADAPTER_FEATURE, message));
    }
    Ok(())
}

fn read(bytes: &Bytes, naming: &Naming) -> Result<Loras> {
    let mut file = Reader { bytes, at: MAGIC.len() };
    let version = file.u32()?;
    if !(2..=VERSION).contains(&version) {
        return Err(Error::new(Code::ADAPTER_FEATURE, format!("version {version} of GGUF is not supported")));
    }
    let (n_tensors, n_notes) = (file.u64()?, file.u64()?);
    let mut notes = BTreeMap::new();
    for _ in 0..n_notes {
        let key = file.string()?.to_string();
        if let Some(value) = file.value()? {
            notes.insert(key, value);
        }
    }
    let text = |key: &str| match notes.get(key) {
        Some(Note::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    if (text("general.type"), text("adapter.type")) != (Some("adapter"), Some("lora")) {
        return Err(Error::new(Code::ADAPTER_FEATURE, "the file holds no LoRA adapter"));
    }
    let architecture = text("general.architecture").unwrap_or_default().to_string();
    let alpha = match notes.get("adapter.lora.alpha") {
        Some(Note::Number(alpha)) if alpha.is_finite() => Some(*alpha),
        _ => None,
    };
    let tensors = file.tensors(n_tensors)?;
    let told = Naming { architecture: Some(architecture), ..naming.clone() };
    let (name, architecture) = Architecture::of(&told, &Loras::default())?;
    let mut loras = BTreeMap::new();
    let mut unknown: Vec<&str> = tensors.keys().map(String::as_str).collect();
    for (key, a) in &tensors {
        let Some(module) = key.strip_suffix(".weight.lora_a") else { continue };
        let other = format!("{module}.weight.lora_b");
        let (Some(b), Some(path)) = (tensors.get(&other), architecture.path(module)) else { continue };
        check_order(name, module)?;
        unknown.retain(|k| k != key && *k != other);
        // llama.cpp scales by 1 where alpha is 0.
        let rank = a.dims().first().copied().unwrap_or(1) as f64;
        let alpha = alpha.filter(|&alpha| alpha != 0.0).unwrap_or(rank);
        loras.insert(path, Lora::new(a.clone(), b.clone(), alpha).map_err(|e| e.at(format!("`{module}`")))?);
    }
    unknown_tensors(&unknown)?;
    Ok(Loras { loras, ..Loras::default() })
}

/// A value of the header that is of use here.
enum Note {
    Text(String),
    Number(f64),
}

/// A file, read from its beginning.
struct Reader<'b> {
    bytes: &'b Bytes,
    at: usize,
}

impl<'b> Reader<'b> {
    fn take(&mut self, n: u64) -> Result<&'b [u8]> {
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n));
        let cut = || Error::new(Code::ADAPTER, "the file is damaged: a length is more than there is");
        let taken = end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(cut)?;
        self.at += taken.len();
        Ok(taken)
    }
    fn u32(&mut self) -> Result<u32> {
        Ok(self.take(4)?.iter().rev().fold(0, |n, &byte| n << 8 | u32::from(byte)))
    }
    fn u64(&mut self) -> Result<u64> {
        Ok(self.take(8)?.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
    }
    fn string(&mut self) -> Result<&'b str> {
        let n = self.u64()?;
        let bad = |_| Error::new(Code::ADAPTER, "the file is damaged: a text is not UTF-8");
        std::str::from_utf8(self.take(n)?).map_err(bad)
    }
    /// A value with its type in front: text and single-precision numbers are kept, others passed over.
    fn value(&mut self) -> Result<Option<Note>> {
        match self.u32()? {
            6 => Ok(Some(Note::Number(f32::from_bits(self.u32()?).into()))),
            8 => Ok(Some(Note::Text(self.string()?.into()))),
            9 => {
                let (kind, n) = (self.u32()?, self.u64()?);
                match size(kind) {
                    Some(size) => drop(self.take(n.saturating_mul(size))?),
                    None if kind == 8 => (0..n).try_for_each(|_| self.string().map(drop))?,
                    None => {
                        return Err(Error::new(Code::ADAPTER, "the file is damaged: arrays of what is none"));
                    }
                }
                Ok(None)
            }
            kind => {
                let bad =
                    || Error::new(Code::ADAPTER, format!("the file is damaged: there is no type {kind}"));
                self.take(size(kind).ok_or_else(bad)?).map(|_| None)
            }
        }
    }
    /// The tensors, sharing the file's bytes. Their sizes stand innermost first.
    fn tensors(&mut self, n: u64) -> Result<BTreeMap<String, Tensor>> {
        let mut rows = Vec::new();
        for _ in 0..n {
            let name = self.string()?;
            let axes = self.u32()?;
            if axes > 4 {
                return Err(Error::new(
                    Code::ADAPTER,
                    format!("the file is damaged: `{name}` has {axes} axes"),
                ));
            }
            let mut dims = (0..axes).map(|_| self.u64()).collect::<Result<Vec<_>>>()?;
            dims.reverse();
            rows.push((name, dims, self.u32()?, self.u64()?));
        }
        let start = self.at.next_multiple_of(ALIGN);
        let mut tensors = BTreeMap::new();
        for (name, dims, kind, offset) in rows {
            let place = |e: Error| Error { code: Code::ADAPTER, ..e }.at(format!("tensor `{name}`"));
            let foreign = || {
                place(Error::new(Code::ADAPTER, format!("elements of ggml's type {kind} are not supported")))
            };
            let dtype = DTYPES.iter().find(|row| row.1 == kind).map(|row| row.0).ok_or_else(foreign)?;
            let dims: Option<Vec<usize>> = dims.iter().map(|&n| usize::try_from(n).ok()).collect();
            let dims = dims.unwrap_or_else(|| vec![usize::MAX, 2]);
            let length = count(&dims).and_then(|n| dtype.byte_len(n)).map(|n| n as u64);
            let mut data = Reader { bytes: self.bytes, at: start };
            data.take(offset).map_err(place)?;
            let data = data.take(length.unwrap_or(u64::MAX)).map_err(place)?;
            let tensor = Tensor::new(dtype, dims, self.bytes.slice_ref(data)).map_err(place)?;
            if tensors.insert(name.to_string(), tensor).is_some() {
                return Err(place(Error::new(Code::ADAPTER, "it stands there twice")));
            }
        }
        Ok(tensors)
    }
}

/// The bytes of a value of a type without a length of its own.
fn size(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

fn write(loras: &Loras, naming: &Naming) -> Result<Vec<u8>> {
    let (name, architecture) = Architecture::of(naming, loras)?;
    let first = loras.loras.values().next();
    let alpha = first.map_or(1.0, |lora| lora.alpha);
    let mut tensors = BTreeMap::new();
    for (path, lora) in &loras.loras {
        let unknown = || {
            let message = format!("llama.cpp's architecture `{name}` has no module `{path}`");
            Error::new(Code::ADAPTER_FEATURE, message)
        };
        let module = architecture.renamed(path).ok_or_else(unknown)?;
        check_order(name, &module)?;
        if lora.alpha != alpha {
            let message = format!(
                "the file holds one alpha for all modules, and that of `{path}` is {}, not {alpha}",
                lora.alpha
            );
            let help = "`--as-lora RANK` puts the scale into the factors";
            return Err(Error::new(Code::ADAPTER_FEATURE, message).help(help));
        }
        for (suffix, tensor) in [("lora_a", &lora.a), ("lora_b", &lora.b)] {
            tensors.insert(format!("{module}.weight.{suffix}"), tensor);
        }
    }
    let mut out =
        [MAGIC, &VERSION.to_le_bytes(), &(tensors.len() as u64).to_le_bytes(), &4u64.to_le_bytes()].concat();
    for (key, value) in
        [("general.type", "adapter"), ("general.architecture", name), ("adapter.type", "lora")]
    {
        put_string(&mut out, key);
        out.extend(8u32.to_le_bytes());
        put_string(&mut out, value);
    }
    put_string(&mut out, "adapter.lora.alpha");
    out.extend(6u32.to_le_bytes());
    out.extend((alpha as f32).to_le_bytes());
    put_tensors(&mut out, &tensors)?;
    Ok(out)
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.bytes());
}

fn put_tensors(out: &mut Vec<u8>, tensors: &BTreeMap<String, &Tensor>) -> Result<()> {
    let mut offset = 0u64;
    for (name, tensor) in tensors {
        let unsupported =
            || Error::new(Code::ADAPTER_FEATURE, format!("`{name}`: ggml has no {}", tensor.dtype()));
        let kind =
            DTYPES.iter().find(|row| row.0 == tensor.dtype()).map(|row| row.1).ok_or_else(unsupported)?;
        put_string(out, name);
        out.extend((tensor.dims().len() as u32).to_le_bytes());
        out.extend(tensor.dims().iter().rev().flat_map(|&n| (n as u64).to_le_bytes()));
        out.extend(kind.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += (tensor.data().len() as u64).next_multiple_of(ALIGN as u64);
    }
    for tensor in tensors.values() {
        out.resize(out.len().next_multiple_of(ALIGN), 0);
        out.extend(&tensor.data()[..]);
    }
    out.resize(out.len().next_multiple_of(ALIGN), 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Loras {
        let of = |dims: &[usize]| Tensor::f32(dims, &vec![0.25; dims.iter().product()]);
        let lora = |rank: usize| Lora::new(of(&[rank, 3]), of(&[2, rank]), 4.0).unwrap();
        let paths = ["encoder.layer.0.attention.self.query", "encoder.layer.11.output.dense"];
        let loras = paths.into_iter().zip([lora(2), lora(1)]).map(|(path, lora)| (path.to_string(), lora));
        Loras { loras: loras.collect(), ..Loras::default() }
    }

    #[test]
    fn what_is_written_reads_back_under_the_names_of_the_architecture() {
        let bytes = Bytes::from(write(&sample(), &Naming::default()).unwrap());
        assert_eq!(read(&bytes, &Naming::default()).unwrap(), sample());
        let name = b"blk.11.ffn_down.weight.lora_b";
        assert!(bytes.windows(name.len()).any(|w| w == name));
    }

    #[test]
    fn damaged_files_are_errors_or_other_loras_but_no_panics() {
        let whole = write(&sample(), &Naming::default()).unwrap();
        for cut in 0..whole.len() - ALIGN {
            assert!(
                read(&Bytes::copy_from_slice(&whole[..cut]), &Naming::default()).is_err(),
                "cut at {cut}"
            );
        }
        for at in 0..whole.len() {
            for value in [0, 1, 9, 0x7f, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                drop(read(&bytes.into(), &Naming::default()));
            }
        }
    }

    #[test]
    fn one_alpha_must_do_for_all_and_llama_is_reordered() {
        let mut mixed = sample();
        mixed.loras.values_mut().next().unwrap().alpha = 1.0;
        let error = write(&mixed, &Naming::default()).unwrap_err();
        assert_eq!(error.code, Code::ADAPTER_FEATURE);
        assert!(error.message.contains("one alpha"), "{error}");
        let lora = sample().loras.into_values().next().unwrap();
        for (module, is_refused) in [("self_attn.q_proj", true), ("self_attn.o_proj", false)] {
            let loras = BTreeMap::from([(format!("model.layers.3.{module}"), lora.clone())]);
            let loras = Loras { loras, ..Loras::default() };
            let of = |name: &str| write(&loras, &Naming { architecture: Some(name.into()), component: None });
            assert_eq!(of("llama").is_err(), is_refused, "{module}");
            assert!(of("qwen2").is_ok());
            // Several architectures call their modules so.
            assert_eq!(write(&loras, &Naming::default()).unwrap_err().code, Code::USAGE);
        }
    }
}
