//! The forms in which a receipt is handed in: its envelope alone, or the whole MuReceipt around it.

use api::MuReceipt;
use controller_core::receipt_check::check_object;
use crypto::verify::{Report, Verdict};

/// The forms in which a receipt is handed in.
pub enum Form<'a> {
    /// Bytes that should be an envelope.
    Envelope(&'a [u8]),
    /// A MuReceipt and the envelope in it.
    Object(Box<MuReceipt>, Vec<u8>),
    /// A MuReceipt that cannot be read, and what that means.
    Broken(String, Verdict),
}

impl<'a> Form<'a> {
    pub fn of(bytes: &'a [u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let is_object = text.contains("MuReceipt") && text.contains("envelope");
        if !is_object {
            return Self::Envelope(bytes);
        }
        let value = if text.trim_start().starts_with('{') {
            serde_json::from_slice::<serde_json::Value>(bytes).map_err(|error| error.to_string())
        } else {
            serde_saphyr::from_str::<serde_json::Value>(&text).map_err(|error| error.to_string())
        };
        let mut value = match value {
            Ok(value) => value,
            Err(error) => {
                return Self::Broken(
                    format!("a MuReceipt that was damaged: {error}"),
                    Verdict::BadSignature,
                );
            }
        };
        if value["kind"] == "List" {
            let detail = "a list of objects: give one receipt at a time";
            return Self::Broken(detail.to_owned(), Verdict::NotAReceipt);
        }
        if value["kind"] != "MuReceipt" {
            return Self::Envelope(bytes);
        }
        // An envelope that was unpacked into an object by some tool is packed again; the payload's own bytes are inside.
        if let Some(envelope) = value.pointer_mut("/spec/envelope")
            && envelope.is_object()
        {
            *envelope = serde_json::Value::String(envelope.to_string());
        }
        match serde_json::from_value::<MuReceipt>(value) {
            Ok(receipt) => {
                let envelope = receipt.spec.envelope.clone().into_bytes();
                Self::Object(Box::new(receipt), envelope)
            }
            Err(error) => Self::Broken(
                format!("a MuReceipt without a sound spec: {error}"),
                Verdict::NotAReceipt,
            ),
        }
    }

    /// The key that the receipt says it is signed with; nothing is believed of it.
    pub fn signer(&self) -> Option<String> {
        let envelope = match self {
            Self::Envelope(bytes) => bytes,
            Self::Object(_, envelope) => envelope.as_slice(),
            Self::Broken(..) => return None,
        };
        Some(crypto::Envelope::from_json(envelope).ok()?.key_id().to_owned())
    }

    /// Every check of the receipt, of which `verify` makes those of its envelope, and what a reader should know besides.
    pub fn judge(&self, verify: impl Fn(&[u8]) -> Report) -> (Report, Vec<String>) {
        let mut notes = Vec::new();
        match self {
            Self::Envelope(bytes) => (verify(bytes), notes),
            Self::Object(receipt, envelope) => {
                let mut report = verify(envelope);
                if let Some(statement) = report.statement.take() {
                    notes = check_object(&mut report, receipt, &statement);
                    report.statement = Some(statement);
                }
                (report, notes)
            }
            Self::Broken(detail, verdict) => {
                let mut report = Report::new();
                report.check("object", false, detail, *verdict);
                (report, notes)
            }
        }
    }
}
