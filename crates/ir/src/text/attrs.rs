//! Attributes in text.
use super::{
    data::{self, Literal},
    lexer::Token,
    parse::{Parser, Scope},
};
use crate::{Attr, DType, Graph, Node, Result, Tensor, Value, tensor::count};
use std::sync::Arc;

/// Prefix of a note's key that carries an attribute which text has no form for.
const OPAQUE: &str = "opaque:";

impl Parser<'_> {
    /// `name: type = value, …>`; a function's attribute may go without a value.
    /// Values that subgraphs capture are added to `captures`.
    pub(super) fn attributes(
        &mut self,
        scope: &mut Scope,
        captures: &mut Vec<Value>,
    ) -> Result<Vec<(String, Option<Attr>)>> {
        self.list('>', |p| {
            let name = p.name()?;
            let kind = if p.accept(':')? { Some(p.name()?) } else { None };
            if !p.accept('=')? {
                return Ok((name, None));
            }
            let at = p.position();
            let attr = p.attribute(kind.as_deref(), scope, captures)?;
            match kind {
                Some(kind) if kind != attr.kind() => {
                    let message = format!("attribute `{name}` is of type {}, expected {kind}", attr.kind());
                    Err(p.error_at(at, message))
                }
                _ => Ok((name, Some(attr))),
            }
        })
    }
    fn attribute(
        &mut self,
        kind: Option<&str>,
        scope: &mut Scope,
        captures: &mut Vec<Value>,
    ) -> Result<Attr> {
        match self.token().clone() {
            Token::Mark('@') => {
                self.advance()?;
                Ok(Attr::Ref { name: self.name()?, kind: kind.unwrap_or_default().into() })
            }
            Token::Mark('[') => self.attribute_list(kind),
            Token::Quoted(text) => self.advance().map(|_| Attr::Str(text)),
            Token::Word(word) if DType::from_name(word).is_some() => self.tensor_attribute(),
            Token::Word(word) if !is_number(word) => {
                Ok(Attr::Graph(Arc::new(self.subgraph(scope, captures)?)))
            }
            _ => {
                let at = self.position();
                let number = self.number()?;
                let float = kind == Some("float") || (kind.is_none() && is_float(number));
                let attr = if float {
                    number.parse().ok().map(Attr::Float)
                } else {
                    number.parse().ok().map(Attr::Int)
                };
                attr.ok_or_else(|| self.error_at(at, format!("`{number}` does not fit its type")))
            }
        }
    }
    fn attribute_list(&mut self, kind: Option<&str>) -> Result<Attr> {
        let at = self.position();
        self.expect('[')?;
        let items = self.list(']', Self::literal)?;
        let kind = match (kind, items.first()) {
            (Some(kind), _) => kind,
            (None, Some(Literal::Text(_))) => "strings",
            (None, Some(Literal::Number(n))) if is_float(n) => "floats",
            (None, Some(_)) => "ints",
            (None, None) => return Err(self.error_at(at, "an empty list needs a type: `name: ints = []`")),
        };
        let numbers = items.iter().map(|i| if let Literal::Number(n) = i { Some(*n) } else { None });
        let attr = match kind {
            "ints" => numbers.map(|n| n?.parse().ok()).collect::<Option<_>>().map(Attr::Ints),
            "floats" => numbers.map(|n| n?.parse().ok()).collect::<Option<_>>().map(Attr::Floats),
            "strings" => {
                let texts = items.into_iter().map(|i| if let Literal::Text(t) = i { Some(t) } else { None });
                texts.collect::<Option<_>>().map(Attr::Strs)
            }
            _ => None,
        };
        attr.ok_or_else(|| self.error_at(at, format!("the list is none of {kind}")))
    }
    fn tensor_attribute(&mut self) -> Result<Attr> {
        let at = self.position();
        let sizes = |dims: Option<Vec<Option<crate::Dim>>>| -> Option<Vec<usize>> {
            dims?.into_iter().map(|d| d?.as_size()).collect()
        };
        let typed = self.type_prefix()?.and_then(|(dtype, dims)| Some((dtype, sizes(dims)?)));
        let Some((dtype, dims)) = typed else {
            return Err(self.error_at(at, "a tensor needs known sizes"));
        };
        // The official syntax allows a name here, and an equals sign.
        if !self.is('{') && !self.is('=') {
            self.name()?;
        }
        self.accept('=')?;
        Ok(match self.elements(dtype, &dims)? {
            Some(tensor) => Attr::Tensor(tensor),
            None => Attr::Elided { dtype, dims },
        })
    }
    /// `{1, 2, …}`; `None` if there is nothing between the braces though the sizes ask for elements.
    pub(super) fn elements(&mut self, dtype: DType, dims: &[usize]) -> Result<Option<Tensor>> {
        let at = self.position();
        self.expect('{')?;
        let elements = self.list('}', Self::literal)?;
        if elements.is_empty() && count(dims) != Some(0) {
            return Ok(None);
        }
        data::read(dtype, dims, &elements).map(Some).map_err(|message| self.error_at(at, message))
    }
}

