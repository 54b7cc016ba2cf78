//! Adapters between formats, several as one, and out of models.
use crate::{
    fixtures::{TINY, adapter, inputs, onnx, parity, sandbox},
    sandbox::{Refusal, Sandbox, refuses},
};
use graft_adapter::{load, tensors};
use graft_ir::{Tensor, random};
use std::collections::BTreeMap;

/// The folder of [`sandbox`] with adapters of several methods for `enc.up` of its model, all of random weights.
fn adapters() -> Sandbox {
    let sandbox = sandbox();
    for (name, flags) in [
        ("dora", "lora --rank 2 --set dora=true"),
        ("bone", "bone --rank 3"),
        ("mini", "bone --rank 2 --set mini=2"),
        ("bat", "bat --rank 2"),
        ("left", "bat --rank 2 --set layout=left"),
        ("row", "bat --rank 2 --set layout=row"),
        ("hydra", "hydra --rank 2 --set experts=3"),
        ("tri", "tri --rank 2"),
        ("salora", "salora --rank 2"),
        ("adalora", "adalora --rank 3 --set target_rank=2"),
    ] {
        sandbox.succeeds(&format!("inject tiny.onnx --targets up --method {flags} -o {name}.onnx"));
        sandbox.succeeds(&format!("extract {name}.onnx -o {name}"));
        randomise(&sandbox, name);
    }
    adapter(&sandbox, "wide", &["enc.up"], 3);
    sandbox
}

/// Every weight random, since zeros hide mistakes.
fn randomise(sandbox: &Sandbox, dir: &str) {
    let path = sandbox.path(dir);
    let mut adapter = load(&path).expect("the adapter loads");
    for (n, tensor) in adapter.tensors.values_mut().enumerate() {
        let values: Vec<f32> =
            (0..tensor.len()).map(|i| random::uniform(5, 0, n as u64, i as u64) - 0.4).collect();
        *tensor = Tensor::f32(tensor.dims(), &values);
    }
    graft_adapter::save(&path, &adapter.config, &adapter.tensors).expect("the adapter can be written");
}

const METHODS: &[&str] =
    &["adapter", "dora", "bone", "mini", "bat", "left", "row", "hydra", "tri", "salora", "adalora"];

#[test]
fn every_method_makes_the_round_trip() {
    let sandbox = adapters();
    for name in METHODS {
        // As it is, as NumPy's archive, and as inputs of a model, which hold the scale within the weights.
        sandbox.succeeds(&format!("convert {name} {name}.npz"));
        sandbox.succeeds(&format!("convert {name}.npz {name}-npz"));
        sandbox.succeeds(&format!("convert {name} {name}-peft"));
        for file in ["adapter_model.safetensors", "adapter_config.json"] {
            let [npz, peft] = ["npz", "peft"].map(|way| sandbox.read(&format!("{name}-{way}/{file}")));
            assert!(npz == peft, "{name}: {file}");
        }
        let model = |of: &str| load(&sandbox.path(of)).expect("the adapter loads").tensors;
        assert_eq!(model(&format!("{name}-npz")), model(name), "{name}");
        sandbox.succeeds(&format!("convert {name} {name}.onnx_adapter"));
        sandbox.succeeds(&format!("convert {name}.onnx_adapter {name}-fed"));
        sandbox.succeeds(&format!("convert {name}-fed {name}-fed.onnx_adapter"));
        let [once, twice] = ["", "-fed"].map(|way| sandbox.read(&format!("{name}{way}.onnx_adapter")));
        assert!(once == twice, "{name}");
        let command = if *name == "hydra" { "inject" } else { "merge" };
        for way in ["", "-fed", ".npz", ".onnx_adapter"] {
            sandbox.succeeds(&format!("{command} tiny.onnx --adapter {name}{way} -o with{way}.onnx --force"));
            sandbox.succeeds(&format!("verify with.onnx with{way}.onnx --tol 1e-6"));
        }
    }
}

