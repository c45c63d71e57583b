//! Generates the client, the server and the messages from `proto/head.proto`. Pure Rust: no `protoc` is needed.

use std::error::Error;

const PROTO: &str = "../../proto/head.proto";
const FOLDER: &str = "../../proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let descriptors = protox::compile([PROTO], [FOLDER])?;
    // Ordered maps, so that the same status is the same bytes.
    tonic_prost_build::configure()
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
