//! The user's own folders, by the XDG Base Directory Specification.

use std::path::PathBuf;

use crate::error::Error;

/// Chimera's folder for settings: `$XDG_CONFIG_HOME/chimera`, by default under `~/.config`.
pub fn config() -> Result<PathBuf, Error> {
    named("XDG_CONFIG_HOME", ".config")
}

/// Chimera's folder for data: `$XDG_DATA_HOME/chimera`, by default under `~/.local/share`.
pub fn data() -> Result<PathBuf, Error> {
    named("XDG_DATA_HOME", ".local/share")
}

fn named(variable: &str, in_home: &str) -> Result<PathBuf, Error> {
    let value = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    value(variable)
        .or_else(|| Some(value("HOME")?.join(in_home)))
        .map(|folder| folder.join("chimera"))
        .ok_or_else(|| Error::usage(format!("neither {variable} nor HOME is set")))
}
