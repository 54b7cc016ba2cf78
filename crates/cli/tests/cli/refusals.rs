//! Every exit code of every command: what must fail, how, and with which words.
use crate::{
    fixtures::{TINY, adapter, inputs, onnx, sandbox, save},
    sandbox::{Refusal, Sandbox, refuses},
};
use graft_ir::{Code, DType, Tensor};

/// A folder that also holds damaged files of every kind.
fn damaged() -> Sandbox {
    let sandbox = sandbox();
    let whole = onnx(TINY);
    sandbox.write("cut.onnx", &whole[..whole.len() / 2]);
    sandbox.write("words.onnx", "not a model\n");
    sandbox.write("empty.onnx", "");
    sandbox.write("undefined.onnxtxt", TINY.replace("Tanh (h)", "Tanh (hh)"));
    sandbox.write("unclosed.onnxtxt", TINY.trim_end().trim_end_matches('}'));
    sandbox.write("shapes.onnxtxt", TINY.replace("MatMul (pooled, up)", "MatMul (pooled, table)"));
    sandbox.write("op.onnxtxt", TINY.replace("Tanh (h)", "NoSuchOp (h)"));
    sandbox.write("domain.onnxtxt", TINY.replace("Tanh (h)", "nowhere.NoSuchOp (h)"));
    sandbox.write("words.npz", "not an archive\n");
    sandbox.write("words.safetensors", "not tensors\n");
    sandbox.write("nan.onnxtxt", TINY.replace("{0.3, -0.2,", "{nan, -0.2,"));
    sandbox
}

const READING: &[&str] = &["inspect", "targets", "opt", "bench", "render -o out.svg", "diff tiny.onnx"];

#[test]
fn models_that_are_none() {
    let sandbox = damaged();
    let models: &[(&str, i32, &str, &[&str])] = &[
        ("cut.onnx", 3, "G0201", &["`cut.onnx`"]),
        ("words.onnx", 3, "G0201", &["no ONNX model", "`words.onnx`"]),
        ("empty.onnx", 3, "G0201", &["empty", "`empty.onnx`"]),
        ("missing.onnx", 1, "G0205", &["`missing.onnx`", "No such file"]),
        ("adapter", 1, "G0205", &["`adapter`", "directory"]),
        ("undefined.onnxtxt", 3, "G0101", &["`hh`", "`undefined.onnxtxt`"]),
        ("unclosed.onnxtxt", 3, "G0103", &["`unclosed.onnxtxt`"]),
        ("shapes.onnxtxt", 3, "G0102", &["`/enc/up/MatMul` (MatMul)", "4 and 6", "`table` float[6, 4]"]),
    ];
    let rest = [
        "inject {} --targets up -o out.onnx",
        "train {} --data data.jsonl --loss cross-entropy --out out",
        "compare {} --data data.jsonl --loss cross-entropy --out out",
        "merge {} --adapter adapter -o out.onnx",
        "unmerge {} --original kept.safetensors -o out.onnx",
        "run {} --inputs in.npz -o out.npz",
        "verify {} tiny.onnx",
        "verify tiny.onnx {}",
    ];
    let lines = READING.iter().map(|c| format!("{c} {{}}")).chain(rest.map(String::from));
    let mut refusals: Vec<Refusal> = Vec::new();
    for line in lines {
        for &(model, code, id, words) in models {
            refusals.push((line.replace("{}", model).leak(), code, id, words));
        }
    }
    refuses(&sandbox, &refusals);
}

