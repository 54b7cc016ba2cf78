//! Keys of the notes (ONNX `metadata_props`) that mark what was grafted; detection goes by these, never by names.

/// On nodes and params: the adapter method.
pub const METHOD: &str = "graft.method";
/// On nodes and params: the module path of the linear that is adapted; on the head's: `head`.
pub const TARGET: &str = "graft.target";
/// On nodes and params: the part that it plays in the method, such as `a`, `b`, `scale`, `up`.
pub const ROLE: &str = "graft.role";
/// The role of the adapted linear itself.
pub const BASE: &str = "base";
/// The role of the node that adds the adapted linear's bias, where that was an operand of the linear.
pub const BIAS: &str = "bias";
/// On the first param of an adapter: JSON object of the settings that made it.
pub const CONFIG: &str = "graft.config";
/// On nodes and params: the version of this scheme.
pub const VERSION: &str = "graft.version";
/// The present version.
pub const CURRENT: &str = "1";
/// On params: present where the param is trained.
pub const TRAINABLE: &str = "graft.trainable";
/// On the model: JSON list of `[input, output]` pairs, the state of a training graph.
pub const STATE: &str = "graft.state";
/// On the model: JSON object from role to name, for every input and output that is not the model's own.
pub const IO: &str = "graft.io";
