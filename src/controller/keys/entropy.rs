//! What keys are made of: the operating system's randomness, and the sources that the operator was told to mix in.
//!
//! A source is a file or a device, and may make its reader wait. It is read on a thread of its own, and waited for only
//! so long: then the key is made of the operating system's randomness alone.

use std::{
    path::PathBuf,
    str::FromStr,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use crypto::{
    entropy::{Dropped, Entropy, Failure, Source},
    key::Error,
};
use tokio::sync::{Mutex, oneshot};

use crate::metrics::Metrics;

/// How long sources are waited for, all together.
const PATIENCE: Duration = Duration::from_secs(10);
/// The label of the operating system's randomness.
const SYSTEM: &str = "system";

/// One source, as it is named in the settings: `NAME=PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntropySource {
    name: String,
    path: PathBuf,
}

impl FromStr for EntropySource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = text
            .split_once('=')
            .ok_or("must be NAME=PATH, for example hwrng=/dev/hwrng")?;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 63 || !name.bytes().all(plain) {
            return Err("NAME must be 1 to 63 lower-case letters, digits and `-`".to_owned());
        }
        if name == SYSTEM {
            return Err("`system` is the operating system's own".to_owned());
        }
        if !path.starts_with('/') {
            return Err("PATH must be absolute".to_owned());
        }
        Ok(Self {
            name: name.to_owned(),
            path: path.into(),
        })
    }
}

/// Makes keys, and keeps the health of what they are made of in a metric.
#[derive(Clone)]
pub struct KeyMaker {
    /// Locked while it is read, so that a source that never answers holds one thread and not one for each key.
    entropy: Arc<Mutex<Entropy>>,
    sources: Vec<String>,
    /// Which sources gave nothing when they were last asked, and why.
    dropped: Arc<StdMutex<Vec<String>>>,
    patience: Duration,
    metrics: Arc<Metrics>,
}

impl KeyMaker {
    /// Mixes `sources` into every key.
    pub fn new(sources: &[EntropySource], metrics: Arc<Metrics>) -> Self {
        let mixed = sources.iter().fold(Entropy::system(), |entropy, source| {
            entropy.with(Source::file(&source.name, &source.path))
        });
        Self::of(mixed, PATIENCE, metrics)
    }