/// Wrong flags and wrong values of flags.
const USAGE: &[Refusal] = &[
    ("frobnicate", 2, "G0701", &["frobnicate"]),
    ("inspct tiny.onnx", 2, "G0701", &["inspect"]),
    ("inspect", 2, "G0701", &["MODEL"]),
    ("inspect tiny.onnx --nix", 2, "G0701", &["--nix"]),
    ("inspect tiny.onnx --text --json", 2, "G0701", &["--text", "--json"]),
    ("inspect tiny.onnx --sizes batch", 2, "G0701", &["NAME=N"]),
    ("inspect tiny.onnx --sizes batch=-1", 2, "G0701", &["NAME=N"]),
    ("inspect tiny.onnx --sizes btach=3", 2, "G0701", &["btach", "`batch`"]),
    ("inspect tiny.onnx --color blue", 2, "G0701", &["auto, always, never"]),
    ("targets tiny.onnx --targets a,,b", 2, "G0301", &["empty entry"]),
    ("targets tiny.onnx --targets re:(", 2, "G0301", &["regular expression"]),
    ("targets tiny.onnx --layers x", 2, "G0301", &["`x`"]),
    ("methods --size 3", 2, "G0701", &["INxOUT"]),
    ("methods --size 18446744073709551615x2", 2, "G0701", &["16777216"]),
    ("methods --rank 0", 2, "G0701", &["between 1"]),
    ("inject tiny.onnx", 2, "G0701", &["--output"]),
    ("inject tiny.onnx --method lorra -o out.onnx", 2, "G0304", &["`lorra`", "nearest: `lora`"]),
    (
        "inject tiny.onnx --set rslroa=true -o out.onnx",
        2,
        "G0301",
        &["`rslroa`", "nearest: `rslora`", "`rank`"],
    ),
    ("inject tiny.onnx --set rslora=perhaps -o out.onnx", 2, "G0304", &["`perhaps`", "`rslora`"]),
    ("inject tiny.onnx --set rslora -o out.onnx", 2, "G0701", &["KEY=VALUE"]),
    ("inject tiny.onnx --rank 0 -o out.onnx", 2, "G0304", &["rank 0", "whole number"]),
    ("inject tiny.onnx --rank 99999999999 -o out.onnx", 2, "G0304", &["rank 99999999999", "4294967295"]),
    ("inject tiny.onnx --rank -3 -o out.onnx", 2, "G0701", &["-3"]),
    ("inject tiny.onnx --alpha nan -o out.onnx", 2, "G0304", &["alpha NaN", "finite"]),
    ("inject tiny.onnx --rank-pattern up=x -o out.onnx", 2, "G0301", &["up=x"]),
    ("inject tiny.onnx --adapter adapter --rank 3 -o out.onnx", 2, "G0701", &["`--adapter`"]),
    ("merge tiny.onnx --adapter adapter=x -o out.onnx", 2, "G0701", &["`x`", "number"]),
    ("merge tiny.onnx --adapter adapter=inf -o out.onnx", 2, "G0701", &["`inf`", "finite"]),
    ("merge tiny.onnx --adapter adapter=0.5 --verify -o out.onnx", 2, "G0701", &["--verify"]),
    ("merge tiny.onnx --adapter adapter --tol 1 -o out.onnx", 2, "G0701", &["--verify"]),
    ("run tiny.onnx --inputs in.npz -o out.txt", 2, "G0701", &["`out.txt`", "`.npz`"]),
    ("run tiny.onnx --inputs data.jsonl -o out.npz", 2, "G0701", &["`data.jsonl`", "`.npz`"]),
    ("run tiny.onnx --inputs in.npz -o out.npz --device tpu", 2, "G0701", &["cpu, cuda"]),
    ("run tiny.onnx --inputs in.npz -o out.npz --threads 0", 2, "G0701", &["one thread"]),
    ("verify tiny.onnx tiny.onnx --tol nan", 2, "G0701", &["--tol"]),
    ("verify tiny.onnx tiny.onnx --tol -1", 2, "G0701", &["-1"]),
    ("verify tiny.onnx tiny.onnx --sizes sqe=3", 2, "G0701", &["sqe", "`seq`"]),
    ("opt tiny.onnx -p fuze", 2, "G0301", &["`fuze`", "nearest: `fuse`"]),
    ("opt tiny.onnx -p fuse{", 2, "G0301", &["column 6"]),
    ("opt tiny.onnx -p fuse{a=b}", 2, "G0301", &["`a`", "known options"]),
    ("opt tiny.onnx --print-after fuze", 2, "G0701", &["`fuze`"]),
    ("bench tiny.onnx --steps 0", 2, "G0701", &["--steps"]),
    ("bench tiny.onnx --batch 0", 2, "G0701", &["--batch"]),
    ("explain G9999", 2, "G0701", &["`G9999`", "nearest"]),
    ("man trian", 2, "G0701", &["`trian`", "`train`"]),
    ("render tiny.onnx -o a.png", 2, "G0701", &["`a.png`", "`.svg`"]),
    (
        "render tiny.onnx -o a.svg --around /enc/u/MatMul",
        2,
        "G0701",
        &["`/enc/u/MatMul`", "`/enc/up/MatMul`"],
    ),
    ("completions tcsh", 2, "G0701", &["bash"]),
];

