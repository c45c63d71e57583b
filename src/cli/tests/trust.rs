//! Roots that are kept offline, pinned roots and rehearsals, as the user of the binary meets them. No cluster.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use crypto::offline_root::{Answers, Requests};
use crypto::revocation::{Revocation, RevocationReason};
use crypto::roots::Roots;
use crypto::trust::Bundle;
use crypto::{KeyId, KeyPurpose, KeyStatement, SigningKey, Suite, VerifyingKey};
use jiff::Timestamp;
use serde_json::Value;

/// A home of one's own, in which the binary runs.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// A file that its owner alone may read.
    fn write_private(&self, name: &str, text: &str) {
        self.write(name, text);
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn run(&self, arguments: &str) -> Assert {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chimera"));
        command
            .current_dir(self.0.path())
            .env_remove("KUBECONFIG")
            .env_remove("XDG_CONFIG_HOME")
            .env("HOME", self.0.path())
            .args(arguments.split_whitespace());
        command.assert()
    }

    /// A root in a file that is not encrypted.
    fn new_root(&self, name: &str) -> VerifyingKey {
        self.run(&format!("trust new-root --plain --out {name}")).code(0);
        VerifyingKey::from_spki_pem(&self.read(&format!("{name}.pub.pem"))).unwrap()
    }
}

fn stdout(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stdout.clone()).unwrap()
}

fn stderr(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(Suite::MlDsa87, &[seed; 32]).unwrap()
}

fn requests(root: &KeyId) -> Requests {
    let now = Timestamp::now();
    let about =
        |seed: u8| KeyStatement::about(key(seed).verifying_key(), KeyPurpose::Signing, now, None, None, 3);
    let mut tenant = about(3);
    tenant.namespace = Some("team-a".to_owned());
    let revoked = key(4).verifying_key().key_id().clone();
    Requests::of(
        root.clone(),
        vec![about(2), tenant],
        vec![Revocation::of(
            revoked,
            RevocationReason::KeyCompromise,
            None,
            now,
        )],
    )
}

