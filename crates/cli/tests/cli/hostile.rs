//! Hostile files through the binary: a message or a result, in bounded time and memory, never a crash.
use crate::{
    fixtures::{TINY, TOKENIZER, onnx, sandbox},
    sandbox::{Outcome, Sandbox},
};
use graft_ir::random;
use graft_onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto};
use prost::Message as _;
use std::collections::BTreeMap;

/// What `line` leads to must be no crash; the problem, if it is one.
fn crash(sandbox: &Sandbox, line: &str) -> Option<String> {
    sandbox.graft(line).crash().map(|problem| format!("graft {line}: {problem}"))
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "{} problems\n{}", problems.len(), problems.join("\n"));
}

/// Writes `bytes` as a model, looks at it and runs it: each must be refused with `code`, an exit code.
fn refused(sandbox: &Sandbox, name: &str, bytes: &[u8], code: i32) {
    sandbox.write(name, bytes);
    for line in [format!("inspect {name}"), format!("targets {name}"), format!("verify {name} {name}")] {
        let outcome = sandbox.graft(&line);
        assert_eq!((outcome.code, outcome.crash()), (code, None), "{line}: {}", outcome.stderr);
        assert!(outcome.stderr.len() < 4000, "{line}: {} bytes of message", outcome.stderr.len());
    }
}

#[test]
fn records_that_lie_repeat_or_nest() {
    let sandbox = Sandbox::empty();
    let graph = |body: Vec<u8>| {
        let mut bytes = vec![0x08, 8, 0x42, 4, 0x0a, 0, 0x10, 17, 0x3a];
        prost::encoding::encode_varint(body.len() as u64, &mut bytes);
        bytes.extend(body);
        bytes
    };
    refused(&sandbox, "nodes.onnx", &graph([0x0a, 0].repeat(16 << 20)), 3);
    for lie in [1 << 20, 1 << 40, u64::MAX] {
        let mut bytes = vec![0x08, 8, 0x3a];
        prost::encoding::encode_varint(lie, &mut bytes);
        refused(&sandbox, "lies.onnx", &bytes, 3);
    }
    let mut deep = Vec::new();
    for key in [0x32, 0x2a, 0x0a].into_iter().cycle().take(6000) {
        let mut outer = vec![key];
        prost::encoding::encode_varint(deep.len() as u64, &mut outer);
        deep.splice(0..0, outer);
    }
    refused(&sandbox, "deep.onnx", &graph(deep), 3);
    // As deep as the reader lets it, which every later recursion has to bear.
    for depth in [10, 25, 30, 33] {
        sandbox.write("nested.onnx", nested(depth).encode_to_vec());
        let lines = [
            "inspect nested.onnx --text",
            "targets nested.onnx",
            "opt nested.onnx -o -",
            "verify nested.onnx nested.onnx",
        ];
        report(lines.iter().filter_map(|line| crash(&sandbox, line)).collect());
    }
}

/// If nodes in each other's branches.
fn nested(depth: usize) -> ModelProto {
    let mut model = ModelProto::decode(&onnx(TINY)[..]).expect("the model decodes");
    let mut body = GraphProto { name: Some("leaf".into()), ..GraphProto::default() };
    for _ in 0..depth {
        let branch = |name: &str| AttributeProto {
            name: Some(name.into()),
            r#type: Some(5),
            g: Some(Box::new(body.clone())),
            ..AttributeProto::default()
        };
        let node = NodeProto {
            op_type: Some("If".into()),
            input: vec!["logits".into()],
            attribute: vec![branch("then_branch")],
            ..NodeProto::default()
        };
        body = GraphProto { name: Some("body".into()), node: vec![node], ..GraphProto::default() };
    }
    if let Some(graph) = &mut model.graph {
        graph.node.extend(body.node);
    }
    model
}