#[test]
fn usage() {
    refuses(&sandbox(), USAGE);
}

/// Flags of `compare`, each added to a command line that would succeed.
const FLAGS_OF_COMPARE: &[(&str, i32, &str, &[&str])] = &[
    ("--methods lorra", 2, "G0304", &["`lorra`", "nearest: `lora`"]),
    ("--methods lora,bone,lora", 2, "G0701", &["`lora` is there twice"]),
    ("--methods lora+dora", 2, "G0701", &["lora+dora", "KEY=VALUE"]),
    ("--methods lora+rank=3+rslroa=true", 2, "G0301", &["`rslroa`"]),
    ("--methods bone+mini=3", 2, "G0304", &["`mini`", "`3`"]),
    ("--methods none+mini=3", 2, "G0701", &["no settings"]),
    ("--methods none", 2, "G0701", &["head"]),
    ("--budget 0", 2, "G0304", &["at least one parameter"]),
    ("--budget -3", 2, "G0701", &["-3"]),
    ("--seeds 0", 2, "G0701", &["--seeds 0"]),
    ("--methods lora,tri --method-lr bone=1e-3", 2, "G0701", &["bone=1e-3", "`lora`, `tri`"]),
    ("--methods lora --method-lr lora", 2, "G0701", &["METHOD=LR"]),
    ("--methods lora --method-lr lora=fast", 2, "G0701", &["`fast`"]),
    ("--lr 0", 2, "G0701", &["learning rate"]),
    ("--keep-best", 2, "G0701", &["--eval"]),
    ("--eval missing.jsonl", 1, "G0205", &["missing.jsonl"]),
    ("--label lable", 3, "G0503", &["`lable`"]),
    ("--exclude down,sideways", 4, "G0302", &["`sideways`"]),
    ("--rank 3", 2, "G0701", &["--rank"]),
    ("--resume", 2, "G0701", &["--resume"]),
];

#[test]
fn flags_of_compare() {
    let line = "compare tiny.onnx --data data.jsonl --loss cross-entropy --targets up --out out";
    let refusals = FLAGS_OF_COMPARE.iter();
    let refusals =
        refusals.map(|&(flags, code, id, words)| (&*format!("{line} {flags}").leak(), code, id, words));
    let sandbox = sandbox();
    refuses(&sandbox, &refusals.collect::<Vec<Refusal>>());
    let plan = sandbox.succeeds(&format!("{line} --methods lora,bone --budget 16 --dry-run")).stdout;
    assert!(plan.contains("bone       4          16") && plan.contains("nothing was written"), "{plan}");
    assert!(!sandbox.path("out").exists());
}

