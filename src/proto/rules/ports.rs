//! Sets of ports.

use super::super::target::port_number;
use super::rule::BadRule;

/// A set of ports: `443,8000-8999`, or `any`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(Vec<PortRange>);

/// First and last port.
pub(super) type PortRange = (u16, u16);
pub(super) const ANY_PORT: PortRange = (1, u16::MAX);

impl Ports {
    /// These ports and no others.
    #[must_use]
    pub fn only(ports: &[u16]) -> Ports {
        Ports(ports.iter().map(|&port| (port, port)).collect())
    }

    /// Reads a list of ports.
    ///
    /// # Errors
    /// [`BadRule::Ports`].
    pub fn parse(text: &str) -> Result<Ports, BadRule> {
        if text == "any" {
            return Ok(Ports(vec![ANY_PORT]));
        }
        text.split(',').map(|part| port_range(part.trim())).collect::<Result<_, _>>().map(Ports)
    }

    pub(super) fn contain(&self, port: u16) -> bool {
        self.0.iter().any(|range| in_range(*range, port))
    }
}

pub(super) fn in_range((low, high): PortRange, port: u16) -> bool {
    low <= port && port <= high
}

/// `port` or `low-high`.
pub(super) fn port_range(text: &str) -> Result<PortRange, BadRule> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (port_number(low.as_bytes()), port_number(high.as_bytes())) {
        (Some(low), Some(high)) if low <= high => Ok((low, high)),
        (Some(_) | None, Some(_) | None) => Err(BadRule::Ports),
    }
}
