//! NIST ACVP: the sets that come inside the crate `oqs-sys`, beside the sources of liboqs.

use crate::ml_kem::kem;
use crate::tally::Tally;
use aws_lc_rs::encoding::AsRawBytes as _;
use aws_lc_rs::signature::{ML_DSA_65_SIGNING, ML_DSA_87_SIGNING, PqdsaKeyPair};
use crypto::kem::{DecapsulationKey, EncapsulationKey};
use crypto::{SigningKey, Suite, VerifyingKey};
use serde::{Deserialize, Deserializer, de};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const OTHER_PARAMETERS: &str = "no suite has this parameter set";

pub fn all() -> Vec<Tally> {
    let folder = folder();
    let [generated, generated_otherwise] = ml_dsa_signatures(&folder, "ML-DSA-sigGen-FIPS204");
    let [given, given_otherwise] = ml_dsa_signatures(&folder, "ML-DSA-sigVer-FIPS204");
    vec![
        ml_dsa_key_gen(&folder),
        generated,
        generated_otherwise,
        given,
        given_otherwise,
        ml_kem_key_gen(&folder),
        ml_kem_encap_decap(&folder),
    ]
}

/// Bytes that are hexadecimal in the file.
#[derive(Default)]
struct Hex(Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(text).map(Self).map_err(de::Error::custom)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Set {
    test_groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    parameter_set: String,
    /// Of ML-DSA: `external` takes a message and a context, `internal` what they are made into.
    #[serde(default)]
    signature_interface: String,
    /// Of ML-DSA: `pure`, or a hash of the message is signed.
    #[serde(default)]
    pre_hash: String,
    /// Of ML-KEM decapsulation: the key of the whole group.
    #[serde(default)]
    dk: Hex,
    tests: Vec<Case>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Case {
    tc_id: usize,
    test_passed: Option<bool>,
    seed: Hex,
    pk: Hex,
    sk: Hex,
    message: Option<Hex>,
    context: Hex,
    signature: Hex,
    d: Hex,
    z: Hex,
    ek: Hex,
    dk: Hex,
    c: Hex,
    k: Hex,
}

/// The public key of a seed by the crate; the expanded private one by the library that it asks.
fn ml_dsa_key_gen(folder: &Path) -> Tally {
    let mut tally = Tally::new("ML-DSA-keyGen-FIPS204");
    for group in load(folder, "ML-DSA-keyGen-FIPS204") {
        let Some(suite) = suite(&group) else {
            tally.skip(group.tests.len(), OTHER_PARAMETERS);
            continue;
        };
        let algorithm = match suite {
            Suite::MlDsa65 => &ML_DSA_65_SIGNING,
            _ => &ML_DSA_87_SIGNING,
        };
        for test in &group.tests {
            let key = SigningKey::from_seed(suite, &test.seed.0).unwrap();
            let pair = PqdsaKeyPair::from_seed(algorithm, &test.seed.0).unwrap();
            let expanded = pair.private_key().as_raw_bytes().unwrap();
            let right = *key.verifying_key() == VerifyingKey::from_raw(suite, &test.pk.0).unwrap()
                && expanded.as_ref() == test.sk.0;
            tally.judge(test.tc_id, right);
        }
    }
    tally
}

/// Signatures, made by the vector or to be judged: those that are pure and have an empty context, and all others of the
/// same keys (of hashes, of contexts, of what is inside), which must never pass for one.
fn ml_dsa_signatures(folder: &Path, set: &str) -> [Tally; 2] {
    let mut ours = Tally::new(format!("{set}: pure, empty context"));
    let mut others = Tally::new(format!("{set}: others, all to be refused"));
    for group in load(folder, set) {
        let Some(suite) = suite(&group) else {
            others.skip(group.tests.len(), OTHER_PARAMETERS);
            continue;
        };
        let pure = group.signature_interface == "external" && group.pre_hash == "pure";
        for test in &group.tests {
            let Some(message) = &test.message else {
                others.skip(1, "there is no message, only its digest mu");
                continue;
            };
            let key = VerifyingKey::from_raw(suite, &test.pk.0).unwrap();
            let accepted = key.verify(&message.0, &test.signature.0).is_ok();
            if pure && test.context.0.is_empty() {
                ours.judge(test.tc_id, accepted == (test.test_passed != Some(false)));
            } else {
                others.judge(test.tc_id, !accepted);
            }
        }
    }
    [ours, others]
}

fn ml_kem_key_gen(folder: &Path) -> Tally {
    let mut tally = Tally::new("ML-KEM-keyGen-FIPS203");
    let kem = kem();
    for group in load(folder, "ML-KEM-keyGen-FIPS203") {
        if group.parameter_set != "ML-KEM-1024" {
            tally.skip(group.tests.len(), OTHER_PARAMETERS);
            continue;
        }
        for test in &group.tests {
            let seed = [test.d.0.as_slice(), &test.z.0].concat();
            let key = DecapsulationKey::from_seed(seed.as_slice().try_into().unwrap()).unwrap();
            let (_, private) = kem
                .keypair_derand(kem.keypair_seed_from_bytes(&seed).unwrap())
                .unwrap();
            let right = key.encapsulation_key().raw() == test.ek.0 && private.as_ref() == test.dk.0;
            tally.judge(test.tc_id, right);
        }
    }
    tally
}

/// The vectors hold expanded private keys, which the crate never reads: liboqs is asked directly.
fn ml_kem_encap_decap(folder: &Path) -> Tally {
    let mut tally = Tally::new("ML-KEM-encapDecap-FIPS203, ciphertexts by liboqs alone");
    let kem = kem();
    for group in load(folder, "ML-KEM-encapDecap-FIPS203") {
        if group.parameter_set != "ML-KEM-1024" {
            tally.skip(group.tests.len(), OTHER_PARAMETERS);
            continue;
        }
        for test in &group.tests {
            let encapsulates = test.ek.0.is_empty()
                || EncapsulationKey::from_raw(&test.ek.0).is_ok_and(|key| key.encapsulate().is_ok());
            let private = if test.dk.0.is_empty() { &group.dk } else { &test.dk };
            let private = kem.secret_key_from_bytes(&private.0).unwrap();
            let secret = kem
                .decapsulate(private, kem.ciphertext_from_bytes(&test.c.0).unwrap())
                .unwrap();
            tally.judge(test.tc_id, encapsulates && secret.as_ref() == test.k.0);
        }
    }
    tally
}

fn suite(group: &Group) -> Option<Suite> {
    Suite::ALL
        .into_iter()
        .find(|suite| suite.name() == group.parameter_set)
}

fn load(folder: &Path, set: &str) -> Vec<Group> {
    let file = folder.join(set).join("internalProjection.json");
    let text = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_slice::<Set>(&text).unwrap().test_groups
}

/// Where cargo has unpacked the crate that holds the vectors.
fn folder() -> PathBuf {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        manifest_path: PathBuf,
    }
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked"])
        .args([
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Metadata = serde_json::from_slice(&output.stdout).unwrap();
    let package = metadata
        .packages
        .into_iter()
        .find(|package| package.name == "oqs-sys")
        .expect("the crate depends on oqs-sys");
    package
        .manifest_path
        .with_file_name("liboqs")
        .join("tests/ACVP_Vectors")
}
