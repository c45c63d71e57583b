//! Whether a zygote still answers.

use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Asks a zygote every so often whether it is there.
pub(super) struct Pulse {
    beats: tokio::time::Interval,
    asked: u64,
    /// When the oldest question without an answer was asked.
    unanswered: Option<(u64, Instant)>,
    began: bool,
}

impl Pulse {
    pub(super) fn new() -> Self {
        let mut beats = interval(PING_INTERVAL);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            beats,
            asked: 0,
            unanswered: None,
            began: false,
        }
    }

    pub(super) fn began(&self) -> bool {
        self.began
    }

    pub(super) fn begin(&mut self) {
        self.began = true;
    }

    pub(super) async fn beat(&mut self) {
        self.beats.tick().await;
    }

    pub(super) fn ask(&mut self) -> u64 {
        self.asked += 1;
        self.unanswered.get_or_insert((self.asked, Instant::now()));
        self.asked
    }

    pub(super) fn answered(&mut self, nonce: u64) {
        self.unanswered.take_if(|(first, _)| *first <= nonce);
    }

    pub(super) fn silence(&self) -> Duration {
        self.unanswered
            .map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }
}
