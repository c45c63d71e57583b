//! Who may read, write and execute a document, and where it may run.

use serde::Serialize;

use crate::codes::Code;
use crate::diagnostic::Findings;
use crate::yaml::{Data, Node};

/// The permissions of a document, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Permissions {
    /// Who may read.
    pub read: Vec<String>,
    /// Who may write.
    pub write: Vec<String>,
    /// Who may execute (`*`, `agent://…`) and where (`gateway://…`).
    pub execute: Vec<String>,
}

/// Which heads an entry `gateway://…` names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum GatewayPattern {
    /// `gateway://chimera-2048` and `gateway://*`: any head.
    Any,
    /// `gateway://chimera-head-N`: the head of role N, from 1 to 4.
    Head(u8),
    /// Another name, with `*` as the only wildcard, matched against a head's name.
    Named(String),
}

impl GatewayPattern {
    fn parse(name: &str) -> Self {
        let name = name.trim().trim_end_matches('/');
        if matches!(name, "chimera-2048" | "*") {
            return Self::Any;
        }
        match head_number(name) {
            Some(number) => Self::Head(number),
            None => Self::Named(name.to_owned()),
        }
    }

    /// The role that the pattern names: `quantum`, `crypto`, `inference` or `orchestrator`.
    pub fn role(&self) -> Option<&'static str> {
        match self {
            Self::Head(number) => ROLES.get(usize::from(*number).wrapping_sub(1)).copied(),
            Self::Any | Self::Named(_) => None,
        }
    }
}

const ROLES: [&str; 4] = ["quantum", "crypto", "inference", "orchestrator"];

/// N of `chimera-head-N` and `chimera-headN`, from 1 to 4.
fn head_number(name: &str) -> Option<u8> {
    let number = name.strip_prefix("chimera-head")?;
    let number = number.strip_prefix('-').unwrap_or(number);
    number
        .parse()
        .ok()
        .filter(|number| (1..=4).contains(number) && name.len() <= "chimera-head-4".len())
}

impl Permissions {
    /// Whether the entries that say who admit `agent`, the NAME of `agent://NAME`.
    ///
    /// Without an agent only `*` and `agent://*` match. When no entry says who, nobody is kept out. An entry that is not
    /// understood says who, and matches nobody.
    pub fn may_execute(&self, agent: Option<&str>) -> bool {
        let mut who = self
            .execute
            .iter()
            .map(String::as_str)
            .filter(|entry| !entry.starts_with("gateway://"))
            .peekable();
        who.peek().is_none()
            || who.any(|entry| match (entry, agent) {
                ("*" | "agent://*", _) => true,
                (_, None) => false,
                (_, Some(agent)) => entry
                    .strip_prefix("agent://")
                    .is_some_and(|pattern| matches(pattern, agent)),
            })
    }

    /// What the entries that say where name; empty when none does.
    pub fn gateways(&self) -> Vec<GatewayPattern> {
        self.execute
            .iter()
            .filter_map(|entry| entry.strip_prefix("gateway://"))
            .map(GatewayPattern::parse)
            .collect()
    }

    /// Whether the document may run on `head`, such as `chimera-head-1`. When no entry says where, it may run anywhere.
    pub fn allows_gateway(&self, head: &str) -> bool {
        let gateways = self.gateways();
        gateways.is_empty()
            || gateways.iter().any(|gateway| match gateway {
                GatewayPattern::Any => true,
                GatewayPattern::Head(number) => head_number(head) == Some(*number),
                GatewayPattern::Named(pattern) => matches(pattern, head),
            })
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any number of characters. Linear in both but for the number of
/// stars.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        if let Some(part) = last.replace(part) {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
    }
    match last {
        Some(last) => rest.ends_with(last),
        None => rest.is_empty(),
    }
}

