//! The two health tests of NIST SP 800-90B, section 4.4, over the bytes of one sample.
//!
//! Both are set for the source that they would least like to wrong: one that claims full entropy, H = 8 bits a byte, and
//! is falsely accused by one test with a probability of at most α = 2^-40. Over a whole sample that is less than 2^-30.

use std::io;
use std::time::Duration;

/// How many bytes of a source are read and tested for one seed: the 1,024 samples that section 4.3 wants tested at start.
pub const SAMPLE_LEN: usize = 1024;

/// C = 1 + ⌈-log2 α / H⌉ of section 4.4.1: so many equal bytes in a row have a probability of 2^-40 at most.
const REPETITION_CUTOFF: usize = 6;

/// Section 4.4.2: the length of a window for sources that are not binary.
const WINDOW: usize = 512;

/// C = 1 + critbinom(W, 2^-H, 1 - α) of section 4.4.2: in a window of W = 512 the first byte occurs so often with a
/// probability of 2^-40 at most.
const PROPORTION_CUTOFF: usize = 19;

/// What is wrong with a source.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It could not be opened or read.
    #[error("it cannot be read: {0}")]
    Read(io::Error),
    /// It gave fewer bytes than are tested.
    #[error("it ended after {0} of {SAMPLE_LEN} bytes")]
    Ended(usize),
    /// It made its reader wait: for callers that wait with a limit, as nothing here does.
    #[error("it, or one read with it, gave no answer within {0:?}")]
    Silent(Duration),
    /// The repetition count test failed: it is stuck.
    #[error("it gave the same byte {REPETITION_CUTOFF} times in a row")]
    Repetition,
    /// The adaptive proportion test failed: it is biased.
    #[error("it gave one byte {PROPORTION_CUTOFF} times or more within {WINDOW} bytes")]
    Proportion,
}

/// Judges a sample.
pub(super) fn check(sample: &[u8]) -> Result<(), Failure> {
    if sample
        .windows(REPETITION_CUTOFF)
        .any(|run| run.iter().all(|byte| *byte == run[0]))
    {
        return Err(Failure::Repetition);
    }
    if sample
        .chunks_exact(WINDOW)
        .any(|window| repeats(window) >= PROPORTION_CUTOFF)
    {
        return Err(Failure::Proportion);
    }
    Ok(())
}

/// How often the first byte of `window` occurs in it.
fn repeats(window: &[u8]) -> usize {
    window.iter().map(|byte| usize::from(*byte == window[0])).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte value in turn.
    fn even() -> Vec<u8> {
        (0..=255).cycle().take(SAMPLE_LEN).collect()
    }

    #[test]
    fn the_cutoffs_are_those_of_the_publication() {
        let (alpha, entropy) = (2_f64.powi(-40), 8.0);
        let repetition = 1.0 + (-alpha.log2() / entropy).ceil();
        assert!((repetition - 6.0).abs() < f64::EPSILON && REPETITION_CUTOFF == 6);

        // The upper tail of the binomial distribution: P(X > k) for k from 0, until it is at most α.
        let (trials, chance) = (512_i32, 2_f64.powi(-8));
        let mut terms = vec![(1.0 - chance).powi(trials)];
        for k in 1..=trials {
            let ratio = f64::from(trials - k + 1) / f64::from(k) * chance / (1.0 - chance);
            terms.push(terms[terms.len() - 1] * ratio);
        }
        let tail = |k: usize| terms[k + 1..].iter().rev().sum::<f64>();
        let critical = (0..512).find(|k| tail(*k) <= alpha).unwrap();
        assert_eq!(1 + critical, PROPORTION_CUTOFF);
    }

    #[test]
    fn five_equal_bytes_in_a_row_pass_and_six_do_not() {
        for start in [0, 300, SAMPLE_LEN - 6] {
            let mut sample = even();
            sample[start..start + 6].fill(0xaa);
            assert!(matches!(check(&sample), Err(Failure::Repetition)), "{start}");
            sample[start + 5] = 0xab;
            assert!(check(&sample).is_ok(), "{start}");
        }
    }

    #[test]
    fn a_window_whose_first_byte_occurs_nineteen_times_fails() {
        for window in [0, WINDOW] {
            let mut sample = even();
            // It occurs twice already.
            for place in 1..17 {
                sample[window + 5 * place] = sample[window];
            }
            assert!(check(&sample).is_ok());
            sample[window + 5 * 17] = sample[window];
            assert!(matches!(check(&sample), Err(Failure::Proportion)), "{window}");
        }
    }

    #[test]
    fn the_operating_system_passes() {
        for _ in 0..100 {
            let mut sample = vec![0; SAMPLE_LEN];
            getrandom::fill(&mut sample).unwrap();
            check(&sample).unwrap();
        }
    }
}
