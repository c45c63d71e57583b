//! `chimera trust answer`: an offline root's answers, verified and handed to the operator.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::names;
use crypto::offline_root::Answers;
use crypto::roots::{self, Roots};
use crypto::{DigestSet, VerifyingKey};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams};

use super::OperatorArgs;
use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The file that `chimera trust sign` or `chimera trust roll` wrote
    answers: PathBuf,

    /// A file with the offline root's public key (PEM), to verify the answers with. Without it: the published bundle, or while
    /// there is none the key that the operator was given
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,

    /// Prints the manifest instead of applying it. With --root, this needs no cluster
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub async fn run(args: &Args) -> Result<(), Error> {
    let text = read(&args.answers)?;
    let answers = Answers::from_json(text.as_bytes())
        .map_err(|cause| Error::usage(format!("cannot read {}", args.answers.display())).because(&cause))?;
    let published = match &args.root {
        Some(file) => Believed::of(read_root(file)?),
        None => published(args).await?,
    };
    published.check(&answers).map_err(|cause| {
        Error::new(
            ExitCode::UntrustedKey,
            "the answers are not those of the cluster's root",
        )
        .because(&cause)
    })?;
    let map = build(&args.operator.operator_namespace, &text);
    if args.dry_run {
        let yaml = serde_saphyr::to_string(&map)
            .map_err(|cause| Error::failed("cannot write YAML").because(&cause))?;
        return output::print(&yaml);
    }
    let maps: Api<ConfigMap> =
        Api::namespaced(args.cluster.connect().await?, &args.operator.operator_namespace);
    let entry = entry_of(&text);
    // A field manager for each entry: those of others stay.
    let params = PatchParams::apply(entry.trim_end_matches(".json"));
    maps.patch(names::TRUST_ANSWERS_CONFIG_MAP, &params, &Patch::Apply(&map))
        .await?;
    output::note(format_args!(
        "the operator has {} statement(s), {} revocation(s) and {} statement(s) about roots as {entry}",
        answers.statements.len(),
        answers.revocations.len(),
        answers.roots.len()
    ));
    Ok(())
}

/// The root whose word counts, and what is published about its succession.
struct Believed {
    anchor: VerifyingKey,
    statements: Vec<crypto::Envelope>,
}

impl Believed {
    fn of(anchor: VerifyingKey) -> Self {
        Self {
            anchor,
            statements: Vec::new(),
        }
    }

    /// Every answer must be that of a root which is believed, or will be with these answers.
    fn check(&self, answers: &Answers) -> Result<(), roots::Error> {
        let mut statements = self.statements.clone();
        statements.extend(
            answers
                .roots
                .iter()
                .filter(|one| !self.statements.contains(one))
                .cloned(),
        );
        let roots = Roots::follow(&self.anchor, &statements)?;
        for statement in &answers.statements {
            roots.key_statement(statement)?;
        }
        for revocation in &answers.revocations {
            roots.revocation(revocation)?;
        }
        Ok(())
    }
}

async fn published(args: &Args) -> Result<Believed, Error> {
    let namespace = &args.operator.operator_namespace;
    let maps: Api<ConfigMap> = Api::namespaced(args.cluster.connect().await?, namespace);
    if let Some(bundle) = super::find_bundle(&maps, namespace).await? {
        let anchor = super::believe(&bundle)?.root().clone();
        return Ok(Believed {
            anchor,
            statements: bundle.roots,
        });
    }
    let given = maps.get_opt(names::OFFLINE_ROOT_CONFIG_MAP).await?;
    let pem = given.and_then(|map| map.data?.remove(names::TRUST_ROOT_KEY));
    let pem = pem.ok_or_else(|| {
        Error::failed(format!(
            "namespace {namespace} publishes neither a trust bundle nor an offline root"
        ))
        .hint("--root FILE verifies the answers with a public key that you have")
    })?;
    parse_root(&pem, names::OFFLINE_ROOT_CONFIG_MAP).map(Believed::of)
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path)
        .map_err(|cause| Error::usage(format!("cannot read {}", path.display())).because(&cause))
}

fn read_root(path: &Path) -> Result<VerifyingKey, Error> {
    parse_root(&read(path)?, &path.display().to_string())
}

fn parse_root(pem: &str, place: &str) -> Result<VerifyingKey, Error> {
    VerifyingKey::from_spki_pem(pem)
        .map_err(|cause| Error::usage(format!("{place} holds no public key of a root")).because(&cause))
}

/// The same answers have the same name: handing them over again changes nothing.
fn entry_of(text: &str) -> String {
    format!("answers-{}.json", &DigestSet::of(text.as_bytes()).sha256[..16])
}

fn build(namespace: &str, text: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(names::TRUST_ANSWERS_CONFIG_MAP.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(entry_of(text), text.to_owned())])),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::root_statement::RootStatement;
    use crypto::{KeyPurpose, KeyStatement, SigningKey, Suite};
    use jiff::Timestamp;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(Suite::MlDsa87, &[seed; 32]).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn answers(root: u8, time: Timestamp) -> Answers {
        let about = key(9);
        let statement = KeyStatement::about(about.verifying_key(), KeyPurpose::Signing, time, None, None, 0);
        Answers {
            statements: vec![statement.sign(&key(root)).unwrap()],
            ..Answers::default()
        }
    }

    #[test]
    fn answers_count_from_the_root_and_from_the_one_that_they_let_succeed_it() {
        let believed = Believed::of(key(1).verifying_key().clone());
        assert!(believed.check(&answers(1, at(1))).is_ok());
        assert!(believed.check(&answers(2, at(1))).is_err());
        let mut rolling = answers(2, at(100));
        rolling.roots = RootStatement::roll_over(&key(1), &key(2), at(50)).unwrap().into();
        assert!(believed.check(&rolling).is_ok());
        let late = answers(1, at(100)).and(rolling);
        assert!(believed.check(&late).is_err(), "the old root's time is over");
    }

    #[test]
    fn the_same_answers_are_the_same_entry() {
        assert_eq!(entry_of("a"), entry_of("a"));
        assert_ne!(entry_of("a"), entry_of("b"));
        let map = build("ops", "a");
        assert_eq!(map.data.unwrap()[&entry_of("a")], "a");
    }
}
