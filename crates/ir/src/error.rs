//! The one error type of the workspace, and the table of its codes.
use std::fmt;

/// What kind of failure an error is; its number is the exit code of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Something failed that is none of the others (I/O, a bug of ours).
    Failed = 1,
    /// Wrong or conflicting flags and options.
    Usage = 2,
    /// The model, data or adapter file is not valid.
    Invalid = 3,
    /// A selector matched nothing, or an adapter did not fit wholly.
    Unmatched = 4,
    /// An op, type or device is not supported.
    Unsupported = 5,
    /// A check was over its tolerance.
    Tolerance = 6,
    /// The user interrupted the run.
    Interrupted = 130,
}

/// One kind of problem: its identifier, exit code and explanation.
#[derive(PartialEq, Eq, Debug)]
pub struct Code {
    /// `G0123`: stable, searchable, never reused.
    pub id: &'static str,
    /// The exit code's category.
    pub kind: Kind,
    /// What it means and what to do, at some length, for a person.
    pub explain: &'static str,
}

macro_rules! codes {
    ($($name:ident $id:literal $kind:ident $explain:literal;)*) => {
        impl Code {
            $(#[doc = $explain] pub const $name: &'static Code = &Code { id: $id, kind: Kind::$kind, explain: $explain };)*
            /// Every code, by identifier.
            pub const ALL: &'static [&'static Code] = &[$(Code::$name),*];
        }
    };
}

// G01 graphs · G02 ONNX files · G03 passes · G04 adapters · G05 data and training · G06 execution · G07 the command line.
codes! {
    GRAPH "G0101" Invalid "The graph is not valid: the verifier lists every rule that it breaks.";
    TYPES "G0102" Invalid "Shapes or element types do not fit together at a node; the message names both sides.";
    TEXT "G0103" Invalid "The ONNX text could not be parsed; the message gives line and column.";
    UNKNOWN_OP "G0104" Unsupported "The op has no definition here and no function body in the model, so it can be carried along but not run or differentiated.";
    NO_EVAL "G0105" Unsupported "The op is known but cannot be run.";
    NO_GRADIENT "G0106" Unsupported "The op lies between a trainable weight and the loss and has no gradient; choose targets behind it, or rewrite it.";
    ATTRIBUTE "G0107" Invalid "A node's attribute is missing or has the wrong type.";
    VALUE "G0108" Invalid "A value given to an op is out of the range that the op allows.";

    DECODE "G0201" Invalid "The file is not an ONNX model, or is damaged: it could not be decoded.";
    MODEL "G0202" Invalid "The ONNX model breaks a rule of the format.";
    LIMIT "G0203" Invalid "The file asks for more memory or records than its size can justify.";
    EXTERNAL "G0204" Invalid "External data is missing, too short, or lies outside the model's folder.";
    IO "G0205" Failed "A file could not be read or written.";
    EXISTS "G0206" Usage "The output exists already; nothing is overwritten without --force.";

    PASS "G0301" Usage "The pipeline or the options of a pass could not be understood; the message lists what is known.";
    TARGET "G0302" Unmatched "A target selector matches no linear node; the message names the nearest.";
    INELIGIBLE "G0303" Unsupported "A selected linear node cannot take an adapter; the message says why.";
    METHOD "G0304" Usage "The adapter method or one of its settings is not known; the message lists the known ones.";
    LOSS "G0305" Usage "The loss does not fit the model's outputs or the labels.";
    OPSET "G0306" Unsupported "The rewrite needs a newer opset than the model's.";
    MERGE "G0307" Unsupported "The adapter cannot be merged into its weight; the message says why.";
    FROZEN "G0308" Invalid "No trainable weight reaches the loss, so there is nothing to train.";
    NON_FINITE "G0309" Invalid "A weight that is to be trained or merged holds NaN or infinite values.";
    SETTING "G0310" Unsupported "A setting of the adapter method asks for something that is not supported yet.";
    ORIGINALS "G0311" Invalid "The original weights that a merge kept are damaged, or are those of another merged model.";

    ADAPTER "G0401" Invalid "The adapter's files are damaged or incomplete, or its configuration is not understood.";
    ADAPTER_FIT "G0402" Unmatched "The adapter does not fit the model wholly: missing, unexpected or misshapen tensors are listed.";
    ADAPTER_FEATURE "G0403" Unsupported "The adapter's configuration asks for a method or feature that is not supported; it is never skipped silently.";

    DATA "G0501" Invalid "The training data cannot be used; the message names the file and the line or tensor.";
    TOKENIZER "G0502" Invalid "The tokenizer cannot be used with this model or data.";
    LABEL "G0503" Invalid "A label is missing, of the wrong type, or out of range.";
    STATE "G0504" Invalid "The run cannot be resumed: its saved state is damaged or belongs to other settings.";
    DIVERGED "G0505" Failed "The loss is no longer finite; lower the learning rate or clip the gradients.";
    INTERRUPTED "G0506" Interrupted "The run was interrupted; its state was saved, and --resume continues it.";
    RUNS "G0507" Failed "Some runs of a comparison failed; its report has the error of each.";

    DEVICE "G0601" Unsupported "The device or precision is not available.";
    FEED "G0602" Invalid "A tensor fed to the model is missing, unknown, or of the wrong type or shape.";
    DYNAMIC "G0603" Unsupported "A shape depends on data, so that no plan can be made for it.";
    MEMORY "G0604" Invalid "There is not enough memory for what the sizes in the model, the data or the command line ask for; the message names the tensor or the amount.";

    USAGE "G0701" Usage "The command line could not be understood.";
    OVER_TOLERANCE "G0702" Tolerance "The two sides of a check differ by more than the tolerance.";
    DIFFERENT "G0703" Failed "The two models are not the same; what differs is on stdout.";
}

/// What went wrong, where, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// Which problem it is.
    pub code: &'static Code,
    /// One sentence: what is wrong and what was expected; lower case, no full stop, names in backticks.
    pub message: String,
    /// Where, innermost first: node, pass, file.
    pub at: Vec<String>,
    /// What to do, or the nearest candidates.
    pub help: Option<String>,
}

/// A result with our error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without a place or help.
    pub fn new(code: &'static Code, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), at: Vec::new(), help: None }
    }
    /// Adds an outer place: ``node `h` (MatMul)``, ``pass `grad` ``, a file's name.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Error {
        self.at.push(place.into());
        self
    }
    /// Says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Error {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in self.at.iter().rev() {
            write!(f, "{place}: ")?;
        }
        write!(f, "{} [{}]", self.message, self.code.id)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// Of `candidates`, the up to three nearest to `wanted`, for an error's help.
pub fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut ranked: Vec<_> = candidates.into_iter().map(|c| (distance(wanted, c), c)).collect();
    ranked.sort();
    ranked.dedup();
    ranked.into_iter().map(|(_, c)| c).take(3).collect()
}

/// Levenshtein distance by characters, where a candidate that contains the wanted word is near.
fn distance(a: &str, b: &str) -> usize {
    if !a.is_empty() && b.contains(a) {
        return 0;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
