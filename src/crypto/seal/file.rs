//! Sealed files of any length: the header as one line of JSON, and behind it the body as it is.

use super::header::Text;
use super::{Binding, ContentKey, Error, Header, body};
use crate::kem::{DecapsulationKey, EncapsulationKey};
use std::io::{self, BufRead, Read, Write};

/// A longer first line is no header.
const HEADER_LIMIT: u64 = 128 * 1024;

/// Seals everything that `from` gives.
pub fn seal_file(
    from: &mut impl Read,
    to: &mut impl Write,
    binding: Binding,
    recipients: &[&EncapsulationKey],
) -> Result<(), Error> {
    let content = ContentKey::generate()?;
    let header = Header::seal(&content, binding, recipients)?;
    write_header(&header, to)?;
    let binding = header.binding();
    body::encrypt(&content.body_key(binding), &binding.context(), from, to)
}

/// Reads the header line; the body is what comes next.
pub fn read_header(from: &mut impl BufRead) -> Result<Header, Error> {
    let mut line = Vec::new();
    from.take(HEADER_LIMIT).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(Error::Body);
    }
    match Text::read(&line)? {
        (header, None) => Ok(header),
        (_, Some(_)) => Err(Error::Body),
    }
}

/// Opens a sealed file with one of its recipients' keys. What is written may be used only when this succeeds: a file
/// that was cut off shows it at its end.
pub fn open_file(
    from: &mut impl BufRead,
    to: &mut impl Write,
    key: &DecapsulationKey,
) -> Result<Header, Error> {
    let header = read_header(from)?;
    let content = header.open(key)?;
    let binding = header.binding();
    body::decrypt(&content.body_key(binding), &binding.context(), from, to)?;
    Ok(header)
}

/// The same file for other recipients; its body is copied, not decrypted.
pub fn rewrap_file(
    from: &mut impl BufRead,
    to: &mut impl Write,
    key: &DecapsulationKey,
    recipients: &[&EncapsulationKey],
) -> Result<(), Error> {
    let header = read_header(from)?.rewrap(key, recipients)?;
    write_header(&header, to)?;
    io::copy(from, to)?;
    Ok(())
}

fn write_header(header: &Header, to: &mut impl Write) -> Result<(), Error> {
    Ok(writeln!(to, "{}", Text::write(header, None))?)
}