#[test]
fn a_model_with_inputs_adds_nothing_by_itself_and_gives_back_what_it_holds() {
    let sandbox = adapters();
    let flags = [
        ("adapter", "lora --rank 2"),
        ("dora", "lora --set dora=true"),
        ("hydra", "hydra --set experts=3"),
        ("bone", "bone --rank 3"),
        ("bat", "bat --rank 2"),
        ("tri", "tri"),
        ("salora", "salora --rank 2"),
        ("adalora", "adalora --rank 3 --set target_rank=2"),
    ];
    for (name, flags) in flags {
        sandbox.succeeds(&format!(
            "inject tiny.onnx --targets up --method {flags} --inputs -o free.onnx --force"
        ));
        sandbox.succeeds("verify tiny.onnx free.onnx --tol 1e-6");
        sandbox.succeeds(&format!("inject tiny.onnx --adapter {name} --inputs=scale -o held.onnx --force"));
        sandbox.succeeds(&format!("inject tiny.onnx --adapter {name} -o with.onnx --force"));
        sandbox.succeeds("verify with.onnx held.onnx --tol 1e-6");
        sandbox.succeeds("extract held.onnx -o held --force");
        sandbox.succeeds("inject tiny.onnx --adapter held -o again.onnx --force");
        sandbox.succeeds("verify with.onnx again.onnx --tol 1e-6");
    }
    let text = sandbox.succeeds("opt held.onnx -o -").stdout;
    for input in ["float[4, \"enc.up.rank\"] \"enc.up.lora_A\"", "float \"enc.up.scale\""] {
        assert!(text.contains(input), "{input}: {text}");
    }
}

#[test]
fn whatever_can_be_merged_has_a_nearest_lora() {
    let sandbox = adapters();
    for name in METHODS.iter().filter(|name| **name != "hydra") {
        let line = format!("convert {name} {name}-lora --as-lora 4 --model tiny.onnx --json");
        let modules = sandbox.succeeds(&line).json();
        let error = modules["modules"][0]["error"].as_f64().unwrap();
        assert!(error < 1e-6 && modules["modules"][0]["path"] == "enc.up", "{name}: {modules}");
        sandbox.succeeds(&format!("merge tiny.onnx --adapter {name} -o one.onnx --force"));
        sandbox.succeeds(&format!("merge tiny.onnx --adapter {name}-lora -o other.onnx --force"));
        sandbox.succeeds("verify one.onnx other.onnx --tol 1e-5");
    }
    let shares = sandbox.succeeds("convert wide narrow --as-lora 0.5").stdout;
    assert!(shares.starts_with("module  rank"), "{shares}");
    let lost = sandbox.succeeds("convert bat narrower --as-lora 1 --model tiny.onnx --json").json();
    assert!((0.01..0.99).contains(&lost["modules"][0]["error"].as_f64().unwrap()), "{lost}");
}

#[test]
fn a_difference_of_models_is_a_lora() {
    let sandbox = adapters();
    sandbox.succeeds("merge tiny.onnx --adapter bat -o tuned.onnx");
    let told =
        sandbox.succeeds("extract tuned.onnx --base tiny.onnx --as-lora 0.9999 -o found --json").json();
    assert_eq!(told["modules"].as_array().unwrap().len(), 1, "{told}");
    sandbox.succeeds("merge tiny.onnx --adapter found -o again.onnx");
    sandbox.succeeds("verify tuned.onnx again.onnx --tol 1e-2");
    let old = sandbox.succeeds("convert bone old --peft-type BONE");
    assert_eq!(old.code, 0);
    let keys: Vec<String> =
        tensors::read(&sandbox.path("old/adapter_model.safetensors")).unwrap().into_keys().collect();
    assert_eq!(keys, ["base_model.model.enc.up.bone_block"]);
    sandbox.succeeds("convert old new");
    assert!(sandbox.read("new/adapter_model.safetensors") == sandbox.read("bone/adapter_model.safetensors"));
}

#[test]
fn formats_of_image_models_are_found_in_the_model() {
    let sandbox = adapters();
    let bert = parity("base.onnx");
    // llama.cpp has no pooler.
    sandbox.succeeds(&format!("inject {bert} --targets re:.*encoder.* --rank 4 --alpha 6 -o encoder.onnx"));
    sandbox.succeeds("extract encoder.onnx -o encoder");
    randomise(&sandbox, "encoder");
    for (format, flags) in [("kohya", "--component text_encoder"), ("diffusers", ""), ("gguf", "")] {
        sandbox.succeeds(&format!("convert encoder {format}.file --to {format} {flags}"));
        sandbox.succeeds(&format!("convert {format}.file {format} --model {bert}"));
        let [ours, theirs] = [format, "encoder"].map(|dir| load(&sandbox.path(dir)).unwrap());
        assert_eq!(ours.tensors, theirs.tensors, "{format}");
        let shape = |config: &graft_adapter::Config| (config.rank, config.alpha);
        assert_eq!(shape(&ours.config), shape(&theirs.config), "{format}");
    }
    // A file for two models of a pipeline: one must be chosen, and what is left is told.
    for format in ["kohya", "diffusers"] {
        let mut both = BTreeMap::new();
        for component in ["unet", "text_encoder"] {
            let file = format!("{component}.safetensors");
            sandbox
                .succeeds(&format!("convert encoder {file} --to {format} --component {component} --force"));
            both.extend(tensors::read(&sandbox.path(&file)).unwrap());
        }
        tensors::write(&sandbox.path("both.safetensors"), &both).unwrap();
        let line = format!("convert both.safetensors both --model {bert} --force");
        let unclear = sandbox.graft(&line);
        assert!(unclear.code == 2 && unclear.stderr.contains("`text_encoder`"), "{}", unclear.stderr);
        let chosen = sandbox.succeeds(&format!("{line} --component unet"));
        assert!(chosen.stderr.contains("12 modules of `text_encoder` are left out"), "{}", chosen.stderr);
    }
}

