//! How weights are called and laid out in adapter files.
use super::Method;
use graft_ir::{Attr, Builder, Code, Dim, Error, Node, Result, Tensor, Value};

/// How a weight is called and laid out in adapter files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileForm {
    /// The weight.
    pub role: &'static str,
    /// What follows the module path and a dot in the file's key. A `{}` stands for the index along the weight's first
    /// axis: each slice is a tensor of its own.
    pub suffix: &'static str,
    /// Other suffixes that are read in its place.
    pub aliases: &'static [&'static str],
    /// Whether the last two axes are exchanged in the file.
    pub is_transposed: bool,
    /// What the weight's sizes are.
    pub axes: &'static [Axis],
    /// What follows the module path and a dot in the name of the graph's input that takes the weight.
    pub input: &'static str,
}

/// What a size of a weight is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Axis {
    /// The columns of the linear's input.
    In,
    /// The columns of its result.
    Out,
    /// The rank.
    Rank,
    /// One.
    One,
    /// The columns of the linear's input divided by the rank.
    InBlocks,
    /// The columns of its result divided by the rank.
    OutBlocks,
    /// A setting of the method.
    Setting(&'static str),
}

impl FileForm {
    /// A weight that lies in the file as it is.
    pub const fn plain(role: &'static str, suffix: &'static str) -> FileForm {
        FileForm { role, suffix, aliases: &[], is_transposed: false, axes: &[], input: suffix }
    }
    /// A weight whose last two axes are exchanged in the file.
    pub const fn transposed(role: &'static str, suffix: &'static str) -> FileForm {
        FileForm { is_transposed: true, ..FileForm::plain(role, suffix) }
    }
    /// Other suffixes that are read.
    pub const fn or(self, aliases: &'static [&'static str]) -> FileForm {
        FileForm { aliases, ..self }
    }
    /// What the sizes are.
    pub const fn of(self, axes: &'static [Axis]) -> FileForm {
        FileForm { axes, ..self }
    }
    /// What an input of a graph is called that takes the weight, where it is not the suffix: because that has a gap, or
    /// does not tell one variant from another.
    pub const fn fed_as(self, input: &'static str) -> FileForm {
        FileForm { input, ..self }
    }
    /// The suffixes of a weight's tensors in the file, and the sizes of each.
    pub fn expected(&self, dims: &[usize]) -> Vec<(String, Vec<usize>)> {
        let mut each = dims.to_vec();
        let n = if self.is_split() && !each.is_empty() { each.remove(0) } else { 1 };
        if let ([.., rows, columns], true) = (&mut each[..], self.is_transposed) {
            std::mem::swap(rows, columns);
        }
        (0..n).map(|i| (self.suffix.replace("{}", &i.to_string()), each.clone())).collect()
    }
    /// The module path and the suffix (as it is written) of a key that is of this form.
    pub fn split<'k>(&self, key: &'k str) -> Option<(&'k str, String)> {
        let named = |suffix: &str| key.strip_suffix(suffix)?.strip_suffix('.');
        let exact = || std::iter::once(&self.suffix).chain(self.aliases).find_map(|s| named(s));
        let Some((before, after)) = self.suffix.split_once("{}") else {
            return Some((exact()?, self.suffix.into()));
        };
        let (module, index) = key.strip_suffix(after)?.rsplit_once(before)?;
        let index: usize = index.parse().ok()?;
        Some((module.strip_suffix('.')?, self.suffix.replace("{}", &index.to_string())))
    }
    /// The tensors of a weight as files have them, by suffix.
    pub fn to_files(&self, weight: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let suffixes = self.expected(weight.dims()).into_iter().map(|(suffix, _)| suffix);
        let slices = if self.is_split() { slices(weight)? } else { vec![weight.clone()] };
        let slices = slices.iter().map(|t| if self.is_transposed { transposed(t) } else { Ok(t.clone()) });
        suffixes.zip(slices).map(|(suffix, slice)| Ok((suffix, slice?))).collect()
    }
    /// Appends the nodes that make a weight's tensors in files; each tensor is called `key` of its suffix.
    pub fn append(
        &self,
        weight: Value,
        key: &dyn Fn(&str) -> String,
        b: &mut Builder<'_>,
    ) -> Result<Vec<Value>> {
        let sizes: Option<Vec<usize>> = b.shape(weight)?.iter().map(Dim::as_size).collect();
        let open = || Error::new(Code::ADAPTER, format!("weight `{}` has no sizes", b.graph.name(weight)));
        let expected = self.expected(&sizes.ok_or_else(open)?);
        let mut tensors = Vec::new();
        for (i, (suffix, dims)) in (0..).zip(expected) {
            let mut slice = weight;
            if self.is_split() {
                let index = b.constant("index", Tensor::i64(&[], &[i]))?;
                slice = b.op("slice", "Gather", &[weight, index])?;
            }
            let tensor = b.graph.add_value(key(&suffix), None);
            let mut axes: Vec<i64> = (0..dims.len() as i64).collect();
            let node = if let ([.., rows, columns], true) = (&mut axes[..], self.is_transposed) {
                std::mem::swap(rows, columns);
                Node::new("Transpose", &[slice], &[tensor]).with("perm", Attr::Ints(axes))
            } else {
                Node::new("Identity", &[slice], &[tensor])
            };
            b.append(node)?;
            tensors.push(tensor);
        }
        Ok(tensors)
    }
    /// The weight of its tensors in a file, in order.
    pub fn to_weight(&self, files: &[&Tensor]) -> Result<Tensor> {
        let slices = files.iter().map(|t| if self.is_transposed { transposed(t) } else { Ok((*t).clone()) });
        let slices = slices.collect::<Result<Vec<Tensor>>>()?;
        match &slices[..] {
            [one] if !self.is_split() => Ok(one.clone()),
            many => stacked(many),
        }
    }
    pub(super) fn is_split(&self) -> bool {
        self.suffix.contains("{}")
    }
}

