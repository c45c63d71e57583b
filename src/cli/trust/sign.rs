//! `chimera trust sign`: an offline root states what it is asked, after a person has read it. Needs no cluster.

use std::fmt::Write as _;
use std::path::PathBuf;

use crypto::KeyStatement;
use crypto::offline_root::{Answers, Requests};
use crypto::revocation::Revocation;

use super::new_root;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::secret_file::UnlockArgs;
use crate::{confirm, output};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The file that `chimera trust requests` wrote
    requests: PathBuf,

    /// The file with the root's private key
    #[arg(long, value_name = "FILE")]
    root: PathBuf,

    #[command(flatten)]
    unlock: UnlockArgs,

    /// The file to write, instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Signs without asking
    #[arg(short, long)]
    yes: bool,
}

pub fn run(args: &Args) -> Result<(), Error> {
    let requests = read(args)?;
    let root = new_root::read(&args.root, &args.unlock)?;
    let own = root.verifying_key().key_id();
    if requests.root != *own {
        let message = format!(
            "the requests are for root {}, but {} holds {own}",
            requests.root,
            args.root.display()
        );
        return Err(Error::new(ExitCode::UntrustedKey, message));
    }
    output::note(describe(&requests));
    confirm::confirm("Sign all of this?", args.yes)?;
    let answers = requests
        .answer(&root)
        .map_err(|cause| Error::usage("these requests cannot be signed").because(&cause))?;
    write(&answers, args.out.as_deref())
}

/// Writes answers to a file, or to stdout.
pub fn write(answers: &Answers, out: Option<&std::path::Path>) -> Result<(), Error> {
    let mut json = serde_json::to_string_pretty(answers)
        .map_err(|cause| Error::failed("cannot write JSON").because(&cause))?;
    json.push('\n');
    match out {
        Some(path) => {
            super::write(path, json.as_bytes())?;
            output::note(format_args!(
                "wrote {}; hand it to the operator with `chimera trust answer {0}`",
                path.display()
            ));
            Ok(())
        }
        None => output::print(&json),
    }
}

fn read(args: &Args) -> Result<Requests, Error> {
    let fail = |cause: &dyn std::error::Error| {
        Error::usage(format!("cannot read the requests {}", args.requests.display())).because(cause)
    };
    let bytes = std::fs::read(&args.requests).map_err(|cause| fail(&cause))?;
    Requests::from_json(&bytes).map_err(|cause| fail(&cause))
}

/// Everything that is to be signed, in words.
fn describe(requests: &Requests) -> String {
    let statements = requests.statements.iter().map(describe_statement);
    let revocations = requests.revocations.iter().map(describe_revocation);
    let mut text = format!("Root {} is asked to state:\n", requests.root);
    for (number, one) in (1..).zip(statements.chain(revocations)) {
        let _ = writeln!(text, "{number}. {one}");
    }
    // The file came from elsewhere and must not control the terminal.
    text.lines().map(output::harmless).collect::<Vec<_>>().join("\n")
}

fn describe_statement(statement: &KeyStatement) -> String {
    let KeyStatement {
        suite,
        key_id,
        purpose,
        not_before,
        ..
    } = statement;
    let wherefore = match &statement.namespace {
        Some(namespace) => format!("for namespace {namespace:?} alone"),
        None => "for all namespaces".to_owned(),
    };
    let until = match statement.not_after {
        Some(end) => format!("until {end}"),
        None => "without an end".to_owned(),
    };
    let follows = match &statement.predecessor {
        Some(before) => format!("after key {}", before.short()),
        None => "as the first of its policy".to_owned(),
    };
    format!("{purpose} by key {key_id} ({suite}), {wherefore}, from {not_before} {until}, {follows}")
}

fn describe_revocation(revocation: &Revocation) -> String {
    let Revocation { key_id, reason, .. } = revocation;
    let what = match revocation.since {
        Some(since) => format!("nothing that names {since} or later counts"),
        None => "nothing that it ever signed counts".to_owned(),
    };
    format!("REVOKED: key {key_id}, {reason}; {what}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::revocation::RevocationReason;
    use crypto::{KeyId, KeyPurpose, SigningKey, Suite};

    fn id(key: &SigningKey) -> KeyId {
        key.verifying_key().key_id().clone()
    }

    #[test]
    fn every_statement_is_told_in_words_that_cannot_control_the_terminal() {
        let [root, key] = [1, 2].map(|seed| SigningKey::from_seed(Suite::MlDsa87, &[seed; 32]).unwrap());
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut statement = KeyStatement::about(
            key.verifying_key(),
            KeyPurpose::Sealing,
            now,
            None,
            Some(id(&root)),
            1,
        );
        statement.namespace = Some("team\u{1b}[2J\n2. nothing".to_owned());
        let revocation = Revocation::of(id(&key), RevocationReason::Superseded, Some(now), now);
        let text = describe(&Requests::of(id(&root), vec![statement], vec![revocation]));
        for part in [
            id(&root).as_str(),
            id(&key).as_str(),
            "Sealing",
            "from 2026-01-01T00:00:00Z without an end",
            "REVOKED",
            "Superseded",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
    }
}
