//! Entropy: what seeds of keys are made of.
//!
//! The operating system's randomness is in every seed; named sources may be mixed in and can never take its place. A
//! source that fails gives nothing to the seed and is reported; when the operating system fails nothing is made. Each of
//! them is judged by the health tests of NIST SP 800-90B. On conditioned output, such as the operating system's, these
//! are sanity checks and no validation: they notice a source that is broken, never one that is predictable.

mod health;
mod source;

pub use health::{Failure, SAMPLE_LEN};
pub use source::Source;

use hkdf::Hkdf;
use sha3::Sha3_512;
use std::fmt;
use zeroize::Zeroizing;

/// The salt of the extraction, so that no other use of the same bytes gives the same seed.
const LABEL: &[u8] = b"chimera entropy v1";

/// Why no seed was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system's randomness failed: try again, and distrust the machine if it happens twice.
    #[error("read randomness from the operating system")]
    System(#[source] Failure),
    /// More was asked for than one extraction may give.
    #[error("a seed has at most 64 bytes, {0} were asked for")]
    Length(usize),
}

/// A source that gave nothing to a seed, and why.
#[derive(Debug)]
pub struct Dropped {
    /// The source's name.
    pub source: String,
    /// What was wrong with it.
    pub failure: Failure,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entropy source {}: {}", self.source, self.failure)
    }
}

/// The operating system's randomness and the sources that are mixed in. Keeps no state: every seed reads afresh, and
/// every source is judged afresh.
pub struct Entropy {
    system: Source,
    sources: Vec<Source>,
}

impl Entropy {
    /// The longest seed in bytes: that of one output of SHA3-512, so that a seed is never longer than what it was
    /// extracted into.
    pub const MOST: usize = 64;

    /// The operating system's randomness alone.
    pub fn system() -> Self {
        Self {
            system: Source::system(),
            sources: Vec::new(),
        }
    }

    /// With `source` mixed in.
    #[must_use]
    pub fn with(mut self, source: Source) -> Self {
        self.sources.push(source);
        self
    }

    /// The names of the sources that are mixed in, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(Source::name)
    }

    /// Fills `seed`, of [`Entropy::MOST`] bytes at most, and says which sources gave nothing to it. Reads
    /// [`SAMPLE_LEN`] bytes of each source, and waits as long as a source makes it wait.
    ///
    /// HKDF-SHA3-512 over what each gave, the operating system's first, every part with its name and both lengths before
    /// it: no source can undo what another gave, whatever it knows.
    pub fn fill(&self, seed: &mut [u8]) -> Result<Vec<Dropped>, Error> {
        if seed.len() > Self::MOST {
            return Err(Error::Length(seed.len()));
        }
        let mut parts = Vec::with_capacity(self.sources.len());
        let mut dropped = Vec::new();
        for source in &self.sources {
            match source.sample() {
                Ok(sample) => parts.push((source.name(), sample)),
                Err(failure) => dropped.push(Dropped {
                    source: source.name().to_owned(),
                    failure,
                }),
            }
        }
        // Read last, so that no source can have seen it.
        let system = self.system.sample().map_err(Error::System)?;
        parts.insert(0, (self.system.name(), system));
        extract(&parts, seed);
        Ok(dropped)
    }
}

