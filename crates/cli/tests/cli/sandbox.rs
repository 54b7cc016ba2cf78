//! A folder of its own, and the binary run in it.
use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The path of the binary.
pub(crate) const GRAFT: &str = env!("CARGO_BIN_EXE_graft");

/// What `sh` does before it becomes the binary: 8 GiB of address space.
const LIMITS: &str = "ulimit -v 8388608";

/// Longer than this takes only what hangs, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A folder that goes away with its value.
pub(crate) struct Sandbox(TempDir);

/// How a command ended, and what it said.
pub(crate) struct Outcome {
    /// The exit code; 128 and the signal for a process that one ended.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    pub(crate) fn empty() -> Sandbox {
        Sandbox(tempfile::tempdir().expect("a temporary folder"))
    }
    /// The path of a file in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect("the file can be written");
    }
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
    /// `graft LINE`, to be run in the folder; words are separated by spaces.
    pub(crate) fn command(&self, line: &str) -> Command {
        self.command_after(LIMITS, line)
    }
    /// The same, where `sh` does `first` before.
    pub(crate) fn command_after(&self, first: &str, line: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{first}; exec \"$0\" \"$@\""), GRAFT]).args(line.split_whitespace());
        command.current_dir(self.0.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // One heap, because each reserves address space; and no backtraces between the lines of a message.
        // And no GPU, whatever the machine has.
        command.env_clear().env("MALLOC_ARENA_MAX", "1").env("CUDA_VISIBLE_DEVICES", "");
        command.envs(std::env::vars().filter(|(key, _)| key == "PATH" || key == "LD_LIBRARY_PATH"));
        command
    }
    /// Runs `graft LINE`.
    pub(crate) fn graft(&self, line: &str) -> Outcome {
        Outcome::of(self.command(line), line)
    }
    /// Runs `graft LINE`, which must succeed.
    pub(crate) fn succeeds(&self, line: &str) -> Outcome {
        let outcome = self.graft(line);
        assert_eq!(outcome.code, 0, "graft {line}: {}", outcome.stderr);
        outcome
    }
    /// Every file and folder with its content.
    pub(crate) fn content(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut content = BTreeMap::new();
        collect(self.0.path(), &mut content);
        content
    }
}

fn collect(folder: &Path, content: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the entry can be read").path();
        let is_file = path.is_file();
        content.insert(
            path.clone(),
            if is_file { fs::read(&path).expect("the file can be read") } else { Vec::new() },
        );
        if path.is_dir() && !path.is_symlink() {
            collect(&path, content);
        }
    }
}

impl Outcome {
    /// Runs `command`, and ends it where it takes too long.
    pub(crate) fn of(mut command: Command, what: &str) -> Outcome {
        Outcome::wait(command.spawn().expect("the binary starts"), what)
    }
    /// Waits for the end of a process.
    pub(crate) fn wait(mut child: Child, what: &str) -> Outcome {
        let stdout = child.stdout.take().map(drain);
        let stderr = child.stderr.take().map(drain);
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("the process can be waited for") {
                break status;
            }
            if start.elapsed() > PATIENCE {
                child.kill().expect("the process can be ended");
                panic!("graft {what}: no end after {PATIENCE:?}");
            }
            thread::sleep(Duration::from_millis(1));
        };
        let text = |reader: Option<thread::JoinHandle<String>>| {
            reader.map_or_else(String::new, |reader| reader.join().expect("the stream can be read"))
        };
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Outcome { code, stdout: text(stdout), stderr: text(stderr) }
    }
    /// What stdout says as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
    /// What is wrong with this outcome whatever the command was: it crashed, or failed without a word.
    pub(crate) fn crash(&self) -> Option<String> {
        let is_known = (0..=6).contains(&self.code) || self.code == 130;
        let is_silent = self.code != 0 && !self.stderr.contains("error[G");
        let panicked = ["panicked", "backtrace", "overflowed its stack", "allocation of"];
        let is_crash = panicked.iter().any(|word| self.stderr.contains(word));
        let tail: String = self.stderr.chars().take(600).collect();
        (!is_known || is_silent || is_crash).then(|| format!("exit code {}: {tail}", self.code))
    }
}

fn drain(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("the stream can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A command line that must fail: its exit code, its error code, and words that the message must hold.
pub(crate) type Refusal = (&'static str, i32, &'static str, &'static [&'static str]);

/// Runs every line, and reports all that do not fail as they should or leave something behind.
pub(crate) fn refuses(sandbox: &Sandbox, refusals: &[Refusal]) {
    let before = sandbox.content();
    let mut problems = Vec::new();
    for (line, code, id, words) in refusals {
        let outcome = sandbox.graft(line);
        let mut report = |what: String| problems.push(format!("graft {line}: {what}"));
        if outcome.code != *code || !outcome.stderr.contains(&format!("error[{id}]: ")) {
            report(format!("expected {code} and {id}, found {}: {}", outcome.code, outcome.stderr));
        }
        for word in words.iter().filter(|word| !outcome.stderr.contains(**word)) {
            report(format!("`{word}` is not in: {}", outcome.stderr));
        }
        outcome.crash().map(&mut report);
        let after = sandbox.content();
        if after != before {
            let names: Vec<_> = after.keys().filter(|k| before.get(*k) != after.get(*k)).collect();
            report(format!("left behind or changed: {names:?}"));
            break;
        }
    }
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}
