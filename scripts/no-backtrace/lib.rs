//! Linked into the release binary (scripts/build.rs, src/main.rs): what the standard library carries to print a backtrace is
//! left out, 189 KiB, a third of all.
//!
//! Where it wants one, `std` asks the C runtime's unwinder to call it back for each frame, and only what it does there needs
//! its readers of ELF, DWARF and compressed sections and its demangler. The unwinder below says that there is no frame.
//! Whole-program optimisation sees that nothing is ever called back, and all that goes. Nothing is lost: the release binary
//! has neither tables to unwind by (link.ld) nor symbols to name a function (Cargo.toml). The line that a panic writes stays.
//!
//! The name is the C++ ABI's (Itanium, "Exception Handling", level I with GCC's extension), not one of `std`'s own. Should a
//! later `std` go another way, nobody calls this, and the binary is as large as before.
#![no_std]
#![deny(unsafe_code)]

use core::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK`: all frames have been seen.
const END_OF_STACK: c_int = 5;

/// The unwinder's `_Unwind_Backtrace(trace, argument)`, for a stack without frames.
// The linker knows nothing but names, and a second definition of one would be undefined behaviour: hence "unsafe", and hence
// only where the other one is a shared library's, which a program's own goes before (scripts/build.rs).
#[expect(unsafe_code, reason = "a name for the linker; no unsafe operation")]
#[unsafe(no_mangle)]
pub extern "C" fn _Unwind_Backtrace(_trace: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}
