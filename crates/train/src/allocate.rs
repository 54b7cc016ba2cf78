//! The schedule of the run's method at work: which ranks count and the coefficients of penalties, from step to step.
use crate::stepper::{Batch, Outcome};
use graft_ir::{Code, Error, Graph, Result, Tensor};
use graft_passes::{
    inject::{
        Adapter, Config, Method, Schedule, adapters,
        schedule::{Beginning, Control, Course},
        statistics,
    },
    ranks,
};
use std::collections::BTreeMap;

/// What a schedule has decided so far, for the adapters of one run.
pub(crate) struct Allocator {
    schedule: &'static Schedule,
    config: Config,
    /// The adapters' module paths.
    targets: Vec<String>,
    /// The name of the weight that the schedule sets to 0, of each adapter.
    zeroed: Vec<Option<String>>,
    control: Control,
}

impl Allocator {
    /// `None` where the method of the adapters on `forward` has no schedule.
    ///
    /// # Errors
    /// Those of the schedule's start, where a run of `total` steps does not suit it.
    pub(crate) fn new(forward: &Graph, total: u64) -> Result<Option<Allocator>> {
        let found = adapters(forward)?;
        let Some(first) = found.first() else { return Ok(None) };
        let config = first.config()?;
        let Some(schedule) = (Method::named(&first.method)?.schedule)(&config)? else { return Ok(None) };
        let beginning = |adapter: &Adapter| {
            let width = ranks::width(forward, &adapter.target).unwrap_or(0);
            Ok(Beginning { width, statistics: statistics(forward, adapter)?.unwrap_or_default() })
        };
        let beginnings = found.iter().map(beginning).collect::<Result<Vec<_>>>()?;
        let targets: Vec<String> = found.into_iter().map(|adapter| adapter.target).collect();
        let zeroed = targets.iter().map(|target| {
            let v = ranks::weight(forward, target, schedule.zeroes?)?;
            Some(forward.name(v).to_string())
        });
        let zeroed = zeroed.collect();
        let control = (schedule.start)(&Course { config: &config, step: 0, total, lr: 0.0 }, &beginnings)?;
        Ok(Some(Allocator { schedule, config, targets, zeroed, control }))
    }

    /// The inputs of a step, by role.
    pub(crate) fn feeds(&self) -> Batch {
        let scalars = self.control.scalars.iter();
        let scalars = scalars.map(|&(name, x)| (name.to_string(), Tensor::f32(&[], &[x as f32])));
        scalars.chain(self.masks()).chain(self.born()).collect()
    }

    /// Which ranks count, by the role of the input.
    pub(crate) fn masks(&self) -> Batch {
        let mask = |active: &[bool]| -> Vec<f32> { active.iter().map(|&a| f32::from(u8::from(a))).collect() };
        let layers = self.targets.iter().zip(&self.control.layers);
        let one = |(target, ranks): (&String, &graft_passes::inject::schedule::Ranks)| {
            (ranks::mask_role(target), Tensor::f32(&[ranks.active.len()], &mask(&ranks.active)))
        };
        layers.map(one).collect()
    }

    fn born(&self) -> Batch {
        let layers = self.targets.iter().zip(&self.control.layers);
        let one = |(target, ranks): (&String, &graft_passes::inject::schedule::Ranks)| {
            let born: Vec<i64> = ranks.born.iter().map(|&step| step as i64).collect();
            (ranks::born_role(target), Tensor::i64(&[born.len()], &born))
        };
        layers.map(one).collect()
    }

    /// Everything that a resumed run has to know.
    pub(crate) fn state(&self) -> BTreeMap<String, Tensor> {
        let double = |x: f64| Tensor::from_f64(graft_ir::DType::Double, &[], [x]);
        let scalars = self.control.scalars.iter().map(|&(name, x)| (name.to_string(), x));
        let layers = self.targets.iter().zip(&self.control.layers);
        let memory = layers.map(|(target, ranks)| (format!("memory.{target}"), ranks.memory));
        let numbers = scalars.chain(memory).filter_map(|(name, x)| Some((name, double(x)?)));
        numbers.chain(self.masks()).chain(self.born()).collect()
    }

    /// Takes up what [`Allocator::state`] gave.
    ///
    /// # Errors
    /// [`Code::STATE`] where something is missing.
    pub(crate) fn restore(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let numbers = |name: String| {
            let missing = || Error::new(Code::STATE, format!("the saved state lacks `{name}`"));
            let tensor = state.get(&name).ok_or_else(missing)?;
            tensor
                .to_f64()
                .or_else(|| Some(tensor.to_i64()?.iter().map(|&n| n as f64).collect()))
                .ok_or_else(missing)
        };
        for (name, x) in &mut self.control.scalars {
            *x = numbers(name.to_string())?.first().copied().unwrap_or(*x);
        }
        for (target, ranks) in self.targets.iter().zip(&mut self.control.layers) {
            ranks.active = numbers(ranks::mask_role(target))?.iter().map(|&a| a != 0.0).collect();
            ranks.born = numbers(ranks::born_role(target))?.iter().map(|&step| step as u64).collect();
            ranks.memory = numbers(format!("memory.{target}"))?.first().copied().unwrap_or(0.0);
        }
        Ok(())
    }

    /// Decides after a step; returns the weights to be multiplied by masks.
    pub(crate) fn decide(&mut self, step: u64, total: u64, lr: f64, outcome: &Outcome) -> Result<Batch> {
        let course = Course { config: &self.config, step, total, lr };
        let statistics = self.targets.iter().map(|target| {
            let missing = || Error::new(Code::GRAPH, format!("the graph has no statistics of `{target}`"));
            let tensor = outcome.statistics.get(&ranks::stats_role(target));
            tensor.and_then(Tensor::to_f64).ok_or_else(missing)
        });
        let statistics = statistics.collect::<Result<Vec<_>>>()?;
        self.control = (self.schedule.decide)(&course, &self.control, &statistics)?;
        let masks = self.masks().into_iter().map(|(_, mask)| mask);
        let zeroed = self.zeroed.iter().cloned().zip(masks).filter_map(|(name, mask)| Some((name?, mask)));
        Ok(if self.control.zeroes_now { zeroed.collect() } else { Vec::new() })
    }

    /// How many ranks of each adapter count.
    pub(crate) fn ranks(&self) -> BTreeMap<String, usize> {
        let counts = self.control.layers.iter().map(graft_passes::inject::schedule::Ranks::count);
        self.targets.iter().cloned().zip(counts).collect()
    }
}
