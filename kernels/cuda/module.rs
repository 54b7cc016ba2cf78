//! Modules: what is compiled at once, a source for certain types and sizes.
use super::{Element, HEADERS, Tile, source};
use std::sync::Arc;

/// The text of a module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Text {
    /// One of the project's sources, by its path below `kernels`.
    File(&'static str),
    /// Made for the occasion.
    Generated(Arc<str>),
}

/// What a kernel makes of a large product's elements before it stores them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Epilogue {
    /// Its ops, for people.
    pub name: String,
    /// What takes the place of `gemm/epilogue.cuh`.
    pub text: String,
}

/// The header that says that there is no epilogue.
const NO_EPILOGUE: &str = "gemm/epilogue.cuh";

/// A text and the constants that it is compiled with.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Module {
    /// What is compiled.
    pub text: Text,
    /// What its large products end in, if it is not a plain store.
    pub epilogue: Option<Arc<Epilogue>>,
    /// Macros and what they stand for.
    pub defines: Vec<(&'static str, String)>,
}

impl Module {
    /// A source by its path below `kernels`.
    pub fn file(path: &'static str) -> Module {
        Module { text: Text::File(path), epilogue: None, defines: Vec::new() }
    }
    /// A text made for the occasion.
    pub fn generated(text: String) -> Module {
        Module { text: Text::Generated(text.into()), epilogue: None, defines: Vec::new() }
    }
    /// With a macro that stands for `value`.
    pub fn define(mut self, name: &'static str, value: impl ToString) -> Module {
        self.defines.push((name, value.to_string()));
        self
    }
    /// For activations and weights of this type (`Element` in the sources).
    pub fn element(self, element: Element) -> Module {
        self.define("GRAFT_ELEMENT", element.name())
    }
    /// For large products by blocks of this shape (`MainTile`).
    pub fn tile(self, tile: Tile) -> Module {
        let Tile { m, n, k, warps: [wm, wn], stages } = tile;
        self.define("GRAFT_TILE", format!("{m},{n},{k},{wm},{wn},{stages}"))
    }
    /// For adapters of at most this rank, a multiple of 16 (`PADDED_RANK`).
    pub fn rank(self, rank: usize) -> Module {
        self.define("GRAFT_RANK", rank)
    }
    /// With this at the end of its large products.
    pub(crate) fn with_epilogue(self, epilogue: Epilogue) -> Module {
        Module { epilogue: Some(Arc::new(epilogue)), ..self }
    }
    /// The files that the source may include: paths and texts.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        HEADERS.iter().map(|&(path, text)| match &self.epilogue {
            Some(epilogue) if path == NO_EPILOGUE => (path, epilogue.text.as_str()),
            _ => (path, text),
        })
    }
    /// For launches that serve so many calls (`CALLS`); those that say nothing serve one.
    pub fn calls(self, calls: usize) -> Module {
        self.define("GRAFT_CALLS", calls)
    }
    /// The compiler's options that define the macros.
    pub fn options(&self) -> Vec<String> {
        self.defines.iter().map(|(name, value)| format!("-D{name}={value}")).collect()
    }
    /// Its name for messages and for a compiler's.
    pub fn path(&self) -> &'static str {
        match self.text {
            Text::File(path) => path,
            Text::Generated(_) => "generated.cu",
        }
    }
    /// What is compiled; `None` if no source has its path.
    pub fn source(&self) -> Option<&str> {
        match &self.text {
            Text::File(path) => source::text_of(path),
            Text::Generated(text) => Some(text),
        }
    }
}

impl std::fmt::Display for Module {
    /// Path, macros' values and epilogue: `lora/lora.cu bf16 64,64,32,2,2,3 16 y1=plus(y0, x0)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.path())?;
        self.defines.iter().try_for_each(|(_, value)| write!(f, " {value}"))?;
        self.epilogue.iter().try_for_each(|epilogue| write!(f, " {}", epilogue.name))
    }
}
