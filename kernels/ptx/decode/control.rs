//! Branches, ends, and special registers.
use super::{Decoded, Decoder, take};
use crate::{
    program::{Op, R, Special},
    syntax::Operand,
};

/// The special register with this name.
fn special(name: &str) -> Option<Special> {
    let (stem, axis) = name.rsplit_once('.').unwrap_or((name, ""));
    let axis = match axis {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    Some(match (stem, axis) {
        ("%tid", Some(axis)) => Special::Thread(axis),
        ("%ntid", Some(axis)) => Special::Threads(axis),
        ("%ctaid", Some(axis)) => Special::Block(axis),
        ("%nctaid", Some(axis)) => Special::Blocks(axis),
        ("%laneid", None) => Special::Lane,
        ("%warpid", None) => Special::WarpIndex,
        ("%dynamic_smem_size", None) => Special::DynamicShared,
        _ => return None,
    })
}

impl<'a> Decoder<'a> {
    /// The row of a special register.
    pub(super) fn special(&mut self, name: &'a str) -> Result<R, String> {
        if let Some(&row) = self.special.get(name) {
            return Ok(row);
        }
        let special = special(name).ok_or_else(|| format!("`{name}` is not known"))?;
        let row = self.fresh_r();
        self.special.insert(name, row);
        self.program.special.push((row, special));
        Ok(row)
    }

    pub(super) fn control(&mut self, parts: &[&str], operands: &[Operand<'a>]) -> Decoded {
        match parts {
            ["bra"] | ["bra", "uni"] => {
                let [Operand::Name(label)] = take(operands)? else { return Err("where to?".into()) };
                self.branches.push((self.program.steps.len(), vec![label]));
                self.plain(Op::Branch(0))
            }
            ["brx", "idx"] | ["brx", "idx", "uni"] => {
                let [index, Operand::Name(table)] = take(operands)? else { return Err("where to?".into()) };
                let labels = self.targets.get(table).cloned();
                let labels = labels.ok_or_else(|| format!("no targets are called `{table}`"))?;
                let index = self.r(index)?;
                self.branches.push((self.program.steps.len(), labels));
                self.plain(Op::BranchTable(index, Box::default()))
            }
            ["ret"] | ["ret", "uni"] | ["exit"] => self.plain(Op::Exit),
            ["trap"] => self.plain(Op::Trap),
            // Memory is seen by all threads at once.
            ["membar", ..] | ["fence", ..] => Ok(true),
            ["atom" | "red", ..] => {
                Err("atomic operations are not interpreted: what they sum depends on the order of threads"
                    .into())
            }
            ["call", ..] => Err("calls are not interpreted: inline the function".into()),
            _ => Ok(false),
        }
    }
}
