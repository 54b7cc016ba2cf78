//! Frames: frozen matrices that lie on the device with room around them, so that a matrix together with what is put there
//! is one matrix, too. A frame is filled once and lives as long as what it was made from; launches write into its room.
use super::Element;

/// An operand that never changes, (rows, cols), as the upper left part of a matrix that is `room` rows and columns larger.
/// What it does not fill is zero to begin with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Frame {
    /// The operand's number among those of the call.
    pub operand: usize,
    /// The operand's rows.
    pub rows: usize,
    /// The operand's columns.
    pub cols: usize,
    /// Rows below it, and columns to its right.
    pub room: usize,
    /// The type of the elements.
    pub element: Element,
}

impl Frame {
    /// How many elements apart the beginnings of neighbouring rows are.
    pub fn stride(&self) -> usize {
        self.cols + self.room
    }
    /// The element at which the rows below the operand begin.
    pub fn below(&self) -> usize {
        self.rows * self.stride()
    }
    /// The frame's bytes, made from those of the operand.
    pub fn lay(&self, operand: &[u8]) -> Vec<u8> {
        let [row, wide] = [self.cols, self.stride()].map(|n| n * self.element.bytes());
        let mut bytes = vec![0; (self.rows + self.room) * wide];
        for (to, from) in bytes.chunks_exact_mut(wide).zip(operand.chunks_exact(row)) {
            to[..row].copy_from_slice(from);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_zeros_below_and_to_the_right() {
        let frame = Frame { operand: 1, rows: 2, cols: 3, room: 1, element: Element::Bf16 };
        assert_eq!((frame.stride(), frame.below()), (4, 8));
        let laid = frame.lay(&[1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]);
        assert_eq!(laid, [1, 1, 2, 2, 3, 3, 0, 0, 4, 4, 5, 5, 6, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
