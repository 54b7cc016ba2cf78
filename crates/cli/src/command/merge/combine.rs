//! How `graft merge` makes one adapter of several.
use crate::{ui::Ui, usage};
use graft_adapter::combine::{COMBINATIONS, Options};
use graft_ir::{Graph, Result};
use graft_train::{Init, loras};

/// Which combination.
#[derive(clap::Args)]
#[command(next_help_heading = "Combination")]
pub(super) struct Combine {
    /// Make one LoRA of the adapters first, as PEFT's `add_weighted_adapter` does: linear (sums of factors), cat (the exact
    /// sum), svd (the exact sum, cut down to --combine-rank; of any method), ties or dare (sums of what --density keeps of
    /// the factors). Without, the changes that the adapters make to a weight are added up
    #[arg(long, requires = "adapter", value_parser = COMBINATIONS.iter().map(|c| c.name).collect::<Vec<_>>(), conflicts_with = "routing")]
    combine: Option<String>,
    /// The rank of the result of svd; by default the largest of the adapters' ranks
    #[arg(long, requires = "combine", value_name = "R")]
    combine_rank: Option<usize>,
    /// The share of the elements that ties and dare keep; 0.5 by default
    #[arg(long, requires = "combine", value_name = "SHARE")]
    density: Option<f64>,
    /// The seed of the elements that dare keeps; 0 by default
    #[arg(long, requires = "combine", value_name = "N")]
    seed: Option<u64>,
}

impl Combine {
    /// Whether the adapters are to become one.
    pub(super) fn is_given(&self) -> bool {
        self.combine.is_some()
    }
    /// The adapters as one, with the weight 1; as they are where no combination is asked for.
    pub(super) fn apply(
        &self,
        base: &Graph,
        adapters: Vec<(Init, f64)>,
        ui: &Ui,
    ) -> Result<Vec<(Init, f64)>> {
        let Some(how) = COMBINATIONS.iter().find(|c| self.combine.as_deref() == Some(c.name)) else {
            return Ok(adapters);
        };
        let only = |flag: &str, of: &[&str]| match of.contains(&how.name) {
            true => Ok(()),
            false => Err(usage(format!(
                "{flag} says nothing for `--combine {}`: it is for {}",
                how.name,
                of.join(" and ")
            ))),
        };
        self.combine_rank.iter().try_for_each(|_| only("--combine-rank", &["svd"]))?;
        self.density.iter().try_for_each(|_| only("--density", &["ties", "dare"]))?;
        self.seed.iter().try_for_each(|_| only("--seed", &["dare"]))?;
        let density = self.density.unwrap_or(0.5);
        if !(density > 0.0 && density <= 1.0) {
            return Err(usage(format!("--density {density}: expected a share above 0, at most 1")));
        }
        let options = Options { rank: self.combine_rank, density, seed: self.seed.unwrap_or(0) };
        let tell = &mut |line: &str| ui.say(line);
        Ok(vec![(loras::combined(base, &adapters, how, &options, tell)?, 1.0)])
    }
}
