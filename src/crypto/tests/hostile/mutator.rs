//! Changes documents the way an attacker who knows their structure would. Works on the bytes of any JSON, so that fields
//! which are added later are changed too, and inside base64 as well; what is no JSON is changed byte by byte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// A seeded source of changes: the same seed makes the same ones.
pub struct Mutator {
    state: u64,
}

impl Mutator {
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// `original` with one to three changes; parts may come from `donors`, other documents of the same sort.
    pub fn mutate(&mut self, original: &[u8], donors: &[&[u8]]) -> Vec<u8> {
        let mut bytes = original.to_vec();
        for _ in 0..=self.below(3) {
            bytes = match serde_json::from_slice(&bytes) {
                Ok(tree) if self.below(4) > 0 => {
                    let donor = self
                        .one_of(donors)
                        .and_then(|donor| serde_json::from_slice(donor).ok());
                    let tree = self.change_tree(tree, &donor.unwrap_or(Value::Null));
                    serde_json::to_vec(&tree).unwrap()
                }
                _ => self.change_text(bytes),
            };
        }
        bytes
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when that is 0.
    fn below(&mut self, end: usize) -> usize {
        let end = end.max(1) as u64;
        usize::try_from(self.next() % end).unwrap()
    }

    fn one_of<T: Copy>(&mut self, choice: &[T]) -> Option<T> {
        let index = self.below(choice.len());
        choice.get(index).copied()
    }

    /// Changes one place of a tree, however deep.
    fn change_tree(&mut self, mut tree: Value, donor: &Value) -> Value {
        let mut places = Vec::new();
        pointers(&tree, String::new(), &mut places);
        let place = places[self.below(places.len())].clone();
        match self.below(4) {
            0 => self.change_members(tree.pointer_mut(&place).unwrap(), donor),
            1 => {
                // The same place of another document, or any place of it.
                let mut others = Vec::new();
                pointers(donor, String::new(), &mut others);
                let any = others[self.below(others.len())].clone();
                let from = if self.below(2) == 0 { &place } else { &any };
                if let Some(part) = donor.pointer(from) {
                    *tree.pointer_mut(&place).unwrap() = part.clone();
                }
            }
            2 => {
                let other = places[self.below(places.len())].clone();
                let part = tree.pointer(&other).unwrap().clone();
                *tree.pointer_mut(&place).unwrap() = part;
            }
            _ => {
                let value = tree.pointer_mut(&place).unwrap();
                *value = self.change_value(value.take(), donor);
            }
        }
        tree
    }

    /// Adds, removes, renames, repeats or exchanges what an object or a list holds.
    fn change_members(&mut self, value: &mut Value, donor: &Value) {
        match value {
            Value::Object(members) if !members.is_empty() => self.change_object(members),
            Value::Array(items) if !items.is_empty() => {
                let (one, two) = (self.below(items.len()), self.below(items.len()));
                match self.below(4) {
                    0 => drop(items.remove(one)),
                    1 => items.insert(two, items[one].clone()),
                    2 => items.swap(one, two),
                    _ => items.clear(),
                }
            }
            leaf => *leaf = self.change_value(leaf.take(), donor),
        }
    }

    fn change_object(&mut self, members: &mut Map<String, Value>) {
        let names: Vec<String> = members.keys().cloned().collect();
        let (one, two) = (
            names[self.below(names.len())].clone(),
            names[self.below(names.len())].clone(),
        );
        match self.below(5) {
            0 => drop(members.remove(&one)),
            1 => drop(members.insert(format!("{one} "), members[&one].clone())),
            2 => drop(members.insert(one.to_uppercase(), members[&one].clone())),
            3 => {
                let value = members.remove(&one).unwrap();
                members.insert(format!("x{one}"), value);
            }
            _ => {
                let (first, second) = (members[&one].clone(), members[&two].clone());
                members.insert(one, second);
                members.insert(two, first);
            }
        }
    }

    fn change_value(&mut self, value: Value, donor: &Value) -> Value {
        match (value, self.below(5)) {
            (value, 0) => self.another_type(value),
            (Value::Number(number), _) => {
                let number = number.as_i64().unwrap_or_default();
                [
                    json!(number.wrapping_add(1)),
                    json!(number.wrapping_neg()),
                    json!(i64::MIN),
                    json!(u64::MAX),
                    json!(1e300),
                    json!(0.1),
                ][self.below(6)]
                .clone()
            }
            (Value::String(text), _) => Value::String(self.change_string(&text, donor)),
            (Value::Bool(value), _) => Value::Bool(!value),
            (value, _) => self.another_type(value),
        }
    }

    fn another_type(&mut self, value: Value) -> Value {
        match self.below(7) {
            0 => Value::Null,
            1 => json!({}),
            2 => json!([]),
            3 => json!(true),
            4 => Value::String(value.to_string()),
            5 => json!({"": value}),
            _ => (0..[1, 50, 200][self.below(3)]).fold(value, |inner, _| json!([inner])),
        }
    }

    fn change_string(&mut self, text: &str, donor: &Value) -> String {
        if self.below(2) == 0
            && let Some(inner) = STANDARD
                .decode(text)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        {
            let changed = self.change_tree(inner, donor);
            return STANDARD.encode(changed.to_string());
        }
        let suites = [
            "ML-DSA-87",
            "ML-DSA-65",
            "ML-DSA-44",
            "Ed25519+ML-DSA-87",
            "Ed25519",
            "none",
            "ml-dsa-87",
            "",
        ];
        if suites[..4].contains(&text) {
            return suites[self.below(suites.len())].to_owned();
        }
        let mut signs: Vec<char> = text.chars().collect();
        let place = self.below(signs.len());
        match self.below(9) {
            0 => signs.truncate(place),
            1 => signs.extend(['A'; 4]),
            2 => signs.push('='),
            3 => signs.insert(
                place,
                ['\n', ' ', '\0', '\u{202e}', 'é', '"', '\\'][self.below(7)],
            ),
            4 => return text.replace('+', "-").replace('/', "_"),
            5 => return text.to_uppercase(),
            6 => return text.repeat(2),
            7 => return text.trim_end_matches('=').to_owned(),
            _ => {
                if let Some(sign) = signs.get_mut(place) {
                    *sign = if *sign == 'B' { 'A' } else { 'B' };
                }
            }
        }
        signs.into_iter().collect()
    }

    /// What a tree cannot say: keys that occur twice, other spellings, bytes around and within.
    fn change_text(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let place = self.below(bytes.len());
        match self.below(9) {
            0 => bytes.truncate(place),
            1 => bytes.extend(b" x"),
            2 => bytes.extend(bytes.clone()),
            3 => drop(bytes.splice(..0, *b"\xef\xbb\xbf")),
            4 => bytes.insert(place, [b' ', b'\n', b'"', b'\\', 0, 0xff, b'['][self.below(7)]),
            5 => drop(bytes.splice(place..place, vec![b'['; 100_000])),
            6 => return self.repeat_a_key(bytes),
            7 => return self.spell_otherwise(bytes),
            _ => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << self.below(8);
                }
            }
        }
        bytes
    }

    /// Puts `"key":null` before a key, once more.
    fn repeat_a_key(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let text = String::from_utf8_lossy(&bytes);
        let ends: Vec<usize> = text.match_indices("\":").map(|(at, _)| at).collect();
        let found = self
            .one_of(&ends)
            .and_then(|end| Some((text[..end].rfind('"')?, end)));
        let Some((start, end)) = found else { return bytes };
        let key = &text[start..=end];
        let other = ["null", "\"\"", "1", "[]"][self.below(4)];
        format!("{}{key}:{other},{}", &text[..start], &text[start..]).into_bytes()
    }

    /// Writes one letter as an escape: the same document to every reader of JSON.
    fn spell_otherwise(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let place = self.below(bytes.len());
        let Some(letter) = bytes.get(place).filter(|byte| byte.is_ascii_alphanumeric()) else {
            return bytes;
        };
        let escape = format!("\\u{letter:04x}");
        [&bytes[..place], escape.as_bytes(), &bytes[place + 1..]].concat()
    }
}

/// A pointer (RFC 6901) to each value in a tree.
fn pointers(value: &Value, here: String, all: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                pointers(value, format!("{here}/{name}"), all);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                pointers(value, format!("{here}/{index}"), all);
            }
        }
        _ => {}
    }
    all.push(here);
}
