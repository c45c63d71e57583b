//! Carries out one document at a time: forks a child of a warm interpreter, confines it, runs the blocks, attests what
//! happened. The head's agent and `chimera run` use it alike.
//!
//! A [`job::Job`] goes to [`execution`], which forks from the [`workers`] under a [`policy`]; [`attestation`] signs the
//! outcome. Nothing here knows grants, gRPC or Kubernetes.

pub mod attestation;
pub mod consumption;
mod dialogue;
pub mod environment;
pub mod execution;
pub mod folder;
mod glance;
pub mod job;
mod limit;
pub mod lines;
mod lookout;
pub mod outputs;
pub mod policy;
mod progress;
pub mod reason;
pub mod stream;
mod tap;
pub mod workers;
