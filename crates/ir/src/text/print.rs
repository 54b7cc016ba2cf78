//! Writes the text form.
use super::{attrs, data, lexer, quotable, quoted};
use crate::{Function, Graph, Meta, Node, Type, Value};
use std::{collections::BTreeMap, fmt, fmt::Write};

/// How a graph is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrintOptions {
    /// Whether each node's line ends with the types of its results, as a comment.
    pub types: bool,
    /// Weights with more elements than this are elided.
    pub weight_elements: usize,
    /// Tensors in attributes with more elements than this are elided.
    pub constant_elements: usize,
}

impl Default for PrintOptions {
    fn default() -> PrintOptions {
        PrintOptions { types: false, weight_elements: 16, constant_elements: 256 }
    }
}

/// A list is broken into lines where it is wider than this.
const MAX_WIDTH: usize = 100;

/// The text of a graph and of its functions.
pub fn print(graph: &Graph, options: PrintOptions) -> String {
    let printer = Printer { options };
    let mut out = header(graph);
    out += &name(&graph.name);
    out += &printer.body(graph, "");
    out.push('\n');
    for function in graph.functions.values() {
        out += &printer.function(function);
    }
    out
}

/// The line of one node, without its notes.
pub(crate) fn print_node(graph: &Graph, node: &Node) -> String {
    let node = Node { meta: Meta::new(), ..node.clone() };
    Printer { options: PrintOptions::default() }.node(graph, &node, "")
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print(self, PrintOptions::default()))
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Printer { options: PrintOptions::default() }.function(self))
    }
}

fn header(graph: &Graph) -> String {
    let mut fields = Vec::new();
    if graph.ir_version != 0 {
        fields.push(format!("ir_version: {}", graph.ir_version));
    }
    if !graph.opsets.is_empty() {
        fields.push(opset_import(&graph.opsets));
    }
    if !graph.meta.is_empty() {
        let pairs: Vec<String> =
            graph.meta.iter().map(|(k, v)| format!("{}: {}", quoted(k), quoted(v))).collect();
        fields.push(format!("metadata_props: [{}]", pairs.join(", ")));
    }
    if fields.is_empty() { String::new() } else { format!("<{}>\n", fields.join(", ")) }
}

fn opset_import(opsets: &BTreeMap<String, i64>) -> String {
    let pairs: Vec<String> = opsets.iter().map(|(d, v)| format!("{} : {v}", quoted(d))).collect();
    format!("opset_import: [{}]", pairs.join(", "))
}

/// A graph's name, which the official parser wants even if it is empty.
fn name(name: &str) -> String {
    quotable(name)
}

struct Printer {
    options: PrintOptions,
}

