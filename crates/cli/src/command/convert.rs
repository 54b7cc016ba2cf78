//! `graft convert`: adapters from one format into another.
use crate::{
    model,
    ui::{self, Ui},
    usage,
};
use graft_adapter::{
    Cut, HEAD_FILE,
    format::{FORMATS, Format, Naming},
};
use graft_ir::Result;
use graft_train::convert::{self, Errors, Wish};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Convert an adapter from one format into another
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The adapter; its format is told by its content
    input: PathBuf,
    /// Where to write: a file, or a folder for peft
    output: PathBuf,
    #[command(flatten)]
    target: Target,
    /// The model that the adapter is for: it must fit, and modules are called as there. Kohya's files, and Bone, Bat and DoRA
    /// as LoRAs, are understood only beside it
    #[arg(long)]
    model: Option<PathBuf>,
    /// Make the nearest LoRA of the adapter, of this rank (8), or of the least that keeps this share of the squared singular
    /// values (0.99); prints how far from it each module is
    #[arg(long, value_name = "RANK|SHARE", value_parser = cut)]
    as_lora: Option<Cut>,
    /// Print what was lost as one JSON object
    #[arg(long)]
    json: bool,
}

/// In which format, and what it wants to know.
#[derive(clap::Args)]
pub(super) struct Target {
    /// The format; by default what the name of the output says
    #[arg(long, value_name = "FORMAT", value_parser = FORMATS.iter().map(|f| f.name).collect::<Vec<_>>())]
    to: Option<String>,
    /// An older name of the method in PEFT's files, such as BONE
    #[arg(long, value_name = "TYPE")]
    peft_type: Option<String>,
    /// Which model of a pipeline the adapter is for, in files of image models: unet (the default), transformer,
    /// text_encoder, text_encoder_2 or text_encoder_3
    #[arg(long, value_name = "NAME")]
    component: Option<String>,
    /// llama.cpp's name of the model's architecture, for gguf, where its modules do not tell it
    #[arg(long, value_name = "NAME")]
    architecture: Option<String>,
    /// Overwrite the output
    #[arg(long)]
    force: bool,
}

impl Target {
    /// The format to write `output` in, once it is known that something can be written there.
    pub(super) fn format(&self, output: &Path) -> Result<&'static Format> {
        let format = match &self.to {
            Some(name) => Format::named(name)?,
            None => Format::of_name(output).ok_or_else(|| {
                let names: Vec<&str> = FORMATS.iter().map(|f| f.name).collect();
                usage(format!("the name `{}` does not tell the format", output.display()))
                    .help(format!("give --to: one of `{}`", names.join("`, `")))
            })?,
        };
        format.check_target(output, self.force)?;
        Ok(format)
    }
    pub(super) fn peft_type(&self) -> Option<&str> {
        self.peft_type.as_deref()
    }
    pub(super) fn naming(&self) -> Naming {
        Naming { component: self.component.clone(), architecture: self.architecture.clone() }
    }
}

impl Args {
    pub(crate) fn run(self, ui: &mut Ui) -> Result<()> {
        let to = self.target.format(&self.output)?;
        let model = self.model.as_ref().map(|path| model::load(path, ui)).transpose()?;
        let graph = model.as_ref().map(|model| &model.graph);
        let naming = self.target.naming();
        let adapter = convert::read(&self.input, graph, &naming)?;
        adapter.warnings.iter().for_each(|line| ui.warn(line));
        if self.input.join(HEAD_FILE).exists() {
            ui.warn(
                "the trained head beside the adapter is left out: no format but graft's own folder holds one",
            );
        }
        let wish = Wish { model: graph, as_lora: self.as_lora, peft_type: self.target.peft_type(), naming };
        let (content, errors) = convert::converted(adapter, to, &wish)?;
        to.write(&self.output, &content, &wish.naming)?;
        report("convert", &errors, self.json, ui)?;
        ui.say(&format!("wrote {} ({})", self.output.display(), to.name));
        Ok(())
    }
}

/// Prints how far LoRAs are from what they stand for.
pub(super) fn report(command: &str, errors: &Errors, as_json: bool, ui: &Ui) -> Result<()> {
    if as_json {
        let rows =
            errors.iter().map(|(path, (rank, error))| json!({"path": path, "rank": rank, "error": error}));
        let schema = format!("graft.{command}/1");
        return ui.json(&json!({"schema": schema, "modules": rows.collect::<Vec<_>>()}));
    }
    if errors.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = errors
        .iter()
        .map(|(path, (rank, error))| vec![path.clone(), rank.to_string(), format!("{error:.3e}")])
        .collect();
    ui.out(&ui::table(&["module", "rank", "error"], &rows))
}

/// A whole number is a rank, a number below 1 a share.
pub(super) fn cut(text: &str) -> Result<Cut, String> {
    let share = || text.parse().ok().filter(|share: &f64| *share > 0.0 && *share < 1.0).map(Cut::Share);
    let rank = text.parse().ok().filter(|&rank: &usize| rank > 0).map(Cut::Rank);
    rank.or_else(share).ok_or_else(|| "expected a rank (8), or a share between 0 and 1 (0.99)".into())
}
