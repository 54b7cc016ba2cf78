//! Commands that read: their JSON, with the fields that scripts may rely on.
use crate::{
    fixtures::{TINY, parity, sandbox},
    sandbox::Sandbox,
};
use serde_json::Value;

/// Fails unless `value` is an object that has `keys`.
fn has(value: &Value, keys: &str) {
    for key in keys.split(' ') {
        assert!(value.get(key).is_some(), "no `{key}` in {value}");
    }
}

/// The JSON object that a command prints, which must be all it prints.
fn object(sandbox: &Sandbox, line: &str) -> Value {
    let outcome = sandbox.succeeds(line);
    assert_eq!(outcome.stdout.lines().count(), 1, "{line}: {}", outcome.stdout);
    let command = line.split(' ').next().unwrap_or_default();
    let value = outcome.json();
    let schema = if command == "merge" { "graft.verify/1".into() } else { format!("graft.{command}/1") };
    assert_eq!(value["schema"], Value::String(schema));
    value
}

#[test]
fn inspect() {
    let sandbox = sandbox();
    let value = object(&sandbox, "inspect tiny.onnx --json");
    has(&value, "schema ir_version opsets nodes ops parameters bytes inputs outputs adapters");
    assert_eq!(value["opsets"]["ai.onnx"], 17);
    assert_eq!(value["ops"]["MatMul"], 2);
    assert_eq!((&value["parameters"], &value["bytes"]), (&52.into(), &208.into()));
    assert_eq!(
        value["inputs"],
        serde_json::json!([{"name": "input_ids", "dtype": "int64", "shape": ["batch", "seq"]}])
    );
    assert_eq!(value["outputs"][0]["shape"], serde_json::json!(["batch", 3]));
    sandbox.succeeds("inject tiny.onnx --targets up --rank 2 --alpha 4 -o adapted.onnx");
    let adapters = &object(&sandbox, "inspect adapted.onnx --json")["adapters"];
    has(&adapters[0], "target method rank alpha parameters nodes");
    assert_eq!((&adapters[0]["target"], &adapters[0]["rank"]), (&"enc.up".into(), &2.into()));
    assert_eq!((&adapters[0]["alpha"], &adapters[0]["parameters"]), (&4.0.into(), &16.into()));
    let tree = sandbox.succeeds("inspect adapted.onnx --tree --ops --trainable").stdout;
    assert!(tree.contains("lora rank 2") && tree.contains("MatMul") && tree.contains("gradient"), "{tree}");
    assert!(sandbox.succeeds("inspect tiny.onnx --sizes batch=1000000").stdout.contains("0.056 GFLOP"));
}