/// Flags of `train`, each added to a command line that would succeed.
const FLAGS_OF_TRAIN: &[(&str, i32, &str, &[&str])] = &[
    ("--steps 0", 2, "G0701", &["no steps"]),
    ("--epochs 0", 2, "G0701", &["no steps"]),
    ("--epochs 1 --steps 1", 2, "G0701", &["--epochs", "--steps"]),
    ("--batch 0", 2, "G0701", &["one row"]),
    ("--accumulate 0", 2, "G0701", &["one batch"]),
    ("--lr 0", 2, "G0701", &["learning rate"]),
    ("--lr -1", 2, "G0701", &["learning rate"]),
    ("--lr nan", 2, "G0701", &["learning rate"]),
    ("--clip -1", 2, "G0701", &["clip"]),
    ("--warmup 3", 2, "G0701", &["between 0 and 1"]),
    ("--weight-decay -1", 2, "G0701", &["weight decay"]),
    ("--schedule cosin", 2, "G0701", &["`cosin`", "`cosine`"]),
    ("--optimizer adam", 2, "G0701", &["adamw"]),
    ("--order random", 2, "G0701", &["sequential"]),
    ("--save-every 0", 2, "G0701", &["one step"]),
    ("--keep-best", 2, "G0701", &["--eval"]),
    ("--patience 2", 2, "G0701", &["--eval"]),
    ("--resume --force", 2, "G0701", &["--resume", "--force"]),
    ("--head classify", 2, "G0701", &["classify:CLASSES"]),
    ("--head classify:0", 2, "G0301", &["one class"]),
    ("--head classify:x", 2, "G0301", &["`x`"]),
    ("--head regress:2", 2, "G0301", &["`regress`", "`classify`"]),
    ("--head classify:2,pool=max", 2, "G0301", &["`max`", "`mean`"]),
    ("--head classify:2,form=logits", 2, "G0301", &["`form`", "nearest: `from`"]),
    ("--head classify:2 --logits logits", 2, "G0701", &["--logits"]),
    ("--logits logit", 2, "G0305", &["`logit`", "`logits`"]),
    ("--init adapter --rank 3", 2, "G0701", &["`rank` is `3`", "`2`"]),
    ("--dump-grads 1", 2, "G0701", &["STEP=FILE"]),
    ("--dump-grads 99=grads.safetensors --steps 2", 2, "G0701", &["no step 99", "1 to 2"]),
    ("--dump-grads 1=data.jsonl", 2, "G0206", &["`data.jsonl`"]),
    ("--method lorra", 2, "G0304", &["`lora`"]),
    ("--set rslroa=true", 2, "G0301", &["`rslora`"]),
    ("--device cuda", 5, "G0601", &["CUDA", "--device cpu"]),
    ("--precision bf16", 5, "G0601", &["`bf16`"]),
    ("--targets nix", 4, "G0302", &["`nix`", "nearest"]),
    ("--threads 0", 2, "G0701", &["one thread"]),
];

#[test]
fn usage_of_train() {
    let line = |flags: &str| {
        format!("train tiny.onnx --data data.jsonl --loss cross-entropy --out out/deep {flags}")
    };
    let refusals: Vec<Refusal> =
        FLAGS_OF_TRAIN.iter().map(|(f, c, id, words)| (&*line(f).leak(), *c, *id, *words)).collect();
    refuses(&sandbox(), &refusals);
    refuses(
        &sandbox(),
        &[
            ("train tiny.onnx --data data.jsonl --loss hinge --out out", 2, "G0701", &["cross-entropy"]),
            ("train tiny.onnx --data data.jsonl --loss mse", 2, "G0701", &["--out"]),
            ("train tiny.onnx --data data.jsonl --loss causal-lm --out out", 3, "G0102", &["loss"]),
        ],
    );
}

#[test]
fn selectors_that_match_nothing() {
    refuses(
        &sandbox(),
        &[
            ("targets tiny.onnx --targets upp", 4, "G0302", &["`upp`", "nearest: `up`"]),
            ("targets tiny.onnx --targets enc.up,enc.pu", 4, "G0302", &["`enc.pu`", "`enc.up`"]),
            ("targets tiny.onnx --targets re:up", 4, "G0302", &["`re:up`", "nearest"]),
            ("inject tiny.onnx --targets query -o out.onnx", 4, "G0302", &["`query`", "`graft targets`"]),
            ("inject tiny.onnx --exclude query -o out.onnx", 4, "G0302", &["`query`"]),
            (
                "inject tiny.onnx --targets up --exclude up -o out.onnx",
                4,
                "G0302",
                &["leaves no linear node"],
            ),
            ("inject tiny.onnx --layers 7 -o out.onnx", 4, "G0302", &["`layers`"]),
            ("inject tiny.onnx --rank-pattern query=4 -o out.onnx", 4, "G0302", &["`query`"]),
        ],
    );
}

