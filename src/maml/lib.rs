//! MAML: executable Markdown documents, and their mirrored receipts (`.mu`).
//!
//! [`read`] takes the text of a document and gives back what it says together with every fault found in one pass. [`format`]
//! writes it in its one canonical form, [`with_run`] notes a run in it, [`parts`] cuts it up without losing a byte, and
//! [`mirror`] reverses it. This crate opens no file, starts no thread and reads no clock, so that the same code serves the
//! command line, the controller and a browser.

mod attributes;
mod blocks;
mod codes;
mod diagnostic;
mod document;
mod edit;
mod format;
mod front_matter;
mod history;
mod json_text;
pub mod mirror;
mod mirror_stream;
mod order;
mod outline;
mod parts;
mod permissions;
#[cfg(test)]
mod pieces;
mod place;
mod redact;
mod requires;
mod schema;
mod sections;
mod specs;
mod verification;
mod yaml;

pub use blocks::{Block, Language, SUPPORTED_LANGUAGES};
pub use codes::{Code, UnknownCode};
pub use diagnostic::{Diagnostic, Severity};
pub use document::{Document, Limits, Reading, read, read_within};
pub use edit::{EditError, RunNote, RunResult, with_run};
pub use format::format;
pub use front_matter::FrontMatter;
pub use history::HistoryLine;
pub use parts::{Part, PartKind, parts};
pub use permissions::{GatewayPattern, Permissions};
pub use place::{Place, Span};
pub use requires::Requires;
pub use schema::{Schema, Violation};
pub use sections::{Section, SectionKind};
pub use specs::EmbeddedSpec;
pub use verification::{Level, Verification};
