//! Training: data, batches, schedules, the loop, checkpoints and metrics. Loss, gradients and the optimiser are in the
//! graph already; what is here feeds it and carries its state.
#![forbid(unsafe_code)]

mod adapter_files;
mod allocate;
mod chart;
pub mod compare;
mod config;
pub mod convert;
pub mod data;
mod estimate;
mod evaluate;
pub mod experts;
mod export;
mod folder;
mod graphs;
mod init;
mod interrupt;
pub mod loras;
mod metrics;
mod observer;
mod order;
pub mod originals;
mod outputs;
mod portable;
mod prepare;
pub mod routing;
mod run;
mod schedule;
mod start;
mod state;
mod stepper;
pub mod trained;
mod training_graphs;

pub use adapter_files::AdapterFiles;
pub use config::{Config, Duration};
pub use evaluate::evaluate;
pub use export::{Export, Form};
pub use graphs::{fill_head, forward_stages, training_stages};
pub use init::Init;
pub use interrupt::Interrupt;
pub use metrics::{Evaluation, StepMetrics};
pub use observer::{Observer, Silent};
pub use order::{Order, Stream, batches};
pub use run::{CHART_FILE, METRICS_FILE, Report, plan, run};
pub use schedule::{Curve, Schedule};
pub use training_graphs::{Calls, OLDEST_OPSET, TrainingGraphs, Wish};
