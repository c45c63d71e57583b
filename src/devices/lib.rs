//! GPUs as their driver tells of them: which there are, what fails, how busy they are, and whether they still compute.
//!
//! The driver's libraries are loaded when they are asked for, so that one binary serves machines with and without a GPU. Nothing
//! here knows heads or runs, and nothing starts `nvidia-smi`.

pub mod canary;
pub mod driver;
pub mod xid;
