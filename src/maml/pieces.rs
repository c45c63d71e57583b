//! Pieces of documents, from which property tests put together what no one would write by hand.

use proptest::prelude::*;

/// A head that is read, so that tests reach the body.
pub(crate) const HEAD: &str = "---\nmaml_version: \"2.0.0\"\nid: a\ntype: workflow\n---\n";

const PIECES: [&str; 62] = [
    "---\n",
    "---",
    "\r\n",
    "\n",
    "\n\n",
    "\r",
    "    ",
    "  ",
    "  \n",
    "\t",
    "id: *a\n",
    "&a [",
    "]",
    "{",
    "}",
    ",",
    "## Intent\n",
    "## Intent 🐪\n",
    "## Code_Blocks\n",
    "## Code Blocks ##\n",
    "##Context\n",
    "## Context\n",
    "## History\n",
    "## HISTORY:\n",
    "## Outputs\n",
    "## **Input Schema**\n",
    "## Output_Schema\n",
    "## Other\n",
    "# T\n",
    "### x\n",
    "## ",
    "```",
    "```\n",
    "````\n",
    "````python {name=",
    "```python {name=a needs=b timeout=3}\nx = 1  \n```\n",
    "~~~",
    "```json\n{\"a\": [1]}\n```\n",
    "{\"$ref\": \"#\"}",
    "{\"type\": \"object\", \"properties\": {\"a\": {\"default\": 1.50}}}\n",
    "\u{feff}",
    "é😀",
    "\u{a0}",
    "type: workflow\n",
    "requires:\n  libs: x\n",
    "permissions: [",
    "<!--",
    "-->",
    "-->\n",
    "@text:bold(",
    ": ",
    "- ",
    "\"",
    "'",
    "|\n",
    "? ",
    "!!x ",
    "- 2026-05-04T10:00:00Z: [EXECUTE] run r1\n",
    "[2026-05-04T10:00:00Z] [CREATE] x\n",
    "- [2026-05-04] [MADE] y",
    "text  \nmore \n",
    "  - 2026-05-04T10:00:00Z: [WRAP] z\n",
];

/// Up to forty pieces in any order.
pub(crate) fn pieces() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..40)
}

/// A document whose front matter is read, with any body and now and then with other line ends, a mark or an indentation.
pub(crate) fn documents() -> impl Strategy<Value = String> {
    (pieces(), 0_u8..6).prop_map(|(pieces, shape)| {
        let source = format!("{HEAD}{}", pieces.concat());
        match shape {
            0 => source.replace('\n', "\r\n"),
            1 => format!("\u{feff}{source}"),
            2 => format!("  {}", source.replace('\n', "\n  ")),
            _ => source,
        }
    })
}
