//! Documents carried out in this process: real zygote, real sandbox, no agent around them.
//!
//! Needs `python3` (or CHIMERA_PYTHON), bash and a kernel with landlock; where one is missing, these tests fail and say so.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

#[path = "sandbox/bench.rs"]
mod bench;
#[path = "sandbox/cuda.rs"]
mod cuda;
#[path = "sandbox/folders.rs"]
mod folders;
#[path = "sandbox/languages.rs"]
mod languages;
#[path = "sandbox/limits.rs"]
mod limits;
#[path = "sandbox/order.rs"]
mod order;
#[path = "sandbox/orphans.rs"]
mod orphans;
#[path = "sandbox/specifications.rs"]
mod specifications;
