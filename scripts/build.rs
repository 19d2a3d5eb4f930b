//! Leaves what nobody can use out of the release binary: the tables for unwinding (`link.ld`) and the code for backtraces
//! (`no-backtrace`). What no start needs is put last (`link.ld`).
#![forbid(unsafe_code)]

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=scripts/build.rs");
    println!("cargo::rerun-if-changed=scripts/link.ld");
    println!("cargo::rustc-check-cfg=cfg(no_backtrace)");
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
        // A static C runtime brings its own unwinder, and the linker refuses two.
        let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
        if !features.split(',').any(|feature| feature == "crt-static") {
            println!("cargo::rustc-cfg=no_backtrace");
        }
    }
}