/// Reads the value of `permissions`.
pub(crate) fn permissions(node: &Node, findings: &mut Findings<'_>) -> Permissions {
    let mut permissions = Permissions::default();
    let Data::Map(entries) = &node.data else {
        findings.error(
            Code::WrongType,
            node.span,
            format!(
                "permissions must be a map of read, write and execute, not {}",
                node.kind()
            ),
            "permissions: {read: [\"agent://*\"], execute: [\"gateway://chimera-2048\"]}",
        );
        return permissions;
    };
    for (key, value) in entries {
        let name = key.text.to_ascii_lowercase();
        let list = match name.as_str() {
            "read" => &mut permissions.read,
            "write" => &mut permissions.write,
            "execute" => &mut permissions.execute,
            _ => {
                let message = format!("permissions.{} is kept but has no effect", key.text);
                findings.info(Code::NoEffect, key.span, message, "");
                continue;
            }
        };
        for (entry, span) in crate::front_matter::texts(value, &format!("permissions.{name}"), findings) {
            if name == "execute" && !is_understood(&entry) {
                let hint = if entry.contains("://") {
                    String::new()
                } else {
                    format!("write agent://{entry} when an agent is meant")
                };
                findings.warn(
                    Code::PermissionUnknown,
                    span,
                    format!("`{entry}` is neither *, agent://… nor gateway://…, so it matches nobody"),
                    hint,
                );
            }
            list.push(entry);
        }
        if name == "execute" && list.is_empty() {
            findings.warn(
                Code::PermissionsMissing,
                key.span,
                "an empty list under execute keeps nobody out",
                "name agents, such as agent://nobody",
            );
        }
    }
    permissions
}

fn is_understood(entry: &str) -> bool {
    entry == "*"
        || ["agent://", "gateway://"]
            .iter()
            .any(|scheme| entry.strip_prefix(scheme).is_some_and(|name| !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executed_by(entries: &[&str]) -> Permissions {
        Permissions {
            execute: entries.iter().map(ToString::to_string).collect(),
            ..Permissions::default()
        }
    }

    #[test]
    fn who_may_execute_is_decided_by_the_entries_that_say_who() {
        let cases: &[(&[&str], Option<&str>, bool)] = &[
            (&[], None, true),
            (&[], Some("ann"), true),
            (&["*"], None, true),
            (&["agent://*"], None, true),
            (&["agent://ann"], None, false),
            (&["agent://ann"], Some("ann"), true),
            (&["agent://ann"], Some("anna"), false),
            (&["agent://team-*"], Some("team-a"), true),
            (&["agent://team-*"], Some("a-team"), false),
            (&["gateway://chimera-2048"], None, true),
            (&["gateway://chimera-2048", "agent://ann"], None, false),
            (&["gateway://chimera-2048", "agent://ann"], Some("ann"), true),
            (&["public"], None, false),
            (&["admin"], Some("admin"), false),
            (&["agent://?nn"], Some("ann"), false),
        ];
        for (entries, agent, expected) in cases {
            assert_eq!(
                executed_by(entries).may_execute(*agent),
                *expected,
                "{entries:?} {agent:?}"
            );
        }
    }

    #[test]
    fn where_it_runs_is_decided_by_the_entries_that_say_where() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&[], "chimera-head-1", true),
            (&["agent://ann"], "chimera-head-1", true),
            (&["gateway://chimera-2048"], "chimera-head-4", true),
            (&["gateway://chimera-head-1"], "chimera-head-1", true),
            (&["gateway://chimera-head1"], "chimera-head-1", true),
            (&["gateway://chimera-head-1"], "chimera-head-2", false),
            (&["gateway://chimera-head-*"], "chimera-head-2", true),
            (&["gateway://elsewhere"], "chimera-head-2", false),
        ];
        for (entries, head, expected) in cases {
            assert_eq!(
                executed_by(entries).allows_gateway(head),
                *expected,
                "{entries:?} {head}"
            );
        }
        assert_eq!(
            executed_by(&["gateway://chimera-head-3"]).gateways()[0].role(),
            Some("inference")
        );
        assert_eq!(
            executed_by(&["gateway://chimera-head-5"]).gateways()[0].role(),
            None
        );
    }

    #[test]
    fn a_star_is_the_only_wildcard() {
        for (pattern, text, expected) in [
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "ac", false),
            ("*", "", true),
            ("**", "x", true),
            ("a*a", "a", false),
            ("", "", true),
            ("", "a", false),
            ("*ab", "aab", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
