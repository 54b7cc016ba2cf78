//! PEFT's folder: `adapter_config.json` and `adapter_model.safetensors`.
use super::{Content, Form, Format, Source};
use crate::{CONFIG_FILE, MODEL_FILE, PREFIX, load, tensor_bytes};
use graft_ir::{Code, Error, Result};

pub(super) const FORMAT: Format = Format {
    name: "peft",
    about: "PEFT's folder: adapter_config.json and adapter_model.safetensors",
    extension: "",
    form: Form::Files,
    is_it: |source| source.path.is_dir() || source.has_key(|key| key.starts_with(PREFIX)),
    read: |source, _| read(source),
    write: |content, _| match content {
        Content::Files(adapter) => Ok(vec![
            (MODEL_FILE, tensor_bytes(&adapter.tensors)?),
            (CONFIG_FILE, adapter.config.to_json().into_bytes()),
        ]),
        _ => FORMAT.refuse(),
    },
};

/// The tensors alone do not tell method and scale.
fn read(source: &Source) -> Result<Content> {
    if source.path.is_dir() {
        return load(&source.path).map(|adapter| Content::Files(adapter.into()));
    }
    let message = format!("this is the file of tensors of one of PEFT's folders, without `{CONFIG_FILE}`");
    Err(Error::new(Code::ADAPTER, message).help("give the folder"))
}
