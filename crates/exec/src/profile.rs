//! Where the time of runs goes.
use crate::step::{Step, Work};
use graft_ir::{Graph, infer::node_label};
use std::{collections::BTreeMap, time::Duration};

/// What was measured of a node, or of all nodes of an op.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Entry {
    /// The node's name (or that of its first result); empty in sums over an op.
    pub node: String,
    /// The op or function; `copy` where a strided tensor was made row-major.
    pub op: String,
    /// Whether a kernel ran, or the reference interpreter.
    pub by_kernel: bool,
    /// How often it ran.
    pub calls: u64,
    /// Wall time of all calls.
    pub time: Duration,
    /// Floating-point operations of all calls, as far as kernels count them.
    pub flops: u64,
    /// Bytes read and written by all calls, each operand and result once.
    pub bytes: u64,
}

impl Entry {
    /// One call of a step that took so long.
    pub(crate) fn of(graph: &Graph, step: &Step, time: Duration) -> Entry {
        Entry {
            node: node_label(graph, &step.node).into(),
            op: step.node.op.clone(),
            by_kernel: !matches!(step.work, Work::Eval),
            calls: 1,
            time,
            flops: step.flops(),
            bytes: step.traffic(),
        }
    }
    /// Floating-point operations per second.
    pub fn flops_per_second(&self) -> f64 {
        rate(self.flops, self.time)
    }
    /// Bytes per second.
    pub fn bytes_per_second(&self) -> f64 {
        rate(self.bytes, self.time)
    }
    fn add(&mut self, other: &Entry) {
        self.by_kernel &= other.by_kernel;
        self.calls += other.calls;
        self.time += other.time;
        self.flops += other.flops;
        self.bytes += other.bytes;
    }
}

fn rate(n: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { n as f64 / time.as_secs_f64() }
}

/// Measurements of a session's runs.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Profile {
    nodes: BTreeMap<(String, String), Entry>,
}

impl Profile {
    pub(crate) fn record(&mut self, entry: Entry) {
        let key = (entry.node.clone(), entry.op.clone());
        match self.nodes.get_mut(&key) {
            Some(sum) => sum.add(&entry),
            None => {
                self.nodes.insert(key, entry);
            }
        }
    }
    /// By node, the slowest first.
    pub fn by_node(&self) -> Vec<Entry> {
        sorted(self.nodes.values().cloned().collect())
    }
    /// Sums by op, the slowest first.
    pub fn by_op(&self) -> Vec<Entry> {
        let mut ops: BTreeMap<&str, Entry> = BTreeMap::new();
        for entry in self.nodes.values() {
            let fresh = || Entry { op: entry.op.clone(), by_kernel: true, ..Entry::default() };
            ops.entry(&entry.op).or_insert_with(fresh).add(entry);
        }
        sorted(ops.into_values().collect())
    }
    /// Wall time of all nodes.
    pub fn time(&self) -> Duration {
        self.nodes.values().map(|e| e.time).sum()
    }
}

fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.sort_by(|a, b| b.time.cmp(&a.time).then_with(|| a.node.cmp(&b.node)));
    entries
}
