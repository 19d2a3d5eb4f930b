//! Decides. Pure: bytes, names, addresses and time go in, decisions come out. Nothing here knows a socket, a clock, a log
//! or a thread.
pub mod body;
pub mod cache;
pub mod deadlines;
pub mod dns;
pub mod eyeballs;
pub mod failure;
pub mod fields;
pub mod guard;
pub mod head;
pub mod hosts;
pub mod lookup;
pub mod onward;
pub mod pool;
pub mod relay;
pub mod reply;
pub mod resolv_conf;
pub mod resolver;
pub mod response;
pub mod ring;
pub mod rules;
pub mod scan;
mod servers;
pub mod session;
pub mod target;
pub mod tick;
