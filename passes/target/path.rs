//! Module paths: what the model's author called the module that a linear node came from.
use super::{LINEAR_OPS, Linear, weight};
use crate::meta;
use graft_ir::{Graph, Node};
use std::collections::{HashMap, HashSet};

/// Where the dynamo exporter of PyTorch notes the module scopes of a node, as a Python list; the last entry is the
/// traced node itself.
const NAME_SCOPES: &str = "pkg.torch.onnx.name_scopes";

/// What it notes in the place of a module for nodes that come from none.
const NO_MODULE: &str = "_empty_nn_module_stack_from_metadata_hook";

/// The possible module paths of a linear, best first.
pub(super) struct Candidates(Vec<String>);

impl Candidates {
    /// From the scopes in the node's name (`/a/b/MatMul`), the exporter's notes, the parameters' names (`a.b.weight`,
    /// `a.b.bias`), and at last any name at all.
    pub(super) fn new(node: &Node, linear: &Linear, bias: Option<&str>) -> Candidates {
        let weight = Some(linear.weight.as_str());
        let module = |name: Option<&str>, suffix: &str| Some(name?.strip_suffix(suffix)?.to_string());
        let named = |name: &str| (!is_anonymous(name)).then(|| name.to_string());
        // An adapted linear keeps the path that its adapter was made for.
        let noted = node.meta.get(meta::TARGET).filter(|_| node.meta.contains_key(meta::METHOD));
        let sources = [
            noted.cloned(),
            scope(&node.name),
            node.meta.get(NAME_SCOPES).and_then(|list| last_module(list)),
            module(weight, ".weight").filter(|m| !m.contains("::")),
            module(bias, ".bias").filter(|m| !m.contains("::")),
            named(&node.name),
            named(&linear.weight),
            Some(linear.node.replace('/', ".").trim_matches('.').to_string()),
        ];
        Candidates(sources.into_iter().flatten().filter(|path| !path.is_empty()).collect())
    }
}

/// Gives each module its best path that is no other's: its first, where it is the first of no other, else one that no other
/// has at all. A number tells apart those that share all of theirs.
///
/// That another module has it as a later candidate says little: exporters keep equal biases once, under the name of one.
///
/// Linears whose first candidate is the same, numbers of the exporter aside, and whose weights are equal are uses of one
/// module.
pub(super) fn assign(graph: &Graph, found: &mut [(Linear, Candidates)]) {
    let modules = modules(graph, found);
    let (mut shared, mut firsts) = (HashMap::<String, usize>::new(), HashMap::<String, usize>::new());
    for uses in &modules {
        found[uses[0]].1.0.first().into_iter().for_each(|path| *firsts.entry(path.clone()).or_default() += 1);
        let distinct: HashSet<&String> = uses.iter().flat_map(|&i| &found[i].1.0).collect();
        distinct.into_iter().for_each(|path| *shared.entry(path.clone()).or_default() += 1);
    }
    let mut taken = HashSet::new();
    for uses in modules {
        let paths = &found[uses[0]].1.0;
        let is_first = |path: &String| paths.first() == Some(path) && firsts.get(path) == Some(&1);
        let is_free = |path: &String| shared.get(path) == Some(&1) || is_first(path);
        let own = paths.iter().find(|path| is_free(path) && !taken.contains(*path));
        let base = own.or(paths.first()).cloned().unwrap_or_else(|| "linear".into());
        let mut numbered = (1..).map(|i| format!("{base}_{i}"));
        let free = if taken.contains(&base) { numbered.find(|path| !taken.contains(path)) } else { None };
        let path = free.unwrap_or(base);
        for (nth, i) in uses.into_iter().enumerate() {
            (found[i].0.path, found[i].0.nth_use) = (path.clone(), nth);
        }
        taken.insert(path);
    }
}

/// The linears of each module, as positions in `found`.
fn modules(graph: &Graph, found: &[(Linear, Candidates)]) -> Vec<Vec<usize>> {
    let mut modules: Vec<Vec<usize>> = Vec::new();
    for (i, (linear, Candidates(paths))) in found.iter().enumerate() {
        let is_use = |uses: &&mut Vec<usize>| {
            let (first, candidates) = &found[uses[0]];
            let both = candidates.0.first().zip(paths.first());
            both.is_some_and(|(a, b)| is_again(a, b)) && is_same_weight(graph, first, linear)
        };
        match modules.iter_mut().find(is_use) {
            Some(uses) => uses.push(i),
            None => modules.push(vec![i]),
        }
    }
    modules
}

/// Whether `path` is `first`, or that with the numbers that the TorchScript exporter gives to a scope that it enters
/// again: `attention.query` → `attention.query_1`.
fn is_again(first: &str, path: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let numbered =
        |a: &str, b: &str| b.strip_prefix(a).and_then(|rest| rest.strip_prefix('_')).is_some_and(is_number);
    first.split('.').count() == path.split('.').count()
        && first.split('.').zip(path.split('.')).all(|(a, b)| a == b || numbered(a, b))
}

/// Whether two linears of the top level have one weight, be it that an exporter wrote it twice.
fn is_same_weight(graph: &Graph, a: &Linear, b: &Linear) -> bool {
    let form = |l: &Linear| (l.index.is_some(), l.d_in, l.d_out, l.layout, l.dtype);
    let is_copy = || weight(graph, a).zip(weight(graph, b)).is_some_and(|(a, b)| a == b);
    form(a) == form(b) && a.index.is_some() && (a.weight == b.weight || (a.steps == b.steps && is_copy()))
}

