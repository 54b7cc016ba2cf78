//! Flags from a TOML file: `-c run.toml` stands for the flags that the file holds; those of the command line win.
use crate::usage;
use clap::{Arg, ArgAction, Command};
use graft_ir::{Code, Error, Result, error::nearest};
use std::{ffi::OsString, path::Path};
use toml::{Table, Value};

/// The argument that names the file, in commands that take one.
const FILE: &str = "config";

/// The command line with the flags of its file put in, behind the name of the subcommand.
///
/// # Errors
/// [`Code::USAGE`] for a key that is no flag of the subcommand, and for a value that no flag has; [`Code::IO`] where the
/// file cannot be read.
pub(crate) fn expand(arguments: Vec<OsString>, commands: &Command) -> Result<Vec<OsString>> {
    let texts: Vec<String> = arguments.iter().map(|a| a.to_string_lossy().into()).collect();
    let subcommand = |text: &String| commands.get_subcommands().find(|c| c.get_name() == text);
    let Some((at, command)) = texts.iter().enumerate().skip(1).find_map(|(i, t)| Some((i, subcommand(t)?)))
    else {
        return Ok(arguments);
    };
    let Some(file) = file(&texts[at + 1..], command) else { return Ok(arguments) };
    let flags = read(Path::new(&file), command, &texts[at + 1..]).map_err(|e| e.at(format!("`{file}`")))?;
    let (before, after) = arguments.split_at(at + 1);
    Ok(before
        .iter()
        .cloned()
        .chain(flags.into_iter().map(OsString::from))
        .chain(after.iter().cloned())
        .collect())
}

/// The file that `-c FILE`, `--config FILE` or `--config=FILE` names, in a command that has this flag.
fn file(texts: &[String], command: &Command) -> Option<String> {
    command.get_arguments().find(|arg| arg.get_id() == FILE)?;
    let at = texts.iter().position(|t| t == "-c" || t == "--config");
    let joined = || texts.iter().find_map(|t| t.strip_prefix("--config=").map(String::from));
    at.and_then(|at| texts.get(at + 1).cloned()).or_else(joined)
}

/// The file's flags, but for those that the command line gives or that exclude one of these.
fn read(path: &Path, command: &Command, given: &[String]) -> Result<Vec<String>> {
    let text =
        std::fs::read_to_string(path).map_err(|e| Error::new(Code::IO, format!("cannot read: {e}")))?;
    let table: Table = text.parse().map_err(|e| usage(format!("not valid TOML: {e}")))?;
    let given: Vec<&Arg> = command.get_arguments().filter(|arg| is_given(arg, given)).collect();
    let excludes =
        |a: &Arg, b: &Arg| command.get_arg_conflicts_with(a).iter().any(|c| c.get_id() == b.get_id());
    let wins = |g: &Arg, arg: &Arg| g.get_id() == arg.get_id() || excludes(g, arg) || excludes(arg, g);
    let mut flags = Vec::new();
    for (key, value) in &table {
        let arg = flag(key, command)?;
        let spelled = spelled(key, value, arg)?;
        if !given.iter().any(|g| wins(g, arg)) {
            flags.extend(spelled);
        }
    }
    Ok(flags)
}

/// Whether the command line gives this flag, as `--flag` or `--flag=VALUE`.
fn is_given(arg: &Arg, texts: &[String]) -> bool {
    let Some(long) = arg.get_long() else { return false };
    let rest = |text: &String| Some(text.strip_prefix("--")?.strip_prefix(long)?.to_string());
    texts.iter().filter_map(rest).any(|rest| rest.is_empty() || rest.starts_with('='))
}

/// The flag of this name.
fn flag<'a>(key: &str, command: &'a Command) -> Result<&'a Arg> {
    let flags = || command.get_arguments().filter(|arg| arg.get_id() != FILE && arg.get_long().is_some());
    let unknown = || {
        let near = nearest(key, flags().filter_map(Arg::get_long)).join("`, `");
        usage(format!("there is no flag `{key}`")).help(format!("nearest: `{near}`"))
    };
    flags().find(|arg| arg.get_long() == Some(key)).ok_or_else(unknown)
}

/// A key and its value as they would stand on the command line; a list is a flag that is repeated.
fn spelled(key: &str, value: &Value, arg: &Arg) -> Result<Vec<String>> {
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    match value {
        Value::Boolean(on) if is_switch => Ok(on.then(|| format!("--{key}")).into_iter().collect()),
        _ if is_switch => Err(usage(format!("`{key}` is true or false, not `{value}`"))),
        Value::String(text) => Ok(vec![format!("--{key}={text}")]),
        Value::Integer(_) | Value::Float(_) => Ok(vec![format!("--{key}={value}")]),
        Value::Array(list) if matches!(arg.get_action(), ArgAction::Append) => {
            let each = list.iter().map(|item| match item {
                Value::Array(_) => Err(usage(format!("`{key}` holds a list within a list"))),
                item => spelled(key, item, arg),
            });
            Ok(each.collect::<Result<Vec<_>>>()?.concat())
        }
        other => Err(usage(format!("`{key}` cannot be `{other}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    /// The flags that `text` stands for before `given`.
    fn flags(text: &str, given: &[&str]) -> Result<Vec<String>> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("run.toml").display().to_string();
        std::fs::write(&path, text).expect("a file");
        let line = ["graft", "train", "m.onnx", "-c", &path].into_iter().chain(given.iter().copied());
        let expanded = expand(line.map(OsString::from).collect(), &crate::Cli::command())?;
        let n = expanded.len() - 3 - given.len();
        Ok(expanded[2..n].iter().map(|a| a.to_string_lossy().into()).collect())
    }

    #[test]
    fn every_kind_of_flag_can_be_given() {
        let text =
            "data = \"d.npz\"\nlr = 1e-3\nsteps = 5\nforce = true\nresume = false\nset = [\"a=1\", \"b=2\"]";
        let mut found = flags(text, &[]).unwrap();
        found.sort();
        assert_eq!(found, ["--data=d.npz", "--force", "--lr=0.001", "--set=a=1", "--set=b=2", "--steps=5"]);
    }

    #[test]
    fn flags_win_over_the_file() {
        assert_eq!(flags("lr = 1.0\nsteps = 5", &["--lr=2"]).unwrap(), ["--steps=5"]);
        assert_eq!(flags("lr = 1.0\nsteps = 5", &["--epochs", "2"]).unwrap(), ["--lr=1.0"]);
    }

    #[test]
    fn what_is_no_flag_is_refused_with_the_nearest() {
        let error = flags("learning-rate = 1\nwarm-up = 0.1", &[]).unwrap_err();
        assert_eq!(error.code, Code::USAGE);
        let help = flags("warmpu = 0.1", &[]).unwrap_err().help.unwrap();
        assert!(help.starts_with("nearest: `warmup`"), "{help}");
        for bad in ["lr = ", "force = 1", "lr = [1]", "[lr]\nx = 1", "set = [[\"a\"]]", "config = \"x\""] {
            assert_eq!(flags(bad, &[]).unwrap_err().code, Code::USAGE, "{bad}");
        }
    }
}