#[test]
fn an_offline_root_answers_what_it_is_asked_and_its_answers_become_a_manifest() {
    let home = Home::new();
    let root = home.new_root("root.pem");
    let mode = std::fs::metadata(home.path("root.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    home.run("trust new-root --plain --out root.pem").code(2);

    let asked = requests(root.key_id());
    home.write("requests.json", serde_json::to_string(&asked).unwrap());
    // Nobody is at a terminal, and nobody said yes.
    home.run("trust sign requests.json --root root.pem --out answers.json")
        .code(2);
    assert!(!home.path("answers.json").exists());
    let told = stderr(
        &home
            .run("trust sign requests.json --root root.pem --out answers.json --yes")
            .code(0),
    );
    for part in [
        root.key_id().as_str(),
        key(2).verifying_key().key_id().as_str(),
        "team-a",
        "REVOKED",
        "KeyCompromise",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }

    let answers = Answers::from_json(home.read("answers.json").as_bytes()).unwrap();
    let roots = Roots::follow(&root, &[]).unwrap();
    let stated: Vec<_> = answers
        .statements
        .iter()
        .map(|one| roots.key_statement(one).unwrap())
        .collect();
    assert_eq!(stated, asked.statements);
    assert_eq!(
        roots.revocation(&answers.revocations[0]).unwrap(),
        asked.revocations[0]
    );

    let manifest = stdout(
        &home
            .run("trust answer answers.json --root root.pem.pub.pem --dry-run --operator-namespace ops")
            .code(0),
    );
    assert!(manifest.contains("chimera-trust-answers") && manifest.contains("namespace: ops"));
}

#[test]
fn a_root_signs_nothing_that_another_is_asked_and_answers_of_another_are_refused() {
    let home = Home::new();
    let root = home.new_root("root.pem");
    home.new_root("other.pem");
    home.write(
        "requests.json",
        serde_json::to_string(&requests(root.key_id())).unwrap(),
    );
    home.run("trust sign requests.json --root other.pem --yes")
        .code(11);
    home.run("trust sign requests.json --root root.pem --yes --out answers.json")
        .code(0);
    home.run("trust answer answers.json --root other.pem.pub.pem --dry-run")
        .code(11);
    let damaged = home
        .read("requests.json")
        .replace("\"root\"", "\"more\":1,\"root\"");
    home.write("damaged.json", damaged);
    home.run("trust sign damaged.json --root root.pem --yes").code(2);
    std::fs::set_permissions(home.path("root.pem"), std::fs::Permissions::from_mode(0o644)).unwrap();
    home.run("trust sign requests.json --root root.pem --yes").code(1);
}

#[test]
fn an_encrypted_root_signs_for_whoever_can_open_it() {
    let home = Home::new();
    home.write_private("passphrase", "correct horse\n");
    home.write_private("wrong", "battery staple\n");
    let id = stdout(
        &home
            .run("trust new-root --out root.age --passphrase-file passphrase")
            .code(0),
    );
    assert!(
        home.read("root.age")
            .starts_with("-----BEGIN AGE ENCRYPTED FILE-----")
    );
    let root: KeyId = id.trim().parse().unwrap();
    home.write("requests.json", serde_json::to_string(&requests(&root)).unwrap());
    let sign = "trust sign requests.json --root root.age --yes --passphrase-file";
    home.run(&format!("{sign} wrong")).code(1);
    home.run(&format!("{sign} passphrase")).code(0);
    home.run("trust new-root --out other.age --recipient age1nonsense")
        .code(2);
}

#[test]
fn a_first_pinned_root_believes_what_its_successor_vouches_for() {
    let home = Home::new();
    let old = home.new_root("old.pem");
    let new = home.new_root("new.pem");
    home.run("trust roll --root old.pem --new-root old.pem --yes")
        .code(2);
    home.run("trust roll --root old.pem --new-root new.pem --out roll.json --yes")
        .code(0);
    home.run("trust answer roll.json --root old.pem.pub.pem --dry-run")
        .code(0);

    let mut bundle = Bundle::new(&old, vec![]);
    home.write("before.json", bundle.to_json());
    bundle = Bundle::new(&new, vec![]);
    bundle.roots = Answers::from_json(home.read("roll.json").as_bytes())
        .unwrap()
        .roots;
    home.write("after.json", bundle.to_json());
    home.write(
        "foreign.json",
        Bundle::new(key(9).verifying_key(), vec![]).to_json(),
    );

    let pinned = stdout(&home.run("trust pin --trust before.json").code(0));
    assert_eq!(pinned.trim(), old.key_id().as_str());
    let pinned = stdout(&home.run("trust pin --trust after.json").code(0));
    assert_eq!(
        pinned.trim(),
        old.key_id().as_str(),
        "the first root stays pinned"
    );
    home.run("trust pin --trust before.json").code(11);
    home.run("trust pin --trust foreign.json").code(11);
    home.run("trust pin --trust foreign.json --replace").code(0);

    let shown = stdout(&home.run("trust show --trust after.json").code(0));
    assert!(
        shown.contains("FORMER ROOT") && shown.contains(old.key_id().as_str()),
        "{shown}"
    );
    let shown = stdout(&home.run("trust show --trust after.json -o json").code(0));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["root"]["keyId"], new.key_id().as_str());
    assert_eq!(shown["formerRoots"][0]["keyId"], old.key_id().as_str());
    assert_eq!(shown["formerRoots"][0]["until"], shown["root"]["since"]);
}

#[test]
fn a_rehearsal_rotates_a_copy_and_verifies_everything_across_it() {
    let home = Home::new();
    let told = stdout(&home.run("keys rehearse --offline").code(0));
    for part in [
        "make the root",
        "the next key takes over",
        "the successor becomes the root",
        "passed",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let statement = KeyStatement::about(
        key(2).verifying_key(),
        KeyPurpose::Signing,
        Timestamp::UNIX_EPOCH,
        None,
        None,
        0,
    );
    let bundle = Bundle::new(key(1).verifying_key(), vec![statement.sign(&key(1)).unwrap()]);
    home.write("trust.json", bundle.to_json());
    let report = stdout(&home.run("keys rehearse --trust trust.json -o json").code(0));
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["passed"], true);
    assert!(report["samples"].as_u64().unwrap() > 20, "{report}");
    let rotations = report["steps"].as_array().unwrap().iter();
    let rotations = rotations.filter(|line| line["step"] == "the next key takes over");
    assert_eq!(
        rotations.count(),
        3,
        "by interval, by hand, and under the new root"
    );
    assert_eq!(home.read("trust.json"), bundle.to_json());
}
