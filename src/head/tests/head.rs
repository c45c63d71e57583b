//! A whole head in this process: real TLS, real zygote, real sandbox, grants signed here.
//!
//! Needs `python3` (or CHIMERA_PYTHON) and a kernel with landlock; where one is missing, these tests fail and say so.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

#[path = "head/binary.rs"]
mod binary;
#[path = "head/gpus.rs"]
mod gpus;
#[path = "head/hostile.rs"]
mod hostile;
#[path = "head/journal.rs"]
mod journal;
#[path = "head/probes.rs"]
mod probes;
#[path = "head/protocol.rs"]
mod protocol;
#[path = "head/testbed.rs"]
mod testbed;
