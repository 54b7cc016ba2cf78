//! The corpus of the demo as rows of tokens: the bytes themselves, as the model takes them.
use graft_ir::Tensor;

/// Bytes of a row: the positions that the model has.
pub(super) const CONTEXT: usize = 128;

/// The addresses; their source stands in `crates/cli/demo/README.md`.
const ADDRESSES: &[u8] = include_bytes!("../../../demo/addresses.txt");

/// The text, cut in two.
pub(super) struct Corpus {
    /// What is learnt from: the first nine tenths.
    pub(super) train: &'static [u8],
    /// What is only evaluated on.
    pub(super) held_out: &'static [u8],
}

impl Corpus {
    pub(super) fn new() -> Corpus {
        let (train, held_out) = ADDRESSES.split_at(ADDRESSES.len() / 10 * 9);
        Corpus { train, held_out }
    }
}

/// Rows (n, [`CONTEXT`]) of bytes. Each begins with the last byte of the row before, so that every byte but the first
/// is predicted once; what does not fill a row is left out.
pub(super) fn rows(text: &[u8]) -> Tensor {
    let starts = (0..text.len().saturating_sub(CONTEXT - 1)).step_by(CONTEXT - 1);
    let rows: Vec<&[u8]> = starts.map_while(|i| text.get(i..i + CONTEXT)).collect();
    let tokens: Vec<i64> = rows.iter().copied().flatten().map(|&byte| i64::from(byte)).collect();
    Tensor::i64(&[rows.len(), CONTEXT], &tokens)
}

/// A text's tokens.
pub(super) fn tokens(text: &str) -> Vec<i64> {
    text.bytes().map(i64::from).collect()
}

/// What tokens say.
pub(super) fn text(tokens: &[i64]) -> String {
    let byte = |&token: &i64| u8::try_from(token).unwrap_or(b'?');
    String::from_utf8_lossy(&tokens.iter().map(byte).collect::<Vec<_>>()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_predicted_once() {
        let bytes: Vec<u8> = (0..=255).collect();
        let cut = rows(&bytes);
        assert_eq!(cut.dims(), [2, CONTEXT]);
        let tokens = cut.to_i64().unwrap();
        assert_eq!((tokens[0], tokens[CONTEXT - 1], tokens[CONTEXT], tokens[2 * CONTEXT - 1]), (0, 127, 127, 254));
        assert_eq!(rows(&bytes[..CONTEXT - 1]).dims(), [0, CONTEXT]);
        assert_eq!(rows(&bytes[..CONTEXT]).dims(), [1, CONTEXT]);
    }

    #[test]
    fn the_corpus_is_ascii() {
        let corpus = Corpus::new();
        assert!(corpus.train.is_ascii() && corpus.held_out.is_ascii());
        assert!(corpus.held_out.len() > 10 * CONTEXT);
        assert_eq!(text(&tokens("It is our duty.")), "It is our duty.");
    }
}
