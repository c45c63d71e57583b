//! `chimera trust show`: roots in the order of their succession, keys by age, and what became of each.

use std::collections::BTreeMap;

use crypto::revocation::Revocation;
use crypto::root_statement::RootStatement;
use crypto::trust::{Bundle, TrustedKey, TrustedKeys};
use crypto::{KeyId, KeyStatement, Suite};
use jiff::Timestamp;
use serde::Serialize;

use crate::error::Error;
use crate::output::{self, Format};

/// Prints a bundle that can be believed.
pub fn print(bundle: &Bundle, format: Format) -> Result<(), Error> {
    let trusted = super::believe(bundle)?;
    format.print(&Listing::of(bundle, &trusted), text)
}

/// The keys, oldest first.
pub fn by_age(trusted: &TrustedKeys) -> Vec<&TrustedKey> {
    let mut keys: Vec<_> = trusted.iter().collect();
    keys.sort_by_key(|key| key.statement.not_before);
    keys
}

/// A time in a table.
pub fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}

/// A revocation in a table: why, and what it spares.
pub fn revoked(revocation: Option<&Revocation>) -> String {
    match revocation {
        None => "-".to_owned(),
        Some(Revocation { reason, since, .. }) => match since {
            Some(since) => format!("{reason} since {since}"),
            None => reason.to_string(),
        },
    }
}

/// A bundle, as it is printed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    root: Root,
    /// Newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    former_roots: Vec<FormerRoot>,
    keys: Vec<Key>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Root {
    key_id: KeyId,
    suite: Suite,
    public_key: String,
    /// When it succeeded another.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FormerRoot {
    key_id: KeyId,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

#[derive(Serialize)]
struct Key {
    #[serde(flatten)]
    statement: KeyStatement,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation: Option<Revocation>,
}

impl Listing {
    fn of(bundle: &Bundle, trusted: &TrustedKeys) -> Self {
        let terms = Terms::of(bundle);
        let root = trusted.root();
        let mut former_roots: Vec<_> = trusted
            .roots()
            .ids()
            .filter(|id| *id != root.key_id())
            .map(|id| FormerRoot {
                key_id: id.clone(),
                since: terms.since.get(id).copied(),
                until: terms.until.get(id).copied(),
            })
            .collect();
        former_roots.sort_by_key(|root| std::cmp::Reverse(root.until));
        Self {
            root: Root {
                key_id: root.key_id().clone(),
                suite: root.suite(),
                public_key: root.spki_pem(),
                since: terms.since.get(root.key_id()).copied(),
            },
            former_roots,
            keys: by_age(trusted)
                .into_iter()
                .map(|key| Key {
                    statement: key.statement.clone(),
                    revocation: key.revocation.clone(),
                })
                .collect(),
        }
    }
}

/// When roots came and went.
#[derive(Default)]
struct Terms {
    since: BTreeMap<KeyId, Timestamp>,
    until: BTreeMap<KeyId, Timestamp>,
}

impl Terms {
    /// From the statements of a bundle that was verified before.
    fn of(bundle: &Bundle) -> Self {
        let mut terms = Self::default();
        for envelope in &bundle.roots {
            let statement: Option<RootStatement> = serde_json::from_slice(envelope.payload()).ok();
            let Some(statement) = statement else { continue };
            match statement.not_after {
                Some(end) => terms.until.insert(statement.key_id, end),
                None => terms.since.insert(statement.key_id, statement.not_before),
            };
        }
        terms
    }
}

fn text(listing: &Listing) -> String {
    let root = &listing.root;
    let mut text = format!("Root   {}   {}\n", root.suite, root.key_id);
    if !listing.former_roots.is_empty() {
        let rows: Vec<_> = listing
            .former_roots
            .iter()
            .map(|root| vec![root.key_id.to_string(), time(root.since), time(root.until)])
            .collect();
        text = format!(
            "{text}Since  {}\n\n{}",
            time(root.since),
            output::table(&["FORMER ROOT", "SINCE", "UNTIL"], &rows)
        );
    }
    let rows: Vec<_> = listing
        .keys
        .iter()
        .map(
            |Key {
                 statement,
                 revocation,
             }| {
                let predecessor = statement.predecessor.as_ref();
                vec![
                    statement.key_id.to_string(),
                    statement.suite.to_string(),
                    statement.purpose.to_string(),
                    statement.namespace.clone().unwrap_or_else(|| "-".to_owned()),
                    statement.not_before.to_string(),
                    time(statement.not_after),
                    predecessor.map_or("-", KeyId::short).to_owned(),
                    revoked(revocation.as_ref()),
                ]
            },
        )
        .collect();
    let heading = [
        "KEY",
        "SUITE",
        "PURPOSE",
        "NAMESPACE",
        "VALID FROM",
        "UNTIL",
        "PREDECESSOR",
        "REVOKED",
    ];
    format!("{text}\n{}", output::table(&heading, &rows))
}