#[test]
fn texts_that_nest_repeat_or_grow() {
    let sandbox = Sandbox::empty();
    let model = |graph: String| format!("<ir_version: 8, opset_import: [\"\" : 17]>\n{graph}");
    let deep_if = "g () => () { If <then_branch = ".repeat(20_000);
    let parens = format!("g (float[\"{}a{}\"] x) => () {{ }}", "(".repeat(100_000), ")".repeat(100_000));
    let sizes = |n: usize| (0..n).map(|i| format!("\"a{i} + b{i} + 1\"")).collect::<Vec<_>>().join(", ");
    let power = format!("g (float[\"{}\"] x) => () {{ }}", vec!["(a + b + c + d)"; 60].join(" * "));
    let flatten = format!("g (float[{}] x) => (float[n, m] y) {{ y = Flatten <axis = 20> (x) }}", sizes(40));
    let size = format!("g (float[{}] x) => (int64 y) {{ y = Size (x) }}", sizes(40));
    let twice = |i: usize| format!("local.f{} (x) => (y) {{ a = local.f{i} (x) y = local.f{i} (a) }}", i + 1);
    let bodies: Vec<String> = (0..60).map(twice).collect();
    let laughs = format!(
        "<ir_version: 8, opset_import: [\"\" : 17, \"local\" : 1]>\ng (float[2] x) => (float[2] y) {{ y = local.f60 (x) }}\n\
         <domain: \"local\", opset_import: [\"\" : 17, \"local\" : 1]>\nf0 (x) => (y) {{ y = Neg (x) }}\n{}",
        bodies
            .iter()
            .map(|b| format!(
                "<domain: \"local\", opset_import: [\"\" : 17, \"local\" : 1]>\n{}\n",
                b.replacen("local.", "", 1)
            ))
            .collect::<String>()
    );
    let texts = [
        ("deep", model(deep_if)),
        ("parens", model(parens)),
        ("power", model(power)),
        ("flatten", model(flatten)),
        ("size", model(size)),
        ("laughs", laughs),
        (
            "long",
            model(format!("g (float[2] x) => (float[2] y) {{ y = Neg <a = {}> (x) }}", "[".repeat(100_000))),
        ),
        ("name", model(format!("g (float[2] x) => (float[2] y) {{ y = {} (x) }}", "N".repeat(1 << 20)))),
    ];
    let mut problems = Vec::new();
    for (name, text) in texts {
        sandbox.write(&format!("{name}.onnxtxt"), text);
        for line in
            ["inspect", "opt -p canonicalize,inline -o out.onnx --force", "targets", "bench --steps 1"]
        {
            let (command, flags) = line.split_once(' ').unwrap_or((line, ""));
            problems.extend(crash(&sandbox, &format!("{command} {name}.onnxtxt {flags}")));
        }
    }
    report(problems);
}

