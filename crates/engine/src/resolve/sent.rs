//! The sends under way to a member, in the order in which they were made.

use std::collections::VecDeque;
use sync_worker_core::record::Offset;

/// Sends of a block.
const BLOCK: usize = 1024;

/// Hashes of keys by the offset of their send, the oldest first; twelve bytes each, for a member that is away leaves millions
/// of them.
#[derive(Default)]
pub struct Sent {
    blocks: VecDeque<Block>,
}

struct Block {
    first: u64,
    /// Of those here, how many were taken.
    taken: usize,
    /// Offsets from `first` on, and the halves of the hashes.
    sends: Vec<[u32; 3]>,
}

impl Block {
    fn get(&self, at: usize) -> Option<(Offset, u64)> {
        let [offset, high, low] = self.sends.get(at)?;
        Some((Offset(self.first + u64::from(*offset)), u64::from(*high) << 32 | u64::from(*low)))
    }
}

impl Sent {
    /// Offsets do not fall.
    pub fn push(&mut self, sent: Offset, hash: u64) {
        let offset = self
            .blocks
            .back()
            .filter(|block| block.sends.len() < BLOCK)
            .and_then(|block| u32::try_from(sent.0.checked_sub(block.first)?).ok());
        #[allow(clippy::cast_possible_truncation)] // the two halves
        let send = [offset.unwrap_or(0), (hash >> 32) as u32, hash as u32];
        match self.blocks.back_mut().filter(|_| offset.is_some()) {
            Some(block) => block.sends.push(send),
            None => self.blocks.push_back(Block { first: sent.0, taken: 0, sends: vec![send] }),
        }
    }

    /// Takes the oldest one out if it was made by a record up to this one.
    pub fn pop_up_to(&mut self, offset: Offset) -> Option<u64> {
        let block = self.blocks.front_mut()?;
        let (_, hash) = block.get(block.taken).filter(|(sent, _)| *sent <= offset)?;
        block.taken += 1;
        if block.taken == block.sends.len() {
            self.blocks.pop_front();
        }
        Some(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_come_back_in_their_order_up_to_an_offset() {
        let mut sent = Sent::default();
        // Far apart and close together, several of one record.
        let offset = |n: u64| n / 3 * if n > 4_000 { 10_000_000_000 } else { 1 };
        (0..10_000).for_each(|n| sent.push(Offset(offset(n)), n << 40 | n));
        for n in 0..10_000 {
            let at = offset(n);
            if n > 0 && offset(n - 1) < at {
                assert_eq!(sent.pop_up_to(Offset(at - 1)), None);
            }
            assert_eq!(sent.pop_up_to(Offset(at)), Some(n << 40 | n));
        }
        assert_eq!(sent.pop_up_to(Offset(u64::MAX)), None);
        sent.push(Offset(7), 1);
        assert_eq!(sent.pop_up_to(Offset(7)), Some(1));
    }
}