/// Extracts `seed` from the framed parts.
fn extract(parts: &[(&str, Zeroizing<Vec<u8>>)], seed: &mut [u8]) {
    let framed = parts
        .iter()
        .map(|(name, bytes)| name.len() + bytes.len() + 16)
        .sum();
    let mut material = Zeroizing::new(Vec::with_capacity(framed));
    for (name, bytes) in parts {
        for part in [name.as_bytes(), bytes] {
            material.extend_from_slice(&(part.len() as u64).to_be_bytes());
            material.extend_from_slice(part);
        }
    }
    Hkdf::<Sha3_512>::new(Some(LABEL), &material)
        .expand(b"seed", seed)
        .expect("a seed is shorter than the limit of HKDF");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{self, SigningKey};
    use crate::suite::Suite;
    use std::io::{self, Cursor, Read};

    /// Bytes without a pattern that the tests would see.
    fn noise(salt: u8) -> Vec<u8> {
        let mut bytes = vec![0; SAMPLE_LEN];
        blake3::Hasher::new()
            .update(&[salt])
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    fn source(name: &str, bytes: Vec<u8>) -> Source {
        Source::new(name, move || Ok(Box::new(Cursor::new(bytes.clone()))))
    }

    fn fixed(system: Vec<u8>) -> Entropy {
        Entropy {
            system: source("system", system),
            sources: Vec::new(),
        }
    }

    fn seed(entropy: &Entropy) -> ([u8; 64], Vec<String>) {
        let mut seed = [0; 64];
        let dropped = entropy.fill(&mut seed).unwrap();
        (seed, dropped.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_operating_system_alone_makes_seeds_that_differ() {
        let entropy = Entropy::system();
        assert_ne!(seed(&entropy).0, seed(&entropy).0);
        assert!(seed(&entropy).1.is_empty());
    }

    /// The same construction, written down a second time: Python's hmac and hashlib gave this value.
    #[test]
    fn the_extraction_is_the_one_that_is_written_down() {
        let mut seed = [0; 32];
        let sample = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
        extract(&[("system", sample(b"abc")), ("hwrng", sample(b"de"))], &mut seed);
        assert_eq!(
            hex::encode(seed),
            "592856d8ec581b22b68ba03c351307bad840c9d34488c9c2797bdcdfb99fffde"
        );
    }

    #[test]
    fn every_source_changes_the_seed_and_so_does_its_name_and_place() {
        let seeds = [
            fixed(noise(0)),
            fixed(noise(1)),
            fixed(noise(0)).with(source("a", noise(1))),
            fixed(noise(0)).with(source("b", noise(1))),
            fixed(noise(0)).with(source("a", noise(2))),
            fixed(noise(0))
                .with(source("a", noise(1)))
                .with(source("b", noise(2))),
            fixed(noise(0))
                .with(source("b", noise(2)))
                .with(source("a", noise(1))),
        ]
        .map(|entropy| seed(&entropy).0);
        for (index, one) in seeds.iter().enumerate() {
            assert!(!seeds[index + 1..].contains(one), "{index}");
        }
        assert_eq!(seed(&fixed(noise(0))).0, seeds[0]);
    }

    #[test]
    fn sources_never_take_the_place_of_the_operating_system() {
        let known = |system| fixed(noise(system)).with(source("known", noise(9)));
        assert_ne!(seed(&known(0)).0, seed(&known(1)).0);
        let echo = fixed(noise(0)).with(source("echo", noise(0)));
        assert_ne!(
            seed(&echo).0,
            seed(&fixed(noise(1)).with(source("echo", noise(1)))).0
        );
    }

    #[test]
    fn a_source_that_fails_is_dropped_with_its_reason_and_changes_nothing() {
        let mut biased = noise(3);
        for place in (0..SAMPLE_LEN).step_by(8) {
            biased[place] = 0x55;
        }
        let failing = |make: fn() -> io::Result<Box<dyn Read>>| Source::new("bad", make);
        for (why, bad) in [
            (
                "the same byte 6 times in a row",
                source("bad", vec![0; SAMPLE_LEN]),
            ),
            ("within 512 bytes", source("bad", biased)),
            (
                "it ended after 1023 of 1024 bytes",
                source("bad", noise(4)[1..].to_vec()),
            ),
            ("it ended after 0 of 1024 bytes", source("bad", vec![])),
            (
                "no such device",
                failing(|| Err(io::Error::other("no such device"))),
            ),
            ("unplugged", failing(|| Ok(Box::new(Unplugged)))),
            ("No such file", Source::file("bad", "/nonexistent/hwrng")),
        ] {
            let entropy = fixed(noise(0)).with(bad).with(source("good", noise(5)));
            let (mixed, dropped) = seed(&entropy);
            assert_eq!(dropped.len(), 1);
            assert!(dropped[0].starts_with("entropy source bad: "), "{dropped:?}");
            assert!(dropped[0].contains(why), "{why}: {dropped:?}");
            assert_eq!(mixed, seed(&fixed(noise(0)).with(source("good", noise(5)))).0);
        }
    }

    #[test]
    fn nothing_is_made_when_the_operating_system_fails() {
        for system in [vec![7; SAMPLE_LEN], vec![]] {
            let entropy = fixed(system).with(source("good", noise(1)));
            let mut seed = [0; 32];
            assert!(matches!(entropy.fill(&mut seed), Err(Error::System(_))));
            assert_eq!(seed, [0; 32]);
            assert!(matches!(
                SigningKey::generate_from(Suite::MlDsa87, &entropy),
                Err(key::Error::Entropy(_))
            ));
        }
    }

    #[test]
    fn short_reads_are_continued_and_no_more_is_read_than_a_sample() {
        let entropy = fixed(noise(0)).with(Source::new("slow", || {
            Ok(Box::new(Trickle {
                bytes: noise(1),
                given: 0,
            }))
        }));
        let (mixed, dropped) = seed(&entropy);
        assert!(dropped.is_empty(), "{dropped:?}");
        assert_eq!(mixed, seed(&fixed(noise(0)).with(source("slow", noise(1)))).0);
        let longer = [noise(1), noise(2)].concat();
        assert_eq!(mixed, seed(&fixed(noise(0)).with(source("slow", longer))).0);
    }

    #[test]
    fn a_key_made_with_sources_is_a_key_and_reports_what_was_dropped() {
        let entropy = Entropy::system().with(source("stuck", vec![1; SAMPLE_LEN]));
        assert_eq!(entropy.names().collect::<Vec<_>>(), ["stuck"]);
        let (key, dropped) = SigningKey::generate_from(Suite::Ed25519MlDsa87, &entropy).unwrap();
        let signature = key.sign(b"m").unwrap();
        key.verifying_key().verify(b"m", &signature).unwrap();
        assert_eq!(dropped[0].source, "stuck");
    }

    #[test]
    fn a_seed_longer_than_what_it_is_extracted_into_is_refused() {
        let mut seed = [0; 65];
        assert!(matches!(
            Entropy::system().fill(&mut seed),
            Err(Error::Length(65))
        ));
    }

    /// Fails when it is read.
    struct Unplugged;

    impl Read for Unplugged {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("unplugged"))
        }
    }

    /// Gives three bytes at a time, interrupted before each; panics when it is asked for more than a sample.
    struct Trickle {
        bytes: Vec<u8>,
        given: usize,
    }

    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.given += 1;
            if self.given % 2 == 1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let count = buffer.len().min(3);
            buffer[..count].copy_from_slice(&self.bytes.drain(..count).collect::<Vec<_>>());
            Ok(count)
        }
    }
}
