//! Functions of the domain `graft` whose bodies are written once, as text, for opset 18.
use crate::{Code, Error, Function, Graph, Result, error::nearest, opset, parse_functions};
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

/// The texts, one for each family.
const TEXTS: &[&str] = &[
    include_str!("library/activation.onnxtxt"),
    include_str!("library/attention.onnxtxt"),
    include_str!("library/gather.onnxtxt"),
    include_str!("library/loss.onnxtxt"),
    include_str!("library/norm.onnxtxt"),
    include_str!("library/optimizer.onnxtxt"),
    include_str!("library/penalty.onnxtxt"),
    include_str!("library/random.onnxtxt"),
    include_str!("library/reduce.onnxtxt"),
    include_str!("library/rotary.onnxtxt"),
];

/// The opset version of bodies that do not say which they are written for.
pub const WRITTEN_FOR: i64 = 18;

fn all() -> &'static BTreeMap<String, Function> {
    static ALL: OnceLock<BTreeMap<String, Function>> = OnceLock::new();
    ALL.get_or_init(|| {
        let functions = TEXTS.iter().flat_map(|text| parse_functions(text).expect("library texts parse"));
        functions.map(|f| (f.name.clone(), f)).collect()
    })
}

/// The names of all library functions, sorted.
pub fn functions() -> impl Iterator<Item = &'static str> {
    all().keys().map(String::as_str)
}

/// A library function as it is written, for opset 18.
pub fn get(name: &str) -> Option<&'static Function> {
    all().get(name)
}

/// Makes sure that `graph` has the library function `name`, and those that it calls, spelled for its opset.
///
/// # Errors
/// [`Code::UNKNOWN_OP`] if there is no such function; [`Code::OPSET`] if it cannot be said in the graph's opset.
pub fn require(graph: &mut Graph, name: &str) -> Result<()> {
    if graph.functions.contains_key(name) {
        return Ok(());
    }
    let unknown = || {
        let near = nearest(name, functions()).join("`, `");
        Error::new(Code::UNKNOWN_OP, format!("there is no library function `{name}`"))
            .help(format!("nearest: `{near}`"))
    };
    adopt(graph, get(name).ok_or_else(unknown)?)
}

/// Puts `function` into `graph`, spelled for its opset, with the library functions that it calls;
/// a function of that name that is there already stays.
///
/// # Errors
/// [`Code::OPSET`] if it cannot be said in the graph's opset, or the graph imports none.
pub fn adopt(graph: &mut Graph, function: &Function) -> Result<()> {
    if graph.functions.contains_key(&function.name) {
        return Ok(());
    }
    let none = || Error::new(Code::OPSET, "the graph imports no opset of ONNX's own domain");
    let version = graph.opset("").ok_or_else(none)?;
    let mut spelled = function.clone();
    spelled.body.opsets.entry(String::new()).or_insert(WRITTEN_FOR);
    opset::respell(&mut spelled.body, version).map_err(|e| e.at(format!("function `{}`", function.name)))?;
    let calls: Vec<String> =
        spelled.body.nodes.iter().map(|n| n.op.clone()).filter(|op| op.starts_with("graft.")).collect();
    if !calls.is_empty() {
        spelled.body.opsets.insert("graft".into(), 1);
    }
    graph.opsets.entry("graft".into()).or_insert(1);
    graph.functions.insert(function.name.clone(), Arc::new(spelled));
    // What it calls is of the library, unless the caller puts it in beside it.
    calls.iter().filter(|op| get(op).is_some()).try_for_each(|op| require(graph, op))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify;

    #[test]
    fn texts_print_as_they_parse() {
        for name in functions() {
            let text = get(name).unwrap().to_string();
            assert_eq!(parse_functions(&text).unwrap()[0].to_string(), text);
        }
    }

    #[test]
    fn every_function_is_valid_at_every_opset() {
        for version in [14, 17, 18, 20, 21] {
            let mut graph = Graph::default();
            graph.opsets.insert(String::new(), version);
            functions().for_each(|name| require(&mut graph, name).unwrap());
            assert_eq!(verify(&graph), [], "opset {version}");
            assert!(functions().all(|f| graph.functions[f].body.opset("") == Some(version)));
        }
    }

    #[test]
    fn a_call_brings_what_it_calls() {
        let text = "Outer (x, s) => (y) {\n  y = graft.ReduceTo (x, s)\n}\n";
        let outer = &parse_functions(text).unwrap()[0];
        let mut graph = Graph::default();
        assert_eq!(adopt(&mut graph, outer).unwrap_err().code, Code::OPSET);
        graph.opsets.insert(String::new(), 14);
        adopt(&mut graph, outer).unwrap();
        assert!(graph.functions.contains_key("graft.ReduceTo"));
        assert_eq!(graph.opset("graft"), Some(1));
    }

    #[test]
    fn an_old_opset_is_refused_by_name() {
        let mut graph = Graph::default();
        graph.opsets.insert(String::new(), 12);
        let e = require(&mut graph, "graft.ReduceTo").unwrap_err();
        assert_eq!(e.code, Code::OPSET);
        assert!(e.at.contains(&"function `graft.ReduceTo`".into()), "{e}");
        let e = require(&mut graph, "graft.ReduceTwo").unwrap_err();
        assert!(e.help.unwrap().contains("graft.ReduceTo"));
    }
}