impl Printer {
    fn function(&self, function: &Function) -> String {
        let (domain, local) = function.name.rsplit_once('.').unwrap_or(("", &function.name));
        let mut out = format!("<domain: {}", quoted(domain));
        if !function.body.opsets.is_empty() {
            out += ", ";
            out += &opset_import(&function.body.opsets);
        }
        out += ">\n";
        out += &quotable(local);
        let given = function.defaults.iter().filter_map(|(k, a)| self.attr(k, a, ""));
        let attrs: Vec<String> = function.attrs.iter().map(|a| quotable(a)).chain(given).collect();
        if !attrs.is_empty() {
            write_to(&mut out, format_args!(" <{}>", attrs.join(", ")));
        }
        out += &self.body(&function.body, "");
        out.push('\n');
        out
    }
    /// From the inputs to the closing brace, which has no line break after it.
    fn body(&self, graph: &Graph, indent: &str) -> String {
        let list = |values: &[Value], data: bool| {
            values.iter().map(|&v| (self.declaration(graph, v, data), &graph[v].meta)).collect::<Vec<_>>()
        };
        let inputs = declarations(&list(&graph.inputs, false), indent);
        let outputs = declarations(&list(&graph.outputs, false), indent);
        let mut out = format!(" ({inputs}) => ({outputs})");
        if !graph.params.is_empty() {
            let params = declarations(&list(&graph.params, true), indent);
            write_to(&mut out, format_args!(" <{params}>"));
        }
        out += " {\n";
        for node in &graph.nodes {
            write_to(&mut out, format_args!("{indent}  {}\n", self.node(graph, node, indent)));
        }
        write_to(&mut out, format_args!("{indent}}}"));
        out
    }
    fn declaration(&self, graph: &Graph, v: Value, data: bool) -> String {
        let value = &graph[v];
        let name = quotable(&value.name);
        let Some(ty) = &value.ty else { return name };
        // An input may leave sizes open that its default has.
        let stored = value.tensor.as_ref().filter(|_| data);
        let own = stored.map(|t| Type::new(t.dtype(), t.dims().iter().copied()));
        let ty = own.as_ref().unwrap_or(ty);
        let small = stored.filter(|t| t.len() <= self.options.weight_elements);
        match small.and_then(data::write) {
            Some(elements) => format!("{ty} {name} = {{{elements}}}"),
            None => format!("{ty} {name}"),
        }
    }
    fn node(&self, graph: &Graph, node: &Node, indent: &str) -> String {
        let name = |v: &Option<Value>| v.map_or("\"\"".into(), |v| quotable(graph.name(v)));
        let names = |vs: &[Option<Value>]| vs.iter().map(name).collect::<Vec<_>>().join(", ");
        let mut out = String::new();
        if !node.name.is_empty() {
            write_to(&mut out, format_args!("[{}] ", quotable(&node.name)));
        }
        out += &names(&node.outputs);
        let space = if node.outputs.is_empty() { "" } else { " " };
        write_to(&mut out, format_args!("{space}= {}", op(&node.op)));
        let attrs: Vec<String> = node.attrs.iter().filter_map(|(k, a)| self.attr(k, a, indent)).collect();
        if !attrs.is_empty() {
            write_to(&mut out, format_args!(" <{}>", attrs.join(", ")));
        }
        write_to(&mut out, format_args!(" ({})", names(&node.inputs)));
        let mut notes = node.meta.clone();
        notes.extend(attrs::opaque_notes(node));
        if !notes.is_empty() {
            write_to(&mut out, format_args!("  {}", lexer::notes(&notes)));
        }
        if self.options.types {
            let ty = |v: Value| graph[v].ty.as_ref().map_or("?".into(), ToString::to_string);
            let types: Vec<String> = node.defines().map(ty).collect();
            write_to(&mut out, format_args!("  # {}", types.join("; ")));
        }
        out
    }
    fn attr(&self, key: &str, attr: &crate::Attr, indent: &str) -> Option<String> {
        let inner = format!("{indent}    ");
        let subgraph = |g: &Graph| format!("{}{}", plain(&g.name), self.body(g, &inner));
        attrs::write(key, attr, self.options.constant_elements, subgraph)
    }
}

/// A list of declarations; notes end a line, and so do the entries of a wide list.
fn declarations(items: &[(String, &Meta)], indent: &str) -> String {
    let width: usize = items.iter().map(|(text, _)| text.len() + 2).sum();
    if width <= MAX_WIDTH && items.iter().all(|(_, meta)| meta.is_empty()) {
        return items.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join(", ");
    }
    let mut out = "\n".to_string();
    for (i, (text, meta)) in items.iter().enumerate() {
        let comma = if i + 1 < items.len() { "," } else { "" };
        write_to(&mut out, format_args!("{indent}  {text}{comma}"));
        if !meta.is_empty() {
            write_to(&mut out, format_args!("  {}", lexer::notes(meta)));
        }
        out.push('\n');
    }
    out + indent
}

/// A domain-qualified op: words with points between, in quotes where they are none.
fn op(name: &str) -> String {
    if name.split('.').all(super::is_identifier) { name.into() } else { quoted(name) }
}

/// A subgraph's name, which means nothing and must be a word for the official parser.
fn plain(name: &str) -> String {
    let word: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if super::is_identifier(&word) && !super::is_keyword(&word) { word } else { format!("g_{word}") }
}

fn write_to(out: &mut String, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string cannot fail");
}
