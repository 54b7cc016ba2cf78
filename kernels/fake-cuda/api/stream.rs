//! Streams, which do everything at once, and what they record.
use super::exports;
use crate::{
    driver::{Driver, Stream, context},
    objects::Task,
    pointers::{Handle, Out},
    status::{Outcome, Status, refuse},
};
use std::sync::Arc;

fn create(to: &Out<Handle>) -> Outcome {
    let mut driver = context()?;
    let handle = driver.handle();
    driver.streams.insert(handle, Stream::default());
    to.set(Handle::of(handle))
}

fn stream(driver: &mut Driver, handle: u64) -> Outcome<&mut Stream> {
    match driver.streams.get_mut(&handle) {
        Some(stream) => Ok(stream),
        None if handle == 0 => {
            refuse(Status::STREAM_CAPTURE_UNSUPPORTED, "the default stream cannot be recorded")
        }
        None => refuse(Status::INVALID_HANDLE, format!("{handle:#x} is no stream")),
    }
}

exports! {
    /// Makes a stream.
    fn cuStreamCreate(to: Out<Handle>, _flags: u32) { create(&to) }
    /// Makes a stream.
    fn cuStreamCreateWithPriority(to: Out<Handle>, _flags: u32, _priority: i32) { create(&to) }
    /// Forgets a stream.
    fn cuStreamDestroy_v2(handle: Handle) {
        match context()?.streams.remove(&handle.number()) {
            Some(_) => Ok(()),
            None => refuse(Status::INVALID_HANDLE, format!("{:#x} is no stream", handle.number())),
        }
    }
    /// Waits for a stream.
    fn cuStreamSynchronize(handle: Handle) {
        let mut driver = context()?;
        driver.knows_stream(handle.number())?;
        driver.may_not_record("a wait for a stream")?;
        driver.works()
    }
    /// Whether a stream has done everything.
    fn cuStreamQuery(handle: Handle) {
        let driver = context()?;
        driver.knows_stream(handle.number())?;
        driver.works()
    }
    /// Lets a stream wait for an event, which has happened if it was recorded.
    fn cuStreamWaitEvent(handle: Handle, event: Handle, _flags: u32) {
        let driver = context()?;
        driver.knows_stream(handle.number())?;
        if driver.events.contains_key(&event.number()) { Ok(()) } else { Err(Status::INVALID_HANDLE) }
    }
    /// Begins to record what a stream is told to do, instead of doing it.
    fn cuStreamBeginCapture_v2(handle: Handle, _mode: u32) {
        let mut driver = context()?;
        driver.works()?;
        let stream = stream(&mut driver, handle.number())?;
        if stream.recording.is_some() {
            return refuse(Status::ILLEGAL_STATE, "a stream that is recorded already");
        }
        *stream = Stream { recording: Some(Vec::new()), is_invalid: false };
        Ok(())
    }
    /// Ends the recording; what was recorded is a graph.
    fn cuStreamEndCapture(handle: Handle, to: Out<Handle>) {
        let mut driver = context()?;
        let Stream { recording, is_invalid } = std::mem::take(stream(&mut driver, handle.number())?);
        let Some(tasks) = recording else {
            return refuse(Status::STREAM_CAPTURE_UNMATCHED, "the end of a recording that was not begun");
        };
        if is_invalid {
            to.set(Handle::of(0))?;
            return Err(Status::STREAM_CAPTURE_INVALIDATED);
        }
        let graph = driver.handle();
        driver.graphs.insert(graph, tasks.into());
        to.set(Handle::of(graph))
    }
    /// Whether a stream is recorded: 0 no, 1 yes, 2 in vain.
    fn cuStreamIsCapturing(handle: Handle, status: Out<u32>) {
        let driver = context()?;
        driver.knows_stream(handle.number())?;
        let stream = driver.streams.get(&handle.number()).filter(|s| s.recording.is_some());
        status.set(stream.map_or(0, |s| if s.is_invalid { 2 } else { 1 }))
    }
    /// Makes a graph that can be launched.
    fn cuGraphInstantiateWithFlags(to: Out<Handle>, graph: Handle, _flags: u64) {
        let mut driver = context()?;
        let Some(tasks) = driver.graphs.get(&graph.number()).cloned() else { return Err(Status::INVALID_HANDLE) };
        let handle = driver.handle();
        driver.executables.insert(handle, tasks);
        to.set(Handle::of(handle))
    }
    /// Does again what was recorded.
    fn cuGraphLaunch(graph: Handle, handle: Handle) {
        let mut driver = context()?;
        driver.knows_stream(handle.number())?;
        driver.may_not_record("the launch of a graph")?;
        let tasks: Arc<[Task]> = driver.executables.get(&graph.number()).cloned().ok_or(Status::INVALID_HANDLE)?;
        tasks.iter().try_for_each(|task| driver.run(task))
    }
    /// Makes the first launch of a graph faster: nothing to do.
    fn cuGraphUpload(graph: Handle, _handle: Handle) {
        if context()?.executables.contains_key(&graph.number()) { Ok(()) } else { Err(Status::INVALID_HANDLE) }
    }
    /// Forgets a graph.
    fn cuGraphDestroy(graph: Handle) {
        context()?.graphs.remove(&graph.number()).map(drop).ok_or(Status::INVALID_HANDLE)
    }
    /// Forgets a graph that can be launched.
    fn cuGraphExecDestroy(graph: Handle) {
        context()?.executables.remove(&graph.number()).map(drop).ok_or(Status::INVALID_HANDLE)
    }
}