/// The module that a node belongs to, by the scopes in its name or the exporter's notes; empty for the top level.
pub fn module(node: &Node) -> String {
    let noted = || node.meta.get(NAME_SCOPES).and_then(|list| last_module(list));
    scope(&node.name).or_else(noted).unwrap_or_default()
}

/// The scopes of a node's name: `/bert/encoder/layer.0/query/MatMul` → `bert.encoder.layer.0.query`.
fn scope(name: &str) -> Option<String> {
    let (scopes, _) = name.rsplit_once('/')?;
    let mut scopes: Vec<&str> = scopes.split('/').filter(|s| !s.is_empty()).collect();
    // TensorFlow's call of the whole function, and its product of a tensor, are no modules of the author.
    scopes.retain(|s| !s.starts_with("StatefulPartitionedCall"));
    if scopes.len() > 1 && scopes.last() == Some(&"Tensordot") {
        scopes.pop();
    }
    (!scopes.is_empty()).then(|| scopes.join("."))
}

/// The last module in a Python list of scopes: `['', 'bert', 'bert.pooler', 'linear_12']` → `bert.pooler`.
fn last_module(list: &str) -> Option<String> {
    let inner = list.trim().strip_prefix('[')?.strip_suffix(']')?;
    let entries: Vec<&str> = inner.split(',').map(|e| e.trim().trim_matches(['\'', '"'])).collect();
    let (_, modules) = entries.split_last()?;
    modules.last().filter(|m| !m.is_empty() && **m != NO_MODULE).map(|m| (*m).to_string())
}

/// Whether a name was made up by an exporter: `onnx::MatMul_356`, `val_95`, `node_MatMul_94`, `Gemm_1`, `12`, or none.
/// The name may tell of another op than the node's: a rewritten linear keeps its name, and so must keep its path.
fn is_anonymous(name: &str) -> bool {
    let leaf = name.rsplit('/').next().unwrap_or(name);
    let bare = leaf.strip_prefix("node_").unwrap_or(leaf);
    let stem = bare.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_');
    let is_op =
        LINEAR_OPS.iter().any(|(op, ..)| stem.eq_ignore_ascii_case(op.rsplit('.').next().unwrap_or(op)));
    name.contains("::") || is_op || stem.is_empty() || stem == "val" || bare.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_become_paths() {
        assert_eq!(
            scope("/bert/encoder/layer.0/query/MatMul").as_deref(),
            Some("bert.encoder.layer.0.query")
        );
        assert_eq!(scope("bert/pooler/Gemm").as_deref(), Some("bert.pooler"));
        assert_eq!(scope("/Gemm"), None);
        assert_eq!(
            scope("StatefulPartitionedCall/bert/layer_0/dense/Tensordot/MatMul").as_deref(),
            Some("bert.layer_0.dense")
        );
        assert_eq!(scope("StatefulPartitionedCall/MatMul"), None);
        assert_eq!(scope("node_MatMul_94"), None);
    }

    #[test]
    fn a_bias_that_several_share_names_none_of_them() {
        let text = r#"<ir_version: 8, opset_import: ["" : 17]>
            g (float[n, 2] x) => (float[n, 2] y) <
              float[2, 2] v = {1, 2, 3, 4}, float[2, 2] w = {5, 6, 7, 8}, float[2] "a.fc.bias" = {0, 0}
            > {
              ["/a/fc/MatMul"] p = MatMul (x, v)
              ["/a/fc/Add"] q = Add ("a.fc.bias", p)
              ["/b/fc/MatMul"] r = MatMul (q, w)
              ["/b/fc/Add"] y = Add ("a.fc.bias", r)
            }"#;
        let mut graph = graft_ir::parse(text).unwrap();
        graft_ir::infer::infer(&mut graph).unwrap();
        let paths: Vec<String> =
            crate::target::targets(&graph).unwrap().into_iter().map(|linear| linear.path).collect();
        assert_eq!(paths, ["a.fc", "b.fc"]);
    }

    #[test]
    fn scopes_that_are_entered_again_are_numbered() {
        assert!(is_again("a.layers.0.query", "a.layers.0.query") && is_again("a.b.c", "a.b_1.c_12"));
        for other in ["a.b.d", "a.b.c_", "a.b.c1", "a.b.c_x", "b.c", "a.b.c.d_1"] {
            assert!(!is_again("a.b.c", other), "{other}");
        }
    }

    #[test]
    fn the_traced_node_is_no_module() {
        let list = "['', 'bert', 'bert.pooler', 'bert.pooler.dense', 'linear_12']";
        assert_eq!(last_module(list).as_deref(), Some("bert.pooler.dense"));
        assert_eq!(last_module("['', 'linear']"), None);
        assert_eq!(last_module("nonsense"), None);
        assert_eq!(last_module("['_empty_nn_module_stack_from_metadata_hook', 'sym_size_int_25']"), None);
    }

    #[test]
    fn names_of_exporters_are_anonymous() {
        for name in ["onnx::MatMul_356", "val_95", "node_MatMul_94", "/MatMul_1", "/Gemm", "MatMul", "12", ""]
        {
            assert!(is_anonymous(name), "{name}");
        }
        for name in ["w1", "fc", "m.decoder.weight_ih_l0", "node_linear"] {
            assert!(!is_anonymous(name), "{name}");
        }
    }
}
