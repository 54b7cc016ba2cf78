//! The driver's state: one device, its primary context, and everything that was made in it.
use crate::{
    objects::{Function, Task, load},
    status::{Outcome, Status, refuse, say},
};
use graft_ptx::{Memory, Module, Schedule, Statistics};
use std::{
    cell::Cell,
    collections::HashMap,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// The handle of the primary context.
pub(crate) const CONTEXT: u64 = 0x10;
/// The device's memory in bytes, unless the environment says otherwise.
const MEMORY: usize = 16 << 30;

/// Whether `cuInit` was called.
pub(crate) static IS_INITIALISED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The context of this thread.
    pub(crate) static CURRENT: Cell<u64> = const { Cell::new(0) };
}

/// A stream: what it records, while it does.
#[derive(Default)]
pub(crate) struct Stream {
    pub(crate) recording: Option<Vec<Task>>,
    /// Something was done meanwhile that cannot be recorded.
    pub(crate) is_invalid: bool,
}

/// Everything.
#[derive(Default)]
pub(crate) struct Driver {
    pub(crate) retained: usize,
    pub(crate) memory: Memory,
    pub(crate) modules: HashMap<u64, Arc<Module>>,
    pub(crate) functions: HashMap<u64, Function>,
    pub(crate) streams: HashMap<u64, Stream>,
    pub(crate) events: HashMap<u64, Option<Instant>>,
    pub(crate) graphs: HashMap<u64, Arc<[Task]>>,
    pub(crate) executables: HashMap<u64, Arc<[Task]>>,
    /// Pinned memory of the host: address and size.
    pub(crate) pinned: HashMap<usize, usize>,
    /// What a kernel did wrong: the context is of no use any more.
    broken: Option<Status>,
    handles: u64,
    launches: u64,
    statistics: Statistics,
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn schedule() -> Schedule {
    match setting("GRAFT_FAKE_CUDA_SCHEDULE").as_deref() {
        Some("lock-step") => Schedule::LockStep,
        Some("reverse") => Schedule::Reverse,
        _ => Schedule::Forward,
    }
}

/// Whether `cuInit` was called, as it must be.
pub(crate) fn is_initialised() -> Outcome {
    if IS_INITIALISED.load(Ordering::Acquire) {
        return Ok(());
    }
    refuse(Status::NOT_INITIALIZED, "a call before cuInit")
}

/// The driver, for one call.
pub(crate) fn driver() -> Outcome<MutexGuard<'static, Driver>> {
    static DRIVER: LazyLock<Mutex<Driver>> = LazyLock::new(Mutex::default);
    is_initialised()?;
    Ok(DRIVER.lock().unwrap_or_else(|e| e.into_inner()))
}

/// The driver, for a call that needs a context.
pub(crate) fn context() -> Outcome<MutexGuard<'static, Driver>> {
    let driver = driver()?;
    if driver.retained == 0 || CURRENT.get() != CONTEXT {
        return refuse(Status::INVALID_CONTEXT, "a call on a thread that has no context");
    }
    Ok(driver)
}

impl Driver {
    pub(crate) fn handle(&mut self) -> u64 {
        self.handles += 1;
        CONTEXT + 0x10 * self.handles
    }
    /// An error, once a kernel has failed.
    pub(crate) fn works(&self) -> Outcome {
        self.broken.map_or(Ok(()), Err)
    }

    /// Bytes of memory: free, and all.
    pub(crate) fn room(&self) -> (usize, usize) {
        let all = setting("GRAFT_FAKE_CUDA_MEMORY").and_then(|n| n.parse().ok()).unwrap_or(MEMORY);
        let used: usize = self.memory.allocations().map(|(_, bytes)| bytes.next_multiple_of(256)).sum();
        (all.saturating_sub(used), all)
    }
    pub(crate) fn allocate(&mut self, bytes: usize) -> Outcome<u64> {
        self.works()?;
        self.may_not_record("an allocation")?;
        if bytes == 0 {
            return refuse(Status::INVALID_VALUE, "an allocation of 0 bytes");
        }
        if bytes > self.room().0 {
            return Err(Status::OUT_OF_MEMORY);
        }
        Ok(self.memory.allocate(bytes))
    }
    pub(crate) fn free(&mut self, address: u64) -> Outcome {
        if address == 0 {
            return Ok(());
        }
        self.memory.free(address).or_else(|v| {
            refuse(
                Status::INVALID_VALUE,
                format!("{address:#x} is freed, but no allocation begins there: {v}"),
            )
        })
    }

