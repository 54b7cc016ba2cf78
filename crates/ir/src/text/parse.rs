//! Reads the text form, by recursive descent; work is linear in the text, nesting is limited.
use super::lexer::{Lexer, Token};
use crate::{DType, Dim, Error, Function, Graph, Meta, Node, Result, Type, Value, ValueData};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// Subgraphs may nest this deep.
const MAX_DEPTH: usize = 32;

/// Parses a model: a header (optional), a graph, and functions.
///
/// Names that nothing defines are accepted here and reported by `verify`.
/// `producer_name` and the other descriptions of a header that a [`Graph`] has no place for are read over.
///
/// # Errors
/// [`Code::TEXT`](crate::Code::TEXT), with line and column.
pub fn parse(text: &str) -> Result<Graph> {
    let mut p = Parser::new(text)?;
    let header = p.header()?.unwrap_or_default();
    let mut graph = p.graph()?;
    (graph.ir_version, graph.opsets, graph.meta) = (header.ir_version, header.opsets, header.meta);
    for function in p.functions(Names::Unique)? {
        graph.functions.insert(function.name.clone(), Arc::new(function));
    }
    Ok(graph)
}

/// Parses a text of functions: bodies that are written once and put into graphs where needed.
///
/// A header such as `<domain: "graft", opset_import: ["" : 18]>` holds for the functions that follow it;
/// without one the domain is `graft`, and no opset is imported. A name may stand more than once: a pair of functions,
/// before and after, is a rule of rewriting.
///
/// # Errors
/// [`Code::TEXT`](crate::Code::TEXT), with line and column.
pub fn parse_functions(text: &str) -> Result<Vec<Function>> {
    Parser::new(text)?.functions(Names::Repeatable)
}

/// Whether functions of one text may share a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Unique,
    Repeatable,
}

/// What stands in `<…>` before a model or function.
#[derive(Default)]
struct Header {
    ir_version: i64,
    opsets: BTreeMap<String, i64>,
    meta: Meta,
    domain: Option<String>,
}

/// A graph in the making: names become values where they are first met.
#[derive(Default)]
pub(super) struct Scope {
    graph: Graph,
    names: HashMap<String, Value>,
}

impl Scope {
    fn value(&mut self, name: &str) -> Value {
        if let Some(&v) = self.names.get(name) {
            return v;
        }
        let v = self.graph.add_value(name, None);
        self.names.insert(name.into(), v);
        v
    }
    /// An operand or result; the empty name stands for one that is left out.
    fn optional(&mut self, name: &str) -> Option<Value> {
        (!name.is_empty()).then(|| self.value(name))
    }
    /// Entries of `<…>` without data that a node defines are not weights: they tell that value's type.
    fn settle_params(&mut self) {
        let defined: HashSet<Value> = self.graph.nodes.iter().flat_map(Node::defines).collect();
        let Graph { params, values, .. } = &mut self.graph;
        params.retain(|p| values[p.0 as usize].tensor.is_some() || !defined.contains(p));
    }
    /// In a subgraph: what it mentions and does not define comes from the enclosing graph.
    fn settle_captures(&mut self) {
        let graph = &self.graph;
        let declared = graph.inputs.iter().chain(&graph.params).copied();
        let own: HashSet<Value> = declared.chain(graph.nodes.iter().flat_map(Node::defines)).collect();
        let all = (0..graph.values.len()).map(|i| Value(i as u32));
        self.graph.captures = all.filter(|v| !own.contains(v)).collect();
    }
}

