//! Whether versions are those that a document requires: Python packages by PEP 508, CUDA by the specifiers of PEP 440. No IO.

use std::collections::BTreeMap;
use std::str::FromStr as _;

use pep508_rs::pep440_rs::{Version, VersionSpecifiers};
use pep508_rs::{MarkerEnvironment, MarkerEnvironmentBuilder, Requirement, VerbatimUrl, VersionOrUrl};

/// An interpreter and what is installed in it.
#[derive(Debug, Clone, Copy)]
pub struct Interpreter<'a> {
    /// Implementation and version, such as `CPython 3.13.5`.
    pub name: &'a str,
    /// Distributions by their normalised names (PEP 503), to versions.
    pub packages: &'a BTreeMap<String, String>,
}

/// What of `required` the interpreter does not have, each as a few words; empty when it has all of it. Requirements whose
/// marker does not apply are met.
pub fn unmet(required: &[String], interpreter: Interpreter<'_>) -> Vec<String> {
    let markers = markers(interpreter.name);
    required
        .iter()
        .filter_map(|requirement| missing(requirement, interpreter.packages, markers.as_ref()))
        .collect()
}

fn missing(
    written: &str,
    packages: &BTreeMap<String, String>,
    markers: Option<&MarkerEnvironment>,
) -> Option<String> {
    let Ok(requirement) = Requirement::<VerbatimUrl>::from_str(written) else {
        return Some(format!("{written} (not a PEP 508 requirement)"));
    };
    if markers.is_some_and(|markers| !requirement.evaluate_markers(markers, &[])) {
        return None;
    }
    let Some(installed) = packages.get(requirement.name.as_ref()) else {
        return Some(format!("{written} (not installed)"));
    };
    let wanted = match &requirement.version_or_url {
        None => return None,
        Some(VersionOrUrl::Url(_)) => return Some(format!("{written} (addresses are not looked up)")),
        Some(VersionOrUrl::VersionSpecifier(wanted)) => wanted,
    };
    let met = Version::from_str(installed).is_ok_and(|version| wanted.contains(&version));
    (!met).then(|| format!("{written} (installed is {installed})"))
}

/// Whether a driver whose newest CUDA is `offered` runs what `wanted` asks for: a bare version asks for at least that.
/// `None` when one of them is no version.
pub fn meets_cuda(wanted: &str, offered: &str) -> Option<bool> {
    let offered = Version::from_str(offered).ok()?;
    if let Ok(least) = Version::from_str(wanted) {
        return Some(offered >= least);
    }
    Some(VersionSpecifiers::from_str(wanted).ok()?.contains(&offered))
}

/// The environment that markers are evaluated in: heads run Linux on the processor that this was built for.
fn markers(interpreter: &str) -> Option<MarkerEnvironment> {
    let (implementation, version) = interpreter.split_once(' ')?;
    let mut parts = version.split('.');
    let short = format!("{}.{}", parts.next()?, parts.next()?);
    MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
        implementation_name: &implementation.to_ascii_lowercase(),
        implementation_version: version,
        os_name: "posix",
        platform_machine: std::env::consts::ARCH,
        platform_python_implementation: implementation,
        platform_release: "",
        platform_system: "Linux",
        platform_version: "",
        python_full_version: version,
        python_version: &short,
        sys_platform: "linux",
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(required: &str) -> Vec<String> {
        let packages = [
            ("numpy", "2.3.1"),
            ("qiskit-aer", "0.17.2"),
            ("odd", "no version"),
        ];
        let packages = packages.map(|(name, version)| (name.to_owned(), version.to_owned()));
        let interpreter = Interpreter {
            name: "CPython 3.13.5",
            packages: &packages.into(),
        };
        unmet(&[required.to_owned()], interpreter)
    }

    #[test]
    fn what_is_installed_meets_requirements_by_pep_508_and_440() {
        for met in [
            "numpy",
            "NumPy>=2,<3",
            "numpy~=2.3",
            "numpy==2.*",
            "Qiskit_Aer>=0.17",
            "qiskit.aer",
            "nothing; python_version < '3.0'",
            "numpy[extra]>=2",
        ] {
            assert_eq!(check(met), Vec::<String>::new(), "{met}");
        }
        for (unmet, expected) in [
            ("numpy>=99", "numpy>=99 (installed is 2.3.1)"),
            ("torch", "torch (not installed)"),
            (
                "nothing; python_version >= '3.0'",
                "nothing; python_version >= '3.0' (not installed)",
            ),
            ("odd>=1", "odd>=1 (installed is no version)"),
            ("a b", "a b (not a PEP 508 requirement)"),
            (
                "numpy @ https://example.com/n.whl",
                "numpy @ https://example.com/n.whl (addresses are not looked up)",
            ),
        ] {
            assert_eq!(check(unmet), [expected], "{unmet}");
        }
    }
}
