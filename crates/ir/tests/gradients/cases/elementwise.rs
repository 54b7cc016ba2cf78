//! Element by element.
use super::{Case, case};
use crate::draw::Draw;

pub(crate) const CASES: &[Case] = &[case("Identity", |d| d.unary(Draw::any))];