impl<'a> Parser<'a> {
    fn literal(&mut self) -> Result<Literal<'a>> {
        if let Token::Quoted(text) = self.token().clone() {
            return self.advance().map(|_| Literal::Text(text));
        }
        self.number().map(Literal::Number)
    }
    fn number(&mut self) -> Result<&'a str> {
        match *self.token() {
            Token::Number(text) => self.advance().map(|_| text),
            Token::Word(word) if is_number(word) => self.advance().map(|_| word),
            _ => Err(self.expected("a constant")),
        }
    }
}

/// Whether a word is a number: `inf` and `nan` in any case.
fn is_number(word: &str) -> bool {
    ["inf", "infinity", "nan"].iter().any(|n| word.eq_ignore_ascii_case(n))
}

fn is_float(number: &str) -> bool {
    number.contains(['.', 'e', 'E', 'n', 'N'])
}

/// Moves the attributes that stand among the node's notes to where they belong.
pub(super) fn take_opaque(node: &mut Node) -> std::result::Result<(), String> {
    let keys: Vec<String> = node.meta.keys().filter(|k| k.starts_with(OPAQUE)).cloned().collect();
    for key in keys {
        let hex = node.meta.remove(&key).unwrap_or_default();
        let name = key.strip_prefix(OPAQUE).unwrap_or_default();
        let bytes = unhex(&hex).ok_or_else(|| format!("attribute `{name}` is no hexadecimal text"))?;
        node.attrs.insert(name.into(), Attr::Opaque(bytes.into()));
    }
    Ok(())
}

/// The attributes that text has no form for, as notes.
pub(super) fn opaque_notes(node: &Node) -> impl Iterator<Item = (String, String)> + '_ {
    node.attrs.iter().filter_map(|(name, attr)| match attr {
        Attr::Opaque(bytes) => {
            Some((format!("{OPAQUE}{name}"), bytes.iter().map(|b| format!("{b:02x}")).collect()))
        }
        _ => None,
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2).map(std::str::from_utf8);
    digits
        .map(|d| u8::from_str_radix(d.ok()?, 16).ok())
        .collect::<Option<Vec<u8>>>()
        .filter(|b| b.len() * 2 == text.len())
}

/// An attribute with its name; `None` for what text has no form for. `subgraph` prints a graph.
pub(super) fn write(
    name: &str,
    attr: &Attr,
    limit: usize,
    subgraph: impl Fn(&Graph) -> String,
) -> Option<String> {
    let floats = |v: &[f32]| v.iter().map(|f| data::float(*f)).collect::<Vec<_>>().join(", ");
    let value = match attr {
        Attr::Float(v) => data::float(*v),
        Attr::Int(v) => v.to_string(),
        Attr::Str(v) => super::quoted(v),
        Attr::Tensor(v) => tensor(v, limit),
        Attr::Elided { dtype, dims } => format!("{} {{}}", crate::Type::new(*dtype, dims.iter().copied())),
        Attr::Graph(v) => subgraph(v),
        Attr::Floats(v) => format!("[{}]", floats(v)),
        Attr::Ints(v) => format!("[{}]", v.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")),
        Attr::Strs(v) => format!("[{}]", v.iter().map(|s| super::quoted(s)).collect::<Vec<_>>().join(", ")),
        Attr::Ref { name, .. } => format!("@{}", super::quotable(name)),
        Attr::Opaque(_) => return None,
    };
    // The official parser tells types apart by the value, but for references and empty lists.
    let typed = value == "[]" || matches!(attr, Attr::Ref { kind, .. } if !kind.is_empty());
    let kind = if typed { format!(": {}", attr.kind()) } else { String::new() };
    Some(format!("{}{kind} = {value}", super::quotable(name)))
}

fn tensor(t: &Tensor, limit: usize) -> String {
    let elements = if t.len() <= limit { data::write(t) } else { None };
    let ty = crate::Type::new(t.dtype(), t.dims().iter().copied());
    format!("{ty} {{{}}}", elements.unwrap_or_default())
}
