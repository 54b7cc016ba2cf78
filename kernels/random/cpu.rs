//! Each element draws its own number, so the work may be cut anywhere.
use crate::{Call, math::vectorised, threads::PIECE};
use graft_ir::{Code, Error, Result, random::Stream};

/// The stream that the operands `first` (seed), `first + 1` (step) and `first + 2` (tensor) ask for.
fn stream(call: &Call<'_>, first: usize) -> Result<Stream> {
    let number = |i: usize| -> Result<u64> {
        let missing = || Error::new(Code::TYPES, format!("operand {i} must be a single integer"));
        Ok(call.input(i)?.elements::<i64>().first().copied().ok_or_else(missing)? as u64)
    };
    Ok(Stream::new(number(first)?, number(first + 1)?, number(first + 2)?))
}

/// `graft.Uniform (seed, step, tensor, shape) => (u)`.
pub(super) fn uniform(call: &mut Call<'_>) -> Result<()> {
    let stream = stream(call, 0)?;
    let u = call.output(0)?.elements::<f32>();
    call.threads.pieces(u, PIECE, |start, piece| {
        for (u, i) in piece.iter_mut().zip(start as u64..) {
            *u = stream.uniform(i);
        }
    });
    Ok(())
}

/// `graft.Dropout <threshold, scale> (x, seed, step, tensor) => (y)`: `y = x·scale` where the bits are at least
/// `threshold`, else `x·0`, which keeps NaN and infinities from going unseen.
pub(super) fn dropout(call: &mut Call<'_>) -> Result<()> {
    let (threshold, scale) = (call.node.int("threshold")?, call.node.float("scale")?);
    let missing = || Error::new(Code::ATTRIBUTE, "`graft.Dropout` needs `threshold` and `scale`");
    let (threshold, scale) = threshold.zip(scale).ok_or_else(missing)?;
    let stream = stream(call, 1)?;
    let y = call.seeded(0, 0)?;
    call.threads.pieces(y, PIECE, |start, piece| {
        vectorised(
            #[inline(always)]
            || {
                for (y, i) in piece.iter_mut().zip(start as u64..) {
                    *y *= if i64::from(stream.bits(i)) < threshold { 0.0 } else { scale };
                }
            },
        );
    });
    Ok(())
}