    fn of(entropy: Entropy, patience: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            sources: entropy.names().map(str::to_owned).collect(),
            entropy: Arc::new(Mutex::new(entropy)),
            dropped: Arc::default(),
            patience,
            metrics,
        }
    }

    /// What `make` makes, and the sources that gave nothing to it. An error when the operating system's randomness
    /// failed: then there is no key.
    pub async fn make<K: Send + 'static>(
        &self,
        make: impl Fn(&Entropy) -> Result<(K, Vec<Dropped>), Error> + Clone + Send + 'static,
    ) -> Result<(K, Vec<Dropped>), Error> {
        let made = match tokio::time::timeout(self.patience, self.read(make.clone())).await {
            Ok(Some(made)) => made,
            _ => make(&Entropy::system()).map(|(key, _)| (key, self.silent())),
        };
        self.account(made.as_ref().map(|(_, dropped)| dropped.as_slice()));
        made
    }

    /// Which sources gave nothing when they were last asked, and why. `None` where no source is mixed in.
    pub fn dropped(&self) -> Option<Vec<String>> {
        let dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        (!self.sources.is_empty()).then(|| dropped.clone())
    }

    /// Reads every source once, so that the metric says how they are before the first key is made.
    pub async fn check(self) {
        let read = |entropy: &Entropy| Ok(((), entropy.fill(&mut [0; Entropy::MOST])?));
        if let Err(error) = self.make(read).await {
            tracing::error!(%error, "the operating system's randomness failed");
        }
    }

    /// `None` when the thread could not be started or did not come to its end.
    async fn read<K: Send + 'static>(
        &self,
        make: impl Fn(&Entropy) -> Result<K, Error> + Send + 'static,
    ) -> Option<Result<K, Error>> {
        let entropy = Arc::clone(&self.entropy).lock_owned().await;
        let (sender, receiver) = oneshot::channel();
        // Not one of the runtime's threads: it would wait for them at the end of the process.
        std::thread::Builder::new()
            .name("entropy".to_owned())
            .spawn(move || drop(sender.send(make(&entropy))))
            .ok()?;
        receiver.await.ok()
    }

    /// Every source, since any of them may be the one that is waited for.
    fn silent(&self) -> Vec<Dropped> {
        let dropped = |source: &String| Dropped {
            source: source.clone(),
            failure: Failure::Silent(self.patience),
        };
        self.sources.iter().map(dropped).collect()
    }

    fn account(&self, made: Result<&[Dropped], &Error>) {
        let healthy = |source: &str, healthy: bool| {
            self.metrics
                .entropy_source_healthy
                .with_label_values(&[source])
                .set(healthy.into());
        };
        healthy(SYSTEM, made.is_ok());
        let Ok(dropped) = made else { return };
        *self.dropped.lock().unwrap_or_else(PoisonError::into_inner) =
            dropped.iter().map(ToString::to_string).collect();
        for source in &self.sources {
            healthy(source, dropped.iter().all(|one| one.source != *source));
        }
        for one in dropped {
            tracing::warn!(source = one.source, "dropped: {}", one.failure);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use crypto::{SigningKey, Suite};

    use super::*;

    fn rendered(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render().unwrap()).unwrap()
    }

    async fn key(maker: &KeyMaker) -> Vec<String> {
        let (key, dropped) = maker
            .make(|entropy| SigningKey::generate_from(Suite::MlDsa87, entropy))
            .await
            .unwrap();
        assert_eq!(key.suite(), Suite::MlDsa87);
        dropped.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn sources_are_given_as_name_and_absolute_path() {
        let source: EntropySource = "hw-rng=/dev/a=b".parse().unwrap();
        assert_eq!((source.name.as_str(), source.path), ("hw-rng", "/dev/a=b".into()));
        for bad in [
            "",
            "hwrng",
            "=/dev/x",
            "hwrng=",
            "hwrng=dev/x",
            "HW=/x",
            "a b=/x",
            "system=/x",
            &format!("{}=/x", "a".repeat(64)),
        ] {
            assert!(bad.parse::<EntropySource>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn keys_are_made_with_the_healthy_sources_and_the_others_are_counted_out() {
        let metrics = Arc::new(Metrics::default());
        let sources = [
            "good=/dev/urandom",
            "stuck=/dev/zero",
            "empty=/dev/null",
            "absent=/nonexistent/x",
        ]
        .map(|text| text.parse().unwrap());
        let maker = KeyMaker::new(&sources, Arc::clone(&metrics));
        let dropped = key(&maker).await;
        assert_eq!(dropped.len(), 3, "{dropped:?}");
        let text = rendered(&metrics);
        for (source, value) in [
            ("system", 1),
            ("good", 1),
            ("stuck", 0),
            ("empty", 0),
            ("absent", 0),
        ] {
            let line = format!("chimera_entropy_source_healthy{{source=\"{source}\"}} {value}");
            assert!(text.contains(&line), "{line} is missing in:\n{text}");
        }
    }

    #[tokio::test]
    async fn a_source_that_never_answers_delays_a_key_and_stops_none() {
        let (_never, silence) = mpsc::channel::<()>();
        let silence = std::sync::Mutex::new(Some(silence));
        let entropy = Entropy::system().with(Source::new("silent", move || {
            if let Some(silence) = silence.lock().unwrap().take() {
                silence.recv().ok();
            }
            Ok(Box::new(std::io::empty()))
        }));
        let metrics = Arc::new(Metrics::default());
        let maker = KeyMaker::of(entropy, Duration::from_millis(50), Arc::clone(&metrics));
        for _ in 0..2 {
            let dropped = key(&maker).await;
            assert_eq!(
                dropped,
                ["entropy source silent: it, or one read with it, gave no answer within 50ms"]
            );
        }
        assert!(rendered(&metrics).contains("chimera_entropy_source_healthy{source=\"silent\"} 0"));
    }

    #[tokio::test]
    async fn the_metric_is_there_before_the_first_key() {
        let metrics = Arc::new(Metrics::default());
        KeyMaker::new(&[], Arc::clone(&metrics)).check().await;
        assert!(rendered(&metrics).contains("chimera_entropy_source_healthy{source=\"system\"} 1"));
    }
}