/// Adapters as `misfits` makes them.
const ADAPTERS: &[(&str, i32, &str, &[&str])] = &[
    ("elsewhere", 4, "G0302", &["`enc.pu`", "nearest: `enc.up`"]),
    (
        "unexpected",
        4,
        "G0402",
        &["missing: `enc.up.lora_A.weight`", "unexpected: `enc.pu.lora_A.weight`", "nearest: `enc.up`"],
    ),
    ("misshapen", 4, "G0402", &["misshapen: `enc.down.lora_B.weight` is [4, 2], expected [3, 2]"]),
    ("short", 4, "G0402", &["missing: `enc.up.lora_B.weight`"]),
    ("damaged", 3, "G0401", &["damaged/adapter_model.safetensors"]),
    ("keyless", 3, "G0401", &["no `r`", "keyless/adapter_config.json"]),
    ("broken", 3, "G0401", &["not valid JSON", "broken/adapter_config.json"]),
    ("foreign", 5, "G0403", &["`IA3`"]),
    ("missing", 3, "G0401", &["missing/adapter_config.json", "No such file"]),
    ("tiny.onnx", 3, "G0401", &["tiny.onnx", "known formats"]),
];

/// A folder with adapters that are damaged or do not belong to the model.
fn misfits() -> Sandbox {
    let sandbox = sandbox();
    adapter(&sandbox, "elsewhere", &["enc.pu"], 2);
    adapter(&sandbox, "unexpected", &["enc.pu"], 2);
    sandbox.write(
        "unexpected/adapter_config.json",
        r#"{"peft_type": "LORA", "r": 2, "target_modules": ["up"]}"#,
    );
    adapter(&sandbox, "misshapen", &["enc.down"], 2);
    adapter(&sandbox, "short", &["enc.up"], 2);
    inputs(
        &sandbox,
        "short/adapter_model.safetensors",
        "enc.up.lora_A.weight",
        Tensor::f32(&[2, 4], &[0.5; 8]),
    );
    adapter(&sandbox, "damaged", &["enc.up"], 2);
    let whole = sandbox.read("damaged/adapter_model.safetensors");
    sandbox.write("damaged/adapter_model.safetensors", &whole[..whole.len() - 3]);
    adapter(&sandbox, "keyless", &["enc.up"], 2);
    sandbox.write("keyless/adapter_config.json", r#"{"peft_type": "LORA", "target_modules": ["up"]}"#);
    adapter(&sandbox, "broken", &["enc.up"], 2);
    sandbox.write("broken/adapter_config.json", "{");
    adapter(&sandbox, "foreign", &["enc.up"], 2);
    sandbox.write("foreign/adapter_config.json", r#"{"peft_type": "IA3", "r": 2, "target_modules": ["up"]}"#);
    sandbox
}

#[test]
fn adapters_that_do_not_fit() {
    let sandbox = misfits();
    let mut refusals: Vec<Refusal> = Vec::new();
    for line in [
        "inject tiny.onnx --adapter {} -o out.onnx",
        "merge tiny.onnx --adapter {} -o out.onnx",
        "train tiny.onnx --init {} --data data.jsonl --loss cross-entropy --out out",
    ] {
        for &(dir, code, id, words) in ADAPTERS {
            refusals.push((line.replace("{}", dir).leak(), code, id, words));
        }
    }
    refuses(&sandbox, &refusals);
}

/// Outputs of `run` and `train`.
const OUTPUTS: &[Refusal] = &[
    ("run tiny.onnx --inputs in.npz -o taken.npz", 2, "G0206", &["`taken.npz`", "--force"]),
    ("run tiny.onnx --inputs in.npz -o no/out.npz", 1, "G0205", &["`no/out.npz`", "No such file"]),
    ("run tiny.onnx --inputs in.npz -o in.npz/out.npz", 1, "G0205", &["`in.npz/out.npz`", "Not a directory"]),
    ("train tiny.onnx --data data.jsonl --loss cross-entropy --out run", 2, "G0206", &["`run`", "--force"]),
    (
        "train tiny.onnx --data data.jsonl --loss cross-entropy --out data.jsonl",
        2,
        "G0206",
        &["`data.jsonl`"],
    ),
    (
        "train tiny.onnx --data data.jsonl --loss cross-entropy --out data.jsonl/a",
        1,
        "G0205",
        &["data.jsonl/a"],
    ),
    ("train tiny.onnx --data data.jsonl --loss cross-entropy --out run --resume", 3, "G0504", &["`run`"]),
    (
        "train tiny.onnx --data data.jsonl --loss cross-entropy --targets up --out out --dump-grads 1=no/g.safetensors",
        1,
        "G0205",
        &["`no/g.safetensors`"],
    ),
];

#[test]
fn outputs_that_cannot_be_written() {
    let sandbox = sandbox();
    sandbox.write("taken.onnx", "mine");
    sandbox.write("taken.npz", "mine");
    std::fs::create_dir(sandbox.path("folder.onnx")).unwrap();
    std::fs::create_dir(sandbox.path("run")).unwrap();
    sandbox.write("run/notes", "mine");
    assert!(std::process::Command::new("mkfifo").arg(sandbox.path("pipe.onnx")).status().unwrap().success());
    let mut refusals = OUTPUTS.to_vec();
    for line in [
        "inject tiny.onnx --targets up -o {}",
        "merge tiny.onnx --adapter adapter -o {}",
        "opt tiny.onnx -o {}",
    ] {
        let outputs: &[(&str, i32, &str, &[&str])] = &[
            ("taken.onnx", 2, "G0206", &["`taken.onnx`", "--force"]),
            ("no/such/out.onnx", 1, "G0205", &["`no/such/out.onnx`", "No such file"]),
            ("tiny.onnx/out.onnx", 1, "G0205", &["`tiny.onnx/out.onnx`", "Not a directory"]),
            ("folder.onnx --force", 1, "G0205", &["`folder.onnx`", "no regular file"]),
            ("pipe.onnx --force", 1, "G0205", &["`pipe.onnx`", "no regular file"]),
        ];
        for &(output, code, id, words) in outputs {
            refusals.push((line.replace("{}", output).leak(), code, id, words));
        }
    }
    refuses(&sandbox, &refusals);
}

#[test]
fn inputs_that_do_not_fit() {
    let sandbox = damaged();
    inputs(&sandbox, "dtype.npz", "input_ids", Tensor::from_f64(DType::Int32, &[1, 2], [1.0, 2.0]).unwrap());
    inputs(&sandbox, "rank.npz", "input_ids", Tensor::i64(&[2], &[1, 2]));
    inputs(&sandbox, "name.npz", "input_id", Tensor::i64(&[1, 2], &[1, 2]));
    inputs(&sandbox, "beyond.npz", "input_ids", Tensor::i64(&[1, 2], &[1, 6]));
    inputs(&sandbox, "beyond.safetensors", "input_ids", Tensor::i64(&[1, 2], &[1, -7]));
    let files: &[(&str, i32, &str, &[&str])] = &[
        ("dtype.npz", 3, "G0602", &["`input_ids`", "int32", "int64"]),
        ("rank.npz", 3, "G0602", &["`input_ids`", "[2]"]),
        ("name.npz", 3, "G0602", &["`input_id`", "nearest: `input_ids`"]),
        ("beyond.npz", 3, "G0108", &["Gather", "6"]),
        ("beyond.safetensors", 3, "G0108", &["Gather", "-7"]),
        ("words.npz", 3, "G0501", &["not an npz file", "words.npz"]),
        ("words.safetensors", 3, "G0501", &["not a safetensors file", "words.safetensors"]),
        ("missing.npz", 1, "G0205", &["missing.npz", "No such file"]),
    ];
    let mut refusals: Vec<Refusal> = Vec::new();
    for line in ["run tiny.onnx --inputs {} -o out.npz", "verify tiny.onnx tiny.onnx --inputs {}"] {
        for &(file, code, id, words) in files {
            refusals.push((line.replace("{}", file).leak(), code, id, words));
        }
    }
    refuses(&sandbox, &refusals);
}

#[test]
fn what_is_not_supported() {
    let sandbox = damaged();
    save(
        &sandbox,
        "old.onnx",
        "<ir_version: 3, opset_import: [\"\" : 6]>\ng (float[n, 2] x) => (float[n, 2] z) <float[2, 2] w = {1, 2, 3, 4}> { y = MatMul (x, w) z = Tanh (y) }",
    );
    refuses(
        &sandbox,
        &[
            ("run tiny.onnx --inputs in.npz -o out.npz --device cuda", 5, "G0601", &["CUDA"]),
            ("run tiny.onnx --inputs in.npz -o out.npz --precision bf16", 5, "G0601", &["`bf16`", "f32"]),
            ("bench tiny.onnx --device cuda", 5, "G0601", &["CUDA"]),
            ("bench tiny.onnx --precision bf16", 5, "G0601", &["`bf16`"]),
            ("run op.onnxtxt --inputs in.npz -o out.npz", 5, "G0104", &["`NoSuchOp`", "node `a`"]),
            ("verify op.onnxtxt op.onnxtxt", 5, "G0104", &["`NoSuchOp`"]),
            (
                "train op.onnxtxt --data data.jsonl --loss cross-entropy --targets up --out out",
                5,
                "G0106",
                &["`NoSuchOp`", "node `a`", "choose targets behind"],
            ),
            ("inject old.onnx -o out.onnx", 5, "G0306", &["opset", "the model has 6", "upgrade{opset="]),
            ("merge tiny.onnx -o out.onnx", 5, "G0307", &["no adapter", "`--adapter`"]),
            ("inspect domain.onnxtxt", 3, "G0101", &["\"nowhere\"", "node `a`"]),
        ],
    );
}

#[test]
fn checks_over_their_tolerance() {
    let refusals: &[Refusal] = &[
        ("verify tiny.onnx other.onnx", 6, "G0702", &["`logits`", "tolerance"]),
        ("verify tiny.onnx other.onnx --inputs in.npz --json", 6, "G0702", &["`logits`"]),
        ("verify tiny.onnx other.onnx --tol 1e-3", 6, "G0702", &["1e-3"]),
        ("merge tiny.onnx --adapter adapter --verify --tol 0 -o out.onnx", 6, "G0702", &["`logits`"]),
    ];
    let sandbox = sandbox();
    refuses(&sandbox, refusals);
    let outcome = sandbox.graft("verify tiny.onnx other.onnx --json");
    assert_eq!(outcome.json()["ok"], false);
    sandbox.succeeds("verify tiny.onnx other.onnx --tol 10");
}

#[test]
fn models_that_differ() {
    refuses(
        &sandbox(),
        &[
            ("diff tiny.onnx other.onnx", 1, "G0703", &["1 place"]),
            ("diff tiny.onnx other.onnx --json", 1, "G0703", &[]),
        ],
    );
}

#[test]
fn weights_that_are_not_finite() {
    let sandbox = damaged();
    refuses(
        &sandbox,
        &[
            (
                "train nan.onnxtxt --data data.jsonl --loss cross-entropy --targets up --out out",
                3,
                "G0309",
                &["`up`", "NaN", "warning"],
            ),
            ("merge nan.onnxtxt --adapter adapter -o out.onnx", 3, "G0309", &["`up`", "NaN"]),
        ],
    );
    for line in
        ["inspect nan.onnxtxt", "targets nan.onnxtxt -q", "inject nan.onnxtxt --targets up -o out.onnx"]
    {
        let outcome = sandbox.succeeds(line);
        assert!(
            outcome.stderr.contains("warning: nan.onnxtxt: weights with NaN"),
            "{line}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn every_error_code_is_explained() {
    let sandbox = Sandbox::empty();
    for code in Code::ALL {
        let outcome = sandbox.succeeds(&format!("explain {}", code.id));
        assert!(
            outcome.stdout.contains(code.id) && outcome.stdout.contains(code.explain),
            "{}",
            outcome.stdout
        );
        assert!(outcome.stdout.contains(&format!("exit code {}", code.kind as u8)), "{}", outcome.stdout);
    }
    let list = sandbox.succeeds("explain --json").json();
    assert_eq!(list["codes"].as_array().map(Vec::len), Some(Code::ALL.len()));
}
