//! What is to be run: a document's blocks, made ready for the interpreter.

use serde::Serialize;
use serde_json::{Map, Value};
use std::time::Duration;

/// Why a document and its inputs make no job.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The inputs are text, or a list, or no JSON at all.
    #[error("the inputs are not one JSON object")]
    Inputs(#[source] serde_json::Error),
}

/// One code block.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Block {
    /// Its name.
    pub name: String,
    /// Its language, lower case.
    pub language: String,
    /// The code.
    pub code: String,
    /// Line of the document that the code begins at, from 1.
    pub line: u32,
    /// Names of blocks that must have succeeded before; else this one is skipped.
    pub needs: Vec<String>,
    /// How long it may take.
    #[serde(rename = "timeout")]
    pub timeout_seconds: Option<u32>,
    /// Whether the run goes on when it fails.
    pub allow_failure: bool,
    /// The output that the counts of a circuit become.
    pub output: String,
}

impl Block {
    fn of(block: &maml::Block, place: usize) -> Self {
        // The name that a block has by its place alone, because its fence gives none.
        let unnamed = block.name == format!("block-{}", place + 1);
        Self {
            name: block.name.clone(),
            language: block.language.as_str().to_owned(),
            code: block.code.clone(),
            line: block.line,
            needs: block.needs.clone(),
            timeout_seconds: block.timeout_seconds,
            allow_failure: block.allow_failure,
            output: if unnamed {
                "counts".to_owned()
            } else {
                block.name.clone()
            },
        }
    }

    /// Whether it runs as a process of its own, beside the shared interpreter.
    pub(crate) fn is_program(&self) -> bool {
        matches!(self.language.as_str(), "bash" | "javascript")
    }
}

/// A Python module of conditions that must hold before the first block and after the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Specification {
    /// Name of its file.
    pub name: String,
    /// Its text.
    pub code: String,
    /// Line of the document that it begins at, when it is part of the document.
    pub line: Option<u32>,
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Job {
    /// The blocks in the order in which they run.
    pub blocks: Vec<Block>,
    /// The inputs: one JSON object, as text.
    pub inputs: String,
    /// The global variables to harvest; without them, the dict `outputs`.
    pub outputs: Option<Vec<String>>,
    /// Conditions on inputs and outputs.
    pub specifications: Vec<Specification>,
    /// Whether a condition that does not hold fails the run; else it is a line of standard error.
    pub strict: bool,
    /// How long it may take.
    pub time_limit: Duration,
}

impl Job {
    /// The blocks of `document`, in its order. `inputs` is one JSON object, whose numbers reach the blocks as they are
    /// written there.
    pub fn of(document: &maml::Document, inputs: &str, time_limit: Duration) -> Result<Self, Error> {
        serde_json::from_str::<Map<String, Value>>(inputs).map_err(Error::Inputs)?;
        let blocks = document
            .run_order()
            .into_iter()
            .map(|index| Block::of(&document.blocks[index], index));
        let verification = document.front_matter.verification.as_ref();
        Ok(Self {
            blocks: blocks.collect(),
            inputs: inputs.to_owned(),
            outputs: document.output_schema.as_ref().map(maml::Schema::property_names),
            specifications: embedded_specifications(document),
            strict: verification.is_some_and(|verification| verification.level == maml::Level::Strict),
            time_limit,
        })
    }

    /// Adds a specification that lies beside the document.
    pub fn add_specification(&mut self, name: &str, code: &str) {
        self.specifications.push(Specification {
            name: name.to_owned(),
            code: code.to_owned(),
            line: None,
        });
    }

    /// The first block in none of `languages`.
    pub fn unsupported(&self, languages: &[String]) -> Option<&Block> {
        self.blocks
            .iter()
            .find(|block| !languages.contains(&block.language))
    }
}

/// Those of the Python specifications that `verification.spec_files` names which stand in the document, in its order.
fn embedded_specifications(document: &maml::Document) -> Vec<Specification> {
    let Some(verification) = &document.front_matter.verification else {
        return Vec::new();
    };
    let named = verification
        .python_specs()
        .filter_map(|name| document.embedded_specs.iter().find(|spec| spec.name == name));
    named
        .map(|spec| Specification {
            name: spec.name.clone(),
            code: spec.code.clone(),
            line: Some(spec.line),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "---\nmaml_version: \"2.0\"\nid: urn:uuid:550e8400-e29b-41d4-a716-446655440000\ntype: workflow\n\
        origin: agent://ann\npermissions: {execute: ['*']}\nverification: {level: strict, spec_files: [c.py]}\n---\n\
        ## Intent\na\n## Context\nb\n## Code_Blocks\n```bash {name=late needs=early timeout=5 allow_failure=true}\n:\n```\n\
        ```py {name=early}\nx = 1\n```\n```qasm\nqubit q;\n```\n```qasm {name=bell}\nqubit q;\n```\n\
        ## Verification\n```python {name=c.py}\ndef post(): pass\n```\n## Output_Schema\n{\"properties\": {\"x\": {}}}\n";

    #[test]
    fn a_job_has_the_documents_blocks_in_their_order_and_its_conditions() {
        let document = maml::read(DOCUMENT).document.expect("a document");
        let mut job = Job::of(&document, "{}", Duration::from_secs(1)).expect("a job");
        let names: Vec<_> = job.blocks.iter().map(|block| block.name.as_str()).collect();
        assert_eq!(names, ["early", "late", "block-3", "bell"]);
        let late = &job.blocks[1];
        assert_eq!(
            (late.needs.as_slice(), late.timeout_seconds),
            (&["early".to_owned()][..], Some(5))
        );
        assert!(late.allow_failure && late.is_program() && !job.blocks[0].is_program());
        assert_eq!(
            (job.blocks[2].output.as_str(), job.blocks[3].output.as_str()),
            ("counts", "bell")
        );
        assert_eq!(job.outputs.as_deref(), Some(&["x".to_owned()][..]));
        job.add_specification("beside.py", "pass");
        let conditions: Vec<_> = job
            .specifications
            .iter()
            .map(|one| (one.name.as_str(), one.line))
            .collect();
        assert_eq!(conditions, [("c.py", Some(28)), ("beside.py", None)]);
        assert!(job.strict);
        let missing = job.unsupported(&["python".to_owned(), "bash".to_owned()]);
        assert_eq!(missing.expect("openqasm").name, "block-3");
    }

    #[test]
    fn inputs_are_one_object() {
        let document = maml::read(DOCUMENT).document.expect("a document");
        for bad in ["[]", "1", "", "{}x"] {
            assert!(Job::of(&document, bad, Duration::ZERO).is_err(), "{bad}");
        }
    }
}
