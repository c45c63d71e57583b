//! The four kinds of `chimera.dunes.io/v1alpha1`, with their conditions, reasons and names.
//!
//! Everything that two parts of Chimera must agree on by spelling is here: field names, CEL rules,
//! labels, Secret names, field managers, run ids. The crate does no IO, reads no clock and links no
//! client; what needs the time takes it as an argument.

pub mod chimera_head;
pub mod condition;
pub mod digest_set;
pub mod duration;
pub mod key_rotation_policy;
pub mod maml_workflow;
pub mod mu_receipt;
pub mod names;
pub mod reasons;
pub mod role;
pub mod schema;

pub use chimera_head::{ChimeraHead, ChimeraHeadSpec, ChimeraHeadStatus};
pub use condition::{Condition, ConditionStatus};
pub use digest_set::DigestSet;
pub use key_rotation_policy::{KeyRotationPolicy, KeyRotationPolicySpec, KeyRotationPolicyStatus};
pub use maml_workflow::{Isolation, MamlWorkflow, MamlWorkflowSpec, MamlWorkflowStatus};
pub use mu_receipt::{MuReceipt, MuReceiptSpec, MuReceiptStatus};
pub use role::Role;