    /// Does a stream's task, or records it.
    pub(crate) fn submit(&mut self, stream: u64, task: Task) -> Outcome {
        self.works()?;
        if stream != 0 {
            match self.streams.get_mut(&stream) {
                None => return refuse(Status::INVALID_HANDLE, format!("{stream:#x} is no stream")),
                Some(Stream { recording: Some(tasks), .. }) => {
                    tasks.push(task);
                    return Ok(());
                }
                Some(_) => {}
            }
        }
        self.run(&task)
    }
    pub(crate) fn run(&mut self, task: &Task) -> Outcome {
        self.works()?;
        let is_launch = matches!(task, Task::Launch(_));
        match task.run(&self.memory, schedule()) {
            Ok(statistics) => {
                self.launches += u64::from(is_launch);
                self.statistics += statistics;
                Ok(())
            }
            Err(status) => {
                if status == Status::ILLEGAL_ADDRESS {
                    self.broken = Some(status);
                }
                Err(status)
            }
        }
    }
    /// Refuses, while any stream records, what cannot be recorded.
    pub(crate) fn may_not_record(&mut self, what: &str) -> Outcome {
        let mut recording = self.streams.values_mut().filter(|s| s.recording.is_some()).peekable();
        if recording.peek().is_none() {
            return Ok(());
        }
        recording.for_each(|stream| stream.is_invalid = true);
        refuse(Status::STREAM_CAPTURE_UNSUPPORTED, format!("{what} while a stream is recorded"))
    }
    /// The stream, which must exist; the default one always does.
    pub(crate) fn knows_stream(&self, stream: u64) -> Outcome {
        if stream == 0 || self.streams.contains_key(&stream) {
            return Ok(());
        }
        refuse(Status::INVALID_HANDLE, format!("{stream:#x} is no stream"))
    }

    pub(crate) fn load(&mut self, image: &[u8]) -> Outcome<u64> {
        self.works()?;
        let module = load(image)?;
        let handle = self.handle();
        self.modules.insert(handle, module);
        Ok(handle)
    }
    pub(crate) fn function(&mut self, module: u64, name: &str) -> Outcome<u64> {
        let Some(found) = self.modules.get(&module) else {
            return refuse(Status::INVALID_HANDLE, format!("{module:#x} is no module"));
        };
        let kernel = found.kernel(name).ok_or(Status::NOT_FOUND)?.clone();
        let known = self.functions.iter().find(|(_, f)| f.module == module && f.kernel.name() == name);
        if let Some((&handle, _)) = known {
            return Ok(handle);
        }
        let handle = self.handle();
        self.functions.insert(handle, Function { module, kernel, dynamic_shared: 0 });
        Ok(handle)
    }

    /// Lets the context go, once nobody holds it any more; says what is left in it.
    pub(crate) fn release(&mut self) -> Outcome {
        match self.retained {
            0 => return refuse(Status::INVALID_CONTEXT, "a context is released that nobody holds"),
            1 => {}
            _ => {
                self.retained -= 1;
                return Ok(());
            }
        }
        let left = self.left();
        left.iter().for_each(say);
        if setting("GRAFT_FAKE_CUDA_LOG").is_some() {
            say(format!("{} launches, {:?}", self.launches, self.statistics));
        }
        *self = Driver { handles: self.handles, memory: self.memory.emptied(), ..Driver::default() };
        if !left.is_empty() && setting("GRAFT_FAKE_CUDA_LEAKS").as_deref() == Some("abort") {
            std::process::abort();
        }
        if left.is_empty() { Ok(()) } else { Err(Status::ILLEGAL_STATE) }
    }
    /// What was made and not destroyed.
    fn left(&self) -> Vec<String> {
        let allocations =
            self.memory.allocations().map(|(at, bytes)| format!("{bytes} bytes at {at:#x} were not freed"));
        let counts = [
            ("module", self.modules.len()),
            ("stream", self.streams.len()),
            ("event", self.events.len()),
            ("graph", self.graphs.len() + self.executables.len()),
            ("piece of pinned memory", self.pinned.len()),
        ];
        let counts = counts.into_iter().filter(|c| c.1 > 0);
        allocations.chain(counts.map(|(what, n)| format!("left behind: {n} × {what}"))).collect()
    }
}
