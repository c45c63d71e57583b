//! The agent in a head pod: takes granted documents from the controller, runs each in a sandboxed child of a warm
//! interpreter, and attests what happened.
//!
//! A request goes through [`tls`], [`server`], [`signer`], [`admission`] and [`runs`] to the [`sandbox`]; [`agent`] holds them
//! together. The agent has no Kubernetes credentials and no key but the one it makes.

pub mod admission;
pub mod agent;
pub mod arguments;
pub mod environment;
pub mod gpu;
pub mod health;
pub mod journal;
pub mod runs;
pub mod server;
pub mod signer;
pub mod tls;
