//! Types of values, and the notes on them.
use crate::proto::{
    StringStringEntryProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto::{Dimension, dimension::Value as Size},
    type_proto::{self, Value as Kind},
};
use graft_ir::{DType, Dim, Meta, Type};
use std::collections::HashSet;

/// The type of a tensor value called `name`; `None` for every other kind of value and for element types that the
/// graph cannot express.
pub(crate) fn read(proto: &TypeProto, name: &str) -> Option<Type> {
    let Some(Kind::TensorType(tensor)) = &proto.value else { return None };
    let dtype = DType::from_onnx(tensor.elem_type?)?;
    let dims = |shape: &TensorShapeProto| {
        shape.dim.iter().enumerate().map(|(axis, d)| read_dim(d, name, axis)).collect::<Vec<Dim>>()
    };
    Some(Type { dtype, shape: tensor.shape.as_ref().map(dims) })
}

/// The type that a declaration gives, if any.
pub(crate) fn declared(info: &ValueInfoProto) -> Option<Type> {
    read(info.r#type.as_ref()?, info.name())
}

fn read_dim(dim: &Dimension, name: &str, axis: usize) -> Dim {
    /// Longer texts are symbols, whatever they look like: sums and products take time quadratic in their length.
    const LONGEST: usize = 256;
    let unknown = || Dim::unknown(name, axis);
    match &dim.value {
        // Some exporters write -1 for a size that they do not know.
        Some(Size::DimValue(n)) if *n >= 0 => Dim::from(*n),
        Some(Size::DimParam(text)) if text.is_empty() || text.starts_with('?') => unknown(),
        Some(Size::DimParam(text)) if text.len() > LONGEST => Dim::symbol(text),
        Some(Size::DimParam(text)) => {
            let dim = Dim::parse(text);
            if dim.as_const().is_some_and(|n| n < 0) { unknown() } else { dim }
        }
        _ => unknown(),
    }
}

/// The message for a type.
pub(crate) fn write(ty: &Type) -> TypeProto {
    let dims = |shape: &Vec<Dim>| TensorShapeProto { dim: shape.iter().map(write_dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(ty.dtype as i32), shape: ty.shape.as_ref().map(dims) };
    TypeProto { value: Some(Kind::TensorType(tensor)), denotation: None }
}

fn write_dim(dim: &Dim) -> Dimension {
    let value = match dim.as_const() {
        Some(n) => Some(Size::DimValue(n)),
        None if dim.symbols().any(|s| s.starts_with('?')) => None,
        None => Some(Size::DimParam(dim.to_string())),
    };
    Dimension { value, denotation: None }
}

/// Whether a declared type still holds of a value whose type is `now`, so that the declaration can stay as it is.
///
/// Inference refines types: it puts sizes in terms of the inputs' `symbols` where the exporter wrote a name of its own,
/// or nothing. Only what contradicts the declaration replaces it.
pub(crate) fn still_holds(declared: Option<&Type>, now: Option<&Type>, symbols: &HashSet<String>) -> bool {
    let (Some(declared), Some(now)) = (declared, now) else { return true };
    let vague = |d: &Dim| d.as_const().is_none() && !d.symbols().any(|s| symbols.contains(s));
    let fits = |(d, n): (&Dim, &Dim)| d == n || n.is_unknown() || vague(d);
    let shapes = match (&declared.shape, &now.shape) {
        (Some(d), Some(n)) => d.len() == n.len() && d.iter().zip(n).all(fits),
        _ => true,
    };
    declared.dtype == now.dtype && shapes
}

/// Notes; of two with the same key the last counts.
pub(crate) fn read_meta(entries: &[StringStringEntryProto]) -> Meta {
    entries.iter().map(|e| (e.key().to_string(), e.value().to_string())).collect()
}

/// Messages for notes, in the order of `old` as far as they are there.
pub(crate) fn write_meta(meta: &Meta, old: &[StringStringEntryProto]) -> Vec<StringStringEntryProto> {
    if read_meta(old) == *meta {
        return old.to_vec();
    }
    let mut seen = HashSet::new();
    let old_keys = old.iter().map(|e| e.key()).filter(|k| meta.contains_key(*k));
    let keys = old_keys.chain(meta.keys().map(String::as_str)).filter(|k| seen.insert(*k));
    keys.map(|k| StringStringEntryProto { key: Some(k.into()), value: meta.get(k).cloned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_survive() {
        let ty = Type::new(DType::Float16, [Dim::symbol("b"), Dim::from(3i64), Dim::parse("2*b*s+1")]);
        assert_eq!(read(&write(&ty), "x"), Some(ty));
        let open = Type { dtype: DType::Int64, shape: None };
        assert_eq!(read(&write(&open), "x"), Some(open));
        let unknown = Type::new(DType::Float, [Dim::unknown("x", 0)]);
        assert_eq!(read(&write(&unknown), "x"), Some(unknown));
    }

    #[test]
    fn refinement_keeps_declarations_and_contradiction_does_not() {
        let symbols: HashSet<String> = ["b".to_string()].into();
        let ty = |dims: &[&str]| Type::new(DType::Float, dims.iter().map(|d| Dim::parse(d)));
        let holds = |a: &[&str], b: &[&str]| still_holds(Some(&ty(a)), Some(&ty(b)), &symbols);
        assert!(holds(&["b", "MatMul_dim_1"], &["b", "4*b"]));
        assert!(holds(&["b", "4"], &["b", "4"]));
        assert!(!holds(&["b", "4"], &["b", "5"]));
        assert!(!holds(&["b"], &["7"]));
        assert!(!holds(&["b"], &["b", "1"]));
        assert!(still_holds(None, Some(&ty(&["b"])), &symbols));
    }

    #[test]
    fn notes_keep_their_order() {
        let entry = |k: &str, v: &str| StringStringEntryProto { key: Some(k.into()), value: Some(v.into()) };
        let old = [entry("z", "1"), entry("a", "2"), entry("m", "3")];
        let mut meta = read_meta(&old);
        assert_eq!(write_meta(&meta, &old), old);
        meta.insert("b".into(), "4".into());
        meta.insert("a".into(), "5".into());
        meta.remove("m");
        assert_eq!(write_meta(&meta, &old), [entry("z", "1"), entry("a", "5"), entry("b", "4")]);
    }
}
