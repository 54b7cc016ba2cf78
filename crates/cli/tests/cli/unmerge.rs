//! Merging and back again.
use crate::{
    fixtures::{parity, sandbox, save},
    sandbox::{Refusal, refuses},
};

#[test]
fn a_merged_model_becomes_what_it_was_byte_for_byte() {
    let sandbox = sandbox();
    // Two linears read one weight, the second behind a node of its own: merging gives one of them a copy.
    let shared = r#"<ir_version: 8, opset_import: ["" : 17]>
shared (float[batch, 4] x) => (float[batch, 4] y, float[4, 4] unused_t) <
  float[4, 4] w = {0.3, -0.2, 0.1, 0.4, 0.5, -0.6, 0.7, 0.8, -0.9, 0.1, 0.2, -0.3, 0.4, 0.5, -0.6, 0.7}
> {
  unused_t = Transpose <perm = [1, 0]> (w)
  ["/enc/in/MatMul"] h = MatMul (x, w)
  own_t = Transpose <perm = [1, 0]> (w)
  ["/enc/up/MatMul"] y = MatMul (h, own_t)
}
"#;
    sandbox.write("shared.onnxtxt", shared);
    sandbox.succeeds("opt shared.onnxtxt -o shared.onnx");
    let train = "train tiny.onnx --data data.jsonl --loss cross-entropy --head classify:3,from=logits,pool=none --lr 0.1 --steps 3";
    sandbox.succeeds(&format!("{train} --targets up --out headed"));
    sandbox.succeeds("inject tiny.onnx --adapter adapter -o adapted.onnx");
    let (bert, rows) = (parity("base.onnx"), parity("train.npz"));
    sandbox.succeeds(&format!(
        "train {bert} --data {rows} --label labels --loss cross-entropy --logits logits --set dora=true --lr 0.1 --steps 1 --out dora"
    ));
    for (model, merge) in [
        ("tiny.onnx", "tiny.onnx --adapter adapter"),
        ("tiny.onnx", "tiny.onnx --adapter adapter=0.5 --adapter adapter=-2"),
        ("tiny.onnx", "tiny.onnx --adapter headed"),
        ("shared.onnx", "shared.onnx --adapter adapter"),
        (&bert, &format!("{bert} --adapter dora")),
    ] {
        sandbox.succeeds(&format!("merge {merge} -o merged.onnx --keep-original kept.safetensors --force"));
        sandbox.succeeds("unmerge merged.onnx --original kept.safetensors -o back.onnx --force");
        sandbox.succeeds(&format!("opt {model} -o whole.onnx --force"));
        assert!(sandbox.read("back.onnx") == sandbox.read("whole.onnx"), "{merge}");
        assert!(sandbox.read("back.onnx") != sandbox.read("merged.onnx"), "{merge}");
    }
    // An adapted model is one of a newer IR version, which it stays.
    sandbox.succeeds("merge adapted.onnx -o merged.onnx --keep-original kept.safetensors --force");
    sandbox.succeeds("unmerge merged.onnx --original kept.safetensors -o back.onnx --force");
    sandbox.succeeds("verify tiny.onnx back.onnx --tol 0");
    assert!(sandbox.read("whole.onnx") == std::fs::read(&bert).unwrap(), "the model is the file that it was");
}

#[test]
fn merges_that_cannot_be_undone() {
    let sandbox = sandbox();
    sandbox.write("taken.safetensors", "mine");
    sandbox.succeeds("merge tiny.onnx --adapter adapter --keep-original kept.safetensors -o merged.onnx");
    sandbox.succeeds("merge tiny.onnx --adapter adapter=2 -o twice.onnx");
    save(
        &sandbox,
        "foreign.onnx",
        "<ir_version: 8, opset_import: [\"\" : 17]>\ng (float[n, 2] x) => (float[n, 2] y) <float[2, 2] upp = {1, 2, 3, 4}> { y = MatMul (x, upp) }",
    );
    let kept = sandbox.read("kept.safetensors");
    sandbox.write("cut.safetensors", &kept[..kept.len() - 8]);
    let mut bent = kept.clone();
    *bent.last_mut().unwrap() ^= 1;
    sandbox.write("bent.safetensors", bent);
    let taken = "merge tiny.onnx --adapter adapter -o out.onnx --keep-original";
    let refusals: Vec<Refusal> = vec![
        (
            "unmerge merged.onnx -o out.onnx",
            2,
            "G0701",
            &["--original FILE", "rounded", "merge again", "--keep-original"],
        ),
        (
            "unmerge twice.onnx --original kept.safetensors -o out.onnx",
            3,
            "G0311",
            &["not those that the merge wrote"],
        ),
        (
            "unmerge tiny.onnx --original kept.safetensors -o out.onnx",
            3,
            "G0311",
            &["kept.safetensors", "together"],
        ),
        (
            "unmerge foreign.onnx --original kept.safetensors -o out.onnx",
            3,
            "G0311",
            &["`up`", "nearest: `upp`"],
        ),
        ("unmerge merged.onnx --original bent.safetensors -o out.onnx", 3, "G0311", &["damaged"]),
        ("unmerge merged.onnx --original cut.safetensors -o out.onnx", 3, "G0501", &["cut.safetensors"]),
        (
            "unmerge merged.onnx --original adapter/adapter_model.safetensors -o out.onnx",
            3,
            "G0311",
            &["--keep-original"],
        ),
        ("unmerge merged.onnx --original none.safetensors -o out.onnx", 1, "G0205", &["none.safetensors"]),
        (format!("{taken} taken.safetensors").leak(), 2, "G0206", &["`taken.safetensors`", "--force"]),
        (format!("{taken} out.onnx").leak(), 2, "G0701", &["the same file"]),
        (
            "unmerge merged.onnx --original kept.safetensors -o tiny.onnx",
            2,
            "G0206",
            &["`tiny.onnx`", "--force"],
        ),
    ];
    refuses(&sandbox, &refusals);
}
