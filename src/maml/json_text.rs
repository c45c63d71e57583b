//! JSON whose parts know where they stand: to lead from a JSON Pointer to a place in the text, and to lay the text out anew
//! without changing any key, its order, or a digit of a number.

use std::ops::Range;

/// Deeper JSON is refused by the parser that goes before.
const MAX_DEPTH: usize = 128;
/// Columns that a value may fill before it is spread over lines.
const WIDTH: usize = 100;

/// A value in a JSON text.
#[derive(Debug)]
pub(crate) struct JsonText<'a> {
    text: &'a str,
    range: Range<usize>,
    data: Data<'a>,
}

#[derive(Debug)]
enum Data<'a> {
    Scalar,
    List(Vec<JsonText<'a>>),
    /// Each key with its quotes, where it stands, and the value.
    Map(Vec<(Range<usize>, JsonText<'a>)>),
}

impl<'a> JsonText<'a> {
    /// Reads a text that is known to be JSON; gives nothing where it is not.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut reader = Reader { text, at: 0 };
        let root = reader.value(0)?;
        reader.blank();
        (reader.at == text.len()).then_some(root)
    }

    /// Where the member or element of a JSON Pointer (RFC 6901) stands: from its key, where it has one, to the end of its value.
    /// References are followed as the pointers of a validator do. What does not exist gives the nearest part that holds it.
    pub fn locate(&self, pointer: &str) -> Range<usize> {
        let (mut value, mut at) = (self, self.range.clone());
        // A reference may lead to another one; a circle of them would be followed for ever.
        let mut references = 0;
        let mut segments = pointer.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let segment = segment.replace("~1", "/").replace("~0", "~");
            let Some((place, next)) = value.member(&segment) else {
                break;
            };
            at = place..next.range.end;
            value = next;
            if segment == "$ref" && segments.peek().is_some() {
                references += 1;
                match next.reference().and_then(|pointer| self.find(&pointer)) {
                    Some(target) if references <= MAX_DEPTH => value = target,
                    _ => break,
                }
            }
        }
        at
    }

    fn find(&self, pointer: &str) -> Option<&Self> {
        pointer.split('/').skip(1).try_fold(self, |value, segment| {
            let segment = segment.replace("~1", "/").replace("~0", "~");
            value.member(&segment).map(|(_, next)| next)
        })
    }

    /// The pointer in a text such as `"#/$defs/a"`.
    fn reference(&self) -> Option<String> {
        let reference: String = serde_json::from_str(&self.text[self.range.clone()]).ok()?;
        reference.strip_prefix('#').map(str::to_owned)
    }

    fn member(&self, segment: &str) -> Option<(usize, &Self)> {
        match &self.data {
            Data::Scalar => None,
            Data::List(items) => {
                let item = items.get(segment.parse::<usize>().ok()?)?;
                Some((item.range.start, item))
            }
            // Of equal keys the last one counts.
            Data::Map(entries) => entries
                .iter()
                .rev()
                .find(|(key, _)| {
                    serde_json::from_str::<String>(&self.text[key.clone()]).is_ok_and(|key| key == segment)
                })
                .map(|(key, value)| (key.start, value)),
        }
    }

    /// The same JSON with two blanks for each level; what fits on a line stays on it.
    pub fn pretty(&self) -> String {
        let mut pretty = String::with_capacity(self.range.len() * 2);
        self.write(0, 0, &mut pretty);
        pretty
    }

    fn write(&self, depth: usize, used: usize, out: &mut String) {
        let (open, close, count) = match &self.data {
            Data::Scalar => return out.push_str(&self.text[self.range.clone()]),
            Data::List(items) => ('[', ']', items.len()),
            Data::Map(entries) => ('{', '}', entries.len()),
        };
        if count == 0 || depth > 0 && self.fits(WIDTH.saturating_sub(used)) {
            return self.compact(out);
        }
        let margin = "  ".repeat(depth + 1);
        out.push(open);
        for (index, (key, value)) in self.children().enumerate() {
            out.push_str(if index == 0 { "\n" } else { ",\n" });
            out.push_str(&margin);
            let key = key
                .map(|key| format!("{}: ", &self.text[key]))
                .unwrap_or_default();
            out.push_str(&key);
            // One column for the comma behind it.
            value.write(depth + 1, margin.len() + key.chars().count() + 1, out);
        }
        out.push('\n');
        out.push_str(&margin[2..]);
        out.push(close);
    }

    fn compact(&self, out: &mut String) {
        let (open, close) = match self.data {
            Data::Scalar => return out.push_str(&self.text[self.range.clone()]),
            Data::List(_) => ('[', ']'),
            Data::Map(_) => ('{', '}'),
        };
        out.push(open);
        for (index, (key, value)) in self.children().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            if let Some(key) = key {
                out.push_str(&self.text[key]);
                out.push_str(": ");
            }
            value.compact(out);
        }
        out.push(close);
    }

    fn fits(&self, width: usize) -> bool {
        // Compact text is at most twice as long as what it is made of, and never shorter than its signs without white space.
        let mut compact = String::new();
        self.range.len() <= width.saturating_mul(8) && {
            self.compact(&mut compact);
            compact.chars().count() <= width
        }
    }

    fn children(&self) -> impl Iterator<Item = (Option<Range<usize>>, &Self)> {
        let (items, entries) = match &self.data {
            Data::Scalar => (&[][..], &[][..]),
            Data::List(items) => (&items[..], &[][..]),
            Data::Map(entries) => (&[][..], &entries[..]),
        };
        let items = items.iter().map(|item| (None, item));
        items.chain(entries.iter().map(|(key, value)| (Some(key.clone()), value)))
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Option<JsonText<'a>> {
        self.blank();
        let start = self.at;
        let data = match self.peek()? {
            b'[' if depth < MAX_DEPTH => self.list(depth)?,
            b'{' if depth < MAX_DEPTH => self.map(depth)?,
            b'"' => {
                self.string()?;
                Data::Scalar
            }
            _ => {
                let rest = &self.text[self.at..];
                let ends = |sign: char| sign.is_ascii_whitespace() || matches!(sign, ',' | ']' | '}');
                self.at += rest.find(ends).unwrap_or(rest.len());
                Data::Scalar
            }
        };
        (self.at > start).then_some(JsonText {
            text: self.text,
            range: start..self.at,
            data,
        })
    }

    fn list(&mut self, depth: usize) -> Option<Data<'a>> {
        let mut items = Vec::new();
        self.at += 1;
        if !self.closes(b']') {
            loop {
                items.push(self.value(depth + 1)?);
                if self.closes(b']') {
                    break;
                }
                self.take(b',')?;
            }
        }
        Some(Data::List(items))
    }

    fn map(&mut self, depth: usize) -> Option<Data<'a>> {
        let mut entries = Vec::new();
        self.at += 1;
        if !self.closes(b'}') {
            loop {
                self.blank();
                let key = self.at;
                self.string()?;
                let key = key..self.at;
                self.blank();
                self.take(b':')?;
                entries.push((key, self.value(depth + 1)?));
                if self.closes(b'}') {
                    break;
                }
                self.take(b',')?;
            }
        }
        Some(Data::Map(entries))
    }

    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            match self.peek()? {
                b'\\' => self.at += 2,
                b'"' => break,
                _ => self.at += 1,
            }
        }
        self.take(b'"')
    }

    /// Whether the collection ends here; if so, its sign is behind.
    fn closes(&mut self, sign: u8) -> bool {
        self.blank();
        self.take(sign).is_some()
    }

    fn take(&mut self, sign: u8) -> Option<()> {
        (self.peek()? == sign).then(|| self.at += 1)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blank(&mut self) {
        let rest = &self.text.as_bytes()[self.at.min(self.text.len())..];
        self.at += rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn pointers_lead_to_keys_and_elements() {
        let text = "{\"a\": {\"b\": [1, {\"c/d\": 2}]}, \"$defs\": {\"n\": {\"type\": \"integer\"}}, \"r\": {\"$ref\": \"#/$defs/n\"}}";
        let json = JsonText::parse(text).unwrap();
        for (pointer, expected) in [
            ("", "{\"a\""),
            ("/a", "\"a\""),
            ("/a/b/0", "1,"),
            ("/a/b/1/c~1d", "\"c/d\""),
            ("/a/x/y", "\"a\""),
            ("/a/b/7", "\"b\""),
            ("/r/$ref/type", "\"type\""),
            ("/r/$ref", "\"$ref\""),
        ] {
            assert!(
                text[json.locate(pointer).start..].starts_with(expected),
                "{pointer}: {}",
                &text[json.locate(pointer).start..]
            );
        }
    }

    #[test]
    fn a_layout_keeps_order_numbers_and_escapes() {
        let text = "{\"z\":1.50,\"a\":[],\"b\":{\"x\":[1,2 , 3e+07],\"\\u00e4\":\"}\"} , \"long\": [\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\",\"ccccccccccccccccccccccccccccccccc\"]}";
        let expected = "{\n  \"z\": 1.50,\n  \"a\": [],\n  \"b\": {\"x\": [1, 2, 3e+07], \"\\u00e4\": \"}\"},\n  \"long\": [\n    \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\n    \"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\",\n    \"ccccccccccccccccccccccccccccccccc\"\n  ]\n}";
        let pretty = JsonText::parse(text).unwrap().pretty();
        assert_eq!(pretty, expected);
        assert_eq!(JsonText::parse(&pretty).unwrap().pretty(), pretty);
    }

    #[test]
    fn what_is_not_json_is_nothing() {
        for text in [
            "", "{", "[1,", "{\"a\"}", "{\"a\":}", "\"a", "\"\\", "[1 2]", "{} {}",
        ] {
            assert!(JsonText::parse(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "[\\[\\]{}\":,\\\\ a1é\n]{0,40}", pointer in "[/a0~1$]{0,8}") {
            if let Some(json) = JsonText::parse(&text) {
                prop_assert!(text.get(json.locate(&pointer)).is_some());
            }
        }

        #[test]
        fn a_layout_changes_no_value(seed in prop::collection::vec(any::<(u8, i32)>(), 0..40)) {
            let value = seed.iter().fold(Value::Null, |value, (shape, number)| match shape % 4 {
                0 => serde_json::json!([value, number]),
                1 => serde_json::json!({ "k": value, "n": f64::from(*number) / 7.0 }),
                2 => serde_json::json!({ "long key with blanks": [value], "t": "x".repeat(usize::from(*shape)) }),
                _ => value,
            });
            let text = value.to_string();
            let pretty = JsonText::parse(&text).unwrap().pretty();
            prop_assert_eq!(serde_json::from_str::<Value>(&pretty).unwrap(), value);
            prop_assert_eq!(JsonText::parse(&pretty).unwrap().pretty(), pretty);
        }
    }
}
