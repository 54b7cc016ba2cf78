//! The order of rows: a pure function from (rows, seed, epoch) to batches.
use graft_ir::random;

/// How rows become batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    /// A new random order for each epoch; rows of similar length come together, so that little is padded.
    #[default]
    Shuffle,
    /// The rows as they stand in the file.
    Sequential,
}

/// Rows are sorted by length within runs of this many batches of the random order.
const BUCKET: usize = 64;
/// The streams of the random generator that this module draws from; adapters count from the first, the head has the last.
const ROWS: u64 = 4093;
const BATCHES: u64 = 4094;

/// The batches of an epoch (from 0). Every row comes once; the last batch holds what is left over.
///
/// # Panics
/// If `batch` is 0.
pub fn batches(order: Order, lengths: &[usize], batch: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
    assert_ne!(batch, 0, "a batch has rows");
    let n = lengths.len();
    let cut = |rows: &[usize]| rows.chunks(batch).map(<[usize]>::to_vec).collect::<Vec<_>>();
    if order == Order::Sequential {
        return cut(&(0..n).collect::<Vec<_>>());
    }
    let mut rows = random::permutation(seed, epoch, ROWS, n);
    for bucket in rows.chunks_mut(batch * BUCKET) {
        // Stable, so that rows of one length stay in random order.
        bucket.sort_by_key(|&row| lengths[row]);
    }
    let batches = cut(&rows);
    let order = random::permutation(seed, epoch, BATCHES, batches.len());
    order.into_iter().map(|i| batches[i].clone()).collect()
}

/// A place in the endless stream of batches, epoch after epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stream {
    order: Order,
    lengths: Vec<usize>,
    batch: usize,
    seed: u64,
    /// The epoch whose batches are held.
    epoch: u64,
    batches: Vec<Vec<usize>>,
    /// How many batches have been taken since the beginning.
    taken: u64,
}

impl Stream {
    /// The stream after `taken` batches.
    pub fn new(order: Order, lengths: &[usize], batch: usize, seed: u64, taken: u64) -> Stream {
        let per_epoch = lengths.len().div_ceil(batch).max(1) as u64;
        let epoch = taken / per_epoch;
        let held = batches(order, lengths, batch, seed, epoch);
        Stream { order, lengths: lengths.to_vec(), batch, seed, epoch, batches: held, taken }
    }
    /// How many batches have been taken since the beginning.
    pub fn taken(&self) -> u64 {
        self.taken
    }
    /// How many batches an epoch has.
    pub fn per_epoch(&self) -> u64 {
        self.batches.len() as u64
    }
    /// The rows of the next batch.
    pub fn next_batch(&mut self) -> &[usize] {
        let (epoch, index) = (self.taken / self.per_epoch(), self.taken % self.per_epoch());
        if epoch != self.epoch {
            self.batches = batches(self.order, &self.lengths, self.batch, self.seed, epoch);
            self.epoch = epoch;
        }
        self.taken += 1;
        &self.batches[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(n: usize) -> Vec<usize> {
        (0..n).map(|i| 3 + (i * 7919) % 50).collect()
    }

    #[test]
    fn every_row_comes_once_an_epoch() {
        for order in [Order::Shuffle, Order::Sequential] {
            for (n, batch) in [(1, 4), (400, 8), (1001, 16), (3000, 7)] {
                let batches = batches(order, &lengths(n), batch, 5, 2);
                assert_eq!(batches.len(), n.div_ceil(batch));
                let mut rows = batches.concat();
                rows.sort_unstable();
                assert_eq!(rows, (0..n).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn sequential_batches_are_consecutive() {
        let all = batches(Order::Sequential, &lengths(10), 4, 0, 3);
        assert_eq!(all, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
    }

    #[test]
    fn shuffled_batches_hold_rows_of_similar_length() {
        let lengths = lengths(3000);
        let padded = |batches: &[Vec<usize>]| -> usize {
            let longest = |b: &Vec<usize>| b.iter().map(|&r| lengths[r]).max().unwrap_or(0) * b.len();
            batches.iter().map(longest).sum()
        };
        let (shuffled, plain) =
            (batches(Order::Shuffle, &lengths, 16, 1, 0), batches(Order::Sequential, &lengths, 16, 1, 0));
        let real: usize = lengths.iter().sum();
        assert!(padded(&shuffled) < real * 21 / 20, "{} of {real}", padded(&shuffled));
        assert!(padded(&plain) > real * 3 / 2);
        assert_ne!(shuffled, batches(Order::Shuffle, &lengths, 16, 1, 1), "epochs differ");
        assert_ne!(shuffled, batches(Order::Shuffle, &lengths, 16, 2, 0), "seeds differ");
    }

    #[test]
    fn a_stream_can_begin_anywhere() {
        for order in [Order::Shuffle, Order::Sequential] {
            let lengths = lengths(50);
            let mut whole = Stream::new(order, &lengths, 8, 3, 0);
            let batches: Vec<Vec<usize>> = (0..20).map(|_| whole.next_batch().to_vec()).collect();
            for (taken, batch) in batches.iter().enumerate() {
                let mut late = Stream::new(order, &lengths, 8, 3, taken as u64);
                assert_eq!(late.next_batch(), batch);
            }
        }
    }
}