/// One node with numbers that no size can bear: attributes and small constants.
const ABSURD: &[&str] = &[
    "s = Constant <value_ints = [4611686018427387904, 8]> () y = ConstantOfShape (s)",
    "s = Constant <value_ints = [1099511627776]> () y = ConstantOfShape (s)",
    "s = Constant <value_ints = [-3]> () y = ConstantOfShape (s)",
    "s = Constant <value_ints = [1099511627776, 1048576, 2, 3]> () y = Expand (x, s)",
    "s = Constant <value_ints = [9223372036854775807, 9223372036854775807]> () y = Tile (x, s)",
    "s = Constant <value_ints = [-1, -1]> () y = Reshape (x, s)",
    "s = Constant <value_ints = [9223372036854775807, 2]> () y = Reshape (x, s)",
    "s = Constant <value_ints = [9223372036854775807]> () y = Unsqueeze (x, s)",
    "s = Constant <value_ints = [-9223372036854775808]> () y = Squeeze (x, s)",
    "s = Constant <value_ints = [9223372036854775807, 0, 9223372036854775807, 0]> () y = Pad (x, s)",
    "s = Constant <value_ints = [-9223372036854775808, 0, 0, 0]> () y = Pad (x, s)",
    "a = Constant <value_int = 0> () b = Constant <value_int = 9223372036854775807> () c = Constant <value_int = 1> () y = Range (a, b, c)",
    "a = Constant <value_int = 0> () b = Constant <value_int = 9> () c = Constant <value_int = 0> () y = Range (a, b, c)",
    "a = Constant <value_int = -9223372036854775808> () b = Constant <value_int = 9223372036854775807> () c = Constant <value_int = -1> () y = Range (a, b, c)",
    "s = Constant <value_ints = [-9223372036854775808]> () e = Constant <value_ints = [9223372036854775807]> () y = Slice (x, s, e, s, e)",
    "s = Constant <value_ints = [0]> () e = Constant <value_ints = [9]> () t = Constant <value_ints = [-9223372036854775808]> () y = Slice (x, s, e, s, t)",
    "s = Constant <value_ints = [0]> () e = Constant <value_ints = [9]> () t = Constant <value_ints = [0]> () y = Slice (x, s, e, s, t)",
    "y = Flatten <axis = 9223372036854775807> (x)",
    "y = Transpose <perm = [0, 9223372036854775807]> (x)",
    "y = Transpose <perm = [0, 0]> (x)",
    "y = Concat <axis = -9223372036854775808> (x, x)",
    "y = Softmax <axis = -9223372036854775808> (x)",
    "y = ReduceMean <axes = [-9223372036854775808]> (x)",
    "y = ReduceSum <keepdims = 9> (x, x)",
    "i = Constant <value_ints = [9223372036854775807]> () y = Gather (x, i)",
    "i = Constant <value_ints = [-9223372036854775808]> () y = Gather (x, i)",
    "i = Constant <value_ints = [0]> () y = Gather <axis = -9223372036854775808> (x, i)",
    "i = Constant <value_ints = [1]> () y = GatherND <batch_dims = 9223372036854775807> (x, i)",
    "s = Constant <value_ints = [9223372036854775807, 1]> () y, z = Split (x, s)",
    "d = Constant <value_int = 9223372036854775807> () v = Constant <value_floats = [0.0, 1.0]> () i = Constant <value_ints = [1]> () y = OneHot (i, d, v)",
    "k = Constant <value_ints = [9223372036854775807]> () y, z = TopK (x, k)",
    "y = Einsum <equation = \"ij,jk->ikkkkkk\"> (x, x)",
    "y = Einsum <equation = \"...\"> (x)",
    "y = EyeLike <k = -9223372036854775808> (x)",
    "y = Trilu <upper = 7> (x)",
    "y = LayerNormalization <axis = -9223372036854775808> (x, x)",
    "y = Cast <to = 9223372036854775807> (x)",
    "y = CumSum (x, x)",
    "y = Gemm <alpha = 1e38, transA = 9223372036854775807> (x, x)",
    "y = Conv <group = 0, strides = [0]> (x, x)",
    "y = Conv <group = 9223372036854775807, pads = [-9223372036854775808]> (x, x)",
    "y = Reshape (x, x)",
    "y = MatMul (x)",
    "y = MatMul ()",
    "y = Neg (x, x, x, x)",
    "a, b, y = Neg (x)",
    "y = Shape <start = -9223372036854775808, end = 9223372036854775807> (x)",
    "y = Split <num_outputs = 0> (x)",
    "y = SoftmaxCrossEntropyLoss <ignore_index = -9223372036854775808> (x, x)",
    "y = ArgMax <axis = 9223372036854775807> (x)",
    "y = DequantizeLinear <axis = 9223372036854775807> (x, x, x)",
    "y = Where (x, x, x)",
    "y = Clip (x, x, x)",
    "y = Pow (x, x)",
    "y = Mod (x, x)",
    "y = BitShift <direction = \"UP\"> (x, x)",
    "y = Conv <strides = [9223372036854775807], pads = [9223372036854775807, 9223372036854775807]> (x, x)",
    "y = MaxPool <kernel_shape = [9223372036854775807]> (x)",
    "y = MaxPool <kernel_shape = [1, 1], strides = [-1, 0]> (x)",
    "a = Constant <value = float[1, 1, 2] {1, 2}> () y = MaxPool <kernel_shape = [1], ceil_mode = 1, strides = [9223372036854775807], pads = [9223372036854775807, 9223372036854775807]> (a)",
    "a = Constant <value = float[1, 1, 2] {1, 2}> () y = AveragePool <kernel_shape = [9223372036854775807], dilations = [9223372036854775807]> (a)",
    "a = Constant <value = float[1, 1, 2] {1, 2}> () y = LpPool <kernel_shape = [1], p = -9223372036854775808> (a)",
    "a = Constant <value = float[1, 1, 2] {1, 2}> () y = Conv <group = 9223372036854775807> (a, a)",
    "y = QuantizeLinear <axis = -9223372036854775808, block_size = -1> (x, x)",
    "y = DequantizeLinear <axis = 1, block_size = 9223372036854775807> (x, x)",
    "y = Attention <q_num_heads = 9223372036854775807, kv_num_heads = 0> (x, x, x)",
    "y = RotaryEmbedding <rotary_embedding_dim = 9223372036854775807> (x, x, x)",
    "y = GroupNormalization <num_groups = -9223372036854775808> (x, x, x)",
    "y = InstanceNormalization (x, x, x)",
    "y = BatchNormalization (x, x, x, x, x)",
    "y = LpNormalization <axis = 9223372036854775807, p = 9> (x)",
    "y = LRN <size = 9223372036854775807> (x)",
    "i = Constant <value = int64[1, 1] {9223372036854775807}> () y = ScatterND (x, i, x)",
    "i = Constant <value = int64[1, 1] {-9223372036854775808}> () y = ScatterElements <axis = -9223372036854775808> (x, i, x)",
    "i = Constant <value = int64[1, 1] {-9223372036854775808}> () y = GatherElements (x, i)",
    "i = Constant <value = int64[1, 9] {0, 0, 0, 0, 0, 0, 0, 0, 0}> () y = GatherND (x, i)",
];