#[test]
fn targets() {
    let sandbox = sandbox();
    let value = object(&sandbox, "targets tiny.onnx --json");
    let targets = value["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 2);
    for target in targets {
        has(target, "path node op layout in out weight dtype eligible matched reason");
    }
    assert_eq!((&targets[0]["path"], &targets[0]["matched"]), (&"enc.up".into(), &true.into()));
    assert_eq!((&targets[1]["out"], &targets[1]["matched"]), (&3.into(), &false.into()));
    let why = sandbox.succeeds("targets tiny.onnx --explain").stdout;
    assert!(why.contains("matched") && why.contains("output"), "{why}");
    // A question, which a model without linears answers too.
    sandbox.write(
        "none.onnxtxt",
        "<ir_version: 8, opset_import: [\"\" : 17]>\ng (float[2] x) => (float[2] y) { y = Neg (x) }",
    );
    assert_eq!(object(&sandbox, "targets none.onnxtxt --json")["targets"], serde_json::json!([]));
}

#[test]
fn methods_and_codes() {
    let sandbox = Sandbox::empty();
    let methods = object(&sandbox, "methods --size 10x20 --rank 2 --json");
    let lora = methods["methods"].as_array().unwrap().iter().find(|m| m["name"] == "lora").unwrap();
    has(lora, "name formula parameters mergeable peft_type");
    assert_eq!((&lora["parameters"]["count"], &lora["peft_type"]), (&60.into(), &"LORA".into()));
    has(&object(&sandbox, "explain g0302 --json")["codes"][0], "code exit explanation");
}

#[test]
fn verify_and_merge() {
    let sandbox = sandbox();
    for line in [
        "verify tiny.onnx tiny.onnxtxt --json",
        "verify tiny.onnx tiny.onnx --inputs in.npz --json",
        "merge tiny.onnx --adapter adapter --verify --json -o merged.onnx",
    ] {
        let value = object(&sandbox, line);
        has(&value, "outputs ok");
        has(&value["outputs"][0], "name max_abs max_rel");
        assert_eq!(value["ok"], true, "{line}");
    }
    // What only one side has is never passed over in silence.
    sandbox.write(
        "more.onnxtxt",
        TINY.replace("(float[batch, 3] logits) <", "(float[batch, 3] logits, float[batch, 4] h) <"),
    );
    let outcome = sandbox.succeeds("verify tiny.onnx more.onnxtxt");
    assert!(outcome.stderr.contains("warning: output `h`"), "{}", outcome.stderr);
    assert_eq!(sandbox.graft("verify more.onnxtxt tiny.onnx").code, 3);
}

#[test]
fn diff() {
    let sandbox = sandbox();
    let same = object(&sandbox, "diff tiny.onnx tiny.onnxtxt --json");
    assert_eq!((&same["same"], &same["changes"]), (&true.into(), &serde_json::json!([])));
    assert_eq!(sandbox.succeeds("diff tiny.onnx tiny.onnx").stdout, "");
    sandbox.succeeds("inject tiny.onnx --targets up --rank 2 -o adapted.onnx");
    let outcome = sandbox.graft("diff tiny.onnx adapted.onnx --json");
    assert_eq!(outcome.code, 1);
    let value = outcome.json();
    let changes = value["changes"].as_array().unwrap();
    let of = |name: &str| changes.iter().find(|c| c["name"] == name).unwrap();
    has(of("enc.up.lora_a"), "part name before after method target distance");
    assert_eq!(
        (&of("enc.up.lora_a")["method"], &of("enc.up.lora_a")["target"]),
        (&"lora".into(), &"enc.up".into())
    );
    assert_eq!(
        (&of("enc.up.lora_a")["part"], &of("enc.up.lora_a")["before"]),
        (&"weights".into(), &Value::Null)
    );
    // The base weights are where they were.
    assert!(changes.iter().all(|c| c["name"] != "up" && c["name"] != "down"), "{value}");
    let text = sandbox.graft("diff tiny.onnx other.onnx").stdout;
    assert!(text.contains("~ down") && text.contains("max|a−b| 5.000e-1"), "{text}");
    let text = sandbox.graft("--color always diff tiny.onnx adapted.onnx").stdout;
    assert!(text.contains("\x1b[32m+ enc.up.lora_a") && text.contains("lora on enc.up"), "{text}");
    assert_eq!(sandbox.graft("diff adapted.onnx tiny.onnx --stat").stdout.lines().count(), 4);
}

#[test]
fn bench() {
    let sandbox = sandbox();
    for flags in ["", "--train --targets up", "--train --targets up --inlined"] {
        let value = object(&sandbox, &format!("bench tiny.onnx {flags} --batch 2 --seq 3 --steps 2 --json"));
        has(&value, "step_ms tokens_per_s flops_per_s peak_fraction rss_mb threads precision method");
        has(&value["step_ms"], "median min");
        assert_eq!((&value["precision"], value["method"].is_null()), (&"f32".into(), flags.is_empty()));
    }
}

#[test]
fn metrics() {
    let sandbox = sandbox();
    let line = "train tiny.onnx --data data.jsonl --eval data.jsonl --batch 4 --loss cross-entropy --targets up --epochs 2 --out run";
    sandbox.succeeds(line);
    let text = String::from_utf8(sandbox.read("run/metrics.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let (evaluations, steps): (Vec<&Value>, Vec<&Value>) =
        lines.iter().partition(|l| l.get("eval_loss").is_some());
    steps.iter().for_each(|step| has(step, "step loss lr grad_norm tokens_per_s"));
    evaluations.iter().for_each(|line| has(line, "step eval_loss accuracy"));
    let numbers: Vec<u64> = steps.iter().filter_map(|step| step["step"].as_u64()).collect();
    assert_eq!((numbers, evaluations.len()), (vec![1, 2, 3, 4], 2));
    for (name, schema) in [("graft.json", "graft.adapter/1"), ("adapter_config.json", "")] {
        let value: Value = serde_json::from_slice(&sandbox.read(&format!("run/{name}"))).unwrap();
        assert!(schema.is_empty() || value["schema"] == schema, "{name}: {value}");
    }
}

#[test]
fn a_real_model() {
    let sandbox = Sandbox::empty();
    let model = parity("base.onnx");
    let targets = object(&sandbox, &format!("targets {model} --json"));
    assert_eq!(targets["targets"].as_array().map(Vec::len), Some(14));
    assert!(object(&sandbox, &format!("inspect {model} --json"))["parameters"].as_u64() > Some(100_000));
}
