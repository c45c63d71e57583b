//! From what was observed to a plan, and the builders of owned objects.
//!
//! Everything here is pure: no client, no tokio, no clock, no environment, no randomness. What a decision needs is an
//! argument; the same input gives the same plan.

pub mod bundle_edit;
pub mod claim;
pub mod demand;
pub mod document;
pub mod head_budget;
pub mod head_image;
pub mod head_plan;
pub mod head_pod;
pub mod inputs;
pub mod key_plan;
pub mod key_ring;
pub mod mirror;
pub mod new_key;
pub mod no_place;
pub mod placement;
pub mod queue;
pub mod receipt;
pub mod receipt_check;
pub mod requirements;
pub mod run;
pub mod run_pod;
pub mod run_share;
pub mod sealed;
pub mod specification;
pub mod suspicion;
pub mod violation;
pub mod workflow_plan;
pub mod workflow_status;
