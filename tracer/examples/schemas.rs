//! Prints the JSON Schema of the stream (`events`) or of a look (`look`): `cargo xtask generate` writes them to docs.

use std::process::ExitCode;

use sockstate::wire;

fn main() -> ExitCode {
    let schema = match std::env::args().nth(1).as_deref() {
        Some("events") => wire::events_schema(),
        Some("look") => wire::look_schema(),
        _ => {
            eprintln!("which schema is missing: events or look");
            return ExitCode::FAILURE;
        }
    };
    print!("{schema}");
    ExitCode::SUCCESS
}
