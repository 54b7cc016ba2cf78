//! NumPy's archive: the tensors under PEFT's keys, and the text of `adapter_config.json` as an array of bytes.
use super::{Content, Form, Format, Source};
use crate::{Adapter, CONFIG_FILE, Config, PREFIX, npz, strip};
use graft_ir::{Code, DType, Error, Result, Tensor};

pub(super) const FORMAT: Format = Format {
    name: "npz",
    about: "NumPy's archive: PEFT's tensors, and adapter_config.json as bytes",
    extension: "npz",
    form: Form::Files,
    is_it: |source| source.bytes.starts_with(b"PK"),
    read: |source, _| read(source).map(|adapter| Content::Files(adapter.into())),
    write: |content, _| match content {
        Content::Files(adapter) => Ok(vec![("", write(adapter)?)]),
        _ => FORMAT.refuse(),
    },
};

fn read(source: &Source) -> Result<Adapter> {
    let mut tensors = npz::decode(&source.bytes)?;
    let missing = || {
        let message = format!("the archive has no array `{CONFIG_FILE}`, which tells the method");
        Error::new(Code::ADAPTER, message)
            .help("`graft convert --to npz` writes one: its bytes are the file's")
    };
    let text = tensors.remove(CONFIG_FILE).filter(|t| t.dtype() == DType::Uint8).ok_or_else(missing)?;
    let text = std::str::from_utf8(text.data()).map_err(|_| missing())?;
    let (config, warnings) = Config::parse(text)?;
    let tensors = tensors.into_iter().map(|(key, t)| (strip(&key).to_string(), t)).collect();
    Ok(Adapter { config, tensors, warnings })
}

fn write(adapter: &Adapter) -> Result<Vec<u8>> {
    let mut tensors: std::collections::BTreeMap<_, _> =
        adapter.tensors.iter().map(|(key, t)| (format!("{PREFIX}{key}"), t.clone())).collect();
    let text = adapter.config.to_json().into_bytes();
    tensors.insert(CONFIG_FILE.into(), Tensor::new(DType::Uint8, vec![text.len()], text.into())?);
    npz::encode(&tensors)
}