#[test]
fn numbers_that_no_size_can_bear() {
    let sandbox = Sandbox::empty();
    let mut problems = Vec::new();
    for (i, body) in ABSURD.iter().enumerate() {
        for (opset, input) in [(17, "float[2, 3] x"), (17, "int64[n, m] x"), (11, "float[] x")] {
            let name = format!("{i}-{opset}.onnxtxt");
            let text =
                format!("<ir_version: 8, opset_import: [\"\" : {opset}]>\ng ({input}) => (y) {{ {body} }}\n");
            sandbox.write(&name, text);
            let lines = [format!("opt {name} -p canonicalize,fold,fuse"), format!("verify {name} {name}")];
            problems.extend(
                lines
                    .iter()
                    .filter_map(|line| crash(&sandbox, line))
                    .map(|p| format!("{body} on {input}: {p}")),
            );
        }
    }
    report(problems);
}

#[test]
fn sizes_beyond_memory() {
    let sandbox = sandbox();
    sandbox.write("fixed.onnxtxt", "<ir_version: 8, opset_import: [\"\" : 17]>\ng (float[4611686018427387904, 8] x) => (y) { y = Neg (x) }");
    sandbox.write("outer.onnxtxt", "<ir_version: 8, opset_import: [\"\" : 17]>\ng (float[n, 1] a, float[1, n] b) => (y) { y = Add (a, b) }");
    for (line, code) in [
        ("verify tiny.onnx tiny.onnx --sizes batch=1000000000000", 3),
        ("verify tiny.onnx tiny.onnx --sizes batch=18446744073709551615,seq=2", 3),
        ("verify fixed.onnxtxt fixed.onnxtxt", 3),
        ("verify outer.onnxtxt outer.onnxtxt --sizes n=1000000", 3),
        ("bench tiny.onnx --batch 1000000000000 --seq 100", 3),
        ("bench tiny.onnx --train --targets up --batch 1000000000000 --seq 100", 3),
        ("inject tiny.onnx --targets up --rank 4000000000 -o out.onnx", 3),
        (
            "train tiny.onnx --data data.jsonl --loss cross-entropy --targets up --rank 4000000000 --out out",
            3,
        ),
        (
            "train tiny.onnx --data data.jsonl --loss cross-entropy --targets up --head classify:99999999999 --out out",
            3,
        ),
    ] {
        let outcome = sandbox.graft(line);
        assert_eq!((outcome.code, outcome.crash()), (code, None), "{line}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("error[G0604]: "), "{line}: {}", outcome.stderr);
    }
    // Whatever a method multiplies its rank with.
    let methods = graft_passes::inject::METHODS.iter();
    let lines = methods
        .map(|m| format!("inject tiny.onnx --targets up --rank 4294967295 --method {} -o out.onnx", m.name));
    report(lines.filter_map(|line| crash(&sandbox, &line)).collect());
    // More rows to a batch than there are is no more than all of them.
    sandbox.succeeds(
        "train tiny.onnx --data data.jsonl --loss cross-entropy --targets up --batch 1000000000000 --out out",
    );
}

/// Bytes with some of them changed, left out, doubled or put in, by a counter-based draw.
fn mutated(bytes: &[u8], seed: u64) -> Vec<u8> {
    let draw = |i: u64, below: usize| random::bits(seed, 0, 0, i) as usize % below.max(1);
    let mut out = bytes.to_vec();
    for edit in 0..=draw(0, 4) as u64 {
        let at = draw(4 * edit + 1, out.len());
        let byte = draw(4 * edit + 2, 256) as u8;
        match draw(4 * edit + 3, 5) {
            0 => out[at] = byte,
            1 => out[at] ^= 1 << (byte % 8),
            2 => out.insert(at, byte),
            3 => drop(out.remove(at)),
            _ => {
                let piece = out[at..out.len().min(at + usize::from(byte))].to_vec();
                out.splice(at..at, piece);
            }
        }
    }
    out
}

/// Runs `line` on mutations of the file `name`.
fn survives(name: &str, original: &[u8], n: u64, line: &str) {
    let sandbox = sandbox();
    let mut problems = Vec::new();
    for seed in 0..n {
        sandbox.write(name, mutated(original, seed));
        let after = crash(&sandbox, line).map(|problem| format!("mutation {seed}: {problem}"));
        problems.extend(after);
    }
    report(problems);
}

#[test]
fn mutated_models() {
    survives("m.onnx", &onnx(TINY), 200, "verify m.onnx m.onnx --sizes batch=2");
    survives("m.onnx", &onnx(TINY), 60, "targets m.onnx --explain");
    survives("m.onnx", &onnx(TINY), 60, "run m.onnx --inputs in.npz -o out.npz --force");
}

#[test]
fn mutated_texts() {
    survives("m.onnxtxt", TINY.as_bytes(), 120, "verify m.onnxtxt m.onnxtxt");
    survives("m.onnxtxt", TINY.as_bytes(), 60, "inject m.onnxtxt --targets up -o out.onnx --force");
}

#[test]
fn mutated_data_and_adapters() {
    let original = sandbox();
    let train = "train tiny.onnx --loss cross-entropy --targets up --steps 1 --out out --force";
    survives("in.npz", &original.read("in.npz"), 60, "run tiny.onnx --inputs in.npz -o out.npz --force");
    survives("data.jsonl", &original.read("data.jsonl"), 60, &format!("{train} --data data.jsonl"));
    let file = "adapter/adapter_model.safetensors";
    survives(file, &original.read(file), 60, "merge tiny.onnx --adapter adapter -o out.onnx --force");
    let file = "adapter/adapter_config.json";
    survives(file, &original.read(file), 60, "merge tiny.onnx --adapter adapter -o out.onnx --force");
    let line = format!("{train} --data text.jsonl --tokenizer tokenizer.json");
    survives("tokenizer.json", TOKENIZER.as_bytes(), 60, &line);
}

#[test]
fn archives_that_swell() {
    use std::io::Write as _;
    let sandbox = sandbox();
    // Zeros that take no room, under a header that asks for more than there are.
    let n: u64 = 6 << 30;
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({n},), }}");
    let file = std::fs::File::create(sandbox.path("swell.npz")).unwrap();
    let mut archive = zip::ZipWriter::new(file);
    archive.start_file("input_ids.npy", zip::write::SimpleFileOptions::default().large_file(true)).unwrap();
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    archive.write_all(b"\x93NUMPY\x01\x00").unwrap();
    archive.write_all(&(padded as u16).to_le_bytes()).unwrap();
    archive.write_all(format!("{header:<width$}\n", width = padded - 1).as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    (0..64).for_each(|_| archive.write_all(&zeros).unwrap());
    archive.finish().unwrap();
    let outcome = sandbox.graft("run tiny.onnx --inputs swell.npz -o out.npz");
    assert_eq!((outcome.code, outcome.crash()), (3, None), "{}", outcome.stderr);
}

