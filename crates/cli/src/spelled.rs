//! Arguments that remember which of them were given, so that they can be handed on to another command.
use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};
use std::ffi::OsString;

/// The arguments `T`, and the flags that gave them.
pub(crate) struct Spelled<T> {
    /// What they mean.
    pub(crate) parsed: T,
    /// Each flag that was given, by its long name, as it would stand on a command line.
    flags: Vec<(String, OsString)>,
}

impl<T> Spelled<T> {
    /// Every flag that was given, but those of these names.
    pub(crate) fn flags_without<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = OsString> + 'a {
        let is_wanted = |(name, _): &&(String, OsString)| !names.contains(&name.as_str());
        self.flags.iter().filter(is_wanted).map(|(_, flag)| flag.clone())
    }
}

impl<T: Args> FromArgMatches for Spelled<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Spelled::from_arg_matches_mut(&mut matches.clone())
    }
    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        // Parsing takes the values out.
        let flags = flags::<T>(matches);
        Ok(Spelled { parsed: T::from_arg_matches_mut(matches)?, flags })
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.flags.extend(flags::<T>(matches));
        self.parsed.update_from_arg_matches(matches)
    }
}

impl<T: Args> Args for Spelled<T> {
    fn group_id() -> Option<clap::Id> {
        T::group_id()
    }
    fn augment_args(command: Command) -> Command {
        T::augment_args(command)
    }
    fn augment_args_for_update(command: Command) -> Command {
        T::augment_args_for_update(command)
    }
}

/// The flags of `T` that were given.
fn flags<T: Args>(matches: &ArgMatches) -> Vec<(String, OsString)> {
    let mut flags = Vec::new();
    for arg in T::augment_args(Command::new("")).get_arguments() {
        let id = arg.get_id().as_str();
        let Some(long) = arg.get_long() else { continue };
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        if matches!(arg.get_action(), ArgAction::SetTrue) {
            flags.push((long.to_string(), format!("--{long}").into()));
            continue;
        }
        for value in matches.get_raw(id).into_iter().flatten() {
            let mut flag = OsString::from(format!("--{long}="));
            flag.push(value);
            flags.push((long.to_string(), flag));
        }
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Args)]
    struct Flags {
        #[arg(long, default_value_t = 1)]
        count: usize,
        #[arg(long)]
        name: Option<String>,
        #[arg(long)]
        set: Vec<String>,
        #[arg(long)]
        force: bool,
    }

    fn parse(line: &str) -> Spelled<Flags> {
        let command = Spelled::<Flags>::augment_args(Command::new("graft"));
        let matches = command.try_get_matches_from(line.split(' ')).unwrap();
        Spelled::from_arg_matches(&matches).unwrap()
    }

    #[test]
    fn flags_are_handed_on_as_they_were_given() {
        let found = parse("graft --set a=1 --force --name=x --set b=2");
        let parsed = &found.parsed;
        assert_eq!((parsed.count, parsed.name.as_deref(), parsed.force), (1, Some("x"), true));
        assert_eq!(parsed.set, ["a=1", "b=2"]);
        let flags: Vec<OsString> = found.flags_without(&["force"]).collect();
        assert_eq!(flags, ["--name=x", "--set=a=1", "--set=b=2"], "no default is handed on");
        assert_eq!(parse("graft").flags_without(&[]).count(), 0);
    }
}