#[test]
fn several_adapters_become_one() {
    let sandbox = adapters();
    sandbox.succeeds("merge tiny.onnx --adapter adapter=0.5 --adapter wide=-2 -o sum.onnx");
    for how in ["cat", "svd --combine-rank 4"] {
        sandbox.succeeds(&format!(
            "merge tiny.onnx --adapter adapter=0.5 --adapter wide=-2 --combine {how} --verify -o one.onnx --force"
        ));
        sandbox.succeeds("verify sum.onnx one.onnx --tol 1e-5");
    }
    sandbox.succeeds("merge tiny.onnx --adapter bat --adapter bone=0.5 -o mixed.onnx");
    sandbox.succeeds(
        "merge tiny.onnx --adapter bat --adapter bone=0.5 --combine svd --combine-rank 4 -o one.onnx --force",
    );
    sandbox.succeeds("verify mixed.onnx one.onnx --tol 1e-5");
    let two = "merge tiny.onnx --adapter adapter --adapter adapter=0.5 --combine dare";
    sandbox.succeeds(&format!("{two} -o a.onnx"));
    sandbox.succeeds(&format!("{two} -o b.onnx"));
    sandbox.succeeds(&format!("{two} --seed 9 -o c.onnx"));
    assert!(
        sandbox.read("a.onnx") == sandbox.read("b.onnx") && sandbox.read("a.onnx") != sandbox.read("c.onnx")
    );
}

/// What must be refused.
const REFUSALS: &[Refusal] = &[
    (
        "merge tiny.onnx --adapter adapter --adapter wide --combine linear -o out.onnx",
        5,
        "G0307",
        &["ranks differ", "`enc.up`", "cat"],
    ),
    (
        "merge tiny.onnx --adapter bone --adapter adapter --combine cat -o out.onnx",
        5,
        "G0307",
        &["`cat`", "`enc.up`", "no plain LoRA", "svd"],
    ),
    ("merge tiny.onnx --adapter hydra --adapter adapter --combine svd -o out.onnx", 5, "G0307", &["`hydra`"]),
    (
        "merge tiny.onnx --adapter adapter --combine mean -o out.onnx",
        2,
        "G0701",
        &["linear, cat, svd, ties, dare"],
    ),
    (
        "merge tiny.onnx --adapter adapter --combine cat --density 0.5 -o out.onnx",
        2,
        "G0701",
        &["--density", "ties and dare"],
    ),
    (
        "merge tiny.onnx --adapter adapter --combine ties --density 0 -o out.onnx",
        2,
        "G0701",
        &["--density 0"],
    ),
    ("merge tiny.onnx --adapter adapter --density 0.5 -o out.onnx", 2, "G0701", &["--combine"]),
    (
        "convert bone out.safetensors --to kohya",
        5,
        "G0403",
        &["`kohya`", "plain LoRAs", "`enc.up`", "--as-lora"],
    ),
    ("convert dora out --to gguf", 5, "G0403", &["`gguf`", "plain LoRAs"]),
    ("convert adapter out --to gguf", 5, "G0403", &["architectures", "--architecture"]),
    ("convert adapter out --to gguf --architecture bert", 5, "G0403", &["`bert`", "`enc.up`"]),
    ("convert bone out --as-lora 2", 5, "G0403", &["sizes of `enc.up`", "--model"]),
    ("convert dora out --as-lora 2", 5, "G0403", &["base weights", "--model"]),
    ("convert hydra out --as-lora 2 --model tiny.onnx", 5, "G0403", &["depends on the input"]),
    ("convert adapter out --as-lora 0", 2, "G0701", &["a rank (8)", "0.99"]),
    ("convert adapter out.safetensors", 2, "G0701", &["`out.safetensors`", "--to", "`kohya`"]),
    ("convert adapter out --to kohyo", 2, "G0701", &["kohya"]),
    ("convert adapter adapter", 2, "G0206", &["--force"]),
    ("convert adapter in.npz", 2, "G0206", &["`in.npz`"]),
    ("convert adapter out --peft-type IA3", 2, "G0701", &["`IA3`", "`LORA`"]),
    ("convert adapter out --component vae --to kohya", 2, "G0701", &["`vae`", "`unet`"]),
    (
        "convert bert-lora.onnx_adapter out --model tiny.onnx",
        4,
        "G0302",
        &["encoder.layer.0", "nearest: `enc.down`, `enc.up`"],
    ),
    (
        "convert adapter out.onnx_adapter --model other-inputs.onnx",
        4,
        "G0402",
        &["`enc.up.lora_A.weight`", "nearest: `enc.down.lora_A.weight`"],
    ),
    ("convert foreign.onnx_adapter out", 4, "G0402", &["`enc.up.colour`", "`lora_A.weight`"]),
    ("convert flat.file out", 2, "G0701", &["underscores", "--model"]),
    ("convert flat.file out --model none.onnx", 4, "G0402", &["`enc_up`", "nearest"]),
    ("convert in.npz out", 3, "G0401", &["`adapter_config.json`", "in.npz"]),
    ("convert data.jsonl out", 3, "G0401", &["known formats", "data.jsonl"]),
    ("convert adapter/adapter_model.safetensors out", 3, "G0401", &["PEFT's folders", "give the folder"]),
    ("convert missing out", 1, "G0205", &["missing"]),
    ("merge tiny.onnx --adapter flat.file -o out.onnx", 2, "G0701", &["--model"]),
    ("extract tiny.onnx -o out", 3, "G0401", &["no adapter", "--base"]),
    ("extract tiny.onnx --base tiny.onnx --as-lora 2 -o out", 4, "G0402", &["differs"]),
    ("extract tiny.onnx --base tiny.onnx -o out", 2, "G0701", &["--as-lora"]),
    ("extract free.onnx -o out", 3, "G0401", &["no ranks"]),
];

