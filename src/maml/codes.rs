//! The codes of all findings. A code never changes its meaning and is never used again for another one.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $title:literal;)+) => {
        /// The code of a finding; written `MAML001` and so on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// All codes in order.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The code as it is written.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            /// What the code means, in a few words.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),+ }
            }

            /// What the code means and what to do, in a few sentences.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc, "\n"),+)),+ }
            }
        }
    };
}

codes! {
    /// The document is larger than the reader accepts (1 MiB unless set otherwise). Nothing of it was read.
    /// Keep data out of documents: pass it as an input, or let a block read it from where it lives.
    TooLarge = "MAML001", "document too large";
    /// A document starts with front matter: a line `---`, then YAML, then a line `---`. Nothing but blank lines may stand
    /// before it.
    FrontMatterMissing = "MAML002", "front matter missing";
    /// The front matter was opened by `---` but no second line `---` ends it.
    FrontMatterUnclosed = "MAML003", "front matter not closed";
    /// The front matter cannot be read as YAML. A frequent cause is a value that starts with `*`, `&`, `@`, `%` or a back
    /// quote, or that holds `: ` or ` #`: put it in quotes.
    YamlSyntax = "MAML004", "front matter is not valid YAML";
    /// The front matter is YAML, but a list or a single value instead of a map of keys.
    NotAMap = "MAML005", "front matter is not a map";
    /// The same key stands twice in one map. The first one counts while reading goes on, but the document is refused,
    /// because readers disagree about which one wins.
    DuplicateKey = "MAML006", "duplicate key";
    /// The front matter is larger, deeper or has more aliases than any honest one. This keeps a hostile document from
    /// using up memory.
    YamlLimit = "MAML007", "front matter exceeds a limit";
    /// A key of the front matter is a list or a map. Keys are text.
    KeyNotText = "MAML008", "key is not text";
    /// The value carries a YAML tag such as `!include`. Tags are not acted on; the plain value is used.
    TagIgnored = "MAML009", "YAML tag has no effect";
    /// A key that every document needs is not there: `maml_version`, `id` and `type`.
    KeyMissing = "MAML010", "required key missing";
    /// The value of this key has another type than the key asks for.
    WrongType = "MAML011", "value of the wrong type";
    /// The version of the format is not one that this reader knows. Known are 0.1, 1.x and 2.x.
    UnknownVersion = "MAML012", "unknown version of the format";
    /// `maml_version` was written as a number. It is read as text, but YAML turns `2.10` into `2.1`: quote it.
    VersionIsNumber = "MAML013", "version written as a number";
    /// The `id` says `urn:uuid:` but what follows is not a UUID (32 hexadecimal digits in groups of 8-4-4-4-12).
    InvalidUuid = "MAML014", "invalid UUID";
    /// The `id` is no URI. It is accepted as a name, but `urn:uuid:…` is unique everywhere.
    IdNotUri = "MAML015", "id is not a URI";
    /// `origin` says who made the document, as a URI such as `agent://name`. It is missing or is no URI.
    OriginUnclear = "MAML016", "origin missing or not a URI";
    /// There are no `permissions`. Whoever may submit documents to the cluster may run this one.
    PermissionsMissing = "MAML017", "permissions missing";
    /// This entry of `permissions` is neither `*`, nor `agent://…`, nor `gateway://…`. Under `execute` it matches
    /// nobody, so that a typing error never opens a document to everyone.
    PermissionUnknown = "MAML018", "permission entry not understood";
    /// The time is not RFC 3339, such as `2026-05-04T10:00:00Z`.
    InvalidTime = "MAML019", "time is not RFC 3339";
    /// This key has no meaning to Chimera. It is kept as it is and changes nothing.
    UnknownKey = "MAML020", "unknown key kept";
    /// This key is unknown, but very near to one that is known.
    MisspeltKey = "MAML021", "key probably misspelt";
    /// A single value stands where a list is meant. It is read as a list of one.
    ScalarForList = "MAML022", "single value read as a list";
    /// This `type` is not one of the known ones. The document can be run when it has code blocks.
    UnknownType = "MAML023", "unknown document type";
    /// The key is known but this version of Chimera does not act on it.
    NoEffect = "MAML024", "key has no effect";
    /// The document asks for a verification that this version of Chimera cannot perform. With `level: strict` the document
    /// is refused, because it asks not to be run unverified; otherwise the run goes on without it.
    VerificationUnavailable = "MAML025", "verification not available";
    /// A specification is named by something else than a plain file name. Names with `/`, with a back slash or with a leading
    /// `.` are refused, so that a document never reaches into the folders of whoever runs it.
    SpecName = "MAML026", "specification is not a plain file name";
    /// A specification that `verification.spec_files` names does not stand in the document, or one that stands there is not
    /// named. A specification stands in the section Verification as a fence with `{name=FILE}`, or beside the document as a
    /// file of that name; only those that are named are run.
    SpecPlace = "MAML027", "specification not in the document, or not named";
    /// The document carries a signature or a public key of its own. Chimera does not check them: who submits a document is
    /// proved by the cluster, and what was run by the digest in the signed receipt. With `level: strict` the document is
    /// refused, because it asks not to be run unverified.
    SignatureUnchecked = "MAML028", "signature is not checked";
    /// The verification needs a head that offers Ortac, the run-time checker of OCaml specifications. With `level: strict` the
    /// document waits for such a head and runs nowhere else.
    OrtacNeeded = "MAML029", "runs only on a head that offers ortac";
    /// This entry of `requires` is kept but changes nothing about the run.
    RequirementUnknown = "MAML030", "requirement has no effect";
    /// A package is named as in PEP 508: a name, optional extras, version specifiers and a marker, such as
    /// `qiskit[visualization]>=1.0,<3`. Direct URLs are refused.
    InvalidPackage = "MAML031", "package is not a PEP 508 requirement";
    /// A section that the document needs is not there. `## Intent` and `## Context` are always needed, `## Code_Blocks` when
    /// the type is one that runs.
    SectionMissing = "MAML040", "required section missing";
    /// The same section stands twice. Text sections: the first counts. Code blocks of both are used, in order. Schemas must
    /// be unique.
    SectionDuplicate = "MAML041", "duplicate section";
    /// A required section has no text.
    SectionEmpty = "MAML042", "section is empty";
    /// This line looks like the heading of a section but is none: sections are headings of level two, `## Name`, with a
    /// space behind the signs.
    HeadingMalformed = "MAML043", "not a section heading";
    /// A line of the section History is none of `- <time>: [OP] text`, `- [<time>] [OP] text` and `[<time>] [OP] text`. It is
    /// kept, as everything in History is, and means nothing.
    HistoryLine = "MAML044", "line of History not understood";
    /// The operation of a line of History is not one of CREATE, VERIFY, EXECUTE, VALIDATE, WRAP and TICKET.
    HistoryOperation = "MAML045", "unknown operation in History";
    /// An HTML comment (`<!--`) is opened but never closed by `-->`, so that everything behind it is hidden, sections too.
    CommentUnclosed = "MAML046", "comment not closed";
    /// A document of a type that runs holds no code block.
    BlockMissing = "MAML050", "no code block";
    /// A code block names no language behind its fence. Write it as `python` behind the opening fence.
    LanguageMissing = "MAML051", "code block without a language";
    /// The language of a code block is not one that can be run.
    LanguageUnsupported = "MAML052", "language not supported";
    /// A code fence is opened but never closed, so that everything behind it belongs to it. The closing fence needs at
    /// least as many signs as the opening one.
    FenceUnclosed = "MAML053", "code fence not closed";
    /// The name of a code block is not usable or is used twice. Names are letters, digits, `_`, `-` and `.`, at most 63.
    BlockName = "MAML054", "block name invalid or taken";
    /// An attribute of a code fence is not known and changes nothing. Known are `{name= needs= timeout= allow_failure=}`.
    AttributeNoEffect = "MAML055", "block attribute has no effect";
    /// The document holds more code blocks, or more specifications, than a run may have.
    TooManyBlocks = "MAML056", "too many code blocks";
    /// A code block holds no code.
    BlockEmpty = "MAML057", "code block is empty";
    /// A block needs another one (`{needs=name}`) that the document does not hold. It could never run.
    NeedUnknown = "MAML058", "needed block is not there";
    /// Blocks need one another in a circle, so that none of them could run first. The message names the circle.
    NeedCircle = "MAML059", "blocks need one another in a circle";
    /// The body of a schema section is not JSON. It is a JSON Schema, bare or in a code fence.
    SchemaSyntax = "MAML060", "schema is not JSON";
    /// The JSON is not a usable JSON Schema.
    SchemaInvalid = "MAML061", "schema is not valid";
    /// The schema refers to something outside the document. Only references that start with `#` are followed: a document
    /// means the same everywhere, and checking it needs no network.
    SchemaRemote = "MAML062", "reference leaves the document";
    /// The schema declares a draft that is not known. Without `$schema` it is read as 2020-12.
    SchemaDraft = "MAML063", "unknown draft of JSON Schema";
    /// The section is there but holds no schema, so nothing is checked.
    SchemaMissing = "MAML064", "schema section is empty";
    /// An attribute of a code fence has a value that it cannot have, none, or is given twice. `name` and `needs` are names of
    /// blocks, `timeout` is a time such as `30`, `30s`, `2m` or `1h` up to a day, `allow_failure` is true or false.
    AttributeValue = "MAML065", "block attribute has a wrong value";
    /// A `default` of the input schema breaks the schema itself. A run that does not give this input would be refused.
    DefaultInvalid = "MAML066", "default breaks its own schema";
    /// This is a document of another format that is easily taken for MAML. It is refused by name instead of being half
    /// understood.
    RivalDialect = "MAML070", "document of another format";
    /// There were so many findings that the rest is only counted.
    TooManyFindings = "MAML099", "too many findings";
}

impl fmt::Display for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The text is not a code of this format.
#[derive(Debug, thiserror::Error)]
#[error("no such code")]
pub struct UnknownCode;

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        let wanted = text.trim().to_ascii_uppercase();
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.as_str() == wanted)
            .ok_or(UnknownCode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_ordered_and_explained() {
        for pair in Code::ALL.windows(2) {
            assert!(pair[0].as_str() < pair[1].as_str(), "{} {}", pair[0], pair[1]);
        }
        for code in Code::ALL {
            assert!(code.explanation().trim().len() > 20, "{code}");
            assert_eq!(code.as_str().parse::<Code>().ok(), Some(*code));
        }
        assert!("MAML000".parse::<Code>().is_err());
    }
}
