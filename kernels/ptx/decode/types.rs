//! The types of instructions.

/// How bits are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Untyped,
    Signed,
    Unsigned,
    Float,
    /// bfloat16.
    Brain,
    Predicate,
}

/// A type: how its bits are read, and how many bytes it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Type {
    pub(super) class: Class,
    pub(super) bytes: usize,
}

impl Type {
    pub(super) const PREDICATE: Type = Type { class: Class::Predicate, bytes: 0 };

    /// The type with this name.
    pub(super) fn parse(name: &str) -> Option<Type> {
        let (class, bits) = match name {
            "pred" => return Some(Type::PREDICATE),
            "bf16" => (Class::Brain, "16"),
            _ => {
                let class = match name.get(..1)? {
                    "b" => Class::Untyped,
                    "s" => Class::Signed,
                    "u" => Class::Unsigned,
                    "f" => Class::Float,
                    _ => return None,
                };
                (class, name.get(1..)?)
            }
        };
        let bytes = match bits {
            "8" => 1,
            "16" => 2,
            "32" => 4,
            "64" => 8,
            _ => return None,
        };
        let exists = bytes > 1 || !matches!(class, Class::Float | Class::Brain);
        exists.then_some(Type { class, bytes })
    }
    pub(super) fn is_integer(self) -> bool {
        matches!(self.class, Class::Untyped | Class::Signed | Class::Unsigned)
    }
    pub(super) fn is_signed(self) -> bool {
        self.class == Class::Signed
    }
    /// f32 or f64, the floats that instructions compute with.
    pub(super) fn is_float(self) -> bool {
        self.class == Class::Float && self.bytes >= 4
    }
}
