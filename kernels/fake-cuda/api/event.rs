//! Events: moments of a stream. As streams do everything at once, an event has happened as soon as it is recorded.
use super::exports;
use crate::{
    driver::context,
    pointers::{Handle, Out},
    status::{Outcome, Status, refuse},
};
use std::time::Instant;

/// When an event was recorded.
fn moment(event: u64) -> Outcome<Option<Instant>> {
    match context()?.events.get(&event) {
        Some(moment) => Ok(*moment),
        None => refuse(Status::INVALID_HANDLE, format!("{event:#x} is no event")),
    }
}

fn milliseconds(from: u64, to: u64) -> Outcome<f32> {
    let (Some(from), Some(to)) = (moment(from)?, moment(to)?) else { return Err(Status::INVALID_HANDLE) };
    Ok(1e3 * to.saturating_duration_since(from).as_secs_f32())
}

exports! {
    /// Makes an event.
    fn cuEventCreate(to: Out<Handle>, _flags: u32) {
        let mut driver = context()?;
        let handle = driver.handle();
        driver.events.insert(handle, None);
        to.set(Handle::of(handle))
    }
    /// Marks the present moment of a stream.
    fn cuEventRecord(event: Handle, stream: Handle) {
        let mut driver = context()?;
        driver.knows_stream(stream.number())?;
        match driver.events.get_mut(&event.number()) {
            Some(moment) => *moment = Some(Instant::now()),
            None => return Err(Status::INVALID_HANDLE),
        }
        Ok(())
    }
    /// Whether an event has happened.
    fn cuEventQuery(event: Handle) { moment(event.number()).map(drop) }
    /// Waits for an event.
    fn cuEventSynchronize(event: Handle) {
        moment(event.number())?;
        context()?.works()
    }
    /// Forgets an event.
    fn cuEventDestroy_v2(event: Handle) {
        context()?.events.remove(&event.number()).map(drop).ok_or(Status::INVALID_HANDLE)
    }
    /// Milliseconds between two events.
    fn cuEventElapsedTime(to: Out<f32>, start: Handle, end: Handle) {
        to.set(milliseconds(start.number(), end.number())?)
    }
    /// Milliseconds between two events.
    fn cuEventElapsedTime_v2(to: Out<f32>, start: Handle, end: Handle) {
        to.set(milliseconds(start.number(), end.number())?)
    }
}
