//! PTX text as a tree: variables and entries, and in these statements as they are written. What they mean is the matter of
//! `decode`.
use crate::{
    Error,
    lex::{Located, Token, tokens},
};

/// A variable or a parameter.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Variable<'a> {
    pub(crate) space: Space,
    pub(crate) name: &'a str,
    /// In bytes.
    pub(crate) align: usize,
    /// Bytes of an element.
    pub(crate) element: usize,
    /// Elements; none for memory whose size the launch gives.
    pub(crate) count: Option<usize>,
    /// The elements that are given, as bits.
    pub(crate) values: Vec<u64>,
}

impl Variable<'_> {
    pub(crate) fn bytes(&self) -> usize {
        self.element * self.count.unwrap_or(0)
    }
}

/// Where a variable lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Space {
    Const,
    Global,
    Local,
    Param,
    Shared,
}

/// An operand of an instruction.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Operand<'a> {
    Name(&'a str),
    /// `!p`.
    Not(&'a str),
    /// An integer, or the bits of a float; negative ones are sign-extended.
    Bits(u64),
    /// `[base + offset]`.
    Address(Box<Operand<'a>>, i64),
    /// `{a, b}`.
    Vector(Vec<Operand<'a>>),
    /// `a|b`.
    Both(&'a str, &'a str),
}

/// An instruction.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Instruction<'a> {
    /// The predicate, and whether it has to be false.
    pub(crate) guard: Option<(&'a str, bool)>,
    pub(crate) opcode: &'a str,
    pub(crate) operands: Vec<Operand<'a>>,
}

/// A statement of a body.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Statement<'a> {
    /// `{` and `}`: names declared between them are seen there only.
    Open,
    Close,
    Label(&'a str),
    /// Registers of a type; with a count they are called `name0`, `name1` and so on.
    Registers {
        kind: &'a str,
        name: &'a str,
        count: Option<usize>,
    },
    Variable(Variable<'a>),
    /// The labels of a `brx.idx`, under the name of a label.
    Targets(&'a str, Vec<&'a str>),
    Instruction(Instruction<'a>),
}

/// A kernel.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    pub(crate) parameters: Vec<Variable<'a>>,
    /// The most threads of a block along x, y and z, where the text says so.
    pub(crate) most_threads: Option<usize>,
    pub(crate) body: Vec<(Statement<'a>, u32)>,
}

/// A whole text.
#[derive(Debug, Default)]
pub(crate) struct Tree<'a> {
    pub(crate) variables: Vec<Variable<'a>>,
    pub(crate) entries: Vec<Entry<'a>>,
}

/// Parses a text.
///
/// # Errors
/// What is not understood, and where.
pub(crate) fn parse(text: &str) -> Result<Tree<'_>, Error> {
    let mut cursor = Cursor { tokens: tokens(text)?, at: 0 };
    let mut tree = Tree::default();
    while let Some((token, line)) = cursor.peek() {
        match token {
            Token::Word(".version" | ".target" | ".address_size" | ".file") => cursor.skip_line(line),
            Token::Word(".pragma") => cursor.skip_past(';')?,
            Token::Word(".visible" | ".weak" | ".extern" | ".common") => cursor.at += 1,
            Token::Word(".entry") => tree.entries.push(cursor.entry()?),
            Token::Word(".func") => {
                return Err(Error::new(line, "functions that are called (`.func`) are not interpreted"));
            }
            Token::Word(".section") => cursor.skip_block()?,
            Token::Word(".global" | ".const" | ".shared") => {
                let variable = cursor.variable()?;
                cursor.mark(';')?;
                tree.variables.push(variable);
            }
            other => return Err(Error::new(line, format!("{} was not expected here", shown(other)))),
        }
    }
    Ok(tree)
}

fn shown(token: Token<'_>) -> String {
    match token {
        Token::Word(w) | Token::Text(w) => format!("`{w}`"),
        Token::Mark(c) => format!("`{c}`"),
    }
}

/// The bytes of a type, from its name.
pub(crate) fn bytes_of(kind: &str) -> Option<usize> {
    let digits = kind.trim_start_matches(|c: char| !c.is_ascii_digit());
    let bits: usize = digits.parse().ok()?;
    matches!(bits, 8 | 16 | 32 | 64).then_some(bits / 8)
}

/// A number: decimal, `0x…`, `0f…` and `0d…` (the bits of floats), with or without a `U` behind it.
pub(crate) fn number(word: &str) -> Option<u64> {
    let hexadecimal = |prefixes: [&str; 2]| prefixes.iter().find_map(|p| word.strip_prefix(p));
    if let Some(bits) = hexadecimal(["0f", "0F"]).or(hexadecimal(["0d", "0D"])) {
        return u64::from_str_radix(bits, 16).ok();
    }
    if let Some(digits) = hexadecimal(["0x", "0X"]) {
        return u64::from_str_radix(digits.trim_end_matches('U'), 16).ok();
    }
    word.trim_end_matches('U').parse().ok()
}

struct Cursor<'a> {
    tokens: Vec<Located<'a>>,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<Located<'a>> {
        self.tokens.get(self.at).copied()
    }
    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |t| t.1)
    }
    fn next(&mut self) -> Result<Token<'a>, Error> {
        let (token, _) = self.peek().ok_or_else(|| Error::new(self.line(), "the text ends too early"))?;
        self.at += 1;
        Ok(token)
    }
    fn takes(&mut self, mark: char) -> bool {
        let found = self.peek().is_some_and(|(t, _)| t == Token::Mark(mark));
        self.at += usize::from(found);
        found
    }
    fn mark(&mut self, mark: char) -> Result<(), Error> {
        let line = self.line();
        match self.next()? {
            Token::Mark(c) if c == mark => Ok(()),
            other => Err(Error::new(line, format!("`{mark}` was expected, not {}", shown(other)))),
        }
    }
    fn word(&mut self) -> Result<&'a str, Error> {
        let line = self.line();
        match self.next()? {
            Token::Word(w) => Ok(w),
            other => Err(Error::new(line, format!("a name was expected, not {}", shown(other)))),
        }
    }
    fn count(&mut self) -> Result<usize, Error> {
        let line = self.line();
        let word = self.word()?;
        let n = number(word).and_then(|n| usize::try_from(n).ok());
        n.ok_or_else(|| Error::new(line, format!("a number was expected, not `{word}`")))
    }
    fn skip_line(&mut self, line: u32) {
        while self.peek().is_some_and(|(_, l)| l == line) {
            self.at += 1;
        }
    }
    fn skip_past(&mut self, mark: char) -> Result<(), Error> {
        while self.next()? != Token::Mark(mark) {}
        Ok(())
    }
    /// Debug sections.
    fn skip_block(&mut self) -> Result<(), Error> {
        self.skip_past('}')
    }

    /// `.space .align n .type name[count] = values`, up to what follows.
    fn variable(&mut self) -> Result<Variable<'a>, Error> {
        let line = self.line();
        let space = match self.word()? {
            ".const" => Space::Const,
            ".global" => Space::Global,
            ".local" => Space::Local,
            ".param" => Space::Param,
            ".shared" => Space::Shared,
            other => return Err(Error::new(line, format!("`{other}` is no state space"))),
        };
        let (mut align, mut element, mut is_pointer) = (None, None, false);
        let name = loop {
            match self.word()? {
                // Behind `.ptr` stands what the pointer points to.
                ".ptr" => is_pointer = true,
                ".global" | ".shared" | ".const" | ".local" if is_pointer => {}
                ".align" if is_pointer => drop(self.count()?),
                ".align" => align = Some(self.count()?),
                kind if kind.starts_with('.') => element = bytes_of(kind),
                name => break name,
            }
        };
        let element =
            element.ok_or_else(|| Error::new(line, format!("the type of `{name}` is not understood")))?;
        let count = self.extent()?;
        let values = if self.takes('=') { self.values()? } else { Vec::new() };
        Ok(Variable { space, name, align: align.unwrap_or(element), element, count, values })
    }
    /// `[n][m]`, `[]` or nothing.
    fn extent(&mut self) -> Result<Option<usize>, Error> {
        let mut count = Some(1);
        while self.takes('[') {
            if self.takes(']') {
                count = None;
                continue;
            }
            let n = self.count()?;
            count = count.map(|c| c * n);
            self.mark(']')?;
        }
        Ok(count)
    }
    fn values(&mut self) -> Result<Vec<u64>, Error> {
        if !self.takes('{') {
            return Ok(vec![self.bits()?]);
        }
        let mut values = vec![self.bits()?];
        while self.takes(',') {
            values.push(self.bits()?);
        }
        self.mark('}')?;
        Ok(values)
    }
    fn bits(&mut self) -> Result<u64, Error> {
        let line = self.line();
        match self.operand()? {
            Operand::Bits(bits) => Ok(bits),
            other => Err(Error::new(line, format!("a number was expected, not {other:?}"))),
        }
    }

    fn entry(&mut self) -> Result<Entry<'a>, Error> {
        self.at += 1;
        let name = self.word()?;
        let mut parameters = Vec::new();
        if self.takes('(') && !self.takes(')') {
            parameters.push(self.variable()?);
            while self.takes(',') {
                parameters.push(self.variable()?);
            }
            self.mark(')')?;
        }
        let mut most_threads = None;
        while !self.takes('{') {
            if matches!(self.next()?, Token::Word(".maxntid" | ".reqntid")) {
                let mut n = self.count()?;
                while self.takes(',') {
                    n *= self.count()?;
                }
                most_threads = Some(n);
            }
        }
        Ok(Entry { name, parameters, most_threads, body: self.body()? })
    }
    fn body(&mut self) -> Result<Vec<(Statement<'a>, u32)>, Error> {
        let (mut body, mut depth) = (Vec::new(), 1);
        loop {
            let line = self.line();
            if self.takes('{') {
                depth += 1;
                body.push((Statement::Open, line));
            } else if self.takes('}') {
                depth -= 1;
                if depth == 0 {
                    return Ok(body);
                }
                body.push((Statement::Close, line));
            } else if !self.takes(';') {
                body.extend(self.statement(line)?.map(|s| (s, line)));
            }
        }
    }
    fn statement(&mut self, line: u32) -> Result<Option<Statement<'a>>, Error> {
        let statement = match self.peek() {
            Some((Token::Word(".pragma"), _)) => {
                self.skip_past(';')?;
                return Ok(None);
            }
            Some((Token::Word(".loc"), _)) => {
                self.skip_line(line);
                return Ok(None);
            }
            Some((Token::Word(".reg"), _)) => return self.registers().map(Some),
            Some((Token::Word(".local" | ".shared" | ".param"), _)) => Statement::Variable(self.variable()?),
            _ => match self.label() {
                Some(label) if self.peek().map(|t| t.0) == Some(Token::Word(".branchtargets")) => {
                    self.at += 1;
                    Statement::Targets(label, self.names()?)
                }
                Some(label) => return Ok(Some(Statement::Label(label))),
                None => Statement::Instruction(self.instruction()?),
            },
        };
        self.mark(';')?;
        Ok(Some(statement))
    }
    fn label(&mut self) -> Option<&'a str> {
        let colon = self.tokens.get(self.at + 1).is_some_and(|t| t.0 == Token::Mark(':'));
        let Some((Token::Word(name), _)) = self.peek().filter(|_| colon) else { return None };
        self.at += 2;
        Some(name)
    }
    fn names(&mut self) -> Result<Vec<&'a str>, Error> {
        let mut names = vec![self.word()?];
        while self.takes(',') {
            names.push(self.word()?);
        }
        Ok(names)
    }
    fn registers(&mut self) -> Result<Statement<'a>, Error> {
        self.at += 1;
        let (kind, name) = (self.word()?, self.word()?);
        let count = if self.takes('<') {
            let n = self.count()?;
            self.mark('>')?;
            Some(n)
        } else {
            None
        };
        self.mark(';')?;
        Ok(Statement::Registers { kind, name, count })
    }
    fn instruction(&mut self) -> Result<Instruction<'a>, Error> {
        let guard = if self.takes('@') {
            let negated = self.takes('!');
            Some((self.word()?, negated))
        } else {
            None
        };
        let opcode = self.word()?;
        let mut operands = Vec::new();
        while self.peek().is_some_and(|(t, _)| t != Token::Mark(';')) {
            operands.push(self.operand()?);
            if !self.takes(',') {
                break;
            }
        }
        Ok(Instruction { guard, opcode, operands })
    }
    fn operand(&mut self) -> Result<Operand<'a>, Error> {
        if self.takes('{') {
            let mut parts = vec![self.operand()?];
            while self.takes(',') {
                parts.push(self.operand()?);
            }
            self.mark('}')?;
            return Ok(Operand::Vector(parts));
        }
        if self.takes('[') {
            return self.address();
        }
        if self.takes('!') {
            return Ok(Operand::Not(self.word()?));
        }
        if self.takes('-') {
            return Ok(Operand::Bits((self.count()? as u64).wrapping_neg()));
        }
        let word = self.word()?;
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            let line = self.line();
            let bits = number(word);
            return bits.map(Operand::Bits).ok_or_else(|| Error::new(line, format!("`{word}` is no number")));
        }
        if self.takes('|') {
            return Ok(Operand::Both(word, self.word()?));
        }
        Ok(Operand::Name(word))
    }
    /// What follows a `[`: `base`, `base+4`, `base+-4`, `4`.
    fn address(&mut self) -> Result<Operand<'a>, Error> {
        let base = self.operand()?;
        let offset = if self.takes('+') || self.peek().is_some_and(|t| t.0 == Token::Mark('-')) {
            self.bits()?.cast_signed()
        } else {
            0
        };
        self.mark(']')?;
        Ok(Operand::Address(Box::new(base), offset))
    }
}