pub(super) struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token<'a>,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Parser<'a>> {
        let mut lexer = Lexer::new(text);
        let (token, at) = lexer.next()?;
        Ok(Parser { lexer, token, at, depth: 0 })
    }

    // Words.

    pub(super) fn token(&self) -> &Token<'a> {
        &self.token
    }
    pub(super) fn advance(&mut self) -> Result<Token<'a>> {
        let (token, at) = self.lexer.next()?;
        self.at = at;
        Ok(std::mem::replace(&mut self.token, token))
    }
    pub(super) fn is(&self, mark: char) -> bool {
        self.token == Token::Mark(mark)
    }
    /// Moves past `mark`, if it is there.
    pub(super) fn accept(&mut self, mark: char) -> Result<bool> {
        let there = self.is(mark);
        if there {
            self.advance()?;
        }
        Ok(there)
    }
    pub(super) fn expect(&mut self, mark: char) -> Result<()> {
        if self.accept(mark)? { Ok(()) } else { Err(self.expected(&format!("`{mark}`"))) }
    }
    pub(super) fn expected(&self, what: &str) -> Error {
        self.error(format!("expected {what}, found {}", self.token.describe()))
    }
    pub(super) fn error(&self, message: impl Into<String>) -> Error {
        self.lexer.error(self.at, message)
    }
    /// An error at a place that was passed already.
    pub(super) fn error_at(&self, at: usize, message: impl Into<String>) -> Error {
        self.lexer.error(at, message)
    }
    pub(super) fn position(&self) -> usize {
        self.at
    }
    /// Items separated by commas, up to `close`, which is passed.
    pub(super) fn list<T>(
        &mut self,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut items = Vec::new();
        if self.accept(close)? {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.accept(close)? {
                return Ok(items);
            }
            if !self.accept(',')? {
                return Err(self.expected(&format!("`,` or `{close}`")));
            }
        }
    }
    /// A name, in quotes or not.
    pub(super) fn name(&mut self) -> Result<String> {
        match self.token {
            Token::Word(_) | Token::Quoted(_) => Ok(match self.advance()? {
                Token::Quoted(text) => text,
                Token::Word(word) => word.into(),
                _ => String::new(),
            }),
            _ => Err(self.expected("a name")),
        }
    }
    fn string(&mut self) -> Result<String> {
        if !matches!(self.token, Token::Quoted(_)) {
            return Err(self.expected("a string in quotes"));
        }
        self.name()
    }
    pub(super) fn int(&mut self) -> Result<i64> {
        let Token::Number(text) = self.token else { return Err(self.expected("an integer")) };
        let value = text.parse().map_err(|_| self.expected("an integer of 64 bits"))?;
        self.advance()?;
        Ok(value)
    }
    fn notes(&mut self) -> Result<Meta> {
        if !matches!(self.token, Token::Notes(_)) {
            return Ok(Meta::new());
        }
        Ok(if let Token::Notes(meta) = self.advance()? { meta } else { Meta::new() })
    }

    // Headers and functions.

    fn header(&mut self) -> Result<Option<Header>> {
        if !self.accept('<')? {
            return Ok(None);
        }
        let mut header = Header::default();
        self.list('>', |p| {
            let at = p.at;
            let key = p.name()?;
            p.expect(':')?;
            match key.as_str() {
                "ir_version" => header.ir_version = p.int()?,
                "opset_import" => header.opsets = p.pairs(Self::int)?.into_iter().map(standard).collect(),
                "metadata_props" => header.meta = p.pairs(Self::string)?.into_iter().collect(),
                "domain" => header.domain = Some(p.string()?),
                "producer_name" | "producer_version" | "doc_string" => drop(p.string()?),
                "model_version" => drop(p.int()?),
                _ => return Err(p.error_at(at, format!("unknown header field `{key}`"))),
            }
            Ok(())
        })?;
        Ok(Some(header))
    }
    fn pairs<T>(&mut self, value: fn(&mut Self) -> Result<T>) -> Result<Vec<(String, T)>> {
        self.expect('[')?;
        self.list(']', |p| {
            let key = p.string()?;
            p.expect(':')?;
            Ok((key, value(p)?))
        })
    }
    fn functions(&mut self, names: Names) -> Result<Vec<Function>> {
        let mut header = Header { domain: Some("graft".into()), ..Header::default() };
        let mut functions: Vec<Function> = Vec::new();
        let mut met = HashSet::new();
        while self.token != Token::End {
            header = self.header()?.unwrap_or(header);
            let at = self.at;
            let function = self.function(&header)?;
            if !met.insert(function.name.clone()) && names == Names::Unique {
                let message = format!("function `{}` is defined twice", function.name);
                return Err(self.error_at(at, message));
            }
            functions.push(function);
        }
        Ok(functions)
    }
    fn function(&mut self, header: &Header) -> Result<Function> {
        let local = self.name()?;
        let (domain, _) = standard((header.domain.clone().unwrap_or_default(), 0));
        let name = if domain.is_empty() { local } else { format!("{domain}.{local}") };
        let (mut attrs, mut defaults) = (Vec::new(), BTreeMap::new());
        if self.accept('<')? {
            let mut unused = Scope::default();
            for (name, attr) in self.attributes(&mut unused, &mut Vec::new())? {
                match attr {
                    Some(attr) => drop(defaults.insert(name, attr)),
                    None => attrs.push(name),
                }
            }
        }
        let mut body = self.body()?.graph;
        body.name.clone_from(&name);
        body.opsets.clone_from(&header.opsets);
        Ok(Function { name, attrs, defaults, body, origin: None })
    }

    // Graphs.

    fn graph(&mut self) -> Result<Graph> {
        let name = self.name()?;
        Ok(Graph { name, ..self.body()?.graph })
    }
    /// A graph as an attribute: what it captures is also noted in the scope around it.
    pub(super) fn subgraph(&mut self, outer: &mut Scope, captures: &mut Vec<Value>) -> Result<Graph> {
        if self.depth >= MAX_DEPTH {
            return Err(self.error(format!("subgraphs are nested more than {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        let name = self.name()?;
        let mut scope = self.body()?;
        self.depth -= 1;
        scope.settle_captures();
        for &v in &scope.graph.captures {
            let outside = outer.value(scope.graph.name(v));
            if !captures.contains(&outside) {
                captures.push(outside);
            }
        }
        Ok(Graph { name, ..scope.graph })
    }
    /// `(inputs) => (outputs) <params> { nodes }`.
    fn body(&mut self) -> Result<Scope> {
        let mut scope = Scope::default();
        self.expect('(')?;
        for (v, given) in self.declarations(&mut scope, ')')? {
            scope.graph.inputs.push(v);
            if given {
                scope.graph.params.push(v);
            }
        }
        if self.token != Token::Arrow {
            return Err(self.expected("`=>`"));
        }
        self.advance()?;
        self.expect('(')?;
        for (v, given) in self.declarations(&mut scope, ')')? {
            if given {
                return Err(self.error(format!("output `{}` cannot have data", scope.graph.name(v))));
            }
            scope.graph.outputs.push(v);
        }
        if self.accept('<')? {
            // Of a param with a default the input says the type: it may leave sizes open.
            let inputs = scope.graph.inputs.clone();
            let fed: Vec<_> = inputs.into_iter().map(|v| (v, scope.graph[v].ty.clone())).collect();
            for (v, _) in self.declarations(&mut scope, '>')? {
                scope.graph.params.push(v);
            }
            for (v, ty) in fed.into_iter().filter(|(_, ty)| ty.is_some()) {
                scope.graph[v].ty = ty;
            }
        }
        self.expect('{')?;
        while !self.accept('}')? {
            let node = self.node(&mut scope)?;
            scope.graph.nodes.push(node);
        }
        scope.settle_params();
        Ok(scope)
    }
    /// Values with optional types and data; says of each whether data (perhaps elided) was given by `= {…}`.
    fn declarations(&mut self, scope: &mut Scope, close: char) -> Result<Vec<(Value, bool)>> {
        let mut declared = Vec::new();
        while !self.accept(close)? {
            if !declared.is_empty() {
                self.expect(',')?;
                self.note_last(scope, &declared)?;
            }
            declared.push(self.declaration(scope)?);
            self.note_last(scope, &declared)?;
        }
        Ok(declared)
    }
    fn note_last(&mut self, scope: &mut Scope, declared: &[(Value, bool)]) -> Result<()> {
        let notes = self.notes()?;
        if let Some(&(v, _)) = declared.last() {
            scope.graph[v].meta.extend(notes);
        }
        Ok(())
    }
    fn declaration(&mut self, scope: &mut Scope) -> Result<(Value, bool)> {
        let ty = self.type_prefix()?;
        let at = self.at;
        let name = self.name()?;
        if name.is_empty() {
            return Err(self.error_at(at, "a declared value needs a name"));
        }
        let v = scope.value(&name);
        if let Some((dtype, dims)) = ty {
            let named = |(axis, d): (usize, Option<Dim>)| d.unwrap_or_else(|| Dim::unknown(&name, axis));
            let shape = dims.map(|dims| dims.into_iter().enumerate().map(named).collect());
            scope.graph[v].ty = Some(Type { dtype, shape });
        }
        let given = self.accept('=')?;
        if given {
            self.data(&mut scope.graph[v])?;
        }
        Ok((v, given))
    }
    fn data(&mut self, value: &mut ValueData) -> Result<()> {
        let sizes = value.ty.as_ref().and_then(|t| Some((t.dtype, t.sizes()?)));
        let Some((dtype, dims)) = sizes else {
            return Err(self.error(format!("data of `{}` needs a type with known sizes", value.name)));
        };
        if self.is('[') {
            return Err(self.error("external data cannot be given in text"));
        }
        value.tensor = self.elements(dtype, &dims)?;
        Ok(())
    }
    /// An element type and sizes (`None` for `?`), if a type is what comes.
    #[expect(clippy::type_complexity, reason = "a dtype and perhaps its dims, of which any may be unknown")]
    pub(super) fn type_prefix(&mut self) -> Result<Option<(DType, Option<Vec<Option<Dim>>>)>> {
        let Token::Word(word) = self.token else { return Ok(None) };
        if ["seq", "map", "optional", "sparse_tensor"].contains(&word) {
            return Err(self.error(format!("`{word}` types are not supported; leave the type out")));
        }
        let Some(dtype) = DType::from_name(word) else { return Ok(None) };
        self.advance()?;
        if !self.accept('[')? {
            return Ok(Some((dtype, Some(Vec::new()))));
        }
        let dims = self.list(']', Self::dim)?;
        // `float[]` is a tensor of unknown rank, `float` a scalar.
        Ok(Some((dtype, (!dims.is_empty()).then_some(dims))))
    }
    fn dim(&mut self) -> Result<Option<Dim>> {
        match self.token {
            Token::Number(_) => Ok(Some(Dim::from(self.int()?))),
            Token::Mark('?') => self.advance().map(|_| None),
            Token::Word(_) | Token::Quoted(_) => Ok(Some(Dim::parse(&self.name()?))),
            _ => Err(self.expected("a dimension")),
        }
    }

    // Nodes.

    fn node(&mut self, scope: &mut Scope) -> Result<Node> {
        let mut node = Node::default();
        if self.accept('[')? {
            node.name = self.name()?;
            self.expect(']')?;
        }
        node.outputs = self.list('=', |p| Ok(scope.optional(&p.name()?)))?;
        node.op = self.op()?;
        if self.accept('<')? {
            let at = self.at;
            for (name, attr) in self.attributes(scope, &mut node.captures)? {
                let missing = || self.error_at(at, format!("attribute `{name}` has no value"));
                node.attrs.insert(name.clone(), attr.ok_or_else(missing)?);
            }
        }
        self.expect('(')?;
        node.inputs = self.list(')', |p| Ok(scope.optional(&p.name()?)))?;
        let at = self.at;
        node.meta = self.notes()?;
        super::attrs::take_opaque(&mut node).map_err(|message| self.error_at(at, message))?;
        Ok(node)
    }
    /// A domain-qualified op; ONNX's own domain goes without saying.
    fn op(&mut self) -> Result<String> {
        let mut op = self.name()?;
        while self.accept('.')? {
            op = format!("{op}.{}", self.name()?);
        }
        if self.is(':') {
            return Err(self.error("overloads of functions are not supported"));
        }
        let own = op.strip_prefix("ai.onnx.").filter(|own| !own.contains('.')).map(str::to_string);
        Ok(own.unwrap_or(op))
    }
}

/// ONNX's own domain has two names; here it is `""`.
fn standard<T>((domain, version): (String, T)) -> (String, T) {
    (if domain == "ai.onnx" { String::new() } else { domain }, version)
}