/// The suffixes of all tensors in a method's files, for messages.
pub(super) fn suffixes(method: &Method) -> String {
    let mut all: Vec<&str> = method.variants.iter().flat_map(|v| v.files).map(|form| form.suffix).collect();
    all.dedup();
    format!("`{}`", all.join("`, `"))
}

/// The last two axes exchanged, bit by bit.
fn transposed(tensor: &Tensor) -> Result<Tensor> {
    let size = tensor.dtype().bits() / 8;
    let (&[ref leading @ .., rows, columns], true) = (tensor.dims(), size > 0) else {
        let message = format!("expected a matrix of whole bytes, found {:?}", tensor.dims());
        return Err(Error::new(Code::ADAPTER_FIT, message));
    };
    let data = tensor.data();
    let mut out = Vec::with_capacity(data.len());
    for matrix in data.chunks_exact((rows * columns * size).max(1)) {
        for (column, row) in (0..columns).flat_map(|c| (0..rows).map(move |r| (c, r))) {
            let at = (row * columns + column) * size;
            out.extend_from_slice(&matrix[at..at + size]);
        }
    }
    let dims = leading.iter().copied().chain([columns, rows]).collect();
    Tensor::new(tensor.dtype(), dims, out.into())
}

/// The slices along the first axis.
fn slices(tensor: &Tensor) -> Result<Vec<Tensor>> {
    let Some((&n, rest)) = tensor.dims().split_first() else {
        return Err(Error::new(Code::ADAPTER_FIT, "expected a stack of tensors, found a scalar"));
    };
    let length = tensor.data().len().checked_div(n).unwrap_or(0);
    let slice =
        |i| Tensor::new(tensor.dtype(), rest.to_vec(), tensor.data().slice(i * length..(i + 1) * length));
    (0..n).map(slice).collect()
}

/// Tensors of one shape behind each other along a new first axis.
fn stacked(slices: &[Tensor]) -> Result<Tensor> {
    let differ = || Error::new(Code::ADAPTER_FIT, "the tensors of one weight differ in size or type");
    let first = slices.first().ok_or_else(differ)?;
    if slices.iter().any(|t| t.dims() != first.dims() || t.dtype() != first.dtype()) {
        return Err(differ());
    }
    let dims = [&[slices.len()], first.dims()].concat();
    let data: Vec<u8> = slices.iter().flat_map(|t| t.data().iter().copied()).collect();
    Tensor::new(first.dtype(), dims, data.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_ir::{Array, DType, Graph, Precision, Type, eval::eval};
    use std::collections::BTreeMap;

    #[test]
    fn a_stack_is_several_matrices_in_a_file() {
        let form = FileForm::transposed("b", "lora_B{}.weight");
        let weight = Tensor::f32(&[2, 1, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let files = form.to_files(&weight).unwrap();
        assert_eq!(files[0], ("lora_B0.weight".into(), Tensor::f32(&[3, 1], &[1.0, 2.0, 3.0])));
        assert_eq!(form.expected(&[2, 1, 3])[1], ("lora_B1.weight".into(), vec![3, 1]));
        assert_eq!(form.to_weight(&[&files[0].1, &files[1].1]).unwrap(), weight);
        assert_eq!(form.split("a.b.lora_B12.weight"), Some(("a.b", "lora_B12.weight".into())));
        assert_eq!(form.split("a.b.lora_B.weight"), None);
        assert!(form.to_weight(&[&files[0].1, &weight]).is_err());
    }

    #[test]
    fn a_graph_makes_the_tensors_that_files_hold() {
        let data: Vec<f32> = (0..12).map(|i| i as f32).collect();
        for (form, dims) in [
            (FileForm::transposed("b", "lora_B{}.weight"), vec![2, 2, 3]),
            (FileForm::transposed("a", "lora_A.weight"), vec![4, 3]),
            (FileForm::plain("d", "miss_block"), vec![3, 4]),
            (FileForm::plain("d", "block{}"), vec![3, 4]),
        ] {
            let weight = Tensor::f32(&dims, &data);
            let mut graph = Graph { opsets: BTreeMap::from([(String::new(), 17)]), ..Graph::default() };
            let w = graph.add_input("w", Type::new(DType::Float, dims.clone()));
            graph.outputs =
                form.append(w, &|suffix| format!("m.{suffix}"), &mut Builder::new(&mut graph)).unwrap();
            graft_ir::check(&graph).unwrap();
            let made =
                eval(&graph, &[Some(Array::from_tensor(&weight).unwrap())], Precision::Native).unwrap();
            let made = graph
                .outputs
                .iter()
                .zip(made)
                .map(|(&v, t)| (graph.name(v).to_string(), t.to_tensor().unwrap()));
            let files =
                form.to_files(&weight).unwrap().into_iter().map(|(suffix, t)| (format!("m.{suffix}"), t));
            assert!(made.eq(files), "{form:?}");
        }
    }

    #[test]
    fn a_matrix_is_turned_and_turned_back() {
        let form = FileForm::transposed("a", "lora_A.weight");
        let weight = Tensor::f32(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let [(suffix, file)] = &form.to_files(&weight).unwrap()[..] else { panic!("one tensor") };
        assert_eq!((suffix.as_str(), file.dims()), ("lora_A.weight", &[3, 2][..]));
        assert_eq!(form.to_weight(&[file]).unwrap(), weight);
        let other = FileForm::plain("d", "miss_block").or(&["bone_block"]);
        assert_eq!(other.split("q.bone_block"), Some(("q", "miss_block".into())));
        assert_eq!(other.split("bone_block"), None);
    }
}
