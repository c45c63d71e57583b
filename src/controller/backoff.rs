//! Per-object delays after failures: exponential, with jitter, forgotten on success.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::{BuildHasher, Hash},
    sync::{Mutex, PoisonError},
    time::Duration,
};

const FIRST: Duration = Duration::from_millis(200);
const LAST: Duration = Duration::from_secs(60);

/// Counts consecutive failures by object.
#[derive(Debug)]
pub struct Backoff<K> {
    failures: Mutex<HashMap<K, u32>>,
    jitter: RandomState,
}

impl<K: Hash + Eq + Clone> Default for Backoff<K> {
    fn default() -> Self {
        Self {
            failures: Mutex::default(),
            jitter: RandomState::new(),
        }
    }
}

impl<K: Hash + Eq + Clone> Backoff<K> {
    /// Notes a failure; how long to wait before the next try: 0.2 s doubling to 60 s, give or take a quarter.
    pub fn failed(&self, key: &K) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        let full = FIRST.saturating_mul(1 << (*count - 1).min(16)).min(LAST);
        // A hash under a key of this process spreads equal delays; it need not be unpredictable.
        let spread =
            f64::from(u32::try_from(self.jitter.hash_one((key, *count)) & 0xffff).unwrap_or(0)) / 65_535.0;
        full.mul_f64(0.75 + spread / 2.0)
    }

    /// Forgets the failures of an object.
    pub fn succeeded(&self, key: &K) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_minute_and_start_again_after_a_success() {
        let backoff = Backoff::default();
        let first = backoff.failed(&"a");
        assert!(
            first >= FIRST.mul_f64(0.75) && first <= FIRST.mul_f64(1.25),
            "{first:?}"
        );
        let later = (0..20)
            .map(|_| backoff.failed(&"a"))
            .last()
            .expect("twenty delays");
        assert!(
            later >= LAST.mul_f64(0.75) && later <= LAST.mul_f64(1.25),
            "{later:?}"
        );
        assert!(
            backoff.failed(&"b") <= FIRST.mul_f64(1.25),
            "objects do not share delays"
        );
        backoff.succeeded(&"a");
        assert!(backoff.failed(&"a") <= FIRST.mul_f64(1.25));
    }
}
