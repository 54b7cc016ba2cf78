//! Bat, block affine transformation: each square block of the weight is multiplied by `I + D` and shifted by `D`.
//! Seen as (out, in) in blocks `W_ab` of rank × rank, the change is, by `layout`,
//! col `W_ab·D_a + D_a` (PEFT's), row `W_ab·D_b + D_b`, left `D_aᵀ·W_ab + D_aᵀ`. The last two never form a changed
//! weight: they act on `x` and on `y`. <https://arxiv.org/abs/2409.15371>
use super::{
    Axis::{InBlocks, OutBlocks, Rank},
    Config, FileForm, Init, Method, Parts, Peft, Setting, Variant, Weight,
};
use crate::target::Linear;
use graft_ir::{Attr, Attrs, Code, Error, Result};

pub(super) const BAT: Method = Method {
    name: "bat",
    paper: "https://arxiv.org/abs/2409.15371",
    rank: 16,
    alpha: None,
    settings: &[Setting {
        name: "layout",
        about: "which blocks share a matrix: col, row or left",
        default: "col",
    }],
    variants: &[
        Variant {
            function: "graft.BatCol",
            about: "y = x·w', w'ᵀ = W(I + D) + D in blocks of W = wᵀ, one D for each row of blocks",
            example: &[],
            parameters: "rank·out",
            files: &[D.fed_as("miss_block_bat")],
            peft: Peft {
                types: &["MISS", "BONE"],
                tells: &[("init_weights", &["\"bat\""])],
                settings: &[],
                idle: &["mini_r"],
            },
            opset: 11,
        },
        Variant {
            function: "graft.BatRow",
            about: "the same with one D for each column of blocks",
            example: &[("layout", "row")],
            parameters: "rank·in",
            files: &[D.of(&[InBlocks, Rank, Rank]).fed_as("miss_block_bat_row")],
            peft: Peft {
                types: &["BAT"],
                tells: &[("bat_layout", &["\"row\""])],
                settings: &[("bat_layout", "layout")],
                idle: &[],
            },
            opset: 11,
        },
        Variant {
            function: "graft.BatLeft",
            about: "y = x·w', w'ᵀ = (I + Dᵀ)W + Dᵀ in blocks, one D for each row of blocks",
            example: &[("layout", "left")],
            parameters: "rank·out",
            files: &[D.fed_as("miss_block_bat_left")],
            peft: Peft {
                types: &["BAT"],
                tells: &[("bat_layout", &["\"left\""])],
                settings: &[("bat_layout", "layout")],
                idle: &[],
            },
            opset: 11,
        },
    ],
    functions: include_str!("bat.onnxtxt"),
    function,
    parts,
    penalty: |_, _| Ok(Vec::new()),
    schedule: |_| Ok(None),
};

const D: FileForm = FileForm::plain("d", "miss_block").or(&["bone_block"]).of(&[OutBlocks, Rank, Rank]);

fn function(config: &Config) -> Result<&'static str> {
    match config.text("layout") {
        "col" => Ok("graft.BatCol"),
        "row" => Ok("graft.BatRow"),
        "left" => Ok("graft.BatLeft"),
        _ => Err(config.bad("layout", "is none of col, row, left")),
    }
}

fn parts(linear: &Linear, config: &Config) -> Result<Parts> {
    let (rank, d_in, d_out) = (config.rank, linear.d_in, linear.d_out);
    if !d_in.is_multiple_of(rank) || !d_out.is_multiple_of(rank) {
        let fit: Vec<String> = common_divisors(d_in, d_out).iter().map(usize::to_string).collect();
        let message =
            format!("rank {rank} does not divide both sizes of `{}`, {d_in} × {d_out}", linear.path);
        let help = format!("ranks that fit it: {}; give it one with `rank-pattern`", fit.join(", "));
        return Err(Error::new(Code::METHOD, message).help(help));
    }
    let blocks = if config.text("layout") == "row" { d_in / rank } else { d_out / rank };
    let mut attrs = Attrs::new();
    attrs.insert("blocks".into(), Attr::Ints(vec![0, -1, rank as i64]));
    let view = [d_in / rank, rank, d_out / rank, rank];
    attrs.insert("view".into(), Attr::Ints(view.map(|n| n as i64).to_vec()));
    Ok(Parts { weights: vec![Weight::trained("d", &[blocks, rank, rank], Init::Constant(0.0))], attrs })
}

fn common_divisors(a: usize, b: usize) -> Vec<usize> {
    (1..=a.min(b)).filter(|&d| a.is_multiple_of(d) && b.is_multiple_of(d)).collect()
}
