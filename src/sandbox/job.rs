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
#[derive(Clone, Debug, Serialize)]
pub struct Block {
    /// Its name.
    pub name: String,
    /// Its language, lower case.
    pub language: String,
    /// The code.
    pub code: String,
    /// Line of the document that the code begins at, from 1.
    pub line: u32,
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
    /// How long it may take.
    pub time_limit: Duration,
}

impl Job {
    /// The blocks of `document`, in its order. `inputs` is one JSON object, whose numbers reach the blocks as they are
    /// written there.
    pub fn of(document: &maml::Document, inputs: &str, time_limit: Duration) -> Result<Self, Error> {
        serde_json::from_str::<Map<String, Value>>(inputs).map_err(Error::Inputs)?;
        let blocks = document.run_order().into_iter().map(|index| {
            let block = &document.blocks[index];
            Block {
                name: block.name.clone(),
                language: block.language.as_str().to_owned(),
                code: block.code.clone(),
                line: block.line,
            }
        });
        Ok(Self {
            blocks: blocks.collect(),
            inputs: inputs.to_owned(),
            outputs: document.output_schema.as_ref().map(maml::Schema::property_names),
            time_limit,
        })
    }

    /// The first block in none of `languages`.
    pub fn unsupported(&self, languages: &[String]) -> Option<&Block> {
        self.blocks
            .iter()
            .find(|block| !languages.contains(&block.language))
    }
}
