//! Leaves the tables for unwinding out of the release binary (see `link.ld`).
#![forbid(unsafe_code)]

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=scripts/build.rs");
    println!("cargo::rerun-if-changed=scripts/link.ld");
    let is = |variable: &str, value: &str| env::var(variable).is_ok_and(|found| found == value);
    // Where debug information is asked for, a debugger or profiler is to follow calls. The start files of other C libraries
    // may point into the tables, which then must stay.
    if is("PROFILE", "release")
        && is("DEBUG", "false")
        && is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && let Ok(root) = env::var("CARGO_MANIFEST_DIR")
    {
        println!("cargo::rustc-link-arg-bins=-T{root}/scripts/link.ld");
    }
}
