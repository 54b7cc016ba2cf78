//! What a device does: steps that are launches, the element types of what they read and make, and copies between these.
use super::{Lowering, Results, Stop};
use crate::{
    device,
    place::{Place, Storage},
    step::{Launches, Step, Work},
};
use graft_ir::{DType, Node};
use graft_kernels::{self as kernels, Kernel, cuda::Target, row_major};
use std::sync::Arc;

impl Lowering<'_> {
    /// The step that launches `node` on the device, and what it makes, if the device serves it: with 16-bit elements if
    /// an operand has them and there is a kernel for that, else in single precision.
    pub(super) fn launched(
        &mut self,
        node: &Node,
        opset: i64,
        inputs: &[Option<Place>],
        target: Target,
    ) -> Result<Option<(Step, Results)>, Stop> {
        let Some(kernel) = device::lookup(self.graph(), node) else { return Ok(None) };
        let is_map = matches!(kernel.device.work, kernels::Work::Map(_));
        let counts = |(i, p): (usize, &Option<Place>)| {
            let is_weight = |p: &Place| p.buffer().is_none() && p.len() > 1 && !is_map;
            let is_short = |p: &Place| p.dtype == self.format || (p.dtype == DType::Float && is_weight(p));
            !kernel.device.single.0.contains(i) && p.as_ref().is_some_and(is_short)
        };
        let is_short = self.format != DType::Float && inputs.iter().enumerate().any(counts);
        for element in [self.format, DType::Float].into_iter().skip(usize::from(!is_short)) {
            let made = self.launched_as(element, (kernel, node), opset, inputs, target)?;
            if made.is_some() {
                return Ok(made);
            }
        }
        Ok(None)
    }
    /// The same with floats of type `element`, but for those that are always single.
    fn launched_as(
        &mut self,
        element: DType,
        (kernel, node): (&'static Kernel, &Node),
        opset: i64,
        inputs: &[Option<Place>],
        target: Target,
    ) -> Result<Option<(Step, Results)>, Stop> {
        let Some(mut results) = device::results(self.graph(), node) else { return Ok(None) };
        let (singles, single_results) = kernel.device.single;
        for (o, result) in results.iter_mut().enumerate() {
            if let Some(result) =
                result.as_mut().filter(|r| r.dtype == DType::Float && !single_results.contains(o))
            {
                result.dtype = element;
            }
        }
        let is_map = matches!(kernel.device.work, kernels::Work::Map(_));
        // Copies are made only for a step that will be; element-wise kernels convert by themselves.
        let wanted = |i: usize, p: &Place| match p.dtype == DType::Float || p.dtype == self.format {
            true if !is_map => {
                if singles.contains(i) {
                    DType::Float
                } else {
                    element
                }
            }
            _ => p.dtype,
        };
        let mut foreseen = inputs.to_vec();
        for (i, place) in foreseen.iter_mut().enumerate().filter_map(|(i, p)| Some((i, p.as_mut()?))) {
            let dtype = wanted(i, place);
            if dtype != place.dtype || !kernel.device.strided.contains(i) {
                place.strides = row_major(&place.dims);
            }
            place.dtype = dtype;
        }
        let dtypes: Vec<_> = foreseen.iter().map(|p| p.as_ref().map(|p| p.dtype)).collect();
        let known = |i: usize| inputs[i].as_ref().and_then(|place| self.known(place));
        let site = device::site((node, opset), &foreseen, &results, &known, target);
        let Some(plan) = kernel.device.plan(&site) else { return Ok(None) };
        let pairs = kernel.device.in_place.to_vec();
        let work = match kernel.device.work {
            kernels::Work::Map(expression) => expression.text(&site).map(Work::Map),
            _ => {
                let (plan, kernel, calls) = (Arc::new(plan), Some(kernel), Vec::new());
                Some(Work::Launches(Launches { plan, pairs, kernel, product: None, calls }))
            }
        };
        let Some(work) = work else { return Ok(None) };
        let mut inputs = inputs.to_vec();
        for (place, dtype) in inputs.iter_mut().zip(dtypes) {
            if let (Some(place), Some(dtype)) = (place, dtype)
                && place.dtype != dtype
            {
                *place = self.copied(place, dtype)?;
            }
        }
        self.straighten(&mut inputs, kernel.device.strided)?;
        let results = results.into_iter().map(|r| r.map(|r| (r.dtype, r.dims))).collect();
        Ok(Some((Step { work, opset, inputs, ..Step::of(node) }, results)))
    }
    /// The bytes of a place in a constant.
    fn known(&self, place: &Place) -> Option<&[u8]> {
        match place.storage {
            Storage::Constant(c) => Some(&self.constants[c].constant.bytes()[place.bytes()]),
            Storage::Buffer(_) => None,
        }
    }
}
