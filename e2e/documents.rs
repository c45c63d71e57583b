//! MAML documents for tests: a program, and what is to be said around it.

use serde_json::{Value, json};

/// A document that is being written.
#[derive(Clone, Debug)]
pub struct Document {
    code: String,
    inputs: Option<Value>,
    outputs: Option<Value>,
    execute: Vec<String>,
    requires: Option<String>,
}

impl Document {
    /// A document with one block of Python. Without a schema, its outputs are the dict `outputs`.
    pub fn python(code: &str) -> Self {
        Self {
            code: code.trim_end().to_owned(),
            inputs: None,
            outputs: None,
            execute: vec!["agent://*".to_owned(), "gateway://chimera-2048".to_owned()],
            requires: None,
        }
    }

    /// With one more block. `fence` is what stands behind the three ticks.
    #[must_use]
    pub fn block(mut self, fence: &str, code: &str) -> Self {
        self.code = format!("{}\n```\n\n```{fence}\n{}", self.code, code.trim_end());
        self
    }

    /// With an Input_Schema.
    #[must_use]
    pub fn inputs(mut self, schema: Value) -> Self {
        self.inputs = Some(schema);
        self
    }

    /// With an Output_Schema.
    #[must_use]
    pub fn outputs(mut self, schema: Value) -> Self {
        self.outputs = Some(schema);
        self
    }

    /// With other entries of `permissions.execute`.
    #[must_use]
    pub fn execute(mut self, entries: &[&str]) -> Self {
        self.execute = entries.iter().map(|&entry| entry.to_owned()).collect();
        self
    }

    /// With a GPU as its requirement.
    #[must_use]
    pub fn on_gpu(mut self) -> Self {
        self.requires = Some("requires:\n  resources: gpu\n".to_owned());
        self
    }

    /// With a Python package as its requirement (PEP 508).
    #[must_use]
    pub fn package(mut self, package: &str) -> Self {
        self.requires = Some(format!("requires:\n  python: [\"{package}\"]\n"));
        self
    }

    /// The document.
    pub fn text(&self) -> String {
        let execute = serde_json::to_string(&self.execute).expect("texts are JSON");
        let requires = self.requires.as_deref().unwrap_or_default();
        let section = |title: &str, schema: &Option<Value>| {
            schema.as_ref().map_or_else(String::new, |schema| {
                format!("\n## {title}\n\n```json\n{schema:#}\n```\n")
            })
        };
        format!(
            "---\nmaml_version: \"2.0.0\"\nid: \"urn:uuid:9a1f7c52-03b4-4d6e-8f10-6b5a4c3d2e01\"\ntype: workflow\n\
             origin: \"agent://chimera-tests\"\npermissions:\n  read: [\"agent://*\"]\n  \
             write: [\"agent://chimera-tests\"]\n  execute: {execute}\ncreated_at: 2026-01-15T09:00:00Z\n{requires}---\n\n\
             ## Intent\n\nServe a test.\n\n## Context\n\nNone.\n{}\n## Code_Blocks\n\n```python\n{}\n```\n{}",
            section("Input_Schema", &self.inputs),
            self.code,
            section("Output_Schema", &self.outputs),
        )
    }
}

impl From<Document> for String {
    fn from(document: Document) -> Self {
        document.text()
    }
}

/// The shortest document that does something.
pub fn small() -> Document {
    Document::python("answer = 6 * 7").outputs(json!({
        "type": "object", "properties": {"answer": {"const": 42}}, "required": ["answer"]
    }))
}

/// Says `begun`, works for that many seconds, then answers.
pub fn lasting(seconds: u32) -> Document {
    Document::python(&format!(
        "import time\nprint('begun', flush=True)\ntime.sleep({seconds})\nanswer = 42"
    ))
    .outputs(json!({"type": "object", "properties": {"answer": {"const": 42}}, "required": ["answer"]}))
}

/// Refused: its version does not exist. `filler` makes it as large as wanted.
pub fn refused(filler: &str) -> String {
    let text = small().text().replace("\"2.0.0\"", "\"9.0.0\"");
    text.replace("Serve a test.", &format!("Serve a test.\n\n{filler}"))
}

/// A program that calls `attempt(name, action)` for everything that it should not be able to do; its output `result`
/// has for each name the error that the attempt met, as `Type` or `Type:errno name`, or null where it was allowed.
pub fn probe(code: &str) -> Document {
    let prelude = "\
import errno, os
result = {}
def attempt(name, action):
    try:
        action()
        result[name] = None
    except OSError as error:
        result[name] = f'{type(error).__name__}:{errno.errorcode.get(error.errno, error.errno)}'
    except BaseException as error:
        result[name] = type(error).__name__
";
    Document::python(&format!("{prelude}{code}")).outputs(json!({
        "type": "object", "properties": {"result": {"type": "object"}, "seen": {}}, "required": ["result"]
    }))
}
