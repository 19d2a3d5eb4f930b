//! Does. Every system call is here.
pub mod accept;
pub mod access_log;
pub mod dial;
pub mod output;
pub mod sockets;
pub mod stream;
