//! Sets up the process's logs.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::settings::LogFormat;

/// Starts logging to stderr. The level comes from `RUST_LOG`, else `info` for Chimera and `warn` for libraries.
pub fn init(format: LogFormat) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,chimera_controller=info"));
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Json => {
            registry
                .with(
                    fmt::layer()
                        .json()
                        .flatten_event(true)
                        .with_writer(std::io::stderr),
                )
                .init();
        }
        LogFormat::Pretty => registry.with(fmt::layer().with_writer(std::io::stderr)).init(),
    }
}
