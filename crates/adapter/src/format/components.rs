//! The parts of an image pipeline, as formats of image models name them in front of a module's path.
use super::{Loras, Naming};
use graft_ir::{Code, Error, Result};
use std::collections::BTreeMap;

/// Diffusers' name of a component, and what Kohya's trainers put before its modules: the first is written.
const COMPONENTS: &[(&str, &[&str])] = &[
    ("unet", &["lora_unet"]),
    ("transformer", &["lora_transformer", "lora_unet"]),
    ("text_encoder", &["lora_te1", "lora_te"]),
    ("text_encoder_2", &["lora_te2"]),
    ("text_encoder_3", &["lora_te3"]),
];

/// The component that an adapter is for where nothing else is said.
const DEFAULT: &str = "unet";

/// The name of the component to write, and Kohya's.
pub(super) fn written(naming: &Naming) -> Result<(&'static str, &'static str)> {
    let name = naming.component.as_deref().unwrap_or(DEFAULT);
    let (component, prefixes) = COMPONENTS.iter().find(|row| row.0 == name).ok_or_else(|| unknown(name))?;
    Ok((component, prefixes[0]))
}

fn unknown(name: &str) -> Error {
    let all: Vec<&str> = COMPONENTS.iter().map(|row| row.0).collect();
    Error::new(Code::USAGE, format!("there is no component `{name}`"))
        .help(format!("components: `{}`", all.join("`, `")))
}

/// The component of a module in diffusers' spelling and the path in it; a path without one is all path.
pub(super) fn of_path(path: &str) -> (Option<&'static str>, &str) {
    let named = |row: &(&'static str, _)| Some((Some(row.0), path.strip_prefix(row.0)?.strip_prefix('.')?));
    COMPONENTS.iter().find_map(named).unwrap_or((None, path))
}

/// The components of a module in Kohya's spelling, and the path in them, flat.
pub(super) fn of_flat(name: &str) -> Option<(Vec<&'static str>, &str)> {
    let rest = |prefix: &&&str| name.strip_prefix(**prefix)?.strip_prefix('_');
    let path = COMPONENTS.iter().flat_map(|row| row.1).find_map(|prefix| rest(&prefix))?;
    let is_it = |row: &&(&str, &[&str])| row.1.iter().any(|prefix| rest(&prefix) == Some(path));
    Some((COMPONENTS.iter().filter(is_it).map(|row| row.0).collect(), path))
}

/// Of modules with the components that each may belong to, those of one: the one asked for, or the only one.
///
/// # Errors
/// [`Code::USAGE`] where there are several and none is asked for.
pub(super) fn one<T>(
    modules: BTreeMap<(Vec<&'static str>, String), T>,
    naming: &Naming,
) -> Result<(BTreeMap<String, T>, Vec<String>)> {
    let mut groups: Vec<&Vec<&'static str>> = modules.keys().map(|(components, _)| components).collect();
    groups.dedup();
    let wanted = naming.component.as_deref();
    if let Some(name) = wanted.filter(|name| !COMPONENTS.iter().any(|row| row.0 == *name)) {
        return Err(unknown(name));
    }
    if groups.len() > 1 && wanted.is_none() {
        let names: Vec<&str> = groups.iter().filter_map(|g| g.first().copied()).collect();
        let message = format!("the file holds adapters for several models: `{}`", names.join("`, `"));
        return Err(Error::new(Code::USAGE, message).help("choose one with --component"));
    }
    let (mut chosen, mut left) = (BTreeMap::new(), BTreeMap::<&str, usize>::new());
    for ((components, path), module) in modules {
        match wanted.is_none_or(|name| components.is_empty() || components.contains(&name)) {
            true => _ = chosen.insert(path, module),
            false => *left.entry(components[0]).or_default() += 1,
        }
    }
    let told = left
        .into_iter()
        .map(|(name, n)| format!("{n} modules of `{name}` are left out: they belong to another model"));
    let told = told.collect();
    if chosen.is_empty() {
        let message = format!("the file holds nothing for `{}`", wanted.unwrap_or(DEFAULT));
        return Err(Error::new(Code::ADAPTER, message));
    }
    Ok((chosen, told))
}

/// LoRAs as `one` leaves them.
pub(super) fn loras((loras, warnings): (BTreeMap<String, crate::Lora>, Vec<String>), is_flat: bool) -> Loras {
    Loras { loras, is_flat, warnings }
}