#[test]
fn external_data_outside_the_folder() {
    let sandbox = sandbox();
    sandbox.write("secret", [0; 64]);
    std::fs::create_dir(sandbox.path("model")).unwrap();
    std::os::unix::fs::symlink("../secret", sandbox.path("model/link")).unwrap();
    std::os::unix::fs::symlink("..", sandbox.path("model/up")).unwrap();
    let absolute = sandbox.path("secret");
    for location in ["../secret", "link", "up/secret", "missing", "", absolute.to_str().unwrap()] {
        let mut model = ModelProto::decode(&onnx(TINY)[..]).unwrap();
        let weight = &mut model.graph.as_mut().unwrap().initializer[1];
        let entries = BTreeMap::from([("location", location), ("length", "64")]);
        weight.raw_data = None;
        weight.data_location = Some(1);
        weight.external_data = entries
            .into_iter()
            .map(|(k, v)| graft_onnx::proto::StringStringEntryProto {
                key: Some(k.into()),
                value: Some(v.into()),
            })
            .collect();
        refused(&sandbox, "model/m.onnx", &model.encode_to_vec(), 3);
        let outcome: Outcome = sandbox.graft("inspect model/m.onnx");
        assert!(
            outcome.stderr.contains("error[G0204]: ") && outcome.stderr.contains("`up`"),
            "{}",
            outcome.stderr
        );
    }
}

#[test]
fn selectors_that_explode() {
    let sandbox = sandbox();
    for selector in
        ["re:(a{1000}){1000}", "re:((((((((((x{99}){99}){99}){99}){99}){99}", "re:(?:a?){500}a{500}", "re:\\"]
    {
        let outcome = sandbox.graft(&format!("targets tiny.onnx --targets {selector}"));
        assert!(
            [2, 4].contains(&outcome.code) && outcome.crash().is_none(),
            "{selector}: {}",
            outcome.stderr
        );
    }
}