#[test]
fn what_cannot_be_converted() {
    let sandbox = adapters();
    sandbox.write("none.onnx", onnx(&TINY.replace("/enc/", "/dec/")));
    sandbox.succeeds("inject tiny.onnx --targets up --method lora --inputs -o free.onnx");
    sandbox.succeeds("inject tiny.onnx --targets down --method lora --inputs -o other-inputs.onnx");
    sandbox.succeeds(&format!("convert {} bert-lora.onnx_adapter", parity("lora/init")));
    sandbox.succeeds("convert adapter flat.file --to kohya");
    foreign(&sandbox);
    refuses(&sandbox, REFUSALS);
}

/// A file of ONNX Runtime's with an input that is no adapter's: a name of the same length in the place of another.
fn foreign(sandbox: &Sandbox) {
    sandbox.succeeds("convert bone bone.onnx_adapter");
    let mut bytes = sandbox.read("bone.onnx_adapter");
    let (from, to) = (&b"enc.up.miss_block"[..], &b"enc.up.colour"[..]);
    let at = bytes.windows(from.len()).position(|w| w == from).expect("the name is there");
    bytes[at..at + to.len()].copy_from_slice(to);
    bytes[at - 4..at].copy_from_slice(&(to.len() as u32).to_le_bytes());
    sandbox.write("foreign.onnx_adapter", bytes);
    inputs(sandbox, "plain.npz", "enc.up.lora_A.weight", Tensor::f32(&[1], &[1.0]));
}

#[test]
fn hostile_files_of_every_format() {
    let sandbox = adapters();
    let bert = parity("base.onnx");
    sandbox.succeeds(&format!("inject {bert} --targets query -o query.onnx"));
    sandbox.succeeds("extract query.onnx -o a.gguf");
    for (format, extension) in
        [("onnx_adapter", "onnx_adapter"), ("npz", "npz"), ("kohya", "k"), ("diffusers", "d")]
    {
        sandbox.succeeds(&format!("convert adapter a.{extension} --to {format}"));
    }
    let mut problems = Vec::new();
    for extension in ["onnx_adapter", "npz", "k", "d", "gguf"] {
        let whole = sandbox.read(&format!("a.{extension}"));
        for n in 0..24u64 {
            let draw = |what: u64, below: usize| random::bits(11, n, what, 0) as usize % below;
            // Mostly the front, where offsets and lengths stand.
            let front = whole.len().min(400);
            let mut bytes = whole.clone();
            match n % 3 {
                0 => bytes.truncate(draw(0, whole.len())),
                1 => bytes[draw(0, front)] = [0, 1, 0x7f, 0x80, 0xff][draw(1, 5)],
                _ => {
                    let at = draw(0, front - 4);
                    bytes[at..at + 4].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
                }
            }
            sandbox.write(&format!("b.{extension}"), bytes);
            let line = format!("convert b.{extension} out --to peft --model tiny.onnx --force");
            problems.extend(sandbox.graft(&line).crash().map(|what| format!("{extension} {n}: {what}")));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
