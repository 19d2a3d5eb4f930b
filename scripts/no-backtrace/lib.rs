//! Linked into the release binary (scripts/build.rs, src/main.rs): what the standard library carries to print a backtrace is
//! left out, 189 KiB, a third of all.
//!
//! Where it wants one, `std` asks the C runtime's unwinder to call it back for each frame, and only what it does there needs
//! its readers of ELF, DWARF and compressed sections and its demangler. The unwinder below says that there is no frame.
//! Whole-program optimisation sees that nothing is ever called back, and all that goes. Nothing is lost: the release binary
//! has neither tables to unwind by (link.ld) nor symbols to name a function (Cargo.toml). The line that a panic writes stays.
//!
//! The rest of what `std` calls of the unwinder is here too, for the same reason: without it, the shared library that holds it
//! (libgcc_s) is loaded at every start, 100 KiB of resident memory, for functions that nobody calls. A program in which nothing
//! unwinds has no landing pad to come out of and no frame to ask about.
//!
//! The names are the C++ ABI's (Itanium, "Exception Handling", level I with GCC's extensions), not some of `std`'s own. Should a
//! later `std` want another one, the library is loaded as before; should it want none, the binary is as large as before.
#![no_std]
#![deny(unsafe_code)]

use core::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK`: all frames have been seen.
const END_OF_STACK: c_int = 5;

// The linker knows nothing but names, and a second definition of one would be undefined behaviour: hence "unsafe", and hence
// only where the other one is a shared library's, which a program's own goes before (scripts/build.rs).

/// The unwinder's `_Unwind_Backtrace(trace, argument)`, for a stack without frames.
#[expect(unsafe_code, reason = "a name for the linker; no unsafe operation")]
#[unsafe(no_mangle)]
pub extern "C" fn _Unwind_Backtrace(_trace: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}

/// Goes on unwinding behind a landing pad. Nothing enters one.
#[expect(unsafe_code, reason = "a name for the linker; no unsafe operation")]
#[unsafe(no_mangle)]
pub extern "C" fn _Unwind_Resume(_exception: *mut c_void) -> ! {
    // Not an endless loop: whoever supervises the process is to see that it is over.
    panic!("nothing unwinds here")
}

/// Questions about a frame, which an unwinder's callbacks ask: without an unwinder, nobody.
macro_rules! questions {
    ($($name:ident)*) => {
        $(
            /// Answers nothing: there is no frame.
            #[expect(unsafe_code, reason = "a name for the linker; no unsafe operation")]
            #[unsafe(no_mangle)]
            pub extern "C" fn $name(_context: *mut c_void) -> usize {
                0
            }
        )*
    };
}

questions! {
    _Unwind_GetDataRelBase _Unwind_GetLanguageSpecificData _Unwind_GetRegionStart _Unwind_GetTextRelBase
}

/// As above, with whether the address is the call's own or the one behind it.
#[expect(unsafe_code, reason = "a name for the linker; no unsafe operation")]
#[unsafe(no_mangle)]
pub extern "C" fn _Unwind_GetIPInfo(_context: *mut c_void, _before: *mut c_int) -> usize {
    0
}

/// Where a landing pad finds its exception.
#[expect(unsafe_code, reason = "a name for the linker; no unsafe operation")]
#[unsafe(no_mangle)]
pub extern "C" fn _Unwind_SetGR(_context: *mut c_void, _register: c_int, _value: usize) {}

/// Which landing pad comes next.
#[expect(unsafe_code, reason = "a name for the linker; no unsafe operation")]
#[unsafe(no_mangle)]
pub extern "C" fn _Unwind_SetIP(_context: *mut c_void, _address: usize) {}
