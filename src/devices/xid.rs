//! XIDs: the numbers under which NVIDIA's driver reports faults, and whose faults they are.
//!
//! Source: NVIDIA's XID catalogue, and the device plugin, which takes the same ones for faults of the application.

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Of the program that ran: the device goes on.
    Application,
    /// Of the device, the link to it or its firmware: it must not be given further runs.
    Hardware,
}

/// Illegal instructions and addresses, processes that were stopped, contexts that were reset for them.
const APPLICATION: [u64; 6] = [13, 31, 43, 45, 68, 109];

/// The class of an XID. One that is not known is taken for the device's, so that nothing runs on what may be broken.
pub fn class(xid: u64) -> Class {
    if APPLICATION.contains(&xid) {
        Class::Application
    } else {
        Class::Hardware
    }
}

/// What an XID means, for a person.
pub fn meaning(xid: u64) -> &'static str {
    match xid {
        13 => "an exception of the graphics engine",
        31 => "an access to memory that is not mapped",
        43 => "a program's channel was stopped",
        45 => "a program's channels were removed",
        48 => "a memory error that could not be corrected",
        63 | 64 => "a row or page of memory was retired",
        68 => "an exception of the video decoder",
        74 => "an error of NVLink",
        79 => "the device has fallen off the bus",
        92 => "many memory errors that were corrected",
        94 => "a memory error that was contained",
        95 => "a memory error that was not contained",
        109 => "a context switch took too long",
        119 | 120 => "an error of the device's own processor",
        _ => "an error that this version does not know",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_programs_are_told_from_those_of_devices() {
        for xid in [13, 31, 43, 45, 68, 109] {
            assert_eq!(class(xid), Class::Application, "{xid}");
        }
        for xid in [48, 63, 64, 74, 79, 92, 94, 95, 119, 120, 9999] {
            assert_eq!(class(xid), Class::Hardware, "{xid}");
        }
    }
}
