//! Which sequence numbers were seen: a sliding window over the newest of them.

/// How many sequence numbers behind the newest are remembered; older packets are refused.
pub const WINDOW: u64 = 1024;

const WORDS: usize = (WINDOW / 64) as usize;

/// The sequence numbers seen among the newest [`WINDOW`]. The number `seq` has the bit `seq mod WINDOW`.
pub(super) struct Window {
    bits: [u64; WORDS],
    /// One more than the highest number seen.
    next: u64,
}

impl Window {
    pub(super) const fn new() -> Self {
        Self {
            bits: [0; WORDS],
            next: 0,
        }
    }

    /// One more than the highest number seen.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Whether `seq` was not seen, and is new enough to tell.
    pub(super) fn is_unseen(&self, seq: u64) -> bool {
        let (word, bit) = place(seq);
        seq >= self.next || (self.next - seq <= WINDOW && self.bits[word] & bit == 0)
    }

    /// Remembers `seq`, which must be unseen and below `u64::MAX`.
    pub(super) fn mark(&mut self, seq: u64) {
        if seq >= self.next {
            if seq - self.next >= WINDOW {
                self.bits = [0; WORDS];
            } else {
                for skipped in self.next..seq {
                    let (word, bit) = place(skipped);
                    self.bits[word] &= !bit;
                }
            }
            self.next = seq + 1;
        }
        let (word, bit) = place(seq);
        self.bits[word] |= bit;
    }
}

const fn place(seq: u64) -> (usize, u64) {
    let index = seq % WINDOW;
    ((index / 64) as usize, 1 << (index % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_window_reaches_1024_numbers_back() {
        let mut window = Window::new();
        assert!(window.is_unseen(0));
        window.mark(0);
        assert!(!window.is_unseen(0));
        window.mark(1024);
        assert!(!window.is_unseen(0), "too old");
        assert!(window.is_unseen(1));
        window.mark(1);
        assert!(!window.is_unseen(1));
    }

    proptest! {
        #[test]
        fn it_says_what_a_set_of_all_numbers_would_say(
            steps in prop::collection::vec(prop_oneof![0_u64..3000, (0_u64..4).prop_map(|far| far << 40)], 1..400)
        ) {
            let (mut window, mut seen) = (Window::new(), BTreeSet::<u64>::new());
            for seq in steps {
                let oldest = seen.last().map_or(0, |last| (last + 1).saturating_sub(WINDOW));
                let unseen = seq >= oldest && !seen.contains(&seq);
                prop_assert_eq!(window.is_unseen(seq), unseen);
                if unseen {
                    window.mark(seq);
                    seen.insert(seq);
                }
                prop_assert_eq!(window.next(), seen.last().map_or(0, |last| last + 1));
            }
        }
    }
}
