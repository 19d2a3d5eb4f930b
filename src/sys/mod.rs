//! Does. Every system call is here.
pub mod accept;
pub mod access_log;
pub mod check;
pub mod dial;
pub mod event_loop;
pub mod listening;
pub mod name_files;
pub mod names;
pub mod output;
pub mod settings;
pub mod shared;
pub mod signals;
pub mod sockets;
pub mod stream;
pub mod supervisor;
pub mod syslog;
pub mod watch;
