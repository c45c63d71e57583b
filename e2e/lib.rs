//! What the tests against a real cluster share: a namespace for each test, waits on watches, dumps on failure, faults.
//!
//! The cluster is the one of `KUBECONFIG`, with the chart installed in `chimera-system`. Nothing is simulated here, and
//! nothing waits by sleeping. What cannot be done panics: the answer that a test has to give.

#![allow(
    clippy::missing_panics_doc,
    reason = "every function here ends a test by a panic when it cannot go on"
)]

pub mod audit;
pub mod cli;
pub mod cluster;
pub mod documents;
pub mod dump;
pub mod external_metrics;
pub mod faults;
pub mod heads;
pub mod images;
pub mod namespace;
pub mod processes;
pub mod runs;
pub mod samples;
pub mod wait;

pub use namespace::{Namespace, in_namespace};
