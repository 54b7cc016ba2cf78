//! `graft render`: a picture of a model, collapsed by module, with what was grafted in colour.
mod picture;
mod svg;

use crate::{model, ui::Ui, usage};
use graft_ir::Result;
use graft_onnx::atomic_write_with;
use picture::{Shape, View, draw};
use std::path::PathBuf;

/// Draw a model as SVG or DOT
///
/// Modules are collapsed until the picture is small enough to read; --depth says how far they are opened, --around shows
/// the neighbourhood of one node.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model
    model: PathBuf,
    /// Where to write (`.svg` or `.dot`)
    #[arg(short, long)]
    output: PathBuf,
    /// Open modules down to this depth
    #[arg(long)]
    depth: Option<usize>,
    /// Show only what is near this node or value
    #[arg(long, value_name = "NODE")]
    around: Option<String>,
    /// How many steps away from it
    #[arg(long, value_name = "N", default_value_t = 2, requires = "around")]
    hops: usize,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let write = match self.output.extension().and_then(|e| e.to_str()) {
            Some("svg") => svg::render,
            Some("dot") => picture::dot,
            _ => {
                let message = format!("`{}` is neither `.svg` nor `.dot`", self.output.display());
                return Err(usage(message));
            }
        };
        let model = model::load(&self.model, ui)?;
        let view = View { depth: self.depth, around: self.around.as_deref().map(|name| (name, self.hops)) };
        let picture = draw(&model.graph, &view)?;
        let text = write(&picture);
        atomic_write_with(&self.output, self.force, |file| file.write_all(text.as_bytes()))?;
        let nodes: usize = picture.node_weights().map(Shape::nodes).sum();
        let boxes = picture.node_count();
        ui.say(&format!("wrote {}: {boxes} boxes for {nodes} nodes", self.output.display()));
        Ok(())
    }
}
